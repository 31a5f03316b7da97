package chunk

import (
	"bytes"
	"context"

	"testbox-imaging/internal/image"
)

// How is the way in which two images differ at a place.
type How uint8

const (
	// Changed: both keep the bytes, and they are not the same.
	Changed How = iota
	// OnlyA and OnlyB: one keeps the bytes; in the other they are unused, or
	// it ends before them.
	OnlyA
	OnlyB
)

func (h How) String() string {
	return [...]string{"changed", "only in the first", "only in the second"}[min(h, 2)]
}

// MarshalText is the word of a way for programs.
func (h How) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// Difference is a place where two images differ. What is unused in both is
// equal, whatever is there; zeros are bytes like others.
type Difference struct {
	image.Range     // Changed: of whole 512-byte sectors, as far as both keep them
	How         How `json:"how"`
}

// diffGrain is what Changed ranges are made of, bytes.
const diffGrain = 512

// Diff calls found for each place where two images differ, in disk order;
// places that touch and differ in the same way are one. Equal pages are not
// read, equal chunks at equal places neither. An error of found ends it.
func Diff(ctx context.Context, a, b *Image, found func(Difference) error) error {
	d := differ{a: newSide(ctx, a), b: newSide(ctx, b), found: found}
	defer d.a.Close()
	defer d.b.Close()
	for i := range max(len(a.Root.Pages), len(b.Root.Pages)) {
		if err := d.region(i); err != nil {
			return err
		}
	}
	return d.flush()
}

// differ collects what differs.
type differ struct {
	a, b  side
	found func(Difference) error
	last  Difference // Len 0: none
}

// side is one of the two images.
type side struct {
	*DiskReader
	buf []byte
}

func newSide(ctx context.Context, im *Image) side {
	return side{im.ReaderAt(ctx, 4*minCache), make([]byte, 256<<10)}
}

// region compares a region that is on one disk at least.
func (d *differ) region(i int) error {
	ra, rb := d.a.place(i), d.b.place(i)
	if ra == rb && d.a.im.Root.Pages[i] == d.b.im.Root.Pages[i] {
		return nil
	}
	size := max(ra.Len, rb.Len)
	as, err := d.a.runs(i, size)
	if err != nil {
		return err
	}
	bs, err := d.b.runs(i, size)
	if err != nil {
		return err
	}
	for at := int64(0); at < size; {
		n := min(as[0].Off+as[0].Len, bs[0].Off+bs[0].Len) - at
		if err := d.run(as[0], bs[0], image.Range{Off: int64(i)*RegionSize + at, Len: n}); err != nil {
			return err
		}
		at += n
		as, bs = passed(as, at), passed(bs, at)
	}
	return nil
}

// passed leaves out the first run if it ends at or before a place in the region.
func passed(s []run, at int64) []run {
	if s[0].Off+s[0].Len <= at {
		return s[1:]
	}
	return s
}

// place is where region i is on the disk; empty is beyond its end.
func (s side) place(i int) image.Range {
	if i < len(s.im.Root.Pages) {
		return s.im.Root.Region(i)
	}
	return image.Range{}
}

// run is a Span with the place in its chunk that region offset 0 would have:
// two runs with the same one have the same bytes where they overlap.
type run struct {
	Span
	ref   Ref
	shift int64
}

// runs gives all runs of a region, with what lies beyond the disk's end up to
// size as unused.
func (s side) runs(i int, size int64) ([]run, error) {
	var out []run
	have := s.place(i)
	if have.Len > 0 {
		e, err := s.page(i)
		if err != nil {
			return nil, s.im.at(have.Off, err)
		}
		defer s.cache.done(e)
		for _, sp := range e.page.spans {
			r := run{Span: sp}
			if sp.Content == image.Data {
				r.ref, r.shift = e.page.chunks[sp.Chunk], int64(sp.At)-sp.Off
			}
			out = append(out, r)
		}
	}
	if have.Len < size {
		out = append(out, run{Span: Span{Off: have.Len, Len: size - have.Len, Content: image.Unused}})
	}
	return out, nil
}

// run compares a place where each side has one content.
func (d *differ) run(a, b run, at image.Range) error {
	unusedA, unusedB := a.Content == image.Unused, b.Content == image.Unused
	switch {
	case unusedA && unusedB:
		return nil
	case unusedA:
		return d.add(Difference{at, OnlyB})
	case unusedB:
		return d.add(Difference{at, OnlyA})
	case a.Content == image.Zero && b.Content == image.Zero:
		return nil
	case a.Content == b.Content && a.ref == b.ref && a.shift == b.shift:
		return nil
	}
	return d.bytes(at)
}

func (d *differ) bytes(at image.Range) error {
	for end := at.End(); at.Off < end; {
		n := min(end-at.Off, int64(len(d.a.buf))-at.Off%diffGrain)
		a, b := d.a.buf[:n], d.b.buf[:n]
		if _, err := d.a.ReadAt(a, at.Off); err != nil {
			return err
		}
		if _, err := d.b.ReadAt(b, at.Off); err != nil {
			return err
		}
		if err := d.sectors(a, b, at.Off); err != nil {
			return err
		}
		at.Off += n
	}
	return nil
}

// sectors compares two runs of bytes of one place.
func (d *differ) sectors(a, b []byte, off int64) error {
	if bytes.Equal(a, b) {
		return nil
	}
	for len(a) > 0 {
		n := int(min(int64(len(a)), diffGrain-off%diffGrain))
		if !bytes.Equal(a[:n], b[:n]) {
			if err := d.add(Difference{image.Range{Off: off, Len: int64(n)}, Changed}); err != nil {
				return err
			}
		}
		a, b, off = a[n:], b[n:], off+int64(n)
	}
	return nil
}

func (d *differ) add(n Difference) error {
	if d.last.Len > 0 && d.last.How == n.How && d.last.End() == n.Off {
		d.last.Len += n.Len
		return nil
	}
	err := d.flush()
	d.last = n
	return err
}

func (d *differ) flush() error {
	if d.last.Len == 0 {
		return nil
	}
	return d.found(d.last)
}

package chunk

import (
	"bytes"
	"context"

	"testbox-imaging/internal/image"
)

// How says in which way two images differ at a place.
type How uint8

const (
	// Changed means that both images have bytes at the place, which differ.
	Changed How = iota
	// OnlyA and OnlyB mean that only one image has bytes at the place. In the
	// other image the place is unused or beyond the disk's end.
	OnlyA
	OnlyB
)

func (h How) String() string {
	return [...]string{"changed", "only in the first", "only in the second"}[min(h, 2)]
}

// MarshalText returns the text of String, for programs.
func (h How) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// Difference is a place where two images differ. A place that is unused in both
// is equal. A zero byte counts like any other byte.
type Difference struct {
	image.Range     // if Changed, made of whole 512-byte sectors, as far as both images have them
	How         How `json:"how"`
}

// diffGrain is the unit of Changed ranges, in bytes.
const diffGrain = 512

// Diff calls found for each place where two images differ, in disk order.
// Adjacent places that differ in the same way are merged. Equal pages are not
// read, nor are equal chunks at equal places. An error of found ends Diff.
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

// differ merges the differences that are found.
type differ struct {
	a, b  side
	found func(Difference) error
	last  Difference // not reported yet; Len 0 if there is none
}

// side is one of the two images.
type side struct {
	*DiskReader
	buf []byte
}

func newSide(ctx context.Context, im *Image) side {
	return side{im.ReaderAt(ctx, 4*minCache), make([]byte, 256<<10)}
}

// region compares a region that at least one of the disks has.
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

// passed drops the first run if it ends at or before at, which is a place in
// the region.
func passed(s []run, at int64) []run {
	if s[0].Off+s[0].Len <= at {
		return s[1:]
	}
	return s
}

// place returns the range of the disk that is region i. It is empty if the
// region is beyond the disk's end.
func (s side) place(i int) image.Range {
	if i < len(s.im.Root.Pages) {
		return s.im.Root.Region(i)
	}
	return image.Range{}
}

// run is a Span with its chunk. shift is the offset in the chunk that matches
// offset 0 of the region. Two runs with the same chunk and shift have the same
// bytes where they overlap.
type run struct {
	Span
	ref   Ref
	shift int64
}

// runs returns all runs of a region. What is beyond the disk's end, up to size,
// is unused.
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

// run compares a place at which each side has a single run.
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

// sectors compares the bytes of both sides at a place.
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

package copier

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
)

const (
	// shrinkEdge is how many bytes before the end of a smaller disk are looked at.
	// The backup GPT comes to lie in them.
	shrinkEdge = bootArea
	// maxBeyond bounds what an image may have there and behind it, in bytes that are
	// not zeros. A backup GPT is much smaller.
	maxBeyond = 16 << 20
	// shrinkCache is how many bytes of a stored image are kept while its partition
	// table is read.
	shrinkCache = 8 << 20
)

// Shrink lets a job write an image to a smaller disk, if it is proved that nothing
// gets lost: every partition ends on the disk, and what the image has behind the
// last place for partitions is not used, or is zeros, or is its backup GPT. The job
// that Shrink returns writes and compares the image without its end, and moves the
// backup GPT. The Changed of its receipt has what differs from the image, and last
// the end that is left out. A job whose disk is large enough is returned as it is.
//
// Shrink writes nothing. An error that matches ErrUnfit is a refusal. alive is
// called after each piece of the image; nil means no call.
func Shrink(ctx context.Context, j Job, alive func()) (Job, error) {
	size, target := j.Image.Size(), j.Target.Size()
	if target >= size {
		return j, nil
	}
	if j.SectorSize <= 0 {
		j.SectorSize = defaultSector
	}
	c := &cutImage{Image: j.Image, size: target}
	head, err := c.collect(ctx, alive)
	if err != nil {
		return j, err
	}
	table, err := c.table(ctx, head, j.SectorSize)
	if err == nil {
		err = c.prove(table)
	}
	if err != nil {
		return j, fmt.Errorf("%w, and nothing is left out", err)
	}
	j.Image, j.cut = c, size-target
	j.Fit = func([]byte, []byte, int64, int64) ([]parttab.Edit, error) { return table.Edits, nil }
	return j, nil
}

// Shrunk says for people what Shrink does, or "" if the disk was large enough.
func (j *Job) Shrunk() string {
	if j.cut == 0 {
		return ""
	}
	return fmt.Sprintf("the disk is smaller than the image: its last %d bytes are left out, since nothing uses them, "+
		"and its partition table is made to fit", j.cut)
}

// cutImage is an image without its end. It is no Gatherer, whatever the image is. So
// the box of a smaller disk fetches no pieces ahead, and begins with the first
// region.
type cutImage struct {
	Image
	size   int64
	beyond []parttab.Edit   // what is not zeros from shrinkEdge before the new end on, in the order of the image
	across map[int64][]byte // what pieces across the new end have before it, by the first byte's place
}

// Size implements Image.
func (c *cutImage) Size() int64 { return c.size }

// Open implements Image.
func (c *cutImage) Open(ctx context.Context) (image.Reader, error) {
	r, err := c.Image.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &cutReader{r, c}, nil
}

// hashRest adds the end that is left out to a hash of what comes before it. It is
// for images in files, which have no unused bytes.
func (c *cutImage) hashRest(h hash.Hash) {
	at := c.size
	zeroTo := func(to int64) {
		for at < to {
			n := min(to-at, pieceSize)
			h.Write(zeros[:n])
			at += n
		}
	}
	for _, b := range c.beyond {
		if skip := c.size - b.Off; skip > 0 {
			b = parttab.Edit{Off: c.size, Data: b.Data[min(skip, int64(len(b.Data))):]}
		}
		zeroTo(b.Off)
		h.Write(b.Data)
		at += int64(len(b.Data))
	}
	zeroTo(c.Image.Size())
}

// collect reads the end of the image into memory, as far as it is not zeros, and
// returns the image's first MiB.
func (c *cutImage) collect(ctx context.Context, alive func()) (head []byte, err error) {
	r, err := c.Image.Open(ctx)
	if err != nil {
		return nil, err
	}
	if cl, ok := r.(io.Closer); ok {
		defer cl.Close()
	}
	c.across = map[int64][]byte{}
	head = make([]byte, min(pieceSize, c.Image.Size()))
	buf := make([]byte, 2*pieceSize)
	cover := coverOf(c.Image)
	kept := 0
	for {
		p, err := r.Next()
		switch {
		case err == io.EOF && cover.complete():
			return head, nil
		case err == nil && (!cover.add(p.Ranges) || p.Len != total(p.Ranges)),
			err == nil && p.Content == image.Data && (p.Len > pieceSize || p.Decode == nil):
			err = fmt.Errorf("the image has a piece of %d bytes at %v", p.Len, p.Ranges)
		case err == io.EOF:
			err = cover.cutOff()
		}
		if err != nil {
			return nil, err
		}
		if alive != nil {
			alive()
		}
		from := c.size - shrinkEdge
		end := p.Ranges[len(p.Ranges)-1].End()
		if p.Content != image.Data || p.Ranges[0].Off >= pieceSize && end <= from {
			continue
		}
		if err := p.Decode(buf[:]); err != nil {
			return nil, err
		}
		at := int64(0)
		for _, r := range p.Ranges {
			b := buf[at:][:r.Len]
			at += r.Len
			if r.Off < pieceSize {
				copy(head[r.Off:], b)
			}
			if r.Off < c.size && end > c.size {
				c.across[p.Ranges[0].Off] = append(c.across[p.Ranges[0].Off], b[:min(r.Len, c.size-r.Off)]...)
			}
			if r.End() <= from || image.IsZero(b) {
				continue
			}
			if kept += len(b); kept > maxBeyond {
				return nil, unfit("the image has too much that is not zeros behind the disk's end, such as %d bytes at byte %d, "+
					"which is %d bytes behind it", r.Len, r.Off, r.End()-c.size)
			}
			c.beyond = append(c.beyond, parttab.Edit{Off: r.Off, Data: append([]byte(nil), b...)})
		}
	}
}

// table finds out how the image's partition table fits the disk.
func (c *cutImage) table(ctx context.Context, head []byte, sector int) (*parttab.Shrunk, error) {
	var r io.ReaderAt = &cutEdges{c, head}
	if s, ok := c.Image.(StoredImage); ok {
		view := s.Image.ReaderAt(ctx, shrinkCache)
		defer view.Close()
		r = view
	}
	watched := &notingReader{ReaderAt: r}
	t, err := parttab.Shrink(watched, c.Image.Size(), c.size, sector)
	switch {
	case err == nil:
		return t, nil
	case watched.err != nil && !errors.Is(watched.err, errNotKept):
		return nil, watched.err // that says nothing of the table
	}
	return nil, unfit("%v", err)
}

// notingReader remembers an error of a read.
type notingReader struct {
	io.ReaderAt
	err error
}

func (r *notingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(b, off)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// prove refuses an image that has anything behind the disk's last place for
// partitions, other than its backup GPT.
func (c *cutImage) prove(t *parttab.Shrunk) error {
	for _, b := range c.beyond {
		for i, v := range b.Data {
			at := b.Off + int64(i)
			if v == 0 || at < t.Limit || t.HasOld(at) {
				continue
			}
			return unfit("byte %d of the image is not zero and in no partition, and lies %d bytes behind the disk's last place for "+
				"partitions; nobody can say that it is not needed", at, at-t.Limit+1)
		}
	}
	return nil
}

var errNotKept = errors.New("it is neither in the image's first MiB nor near its end, and can only be read from an image in a store")

// cutEdges reads the image's first MiB, and what collect has of its end.
type cutEdges struct {
	c    *cutImage
	head []byte
}

func (e *cutEdges) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	switch end := off + int64(len(b)); {
	case off < 0 || end > e.c.Image.Size():
		return 0, io.EOF
	case end <= int64(len(e.head)):
		return copy(b, e.head[off:]), nil
	case off < e.c.size-shrinkEdge:
		return 0, errNotKept
	}
	for _, k := range e.c.beyond {
		if skip := off - k.Off; skip < int64(len(k.Data)) && skip > -int64(len(b)) {
			copy(b[max(-skip, 0):], k.Data[max(skip, 0):])
		}
	}
	return len(b), nil
}

// cutReader leaves out what lies behind the new end.
type cutReader struct {
	image.Reader
	c *cutImage
}

// Close closes the reader of the whole image.
func (r *cutReader) Close() error {
	if cl, ok := r.Reader.(io.Closer); ok {
		return cl.Close()
	}
	return nil
}

// Next implements image.Reader.
func (r *cutReader) Next() (image.Piece, error) {
	for {
		p, err := r.Reader.Next()
		if err != nil {
			return p, err
		}
		if len(p.Ranges) > 0 && p.Ranges[0].Off >= r.c.size {
			continue
		}
		return r.cut(p)
	}
}

func (r *cutReader) cut(p image.Piece) (image.Piece, error) {
	if n := len(p.Ranges); n == 0 || p.Ranges[n-1].End() <= r.c.size {
		if p.Stored != nil {
			p.Stored = cutStored{of: p.Stored}
		}
		return p, nil
	}
	key := p.Ranges[0].Off
	p.Ranges = within(nil, p.Ranges, []image.Range{{Off: 0, Len: r.c.size}})
	p.Len = total(p.Ranges)
	if p.Content != image.Data {
		return p, nil
	}
	data := r.c.across[key]
	if int64(len(data)) != p.Len {
		return p, fmt.Errorf("the image has another piece at byte %d than before", key)
	}
	p.Decode = func(dst []byte) error { copy(dst, data); return nil }
	if p.Stored != nil {
		p.Sum, p.Stored = object.NameOf(data), cutStored{data: data}
	}
	return p, nil
}

// cutStored is a piece of which the whole is in a store, or which is in memory
// because it was cut.
type cutStored struct {
	of   image.Stored // nil if the piece was cut
	data []byte
}

// Bring implements image.Stored.
func (s cutStored) Bring(pieces []image.Stored, into func(i int) (dst []byte, compare bool)) error {
	var run []image.Stored
	first := 0
	flush := func() error {
		if len(run) == 0 {
			return nil
		}
		from := first
		err := run[0].Bring(run, func(i int) ([]byte, bool) { return into(from + i) })
		run = nil
		return err
	}
	for i, p := range pieces {
		c := p.(cutStored)
		if c.of != nil {
			if len(run) == 0 {
				first = i
			}
			run = append(run, c.of)
			continue
		}
		if err := flush(); err != nil { // what it brings may spoil what lies behind it
			return err
		}
		dst, _ := into(i)
		copy(dst, c.data)
	}
	return flush()
}

// Check implements image.Stored. A piece in memory was checked when it was read.
func (s cutStored) Check(pieces []image.Stored) error {
	var all []image.Stored
	for _, p := range pieces {
		if c := p.(cutStored); c.of != nil {
			all = append(all, c.of)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[0].Check(all)
}

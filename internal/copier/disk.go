package copier

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// disk is a job on its way. The image's first and last MiB, head and tail, are
// held back in memory: they are what a machine boots by, so they are written
// when all else is proved.
type disk struct {
	*Job
	opt     Options
	size    int64         // of the target
	head    []byte        // the image's first piece, for a small image all of it
	tail    []byte        // the image's last MiB, less what is in head
	right   bits          // which of the image's pieces were found on the disk
	sums    *sums         // of what was written between head and tail
	edges   *edges        // once head and tail are complete
	found   image.Receipt // what a comparison before the first write found
	receipt image.Receipt
}

// edges is what is written last.
type edges struct {
	begin   []parttab.Edit // by which the disk boots
	ends    []parttab.Edit // at the image's end and beyond it
	changed []image.Range  // what is not as in the image
}

func newDisk(j *Job, opt Options) *disk {
	d := &disk{Job: j, opt: opt, size: j.Target.Size()}
	d.head = opt.Alloc(int(min(pieceSize, j.RawSize)))
	d.tail = opt.Alloc(int(min(pieceSize, j.RawSize-int64(len(d.head)))))
	d.receipt.Image = j.Name
	return d
}

// err gives an error the disk's name.
func (d *disk) err(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", d.Name, err)
}

func (d *disk) log(format string, args ...any) { d.opt.Log(d.Name+": "+format, args...) }

// bodyOff and tailOff are where the body begins and ends; before lies the head,
// behind the tail.
func (d *disk) bodyOff() int64 { return int64(len(d.head)) }
func (d *disk) tailOff() int64 { return d.RawSize - int64(len(d.tail)) }

// workers is how many pieces are fetched and unpacked at once.
func (d *disk) workers() int {
	if d.stored() {
		return max(d.opt.Workers, fetchers)
	}
	return d.opt.Workers
}

// take puts what a look found into the receipt.
func (d *disk) take(f image.Receipt) {
	r := &d.receipt
	r.Read, r.Zero, r.Unused, r.Verified, r.Differ = f.Read, f.Zero, f.Unused, f.Verified, f.Differ
}

// body goes over what of a slot is neither head nor tail, and where in the
// slot's bytes it is.
func (d *disk) body(s *slot) iter.Seq2[int64, image.Range] {
	return d.parts(s, d.bodyOff(), d.tailOff())
}

// parts is body for any part of the disk.
func (d *disk) parts(s *slot, from, to int64) iter.Seq2[int64, image.Range] {
	return func(yield func(int64, image.Range) bool) {
		at := int64(0)
		for _, r := range s.ranges {
			if c := r.Clip(from, to); c.Len > 0 && !yield(at+c.Off-r.Off, c) {
				return
			}
			at += r.Len
		}
	}
}

// bodyLen is how many bytes of a slot are in the body.
func (d *disk) bodyLen(s *slot) (n int64) {
	for _, r := range d.body(s) {
		n += r.Len
	}
	return n
}

// keep holds back what a slot has of head and tail.
func (d *disk) keep(s *slot) {
	if s.content != image.Data {
		return // as they are
	}
	for at, r := range d.parts(s, 0, d.bodyOff()) {
		copy(d.head[r.Off:], s.raw[at:][:r.Len])
	}
	for at, r := range d.parts(s, d.tailOff(), d.RawSize) {
		copy(d.tail[r.Off-d.tailOff():], s.raw[at:][:r.Len])
	}
}

// put is the reverse of keep, for a read of the disk that does not have head
// and tail yet.
func (d *disk) put(b []byte, s *slot) {
	for at, r := range d.parts(s, 0, d.bodyOff()) {
		copy(b[at:], d.head[r.Off:][:r.Len])
	}
	for at, r := range d.parts(s, d.tailOff(), d.RawSize) {
		copy(b[at:], d.tail[r.Off-d.tailOff():][:r.Len])
	}
}

// fit makes the edges, with the edits for a larger disk. head and tail must be
// complete.
func (d *disk) fit() error {
	if d.edges != nil {
		return nil
	}
	e := &edges{
		begin: []parttab.Edit{{Off: 0, Data: slices.Clone(d.head)}},
		ends:  []parttab.Edit{{Off: d.tailOff(), Data: slices.Clone(d.tail)}},
	}
	if d.Fit != nil && d.size > d.RawSize {
		edits, err := d.Fit(d.head, d.tail, d.RawSize, d.size)
		if err == nil {
			err = d.applyAll(e, edits)
		}
		if err != nil {
			return err
		}
	}
	d.edges = e
	return nil
}

func (d *disk) applyAll(e *edges, edits []parttab.Edit) error {
	edits = slices.SortedFunc(slices.Values(edits), func(a, b parttab.Edit) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	for _, ed := range edits {
		n := int64(len(ed.Data))
		if ed.Off < end || n == 0 || n > d.size-ed.Off || !d.apply(e, ed) {
			return fmt.Errorf("cannot write %d bytes at %d to fit the image to the disk", n, ed.Off)
		}
		end = ed.Off + n
		e.changed = appendRange(e.changed, image.Range{Off: ed.Off, Len: n})
	}
	return nil
}

// apply puts an edit where it belongs; false if that is nowhere.
func (d *disk) apply(e *edges, ed parttab.Edit) bool {
	end := ed.Off + int64(len(ed.Data))
	switch {
	case end <= d.bodyOff():
		copy(e.begin[0].Data[ed.Off:], ed.Data)
	case ed.Off >= d.tailOff() && end <= d.RawSize:
		copy(e.ends[0].Data[ed.Off-d.tailOff():], ed.Data)
	case ed.Off >= d.RawSize:
		e.ends = append(e.ends, ed)
	default:
		return false
	}
	return true
}

// bytes is how many bytes all edges are.
func (e *edges) bytes() (n int64) {
	for _, run := range append(e.begin, e.ends...) {
		n += int64(len(run.Data))
	}
	return n
}

// wanted is how many bytes a disk must have right in the end: the image, and
// what is changed beyond it. Edges must be made.
func (d *disk) wanted() int64 {
	n := d.RawSize
	for _, e := range d.edges.ends[1:] {
		n += int64(len(e.Data))
	}
	return n
}

// write writes runs that were held back.
func (d *disk) write(runs []parttab.Edit) error {
	for _, e := range runs {
		if err := writeFull(d.Target, e.Data, e.Off); err != nil {
			return err
		}
		d.receipt.Written += int64(len(e.Data))
	}
	return nil
}

// verify reads runs back.
func (d *disk) verify(runs []parttab.Edit) error {
	for _, e := range runs {
		got := make([]byte, len(e.Data))
		if err := readFull(d.Target, got, e.Off); err != nil {
			return err
		}
		if !bytes.Equal(got, e.Data) {
			return notKept(e.Off, int64(len(e.Data)))
		}
		d.receipt.Verified += int64(len(e.Data))
	}
	return nil
}

// notKept says that a disk gave back something else than was written.
func notKept(off, n int64) error {
	return fmt.Errorf("the %d bytes at %d read back otherwise than they were written: either something else wrote to the disk at the same time, or the disk or its controller is broken", n, off)
}

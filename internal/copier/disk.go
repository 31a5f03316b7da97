package copier

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// disk is a job on its way. The image's first and last MiB, head and tail, are
// held back in memory: they are what a machine boots by, so they are written
// when all else is proved.
type disk struct {
	*Job
	size    int64          // of the target
	head    []byte         // the image's first piece, for a small image all of it
	tail    []byte         // the image's last MiB, less what is in head
	beyond  []parttab.Edit // beyond the image
	sums    *sums          // of what was written between head and tail
	receipt image.Receipt
}

func newDisk(j *Job, opt Options) *disk {
	d := &disk{Job: j, size: j.Target.Size()}
	d.head = opt.Alloc(int(min(image.PieceSize, j.RawSize)))
	d.tail = opt.Alloc(int(min(image.PieceSize, j.RawSize-int64(len(d.head)))))
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

// tailOff is where the tail begins; the body lies between head and it.
func (d *disk) tailOff() int64 { return d.RawSize - int64(len(d.tail)) }

// body clips a slot to what is neither head nor tail.
func (d *disk) body(s *slot) (off, n int64) {
	off = max(s.off, int64(len(d.head)))
	return off, max(0, min(s.off+s.n, d.tailOff())-off)
}

// keep holds back what a slot has of head and tail.
func (d *disk) keep(s *slot) {
	if s.zero {
		return // as they are
	}
	if s.off < int64(len(d.head)) {
		copy(d.head[s.off:], s.data())
	}
	if from := max(s.off, d.tailOff()); from < s.off+s.n {
		copy(d.tail[from-d.tailOff():], s.data()[from-s.off:])
	}
}

// fit applies the edits for a larger disk. head and tail must be complete.
func (d *disk) fit() error {
	if d.Fit == nil || d.size == d.RawSize {
		return nil
	}
	edits, err := d.Fit(d.head, d.tail, d.RawSize, d.size)
	if err != nil {
		return err
	}
	edits = slices.SortedFunc(slices.Values(edits), func(a, b parttab.Edit) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	for _, e := range edits {
		n := int64(len(e.Data))
		if e.Off < end || n == 0 || n > d.size-e.Off || !d.apply(e) {
			return fmt.Errorf("cannot write %d bytes at %d to fit the image to the disk", n, e.Off)
		}
		end = e.Off + n
		d.receipt.Changed = appendRange(d.receipt.Changed, image.Range{Off: e.Off, Len: n})
	}
	return nil
}

// apply puts an edit where it belongs; false if that is nowhere.
func (d *disk) apply(e parttab.Edit) bool {
	end := e.Off + int64(len(e.Data))
	switch {
	case end <= int64(len(d.head)):
		copy(d.head[e.Off:], e.Data)
	case e.Off >= d.tailOff() && end <= d.RawSize:
		copy(d.tail[e.Off-d.tailOff():], e.Data)
	case e.Off >= d.RawSize:
		d.beyond = append(d.beyond, e)
	default:
		return false
	}
	return true
}

// ends are the runs at the image's end and beyond it.
func (d *disk) ends() []parttab.Edit {
	return append([]parttab.Edit{{Off: d.tailOff(), Data: d.tail}}, d.beyond...)
}

// begin is the run by which the disk boots.
func (d *disk) begin() []parttab.Edit { return []parttab.Edit{{Off: 0, Data: d.head}} }

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
	return fmt.Errorf("the %d bytes at %d read back otherwise than they were written: the disk or its controller is broken", n, off)
}

package copier

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// diskState is a job on its way. The image's first and last MiB, head and tail, are
// held back in memory: they are what a machine boots by, so they are written
// when all else is proved. What lies between them is the body.
type diskState struct {
	job        Job
	opt        RestoreOptions
	imageSize  int64
	targetSize int64
	head       []byte        // the image's first piece, for a small image all of it
	tail       []byte        // the image's last MiB, less what is in head
	onDisk     bits          // which of the image's items were found on the disk
	written    *sums         // of the body as it was written; nil if the image tells its sums
	edges      *edges        // once head and tail are complete
	found      image.Receipt // what a comparison before the first write found
	receipt    image.Receipt
}

// edges is what a restore writes last: the image's first and last MiB, head and
// tail, with what makes the image fit a larger disk.
type edges struct {
	begin   []parttab.Edit // by which the disk boots
	ends    []parttab.Edit // at the image's end and beyond it
	changed []image.Range  // what is not as in the image
}

func newDisk(j Job, opt RestoreOptions) *diskState {
	if j.SectorSize <= 0 {
		j.SectorSize = defaultSector
	}
	d := &diskState{job: j, opt: opt, imageSize: j.Image.Size(), targetSize: j.Target.Size()}
	d.head = opt.alloc(int(min(pieceSize, d.imageSize)))
	d.tail = opt.alloc(int(min(pieceSize, d.imageSize-int64(len(d.head)))))
	d.receipt.Image = j.Name
	return d
}

// err gives an error the disk's name.
func (d *diskState) err(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", d.job.Name, err)
}

func (d *diskState) log(format string, args ...any) { d.opt.Log(d.job.Name+": "+format, args...) }

// bodyOff and tailOff are where the body begins and ends; before lies the head,
// behind the tail.
func (d *diskState) bodyOff() int64 { return int64(len(d.head)) }
func (d *diskState) tailOff() int64 { return d.imageSize - int64(len(d.tail)) }

// workers is how many pieces are fetched and unpacked at once.
func (d *diskState) workers() int {
	if d.job.Image.PiecesProved() {
		return max(d.opt.Workers, fetchers)
	}
	return d.opt.Workers
}

// salvager reads the disk where it has bad sectors.
func (d *diskState) salvager() salvager {
	return salvager{src: d.job.Target, sector: d.job.SectorSize, alive: d.opt.Alive}
}

func (d *diskState) stage(name string, start time.Time) {
	d.receipt.Stages = append(d.receipt.Stages, image.Stage{Name: name, Bytes: d.imageSize, Elapsed: time.Since(start)})
}

// setFound puts what a comparison found into the receipt.
func (d *diskState) setFound(f image.Receipt) {
	r := &d.receipt
	r.Read, r.Zero, r.Unused, r.Verified, r.Differ = f.Read, f.Zero, f.Unused, f.Verified, f.Differ
}

// body goes over what of a slot is neither head nor tail, and where in the
// slot's bytes it is.
func (d *diskState) body(s *pieceSlot) iter.Seq2[int64, image.Range] {
	return d.parts(s, d.bodyOff(), d.tailOff())
}

// parts is body for the part of the disk between two places: it gives each range
// of the slot that lies there, and where the range's bytes are in the slot's.
func (d *diskState) parts(s *pieceSlot, from, to int64) iter.Seq2[int64, image.Range] {
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
func (d *diskState) bodyLen(s *pieceSlot) (n int64) {
	for _, r := range d.body(s) {
		n += r.Len
	}
	return n
}

// holdBack keeps in memory what a slot has of head and tail.
func (d *diskState) holdBack(s *pieceSlot) {
	if s.content != image.Data {
		return // as they are
	}
	for at, r := range d.parts(s, 0, d.bodyOff()) {
		copy(d.head[r.Off:], s.raw[at:][:r.Len])
	}
	for at, r := range d.parts(s, d.tailOff(), d.imageSize) {
		copy(d.tail[r.Off-d.tailOff():], s.raw[at:][:r.Len])
	}
}

// fillEdges puts head and tail into b, the bytes of a slot as they were read from
// the disk: during a restore the disk does not have them yet. It is the reverse of
// holdBack.
func (d *diskState) fillEdges(b []byte, s *pieceSlot) {
	for at, r := range d.parts(s, 0, d.bodyOff()) {
		copy(b[at:], d.head[r.Off:][:r.Len])
	}
	for at, r := range d.parts(s, d.tailOff(), d.imageSize) {
		copy(b[at:], d.tail[r.Off-d.tailOff():][:r.Len])
	}
}

// fit makes the edges, with the edits for a larger disk. head and tail must be
// complete.
func (d *diskState) fit() error {
	if d.edges != nil {
		return nil
	}
	e := &edges{
		begin: []parttab.Edit{{Off: 0, Data: slices.Clone(d.head)}},
		ends:  []parttab.Edit{{Off: d.tailOff(), Data: slices.Clone(d.tail)}},
	}
	if d.job.Fit != nil && d.targetSize > d.imageSize {
		edits, err := d.job.Fit(d.head, d.tail, d.imageSize, d.targetSize)
		if err == nil {
			err = d.applyEdits(e, edits)
		}
		if err != nil {
			return err
		}
	}
	d.edges = e
	return nil
}

func (d *diskState) applyEdits(e *edges, edits []parttab.Edit) error {
	edits = slices.SortedFunc(slices.Values(edits), func(a, b parttab.Edit) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	for _, ed := range edits {
		n := int64(len(ed.Data))
		if ed.Off < end || n == 0 || n > d.targetSize-ed.Off || !d.apply(e, ed) {
			return fmt.Errorf("cannot write %d bytes at %d to fit the image to the disk", n, ed.Off)
		}
		end = ed.Off + n
		e.changed = appendRange(e.changed, image.Range{Off: ed.Off, Len: n})
	}
	return nil
}

// apply puts an edit where it belongs; false if that is nowhere.
func (d *diskState) apply(e *edges, ed parttab.Edit) bool {
	end := ed.Off + int64(len(ed.Data))
	switch {
	case end <= d.bodyOff():
		copy(e.begin[0].Data[ed.Off:], ed.Data)
	case ed.Off >= d.tailOff() && end <= d.imageSize:
		copy(e.ends[0].Data[ed.Off-d.tailOff():], ed.Data)
	case ed.Off >= d.imageSize:
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
func (d *diskState) wanted() int64 {
	n := d.imageSize
	for _, e := range d.edges.ends[1:] {
		n += int64(len(e.Data))
	}
	return n
}

// writeEdges writes what was held back.
func (d *diskState) writeEdges(runs []parttab.Edit) error {
	for _, e := range runs {
		if err := writeFull(d.job.Target, e.Data, e.Off); err != nil {
			return err
		}
		d.receipt.Written += int64(len(e.Data))
	}
	return nil
}

// verifyEdges reads it back.
func (d *diskState) verifyEdges(runs []parttab.Edit) error {
	for _, e := range runs {
		got := make([]byte, len(e.Data))
		if err := readFull(d.job.Target, got, e.Off); err != nil {
			return err
		}
		if !bytes.Equal(got, e.Data) {
			return notKept(e.Off, int64(len(e.Data)))
		}
		d.receipt.Verified += int64(len(e.Data))
	}
	return nil
}

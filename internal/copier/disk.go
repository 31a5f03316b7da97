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

// diskState is the state of one job while it runs. The image's first MiB is its
// head, the last MiB its tail, and the rest between them its body. A machine boots
// by head and tail. So they are held back in memory, and written when everything
// else is proved.
type diskState struct {
	job        Job
	opt        RestoreOptions
	imageSize  int64
	targetSize int64
	head       []byte        // the image's first MiB, or all of a smaller image
	tail       []byte        // the image's last MiB, without what is in head
	onDisk     bits          // which items of the image were found on the disk
	written    *sums         // what the read-back must find, while the body is written; nil if it compares with the sums of the pieces
	began      int64         // where on the disk the order of the pass that writes began
	edges      *edges        // set when head and tail are complete
	found      image.Receipt // result of the comparison before the first write
	receipt    image.Receipt
}

// edges is what a restore writes last. That is head and tail, with the edits that
// make the image fit a larger disk.
type edges struct {
	begin   []parttab.Edit // the head, by which the disk boots
	ends    []parttab.Edit // first the tail, then what lies beyond the image
	changed []image.Range  // places where the disk must differ from the image
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

// err adds the image's name to an error.
func (d *diskState) err(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", d.job.Name, err)
}

func (d *diskState) log(format string, args ...any) { d.opt.Log(d.job.Name+": "+format, args...) }

// bodyOff and tailOff are where the body begins and ends. The head lies before
// the body, the tail behind it.
func (d *diskState) bodyOff() int64 { return int64(len(d.head)) }
func (d *diskState) tailOff() int64 { return d.imageSize - int64(len(d.tail)) }

// workers is how many pieces are fetched and unpacked at once.
func (d *diskState) workers() int {
	if d.job.Image.PiecesProved() {
		return max(d.opt.Workers, fetchers)
	}
	return d.opt.Workers
}

// salvager makes a reader of the disk that copes with bad sectors.
func (d *diskState) salvager() salvager {
	return salvager{src: d.job.Target, sector: d.job.SectorSize, alive: d.opt.Alive}
}

func (d *diskState) stage(name string, elapsed time.Duration) {
	d.receipt.Stages = append(d.receipt.Stages, image.Stage{Name: name, Bytes: d.imageSize, Elapsed: elapsed})
}

// compared notes how long the reading of a comparison took.
func (d *diskState) compared(c *comparison, elapsed time.Duration) {
	d.receipt.Stages = append(d.receipt.Stages, image.Stage{Name: "compare", Bytes: c.read.Load(), Elapsed: elapsed, Active: c.active})
}

// setFound copies the figures of a comparison into the receipt.
func (d *diskState) setFound(f image.Receipt) {
	r := &d.receipt
	r.Read, r.Zero, r.Unused, r.Verified, r.Differ = f.Read, f.Zero, f.Unused, f.Verified, firstDiffer(f.Differ)
}

// body goes over the ranges of a part that lie in the body. It yields the place
// of each range in the slot's buffers, and the range on the disk.
func (d *diskState) body(p *part) iter.Seq2[int64, image.Range] {
	return d.within(p, d.bodyOff(), d.tailOff())
}

// within does the same as body for the part of the disk between two places.
func (d *diskState) within(p *part, from, to int64) iter.Seq2[int64, image.Range] {
	return func(yield func(int64, image.Range) bool) {
		at := p.at
		for _, r := range p.ranges() {
			if c := r.Clip(from, to); c.Len > 0 && !yield(at+c.Off-r.Off, c) {
				return
			}
			at += r.Len
		}
	}
}

// bodyLen is how many bytes of a part are in the body.
func (d *diskState) bodyLen(p *part) (n int64) {
	for _, r := range d.body(p) {
		n += r.Len
	}
	return n
}

// holdBack copies the bytes of head and tail that a part has into memory.
func (d *diskState) holdBack(s *pieceSlot, p *part) {
	if p.content != image.Data {
		return // head and tail are zeros from the start
	}
	for at, r := range d.within(p, 0, d.bodyOff()) {
		copy(d.head[r.Off:], s.raw[at:][:r.Len])
	}
	for at, r := range d.within(p, d.tailOff(), d.imageSize) {
		copy(d.tail[r.Off-d.tailOff():], s.raw[at:][:r.Len])
	}
}

// fillEdges copies head and tail to where the disk's bytes of a part are, since
// during a restore the disk does not have head and tail yet. fillEdges is the
// reverse of holdBack.
func (d *diskState) fillEdges(s *pieceSlot, p *part) {
	for at, r := range d.within(p, 0, d.bodyOff()) {
		copy(s.disk[at:], d.head[r.Off:][:r.Len])
	}
	for at, r := range d.within(p, d.tailOff(), d.imageSize) {
		copy(s.disk[at:], d.tail[r.Off-d.tailOff():][:r.Len])
	}
}

// fit makes the edges, with the edits for a larger disk. It must be called when
// head and tail are complete.
func (d *diskState) fit() error {
	if d.edges != nil {
		return nil
	}
	e := &edges{
		begin: []parttab.Edit{{Off: 0, Data: slices.Clone(d.head)}},
		ends:  []parttab.Edit{{Off: d.tailOff(), Data: slices.Clone(d.tail)}},
	}
	if d.job.Fit != nil && (d.targetSize > d.imageSize || d.job.cut > 0) {
		edits, err := d.job.Fit(d.head, d.tail, d.imageSize, d.targetSize)
		if err == nil {
			err = d.applyEdits(e, edits)
		}
		if err != nil {
			return err
		}
	}
	if d.job.cut > 0 {
		e.changed = append(e.changed, image.Range{Off: d.imageSize, Len: d.job.cut})
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

// apply adds an edit to the edges. It returns false if the edit lies in none of
// head, tail and the part of the disk beyond the image.
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

// bytes is how many bytes all edges have.
func (e *edges) bytes() (n int64) {
	for _, run := range append(e.begin, e.ends...) {
		n += int64(len(run.Data))
	}
	return n
}

// wanted is how many bytes of the disk the restore answers for in the end. That
// is the image, and the edits beyond it. It must be called after fit.
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

// verifyEdges reads back what writeEdges wrote.
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

package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
)

const (
	// sampleSize is how many bytes of data a comparison looks at before it may
	// be given up. It is given up if more than half of them differ, since it is
	// then faster to write the rest than to compare it first. A new kernel
	// changes less than this at a disk's beginning.
	sampleSize = 256 << 20
	// blankSample is after how many bytes of an image a disk that had nothing but zeros in
	// their places counts as new.
	blankSample = 16 << 20
	// maxDiffer is how many differing ranges a receipt lists.
	maxDiffer = 1000
	// comparers is how many reads of a disk are in flight during a comparison.
	// There are many, since the pieces of an image in a store are small.
	comparers = 8
	// fetchers is the least number of pieces of a stored image that are fetched
	// and unpacked at once. There are many, since the store can be far away.
	fetchers = 8
	// fetchTogether and checkTogether are how many slots are fetched by one question to
	// the store, and how many are checked. A processor that unpacks none would be idle,
	// so the former is small. Only verdicts come back from a check, and behind a busy port each
	// question takes its time, so the latter is large.
	fetchTogether = 2
	checkTogether = 16
)

// errDiffers gives a comparison up.
var errDiffers = errors.New("most of the disk differs")

// compare finds out what the disks have already. It returns true if they have
// everything that the images have.
func (r *restore) compare(ctx context.Context) (bool, error) {
	all := true
	for _, d := range r.disks {
		same, err := r.compareDisk(ctx, d)
		if err != nil {
			return false, d.err(err)
		}
		all = all && same
	}
	if !all {
		return false, nil
	}
	r.opt.Log("nothing differs, so nothing is written")
	for _, d := range r.disks {
		d.setFound(d.found)
		rec := &d.receipt
		rec.Skipped, rec.Changed = rec.Verified, d.edges.changed
		if rec.Skipped+rec.Unused != d.wanted() {
			return false, d.err(fmt.Errorf("internal check failed: kept+unused is %d, want %d", rec.Skipped+rec.Unused, d.wanted()))
		}
		if err := d.job.Image.Prove("", rec); err != nil {
			return false, d.err(err)
		}
	}
	return true, nil
}

// whyNoCompare gives the reason why the disk is not compared with the image, so
// that all of an image in a store is written. "" means that the disk is compared.
func (d *diskState) whyNoCompare() string {
	switch {
	case d.opt.Full:
		return "as asked"
	case d.job.Rotational:
		return "the disk turns, and to look at it first would take longer"
	}
	return ""
}

// compareDisk compares one disk. It returns true if the disk has everything that
// its image has.
func (r *restore) compareDisk(ctx context.Context, d *diskState) (bool, error) {
	if !d.job.Image.PiecesProved() {
		return false, nil // such an image tells nothing of its pieces before they are unpacked
	}
	if why := d.whyNoCompare(); why != "" {
		d.log("everything is written: %s", why)
		return false, nil
	}
	c, err := newComparison(ctx, d)
	if err != nil {
		return false, err
	}
	c.edgesLater = true
	var onDisk bits               // new flags, since this pass still reads d.onDisk
	var flags []func()            // set those of c.pieces
	var data, differ, blank int64 // bytes of pieces with data, of those that differ, and of those in whose places are zeros
	start := time.Now()
	err = c.pass(ctx, r.ring, "compare "+d.job.Name, func(s *pieceSlot) error {
		if err := c.collect(s); err != nil {
			return err
		}
		for i := range s.parts {
			p := &s.parts[i]
			if p.content == image.Unused {
				continue
			}
			later := c.later(p)
			same := len(p.diff) == 0 && !later
			region := regionOf(p.ranges()[0].Off)
			for range p.items { // all of one region
				i := onDisk.add(region, same)
				if later {
					flags = append(flags, func() { onDisk.set(region, i) })
				}
			}
			if p.content == image.Data && !later {
				data += p.n
				if !same {
					differ += p.n
				}
				if p.blank {
					blank += p.n
				}
			}
		}
		if data >= r.opt.sample && differ > data/2 || blank == data && blank >= blankSample {
			return errDiffers
		}
		return nil
	})
	d.compared(c, time.Since(start))
	d.onDisk, d.receipt.Read = onDisk, c.found.Read
	if errors.Is(err, errDiffers) && blank == data {
		d.log("the disk has nothing but zeros in the places of the first %d bytes of data, so all is written without a comparison", data)
		return false, nil
	}
	if errors.Is(err, errDiffers) {
		d.log("%d of the first %d bytes of data differ, so the rest is written without a comparison", differ, data)
		return false, nil
	}
	if err == nil && len(c.found.Differ) > 0 {
		d.log("%d of the image's %d bytes differ on the disk, without its first and last MiB", c.found.Read-c.found.Verified, c.found.Read)
		return false, nil
	}
	if err == nil {
		err = c.compareLater()
		for i := range c.pieces {
			if len(c.pieces[i].diff) == 0 {
				flags[i]()
			}
		}
	}
	if err == nil {
		err = c.compareEdges()
	}
	if err != nil {
		return false, err
	}
	beyond, err := d.compareBeyond()
	if err != nil {
		return false, err
	}
	d.found, d.receipt.Read = c.found, c.found.Read
	d.log("%d of the image's %d bytes differ on the disk", c.found.Read-c.found.Verified, c.found.Read)
	return beyond && len(c.found.Differ) == 0, nil
}

// comparison is a pass that reads a disk and compares it with the image. Verify
// uses it to say where they differ. Restore uses it to find out what need not be
// written, and to prove what was written.
type comparison struct {
	d            *diskState
	stream       *stream
	exact        bool              // find each sector that differs, and salvage bad sectors
	edgesPending bool              // head and tail are not on the disk yet
	edgesLater   bool              // pieces with bytes of head or tail are kept for compareLater
	pieces       []part            // these pieces
	onlyWritten  bool              // skip what was not written
	kept         *kept             // how far the disk can be read, or nil if nobody writes to it
	differs      func(image.Range) // called for each run that differs (nil means no call)
	found        image.Receipt     // has Read, Zero, Verified, Differ and Unused
	read         atomic.Int64      // bytes that were read from the disk, with its holes left out
	active       time.Duration     // in which the disk was read, when the pass has ended
	unusedEdges  []image.Range     // unused ranges in head and tail
	bad          badList
}

func newComparison(ctx context.Context, d *diskState) (*comparison, error) {
	st, err := openStream(ctx, d)
	if err != nil {
		return nil, err
	}
	known := holesOf(d.job.Target)
	st.holes = &known
	c := &comparison{d: d, stream: st, bad: badList{read: d.imageSize}}
	st.buffers = func(p *part) bool { return !c.skips(p) && !p.hole && !c.later(p) }
	return c, nil
}

// pass goes over the whole image. The stage in Progress is name.
func (c *comparison) pass(ctx context.Context, r *ring[*pieceSlot], name string, collect func(*pieceSlot) error) error {
	defer c.stream.close()
	unpackers := c.d.opt.Workers
	if c.exact {
		unpackers = c.d.workers() // to find single sectors, pieces are fetched and unpacked
	}
	done := int64(0)
	reading := each(comparers, c.readSlot)
	defer func() { c.active = reading.work.total() }()
	return r.run(ctx, c.stream.produce, func(s *pieceSlot) error {
		done += s.n
		if c.kept == nil || c.kept.ended() { // until then the progress is that of the writing
			c.d.opt.Progress(name, done, c.d.imageSize)
		}
		return collect(s)
	}, reading, each(unpackers, c.compare))
}

// skips reports whether a part is not compared.
func (c *comparison) skips(p *part) bool {
	return p.content == image.Unused || c.onlyWritten && p.onDisk
}

// readSlot reads from the disk what lies in the body of a slot's ranges.
func (c *comparison) readSlot(s *pieceSlot) error {
	s.early = c.kept != nil && !c.kept.ended()
	err := c.readParts(s, s.parts)
	if err == nil || c.edgesPending || !isMedium(err) {
		return err
	}
	// Each part by itself, to find those that can be read.
	for i := range s.parts {
		err := c.readParts(s, s.parts[i:i+1])
		if isMedium(err) {
			err = c.readBad(s, &s.parts[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readParts reads some consecutive parts of a slot.
func (c *comparison) readParts(s *pieceSlot, parts []part) error {
	s.runs, s.reads = s.runs[:0], s.reads[:0]
	first, n := int64(-1), int64(0)
	for i := range parts {
		if !parts[i].buffered {
			continue
		}
		for at, r := range c.d.body(&parts[i]) {
			if first < 0 {
				first = at
			}
			s.runs, s.reads = append(s.runs, r), addRead(s.reads, r)
			n += r.Len
		}
	}
	if first < 0 {
		return nil
	}
	err := gather(c.d.job.Target, s.disk[first:], s.reads, s.runs)
	if err == nil {
		c.read.Add(n)
	}
	return err
}

// readBad notes what of a part cannot be read. If that is to be known exactly, it
// reads what can be read.
func (c *comparison) readBad(s *pieceSlot, p *part) error {
	for at, r := range c.d.body(p) {
		if !c.exact {
			p.bad = append(p.bad, r) // what cannot be read differs
			continue
		}
		bad, err := c.d.salvager().read(s.disk[at:][:r.Len], r.Off)
		if err != nil {
			return err
		}
		p.bad = append(p.bad, bad...)
	}
	return nil
}

// compare finds where disk and image differ.
func (c *comparison) compare(s *pieceSlot) error {
	for i := range s.parts {
		if p := &s.parts[i]; p.buffered {
			if err := c.comparePart(s, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// comparePart compares one part. If the image tells a piece's sum, the disk's
// bytes are compared with the sum. Such a piece is fetched only to find single
// sectors that differ, or if a part of it belongs to head or tail.
func (c *comparison) comparePart(s *pieceSlot, p *part) error {
	if c.d.job.Image.PiecesProved() && p.content == image.Data && (c.edgesPending || c.d.bodyLen(p) == p.n) {
		if c.edgesPending {
			c.d.fillEdges(s, p)
		}
		if c.d.arrived(p) {
			p.sum = SumOf(s.onDisk(p)) // which readBackByName compares, in the order of the image
			return nil
		}
		if len(p.bad) == 0 && object.NameOf(s.onDisk(p)) == p.piece.Sum {
			return nil
		}
		if !c.exact {
			p.blank = len(p.bad) == 0 && image.IsZero(s.onDisk(p))
			p.diff = append(p.diff, p.ranges()...)
			return nil
		}
	}
	if p.content == image.Data {
		if err := c.stream.decode(s, p); err != nil {
			return err
		}
	}
	for at, r := range c.d.body(p) {
		want := zeros[:r.Len]
		if p.content == image.Data {
			want = s.raw[at:][:r.Len]
		}
		p.diff = differ(p.diff, want, s.disk[at:][:r.Len], r.Off, p.bad, c.d.job.SectorSize)
	}
	return nil
}

// collect adds what was found in a slot to the figures.
func (c *comparison) collect(s *pieceSlot) error {
	c.stream.addHash(s)
	for i := range s.parts {
		if err := c.collectPart(s, &s.parts[i]); err != nil {
			return err
		}
	}
	return nil
}

// collectPart adds what was found in a part. It holds back the bytes of head and
// tail, and remembers which of them are unused.
func (c *comparison) collectPart(s *pieceSlot, p *part) error {
	if c.later(p) {
		c.pieces = append(c.pieces, *p)
		return nil
	}
	n := c.d.bodyLen(p)
	switch p.content {
	case image.Unused:
		c.found.Unused += n
		for _, edge := range []image.Range{p.single[0].Clip(0, c.d.bodyOff()), p.single[0].Clip(c.d.tailOff(), c.d.imageSize)} {
			if edge.Len > 0 {
				c.unusedEdges = appendRange(c.unusedEdges, edge)
			}
		}
		return nil
	case image.Zero:
		c.found.Zero += p.n
	}
	if n < p.n {
		c.d.holdBack(s, p)
	}
	err := c.count(n, p.bad, p.diff)
	if len(c.found.Differ) > 2*maxDiffer { // not at each part, since that sorts
		c.found.Differ = firstDiffer(c.found.Differ)
	}
	return err
}

// firstDiffer gives the ranges that a receipt lists. They are the first on the
// disk, wherever the order of the image began.
func firstDiffer(list []image.Range) []image.Range {
	list = inOrder(list)
	return list[:min(len(list), maxDiffer)]
}

// count adds a compared run of n bytes to the figures.
func (c *comparison) count(n int64, bad, diff []image.Range) error {
	r := &c.found
	r.Read += n
	r.Verified += n
	for _, d := range diff {
		r.Verified -= d.Len
		r.Differ = appendRange(r.Differ, d)
		if c.differs != nil {
			c.differs(d)
		}
	}
	if c.exact {
		return c.bad.add(bad)
	}
	return nil
}

// later reports whether a piece is kept for compareLater. To compare it, it must be fetched, and a disk that
// differs elsewhere gets it anyway when it is written. Boxes that begin together would all
// fetch the same from the server at the same time.
func (c *comparison) later(p *part) bool {
	return c.edgesLater && p.content == image.Data && c.d.bodyLen(p) < p.n
}

// compareLater fetches the pieces that were kept, and compares what they have of the body. It holds
// back head and tail.
func (c *comparison) compareLater() error {
	var stored []image.Stored
	raw := make([][]byte, len(c.pieces))
	for i := range c.pieces {
		stored, raw[i] = append(stored, c.pieces[i].piece.Stored), make([]byte, c.pieces[i].n+object.Slack)
	}
	if len(stored) == 0 {
		return nil
	}
	if err := stored[0].Bring(stored, func(i int) ([]byte, bool) { return raw[i], true }); err != nil {
		return err
	}
	for i := range c.pieces {
		p := &c.pieces[i]
		s := &pieceSlot{raw: raw[i], disk: disk.AlignedBuffer(int(p.n))}
		p.at = 0
		c.d.holdBack(s, p)
		for at, r := range c.d.body(p) {
			err := readFull(c.d.job.Target, s.disk[at:][:r.Len], r.Off)
			if isMedium(err) {
				p.diff = append(p.diff, r) // what cannot be read differs
				continue
			}
			if err != nil {
				return err
			}
			p.diff = differ(p.diff, raw[i][at:][:r.Len], s.disk[at:][:r.Len], r.Off, nil, c.d.job.SectorSize)
		}
		if err := c.count(c.d.bodyLen(p), nil, p.diff); err != nil {
			return err
		}
	}
	c.found.Differ = inOrder(c.found.Differ)
	return nil
}

// compareEdges compares the edges, which a restore writes last. It is called after
// a pass over the whole image. Unused bytes of the edges are not compared.
func (c *comparison) compareEdges() error {
	if err := c.d.fit(); err != nil {
		return err
	}
	e := c.d.edges
	unused := without(inOrder(c.unusedEdges), e.changed)
	c.found.Unused += total(unused)
	for _, edge := range append(e.begin, e.ends...) {
		for _, r := range without([]image.Range{{Off: edge.Off, Len: int64(len(edge.Data))}}, unused) {
			if err := c.compareRun(parttab.Edit{Off: r.Off, Data: edge.Data[r.Off-edge.Off:][:r.Len]}); err != nil {
				return err
			}
		}
	}
	c.bad.ranges = inOrder(c.bad.ranges)
	return nil
}

func (c *comparison) compareRun(e parttab.Edit) error {
	b := make([]byte, len(e.Data))
	bad, err := c.d.salvager().read(b, e.Off)
	if err != nil {
		return err
	}
	return c.count(int64(len(b)), bad, differ(nil, e.Data, b, e.Off, bad, c.d.job.SectorSize))
}

// compareBeyond reports whether the last MiB of a larger disk is as a restore
// leaves it. What lies beyond the image there must be zeros, except for the edits.
func (d *diskState) compareBeyond() (bool, error) {
	if d.targetSize == d.imageSize {
		return true, nil
	}
	from := max(d.imageSize, d.targetSize-bootArea)
	for _, r := range without([]image.Range{{Off: from, Len: d.targetSize - from}}, d.edges.changed) {
		b := make([]byte, r.Len)
		err := readFull(d.job.Target, b, r.Off)
		if err != nil && !isMedium(err) {
			return false, err
		}
		if err != nil || !image.IsZero(b) {
			return false, nil
		}
	}
	return true, nil
}

// differ appends to diff the sectors in which got differs from want. got was read
// from the disk at off. Sectors in bad count as different. differ spoils got.
func differ(diff []image.Range, want, got []byte, off int64, bad []image.Range, sector int) []image.Range {
	for _, r := range bad {
		r = r.Clip(off, off+int64(len(got)))
		for i := r.Off - off; i < r.End()-off; i++ {
			got[i] = ^want[i]
		}
	}
	if bytes.Equal(want, got) {
		return diff
	}
	for at := 0; at < len(want); at += sector {
		end := min(at+sector, len(want))
		if !bytes.Equal(want[at:end], got[at:end]) {
			diff = appendRange(diff, image.Range{Off: off + int64(at), Len: int64(end - at)})
		}
	}
	return diff
}

package copier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"testbox-imaging/internal/image"
)

// sampleSize is after how many bytes of data a comparison is given up if most
// of them differ: to write the rest is then faster than to read it before. It
// is more than what a new kernel changes at a disk's beginning.
const sampleSize = 256 << 20

// errDiffers ends a comparison.
var errDiffers = errors.New("most of the disk differs")

// delta is a comparison that finds out what need not be written.
type delta struct {
	*look
	right        bits
	data, differ int64 // bytes of pieces with data
}

// compare looks at what the disks hold already; true is: all that the images
// have.
func (r *restore) compare(ctx context.Context) (bool, error) {
	right := true
	for _, d := range r.disks {
		same, err := r.delta(ctx, d)
		if err != nil {
			return false, d.err(err)
		}
		right = right && same
	}
	if !right {
		return false, nil
	}
	r.opt.Log("nothing differs, so nothing is written")
	for _, d := range r.disks {
		d.take(d.found)
		rec := &d.receipt
		rec.Skipped, rec.Changed, rec.Root = rec.Verified, d.edges.changed, d.Root.String()
		if rec.Skipped+rec.Unused != d.wanted() {
			return false, d.err(fmt.Errorf("%d bytes are as they must be, %d are unused, together not %d", rec.Skipped, rec.Unused, d.wanted()))
		}
	}
	return true, nil
}

// whole says why all of an image is written without a comparison; "" is: it is
// not.
func (d *disk) whole() string {
	switch {
	case !d.stored():
		return "the image tells nothing of its pieces before they are unpacked"
	case d.opt.Full:
		return "as asked"
	case d.Rotational:
		return "the disk turns, and to look at it first would take longer"
	}
	return ""
}

// delta compares one disk; true is: it holds all that its image has.
func (r *restore) delta(ctx context.Context, d *disk) (bool, error) {
	if why := d.whole(); why != "" {
		d.log("everything is written: %s", why)
		return false, nil
	}
	l, err := newLook(d)
	if err != nil {
		return false, err
	}
	c := &delta{look: l}
	start := time.Now()
	err = l.pass(ctx, r.ring, "compare "+d.Name, c.collect)
	d.stage("compare", start)
	d.right, d.receipt.Read = c.right, l.found.Read
	if errors.Is(err, errDiffers) {
		d.log("%d of the first %d bytes of data differ, so the rest is written without a comparison", c.differ, c.data)
		return false, nil
	}
	if err == nil {
		err = l.compareEdges()
	}
	if err != nil {
		return false, err
	}
	beyond, err := d.compareBeyond()
	if err != nil {
		return false, err
	}
	d.found, d.receipt.Read = l.found, l.found.Read
	d.log("%d of the image's %d bytes differ on the disk", l.found.Read-l.found.Verified, l.found.Read)
	return beyond && len(l.found.Differ) == 0, nil
}

func (c *delta) collect(s *slot) error {
	if err := c.look.collect(s); err != nil || s.content == image.Unused {
		return err
	}
	right := len(s.diff) == 0
	for range s.items {
		c.right.add(right)
	}
	if s.content == image.Zero {
		return nil
	}
	if c.data += s.n; !right {
		c.differ += s.n
	}
	if c.data >= c.opt.sample && c.differ > c.data/2 {
		return errDiffers
	}
	return nil
}

// compareBeyond reports whether the last MiB of a larger disk is clear, as a
// restore leaves what the image does not reach of it.
func (d *disk) compareBeyond() (bool, error) {
	if d.size == d.RawSize {
		return true, nil
	}
	from := max(d.RawSize, d.size-bootArea)
	for _, r := range without([]image.Range{{Off: from, Len: d.size - from}}, d.edges.changed) {
		b := make([]byte, r.Len)
		err := readFull(d.Target, b, r.Off)
		if err != nil && !d.opt.Medium(err) {
			return false, err
		}
		if err != nil || !image.IsZero(b) {
			return false, nil
		}
	}
	return true, nil
}

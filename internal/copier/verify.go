package copier

import (
	"context"
	"time"

	"testbox-imaging/internal/image"
)

// Verify compares a disk with an image, as Restore would have written it, and
// writes nothing. A disk that differs is no error: the receipt lists the first
// differing ranges, in sectors, and its Verified is less than its Read.
// Unreadable sectors are in Bad and count as different. What the image does not
// have is not looked at, and in Unused. The stage in Progress is "compare".
func Verify(ctx context.Context, job Job, opt Options) (image.Receipt, error) {
	opt = opt.withDefaults()
	opt.Unused = UnusedKeep
	if err := job.check(opt); err != nil {
		return image.Receipt{}, err
	}
	d := newDisk(&job, opt)
	err := d.err(d.verifyAll(ctx))
	return d.receipt, err
}

func (d *disk) verifyAll(ctx context.Context) error {
	l, err := newLook(d)
	if err != nil {
		return err
	}
	l.exact = true
	start := time.Now()
	err = l.pass(ctx, newRing(lookers+3*d.workers(), pieceSize, d.opt.Alloc), "compare", l.collect)
	if err == nil {
		err = l.finish(&d.receipt)
	}
	if err == nil {
		err = l.compareEdges()
	}
	if err == nil {
		d.receipt.Changed = d.edges.changed
	}
	d.stage("compare", start)
	d.take(l.found)
	d.receipt.Bad = l.bad.ranges
	return err
}

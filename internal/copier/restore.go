package copier

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/image"
)

// bootArea is how many bytes at a disk's beginning and end can make a machine
// boot from it or a partition table be found: both are clear until all else is
// proved.
const bootArea = image.PieceSize

// Restore writes images to disks. The caller has checked the images whole.
// The order is one in which no mixture of old and new ever boots:
//
//  1. where it pays, the disks are compared with the images, to find out what
//     need not be written; if that is all of all disks, this is all. What a
//     store has for the rest is read and checked, unless no proof is wanted;
//  2. the first and last MiB of every disk are cleared, flushed, read back;
//  3. for each disk, all but the image's first and last MiB is written and
//     flushed, and then read back, zeros too, in a pass of its own;
//  4. the images' last MiBs and what fits them to larger disks are written to
//     all disks, flushed, read back;
//  5. the same for the first MiBs.
//
// The part of a larger disk beyond the image is left as it is but for its last
// MiB. Stages in Progress are "compare NAME", "check NAME", "write NAME" and
// "verify NAME".
// When Restore fails before the first write, it gives no receipts. When it fails
// later, the first MiBs are clear, as far as the disks still obey, and the
// receipts say how far it came.
func Restore(ctx context.Context, jobs []Job, opt Options) ([]image.Receipt, error) {
	opt = opt.withDefaults()
	r := &restore{opt: opt}
	slots, aux := 0, 0
	for i := range jobs {
		if err := jobs[i].check(opt); err != nil {
			return nil, err
		}
		d := newDisk(&jobs[i], opt)
		r.disks = append(r.disks, d)
		if slots = max(slots, writers+3*d.workers()); d.stored() {
			aux = pieceSize
		}
	}
	r.ring = newRing(slots, aux, opt.Alloc)
	right, err := r.compare(ctx)
	if err == nil && !right {
		err = r.sound(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !right {
		err = r.run(ctx)
	}
	receipts := make([]image.Receipt, len(r.disks))
	for i, d := range r.disks {
		receipts[i] = d.receipt
	}
	return receipts, err
}

// restore is one call of Restore.
type restore struct {
	opt   Options
	ring  *ring
	disks []*disk
}

func (r *restore) run(ctx context.Context) error {
	if err := r.all(ctx, (*disk).clear, (*disk).checkClear); err != nil {
		return err
	}
	for _, d := range r.disks {
		if err := d.err(r.body(ctx, d)); err != nil {
			return err
		}
	}
	err := r.all(ctx, (*disk).writeEnds, (*disk).verifyEnds)
	if err == nil {
		err = r.all(ctx, (*disk).writeBegin, (*disk).verifyBegin)
	}
	for _, d := range r.disks {
		if err == nil {
			err = d.err(d.account())
		}
	}
	if err != nil {
		err = errors.Join(err, r.undo())
	}
	return err
}

// all does one thing to all disks, flushes all, and then proves it of all.
func (r *restore) all(ctx context.Context, do, prove func(*disk) error) error {
	flush := func(d *disk) error { return d.Target.Sync() }
	for _, step := range []func(*disk) error{do, flush, prove} {
		for _, d := range r.disks {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.err(step(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

// undo makes disks that have got their beginning unbootable again, because
// another one, or its proof, failed.
func (r *restore) undo() error {
	var errs []error
	for _, d := range r.disks {
		if err := errors.Join(d.Target.ZeroAt(0, int64(len(d.head))), d.Target.Sync()); err != nil {
			errs = append(errs, fmt.Errorf("%s: the beginning of the disk could not be cleared again, it may boot: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// account is the last proof: that nothing was left out.
func (d *disk) account() error {
	r, want := &d.receipt, d.wanted()
	verified := r.Written + r.Skipped
	switch d.opt.Verify {
	case VerifyWritten:
		verified = r.Written
	case VerifyNone:
		verified = d.edges.bytes()
	}
	if r.Written+r.Skipped+r.Unused != want || r.Verified != verified {
		return fmt.Errorf("%d bytes were written, %d left as they were, %d are unused, together not %d; or %d were verified, not %d",
			r.Written, r.Skipped, r.Unused, want, r.Verified, verified)
	}
	return nil
}

// clear clears the boot areas.
func (d *disk) clear() error {
	n := min(bootArea, d.size)
	if err := d.Target.ZeroAt(0, n); err != nil {
		return fmt.Errorf("clear the first %d bytes: %w", n, err)
	}
	if err := d.Target.ZeroAt(d.size-n, n); err != nil {
		return fmt.Errorf("clear the last %d bytes: %w", n, err)
	}
	return nil
}

func (d *disk) checkClear() error {
	b := make([]byte, min(bootArea, d.size))
	for _, off := range []int64{0, d.size - int64(len(b))} {
		if err := readFull(d.Target, b, off); err != nil {
			return err
		}
		if !image.IsZero(b) {
			return notKept(off, int64(len(b)))
		}
	}
	return nil
}

func (d *disk) writeEnds() error {
	if err := d.fit(); err != nil {
		return err
	}
	d.receipt.Changed = d.edges.changed
	return d.write(d.edges.ends)
}

func (d *disk) verifyEnds() error  { return d.verify(d.edges.ends) }
func (d *disk) writeBegin() error  { return d.write(d.edges.begin) }
func (d *disk) verifyBegin() error { return d.verify(d.edges.begin) }

package copier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"testbox-imaging/internal/image"
)

// Unused is what Restore does with bytes that the image does not have.
type Unused int

// What can be done with unused bytes. In the first and last MiB of a disk that
// is written at all they become zeros in any case: what stood there before
// could make a machine boot.
const (
	UnusedKeep    Unused = iota // leave them as they are
	UnusedDiscard               // tell the disk that nobody needs them, if anything is written at all
	UnusedZero                  // write zeros, and treat them as any
)

// ReadBack is what Restore reads back of what is neither the first nor the last
// MiB of a disk; these always are.
type ReadBack int

// What can be read back.
const (
	VerifyAll     ReadBack = iota // all that the image has
	VerifyWritten                 // what was written
	VerifyNone                    // nothing: the receipt then does not prove the restore
)

// RestoreOptions are those of Restore; the zero value works.
type RestoreOptions struct {
	Options
	Full   bool // write everything, also what is on the disk already
	Verify ReadBack
	Unused Unused
	Log    func(format string, args ...any) // told which way was taken and why; nil: silence
	sample int64                            // for tests; 0: sampleSize
}

func (o RestoreOptions) withDefaults() RestoreOptions {
	o.Options = o.Options.withDefaults()
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.sample == 0 {
		o.sample = sampleSize
	}
	return o
}

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
func Restore(ctx context.Context, jobs []Job, opt RestoreOptions) ([]image.Receipt, error) {
	opt = opt.withDefaults()
	r := &restore{opt: opt}
	slots, compares := 0, false
	for _, j := range jobs {
		if err := j.Check(opt.Unused); err != nil {
			return nil, fmt.Errorf("%s: %w", j.Name, err)
		}
		d := newDisk(j, opt)
		r.disks = append(r.disks, d)
		slots = max(slots, writers+3*d.workers())
		compares = compares || j.Image.PiecesProved()
	}
	r.ring = newPieceRing(slots, compares, opt.Options)
	same, err := r.compare(ctx)
	if err == nil && !same {
		err = r.checkStored(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !same {
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
	opt   RestoreOptions
	ring  *ring[*pieceSlot]
	disks []*diskState
}

// run is all from the first write on.
func (r *restore) run(ctx context.Context) error {
	if err := r.all(ctx, (*diskState).clear, (*diskState).checkClear); err != nil {
		return err
	}
	for _, d := range r.disks {
		if err := d.err(r.body(ctx, d)); err != nil {
			return err
		}
	}
	err := r.all(ctx, (*diskState).writeEnds, (*diskState).verifyEnds)
	if err == nil {
		err = r.all(ctx, (*diskState).writeBegin, (*diskState).verifyBegin)
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

// body writes a disk but for its head and tail, flushes it and reads it back.
func (r *restore) body(ctx context.Context, d *diskState) error {
	start := time.Now()
	if err := r.write(ctx, d); err != nil {
		return err
	}
	if err := d.job.Target.Sync(); err != nil {
		return err
	}
	d.stage("write", start)
	if r.opt.Verify == VerifyNone {
		return nil
	}
	start = time.Now()
	if err := r.readBack(ctx, d); err != nil {
		return err
	}
	d.stage("verify", start)
	return nil
}

// all does one thing to all disks, flushes all, and then proves it of all.
func (r *restore) all(ctx context.Context, do, prove func(*diskState) error) error {
	flush := func(d *diskState) error { return d.job.Target.Sync() }
	for _, step := range []func(*diskState) error{do, flush, prove} {
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
		if err := errors.Join(d.job.Target.ZeroAt(0, int64(len(d.head))), d.job.Target.Sync()); err != nil {
			errs = append(errs, fmt.Errorf("%s: the beginning of the disk could not be cleared again, it may boot: %w", d.job.Name, err))
		}
	}
	return errors.Join(errs...)
}

// clear clears the boot areas.
func (d *diskState) clear() error {
	n := min(bootArea, d.targetSize)
	if err := d.job.Target.ZeroAt(0, n); err != nil {
		return fmt.Errorf("clear the first %d bytes: %w", n, err)
	}
	if err := d.job.Target.ZeroAt(d.targetSize-n, n); err != nil {
		return fmt.Errorf("clear the last %d bytes: %w", n, err)
	}
	return nil
}

func (d *diskState) checkClear() error {
	b := make([]byte, min(bootArea, d.targetSize))
	for _, off := range []int64{0, d.targetSize - int64(len(b))} {
		if err := readFull(d.job.Target, b, off); err != nil {
			return err
		}
		if !image.IsZero(b) {
			return notKept(off, int64(len(b)))
		}
	}
	return nil
}

func (d *diskState) writeEnds() error {
	if err := d.fit(); err != nil {
		return err
	}
	d.receipt.Changed = d.edges.changed
	return d.writeEdges(d.edges.ends)
}

func (d *diskState) verifyEnds() error  { return d.verifyEdges(d.edges.ends) }
func (d *diskState) writeBegin() error  { return d.writeEdges(d.edges.begin) }
func (d *diskState) verifyBegin() error { return d.verifyEdges(d.edges.begin) }

// account is the last proof: that nothing was left out.
func (d *diskState) account() error {
	r, want := &d.receipt, d.wanted()
	verified := r.Written + r.Skipped
	switch d.opt.Verify {
	case VerifyWritten:
		verified = r.Written
	case VerifyNone:
		verified = d.edges.bytes()
	}
	if r.Written+r.Skipped+r.Unused != want || r.Verified != verified {
		return fmt.Errorf("internal check failed: written+kept+unused is %d, want %d; verified %d, want %d",
			r.Written+r.Skipped+r.Unused, want, r.Verified, verified)
	}
	return nil
}

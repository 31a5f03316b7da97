package copier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// Unused is what Restore does with bytes that the image does not have.
type Unused int

// What can be done with unused bytes. If a disk is written at all, unused bytes
// in its first and last MiB become zeros in any case, since the old bytes there
// could make a machine boot.
const (
	UnusedKeep    Unused = iota // leave them as they are
	UnusedDiscard               // tell the disk that nobody needs them, if anything is written at all
	UnusedZero                  // write zeros, and treat them like other zeros of the image
)

// ReadBack is how much Restore reads back between the first and the last MiB of
// a disk. Those two are always read back.
type ReadBack int

// What can be read back.
const (
	VerifyAll     ReadBack = iota // everything that the image has
	VerifyWritten                 // what was written
	VerifyNone                    // nothing, so that the receipt does not prove the restore
)

// RestoreOptions are the options of Restore. The zero value is valid.
type RestoreOptions struct {
	Options
	Full   bool // write everything, even bytes that are on the disk already
	Verify ReadBack
	Unused Unused
	Log    func(format string, args ...any) // told what Restore decides and why (nil means no log)
	// Writes is called once before the first write to any disk (nil means no call).
	// If it returns an error, nothing is written.
	Writes func() error
	sample int64 // set by tests (0 means sampleSize)
	flush  int64 // set by tests (0 means flushEvery)
}

func (o RestoreOptions) withDefaults() RestoreOptions {
	o.Options = o.Options.withDefaults()
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Writes == nil {
		o.Writes = func() error { return nil }
	}
	if o.sample == 0 {
		o.sample = sampleSize
	}
	if o.flush == 0 {
		o.flush = flushEvery
	}
	return o
}

// bootArea is the length of the two areas at a disk's beginning and end by which
// a machine can boot from it, or find a partition table. Both areas are clear
// until everything else is proved.
const bootArea = image.PieceSize

// Restore writes images to disks. The caller has checked the images as a whole.
// In this order no mixture of old and new data ever boots:
//
//  1. The disks are compared with the images where that saves time, to find out
//     what need not be written. If all disks have everything already, Restore is
//     done. Otherwise the pieces of stored images that will be written are read
//     from the store and compared with the sums of what was stored, unless the
//     caller wants no proof.
//  2. The first and last MiB of every disk are cleared, flushed and read back.
//  3. On each disk everything but the image's first and last MiB is written and
//     flushed. A pass of its own reads it back, zeros too. On a disk that does not
//     turn, that pass runs beside the writing. It stays behind the last flush, and
//     looks again at some places of the whole disk when everything is written.
//  4. The last MiBs of the images, and the edits that fit an image to a larger
//     disk, are written to all disks, flushed and read back.
//  5. The first MiBs of the images are written, flushed and read back.
//
// If a disk is larger than its image, the part beyond the image is left as it is,
// except for the disk's last MiB. Stages in Progress are "compare NAME", "check
// NAME", "write NAME" and "verify NAME".
//
// When Restore fails before the first write, it gives no receipts. When it fails
// later, the receipts say how far it came, and the first MiB of each disk is
// clear if the disk still obeys.
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
		slots = max(slots, writers+2*d.workers())
		compares = compares || j.Image.PiecesProved()
	}
	r.ring = newPieceRing(slots, true, compares, opt.Options)
	r.back = newPieceRing(comparers+opt.Workers, false, true, opt.Options)
	same, err := r.compare(ctx)
	if err == nil && !same {
		if err = r.checkStored(ctx); err == nil {
			err = opt.Writes()
		}
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
	back  *ring[*pieceSlot] // for the read-back, which runs beside the writing
	disks []*diskState
}

// run does steps 2 to 5 of Restore, from the first write on.
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

// body does step 3 for one disk. It writes everything but head and tail, flushes
// the disk and reads it back.
func (r *restore) body(ctx context.Context, d *diskState) error {
	end, err := d.beginGathering(ctx)
	if err != nil {
		return err
	}
	defer end()
	k := newKept(d.job.Target, d.flushEvery())
	d.written = d.newWritten()
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	var written, verified time.Duration
	g.Go(func() error {
		err := r.write(ctx, d, func(to, n int64) {
			if flush := k.wrote(to, n); flush != nil {
				g.Go(flush)
			}
		})
		if err == nil {
			err = k.flush(d.imageSize, true)
		}
		written = time.Since(start)
		return err
	})
	if r.opt.Verify != VerifyNone {
		g.Go(func() error {
			err := r.readBack(ctx, d, k)
			verified = k.sinceFirst()
			return err
		})
	}
	err = g.Wait()
	d.written = nil // not earlier, since the tail is written while the read-back may have ended
	if err != nil {
		return err
	}
	d.stage("write", written)
	if r.opt.Verify != VerifyNone {
		d.stage("verify", verified)
	}
	return nil
}

// flushEvery is how many bytes of a disk are written between two flushes. It is 0
// if the read-back comes after the writing, because it would only hold it up.
func (d *diskState) flushEvery() int64 {
	if d.opt.Verify == VerifyNone || d.job.Rotational || d.job.Cached {
		return 0
	}
	return d.opt.flush
}

// all calls do for all disks, then flushes all disks, then calls prove for all.
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

// ErrMayBoot is matched by the error of a restore that failed and could not make
// sure that its disks do not boot.
var ErrMayBoot = errors.New("it may boot")

// undo clears the first MiB of all disks again, so that none of them boots. It is
// called when an error comes after some disks have got their first MiB.
func (r *restore) undo() error {
	var errs []error
	for _, d := range r.disks {
		if err := errors.Join(d.job.Target.ZeroAt(0, int64(len(d.head))), d.job.Target.Sync()); err != nil {
			errs = append(errs, fmt.Errorf("%s: the beginning of the disk could not be cleared again, %w: %w", d.job.Name, ErrMayBoot, err))
		}
	}
	return errors.Join(errs...)
}

// clear clears both boot areas of the disk.
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

// account is the last check. It compares the figures of the receipt, and fails if
// any byte was left out.
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

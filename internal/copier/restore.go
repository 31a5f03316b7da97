package copier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// bootArea is how many bytes at a disk's beginning and end can make a machine
// boot from it or a partition table be found: both are clear until all else is
// proved.
const bootArea = image.PieceSize

// Restore writes images to disks. The caller has checked the images whole.
// The order is one in which no mixture of old and new ever boots:
//
//  1. the first and last MiB of every disk are cleared, flushed, read back;
//  2. for each disk, all but the image's first and last MiB is written and
//     flushed, and then read back, zeros too, in a pass of its own;
//  3. the images' last MiBs and what fits them to larger disks are written to
//     all disks, flushed, read back;
//  4. the same for the first MiBs.
//
// The part of a larger disk beyond the image is left as it is but for its last
// MiB. Stages in Progress are "write NAME" and "verify NAME". When Restore
// fails, the first MiBs are clear, as far as the disks still obey; the receipts
// then say how far it came.
func Restore(ctx context.Context, jobs []Job, opt Options) ([]image.Receipt, error) {
	opt = opt.withDefaults()
	r := &restore{opt: opt}
	for i := range jobs {
		if err := jobs[i].check(); err != nil {
			return nil, err
		}
		r.disks = append(r.disks, newDisk(&jobs[i], opt))
	}
	r.ring = newRing(opt, writers)
	err := r.run(ctx)
	receipts := make([]image.Receipt, len(r.disks))
	for i, d := range r.disks {
		receipts[i] = d.receipt
	}
	return receipts, err
}

// restore is one call of Restore.
type restore struct {
	opt   Options
	ring  ring
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
	if err == nil {
		err = r.account()
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
func (r *restore) account() error {
	for _, d := range r.disks {
		want := d.RawSize
		for _, e := range d.beyond {
			want += int64(len(e.Data))
		}
		if d.receipt.Written != want || d.receipt.Verified != want {
			return d.err(fmt.Errorf("%d bytes were written and %d verified, but %d were to be", d.receipt.Written, d.receipt.Verified, want))
		}
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
	return d.write(d.ends())
}

func (d *disk) verifyEnds() error  { return d.verify(d.ends()) }
func (d *disk) writeBegin() error  { return d.write(d.begin()) }
func (d *disk) verifyBegin() error { return d.verify(d.begin()) }

// body writes a disk but for its head and tail, flushes it and reads it back.
func (r *restore) body(ctx context.Context, d *disk) error {
	d.sums = newSums(d.RawSize)
	start := time.Now()
	if err := r.write(ctx, d); err != nil {
		return err
	}
	if err := d.Target.Sync(); err != nil {
		return err
	}
	d.stage("write", start)
	start = time.Now()
	if err := r.readBack(ctx, d); err != nil {
		return err
	}
	d.stage("verify", start)
	d.sums = nil
	return nil
}

func (d *disk) stage(name string, start time.Time) {
	d.receipt.Stages = append(d.receipt.Stages, image.Stage{Name: name, Bytes: d.RawSize, Elapsed: time.Since(start)})
}

func (r *restore) write(ctx context.Context, d *disk) error {
	st, err := openStream(d.Job, true)
	if err != nil {
		return err
	}
	defer st.close()
	decode := func(s *slot) error { return d.decode(st, s) }
	err = r.ring.run(ctx, st.produce, []stage{{r.opt.Workers, decode}, {writers, d.writeBody}}, func(s *slot) error {
		st.hash(s)
		d.keep(s)
		d.remember(s)
		r.opt.Progress("write "+d.Name, s.off+s.n, d.RawSize)
		return nil
	})
	if err != nil {
		return err
	}
	d.receipt.BLAKE3, err = st.finish()
	return err
}

func (d *disk) decode(st *stream, s *slot) error {
	if err := st.decode(s); err != nil {
		return err
	}
	if off, n := d.body(s); n > 0 && !s.zero {
		s.sum = sumOf(s.raw[off-s.off:][:n])
	}
	return nil
}

func (d *disk) writeBody(s *slot) error {
	off, n := d.body(s)
	switch {
	case n == 0:
		return nil
	case !s.zero:
		return writeFull(d.Target, s.raw[off-s.off:][:n], off)
	}
	if err := d.Target.ZeroAt(off, n); err != nil {
		return fmt.Errorf("write %d zeros at byte %d: %w", n, off, err)
	}
	return nil
}

// remember keeps what the read-back must find.
func (d *disk) remember(s *slot) {
	off, n := d.body(s)
	d.receipt.Written += n
	if s.zero {
		d.receipt.Zero += s.n
		s.sum = xxh3.Uint128{}
	}
	for end := off + n; off < end; off += image.PieceSize - off%image.PieceSize {
		d.sums.add(s.sum)
	}
}

// readBack compares what the disk holds with what was written.
func (r *restore) readBack(ctx context.Context, d *disk) error {
	got := newSums(d.RawSize)
	read := func(s *slot) error {
		if err := readFull(d.Target, s.data(), s.off); err != nil {
			return err
		}
		s.sum = sumOf(s.data())
		return nil
	}
	return r.ring.run(ctx, pieces(int64(len(d.head)), d.tailOff()), []stage{{readers, read}}, func(s *slot) error {
		got.add(s.sum)
		if !got.same(d.sums) {
			n := int64(got.group) * image.PieceSize
			off := (s.off / n) * n
			return notKept(off, s.off+s.n-off)
		}
		d.receipt.Verified += s.n
		r.opt.Progress("verify "+d.Name, d.receipt.Verified, d.tailOff()-int64(len(d.head)))
		return nil
	})
}

package copier

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// checkStored reads from the store what will be written, and checks that it is
// still what was stored, so that an image that rotted or was cut off is found
// before a disk is overwritten. It is unpacked only once, when it is written.
// Images in files are not checked here, since the caller has checked them. With
// VerifyNone the caller wants no proof, so there is no check either.
func (r *restore) checkStored(ctx context.Context) error {
	for _, d := range r.disks {
		if !d.job.Image.PiecesProved() || r.opt.Verify == VerifyNone {
			continue
		}
		start := time.Now()
		if err := d.err(r.checkPieces(ctx, d)); err != nil {
			return err
		}
		d.stage("check", start)
	}
	return nil
}

// checkPieces checks the same pieces as write unpacks.
func (r *restore) checkPieces(ctx context.Context, d *diskState) error {
	st, err := openStream(ctx, d)
	if err != nil {
		return err
	}
	defer st.close()
	st.joinZeros = true
	check := func(s *pieceSlot) error {
		if !d.needsBytes(s) {
			return nil
		}
		return s.piece.Check()
	}
	done := int64(0)
	collect := func(s *pieceSlot) error {
		done += s.n
		r.opt.Progress("check "+d.job.Name, done, d.imageSize)
		return nil
	}
	return r.ring.run(ctx, st.produce, collect, each(d.workers(), check))
}

// needsBytes reports whether a slot's bytes will be written or held back.
func (d *diskState) needsBytes(s *pieceSlot) bool {
	return s.content == image.Data && (!s.onDisk || d.edges == nil && d.bodyLen(s) < s.n)
}

// write writes the body of a disk, and holds back head and tail in memory.
func (r *restore) write(ctx context.Context, d *diskState) error {
	st, err := openStream(ctx, d)
	if err != nil {
		return err
	}
	defer st.close()
	st.joinZeros = true
	if !d.job.Image.PiecesProved() && r.opt.Verify != VerifyNone {
		d.written = newSums(d.imageSize)
	}
	unpack := func(s *pieceSlot) error {
		if !d.needsBytes(s) {
			return nil
		}
		if err := st.decode(s); err != nil {
			return err
		}
		if d.written != nil && s.content == image.Data {
			for at, r := range d.body(s) { // one range at most, as PiecesProved is false
				s.sum = sumOf(s.raw[at:][:r.Len])
			}
		}
		return nil
	}
	done := int64(0)
	collect := func(s *pieceSlot) error {
		st.addHash(s)
		if d.needsBytes(s) {
			d.holdBack(s)
		}
		rec, n := &d.receipt, d.bodyLen(s)
		switch {
		case s.content == image.Unused:
			rec.Unused += n
		case s.onDisk:
			rec.Skipped += n
		default:
			rec.Written += n
		}
		if s.content == image.Zero {
			rec.Zero += s.n
		}
		d.rememberSum(s)
		done += s.n
		r.opt.Progress("write "+d.job.Name, done, d.imageSize)
		return nil
	}
	if err := r.ring.run(ctx, st.produce, collect, each(d.workers(), unpack), each(writers, d.writeBody)); err != nil {
		return err
	}
	return st.finish(&d.receipt)
}

func (d *diskState) writeBody(s *pieceSlot) error {
	if s.onDisk {
		return nil
	}
	for at, r := range d.body(s) {
		if err := d.writeRange(s, at, r); err != nil {
			return err
		}
	}
	return nil
}

// writeRange writes the range r of a slot. at is where the range begins in the
// slot's bytes.
func (d *diskState) writeRange(s *pieceSlot, at int64, r image.Range) error {
	switch {
	case s.content == image.Data:
		return writeFull(d.job.Target, s.raw[at:][:r.Len], r.Off)
	case s.content == image.Zero:
		if err := d.job.Target.ZeroAt(r.Off, r.Len); err != nil {
			return fmt.Errorf("write %d zeros at byte %d: %w", r.Len, r.Off, err)
		}
	case d.opt.Unused == UnusedDiscard:
		if err := d.job.Target.(Discarder).Discard(r.Off, r.Len); err != nil {
			return fmt.Errorf("discard %d bytes at byte %d: %w", r.Len, r.Off, err)
		}
	}
	return nil
}

// rememberSum adds a slot's hash to those that the read-back must find. It does
// nothing if the image's pieces tell their sums.
func (d *diskState) rememberSum(s *pieceSlot) {
	if d.written == nil {
		return
	}
	if s.content == image.Zero {
		s.sum = xxh3.Uint128{}
	}
	for _, r := range d.body(s) {
		for off := r.Off; off < r.End(); off += pieceSize - off%pieceSize {
			d.written.add(s.sum)
		}
	}
}

// writeFull writes b. A short write is an error, even if the writer reports none.
func writeFull(w io.WriterAt, b []byte, off int64) error {
	n, err := w.WriteAt(b, off)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write at byte %d: %w", off, err)
	}
	return nil
}

package copier

import (
	"context"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// body writes a disk but for its head and tail, flushes it and reads it back.
func (r *restore) body(ctx context.Context, d *disk) error {
	start := time.Now()
	if err := r.write(ctx, d); err != nil {
		return err
	}
	if err := d.Target.Sync(); err != nil {
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
	d.sums = nil
	return nil
}

func (d *disk) stage(name string, start time.Time) {
	d.receipt.Stages = append(d.receipt.Stages, image.Stage{Name: name, Bytes: d.RawSize, Elapsed: time.Since(start)})
}

func (r *restore) write(ctx context.Context, d *disk) error {
	st, err := openStream(d, true)
	if err != nil {
		return err
	}
	defer st.close()
	if !d.stored() && r.opt.Verify != VerifyNone {
		d.sums = newSums(d.RawSize)
	}
	w := &writing{stream: st}
	err = r.ring.run(ctx, st.produce, w.collect, each(d.workers(), w.unpack), each(writers, d.writeBody))
	if err != nil {
		return err
	}
	return st.finish(&d.receipt)
}

// writing is the pass that writes a disk's body.
type writing struct {
	*stream
	done int64 // bytes of the image
}

// needs reports whether a slot's bytes are written or held back.
func (w *writing) needs(s *slot) bool {
	return s.content == image.Data && (!s.skip || w.edges == nil && w.bodyLen(s) < s.n)
}

func (w *writing) unpack(s *slot) error {
	if !w.needs(s) {
		return nil
	}
	if err := w.decode(s); err != nil {
		return err
	}
	if w.sums != nil && s.content == image.Data {
		for at, r := range w.body(s) { // one, as in any image of this kind
			s.sum = sumOf(s.raw[at:][:r.Len])
		}
	}
	return nil
}

func (d *disk) writeBody(s *slot) error {
	if s.skip {
		return nil
	}
	for at, r := range d.body(s) {
		if err := d.writeRange(s, at, r); err != nil {
			return err
		}
	}
	return nil
}

// writeRange writes what a slot has for a place; its bytes are from at on.
func (d *disk) writeRange(s *slot, at int64, r image.Range) error {
	switch {
	case s.content == image.Data:
		return writeFull(d.Target, s.raw[at:][:r.Len], r.Off)
	case s.content == image.Zero:
		if err := d.Target.ZeroAt(r.Off, r.Len); err != nil {
			return fmt.Errorf("write %d zeros at byte %d: %w", r.Len, r.Off, err)
		}
	case d.opt.Unused == UnusedDiscard:
		if err := d.Target.(Discarder).Discard(r.Off, r.Len); err != nil {
			return fmt.Errorf("discard %d bytes at byte %d: %w", r.Len, r.Off, err)
		}
	}
	return nil
}

func (w *writing) collect(s *slot) error {
	w.hash(s)
	if w.needs(s) {
		w.keep(s)
	}
	r, n := &w.receipt, w.bodyLen(s)
	switch {
	case s.content == image.Unused:
		r.Unused += n
	case s.skip:
		r.Skipped += n
	default:
		r.Written += n
	}
	if s.content == image.Zero {
		r.Zero += s.n
	}
	w.remember(s)
	w.done += s.n
	w.opt.Progress("write "+w.Name, w.done, w.RawSize)
	return nil
}

// remember keeps what the read-back of an image must find whose pieces do not
// tell their sums.
func (w *writing) remember(s *slot) {
	if w.sums == nil {
		return
	}
	if s.content == image.Zero {
		s.sum = xxh3.Uint128{}
	}
	for _, r := range w.body(s) {
		for off := r.Off; off < r.End(); off += pieceSize - off%pieceSize {
			w.sums.add(s.sum)
		}
	}
}

// readBack proves that the disk holds what was written.
func (r *restore) readBack(ctx context.Context, d *disk) error {
	if d.stored() {
		return r.readBackByName(ctx, d)
	}
	got := newSums(d.RawSize)
	read := func(s *slot) error {
		if err := readFull(d.Target, s.data(), s.one[0].Off); err != nil {
			return err
		}
		s.sum = sumOf(s.data())
		return nil
	}
	return r.ring.run(ctx, pieces(d.bodyOff(), d.tailOff()), func(s *slot) error {
		got.add(s.sum)
		if !got.same(d.sums) {
			n := int64(got.group) * pieceSize
			off := (s.one[0].Off / n) * n
			return notKept(off, s.end()-off)
		}
		d.receipt.Verified += s.n
		r.opt.Progress("verify "+d.Name, d.receipt.Verified, d.tailOff()-d.bodyOff())
		return nil
	}, each(readers, read))
}

// readBackByName compares the disk with the names that the image gives its
// pieces. Head and tail are still held back.
func (r *restore) readBackByName(ctx context.Context, d *disk) error {
	l, err := newLook(d)
	if err != nil {
		return err
	}
	l.held, l.written = true, r.opt.Verify == VerifyWritten
	return l.pass(ctx, r.ring, "verify "+d.Name, func(s *slot) error {
		if len(s.diff) > 0 {
			return notKept(s.ranges[0].Off, s.end()-s.ranges[0].Off)
		}
		if !l.passes(s) {
			d.receipt.Verified += l.bodyLen(s)
		}
		return nil
	})
}

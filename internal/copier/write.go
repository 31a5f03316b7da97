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
		d.stage("check", time.Since(start))
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
	st.buffers = d.needsBytes
	check := func(slots []*pieceSlot) error {
		var pieces []image.Stored
		for _, s := range slots {
			for p := range s.pieces() {
				pieces = append(pieces, p.piece.Stored)
			}
		}
		if len(pieces) == 0 {
			return nil
		}
		return pieces[0].Check(pieces)
	}
	done := int64(0)
	collect := func(s *pieceSlot) error {
		done += s.n
		r.opt.Progress("check "+d.job.Name, done, d.imageSize)
		return nil
	}
	return r.ring.run(ctx, st.produce, collect, &stage[*pieceSlot]{workers: d.workers(), batch: checkTogether, do: check})
}

// needsBytes reports whether a part's bytes will be written or held back. Long
// runs of zeros are written without bytes. So are all zeros of an image whose
// pieces tell no sums, in which most zeros are found only by unpacking.
func (d *diskState) needsBytes(p *part) bool {
	switch p.content {
	case image.Data:
		return !p.onDisk || d.edges == nil && d.bodyLen(p) < p.n
	case image.Zero:
		return !p.onDisk && p.n <= shortZeros && d.job.Image.PiecesProved()
	}
	return false
}

// write writes the body of a disk, and holds back head and tail in memory. It
// calls wrote with the bytes of the image so far, in the order in which its pieces
// come, and with how many of the last ones were written.
func (r *restore) write(ctx context.Context, d *diskState, wrote func(to, n int64)) error {
	st, err := openStream(ctx, d)
	if err != nil {
		return err
	}
	defer st.close()
	st.buffers = d.needsBytes
	unpack := func(slots []*pieceSlot) error { return d.unpack(st, slots) }
	done := int64(0)
	collect := func(s *pieceSlot) error {
		if done == 0 { // and not again, since the read-back looks at it after the first call of wrote
			d.began = st.cover.begin
		}
		st.addHash(s)
		before := d.receipt.Written
		for i := range s.parts {
			d.wrote(s, &s.parts[i])
		}
		done += s.n
		r.opt.Progress("write "+d.job.Name, done, d.imageSize)
		wrote(done, d.receipt.Written-before)
		return nil
	}
	fetching := &stage[*pieceSlot]{workers: d.workers(), batch: fetchTogether, do: unpack}
	writing := each(writers, d.writeBody)
	l := beginLoad()
	if err := r.ring.run(ctx, st.produce, collect, fetching, writing); err != nil {
		return err
	}
	d.log("%s", l.text(fetching.share(l.start), writing.share(l.start)))
	return st.finish(&d.receipt)
}

// unpack brings all bytes of some slots into their buffers.
func (d *diskState) unpack(st *stream, slots []*pieceSlot) error {
	if st.image.PiecesProved() {
		return d.bring(slots)
	}
	for _, s := range slots {
		for i := range s.parts {
			p := &s.parts[i]
			if !p.buffered {
				continue
			}
			if err := st.decode(s, p); err != nil {
				return err
			}
			if d.written != nil && p.content == image.Data {
				for at, r := range d.body(p) { // one range at most, as PiecesProved is false
					p.sum = SumOf(s.raw[at:][:r.Len])
				}
			}
		}
	}
	return nil
}

// bring is unpack for an image in a store. All its pieces come together. Where the
// read-back compares the disk with the sum that a piece tells, the bytes are not
// compared with it before. Head and tail are compared in memory at that time. An
// Arriving image has compared them, and the read-back compares the disk with what it
// made of them then.
func (d *diskState) bring(slots []*pieceSlot) error {
	var pieces []image.Stored
	var dst [][]byte
	var compare []bool
	for _, s := range slots {
		for p := range s.pieces() {
			pieces, dst, compare = append(pieces, p.piece.Stored), append(dst, s.raw[p.at:]), append(compare, !d.readsBack(p))
		}
	}
	if len(pieces) > 0 {
		if err := pieces[0].Bring(pieces, func(i int) ([]byte, bool) { return dst[i], compare[i] }); err != nil {
			return err
		}
	}
	if d.written != nil {
		arriving := d.job.Image.(Arriving)
		for _, s := range slots {
			for p := range s.pieces() {
				var ok bool
				if p.sum, ok = arriving.Arrived(p.piece.Stored); !ok {
					return fmt.Errorf("internal check failed: what came for byte %d of the disk was not compared", p.ranges()[0].Off)
				}
			}
		}
	}
	for _, s := range slots { // not earlier, since Bring spoils what lies behind a piece
		for i := range s.parts {
			if p := &s.parts[i]; p.buffered && p.content == image.Zero {
				clear(s.data(p))
			}
		}
	}
	return nil
}

// readsBack reports whether the read-back compares a part.
func (d *diskState) readsBack(p *part) bool {
	return d.opt.Verify == VerifyAll || d.opt.Verify == VerifyWritten && !p.onDisk
}

// writeBody writes what a slot has of the body. Bytes that are neighbours on the
// disk go there by one write.
func (d *diskState) writeBody(s *pieceSlot) error {
	var run image.Range // what is written next, from at on in the slot's buffer
	var at int64
	flush := func() error {
		if run.Len == 0 {
			return nil
		}
		return writeFull(d.job.Target, s.raw[at:][:run.Len], run.Off)
	}
	for i := range s.parts {
		p := &s.parts[i]
		if p.onDisk {
			continue
		}
		for from, r := range d.body(p) {
			switch {
			case !p.buffered:
				if err := d.writeEmpty(p.content, r); err != nil {
					return err
				}
			case run.Len > 0 && run.End() == r.Off && at+run.Len == from:
				run.Len += r.Len
			default:
				if err := flush(); err != nil {
					return err
				}
				run, at = r, from
			}
		}
	}
	return flush()
}

// writeEmpty writes zeros without bytes, and discards what is unused if that is
// wanted.
func (d *diskState) writeEmpty(content image.Content, r image.Range) error {
	switch {
	case content == image.Zero:
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

// wrote notes a part that was written, or did not have to be.
func (d *diskState) wrote(s *pieceSlot, p *part) {
	if p.buffered {
		d.holdBack(s, p)
	}
	rec, n := &d.receipt, d.bodyLen(p)
	switch {
	case p.content == image.Unused:
		rec.Unused += n
	case p.onDisk:
		rec.Skipped += n
	default:
		rec.Written += n
	}
	if p.content == image.Zero {
		rec.Zero += p.n
	}
	d.rememberSum(p)
}

// rememberSum adds a part's hash to those that the read-back must find. It does
// nothing if the read-back compares with the sum that a piece tells.
func (d *diskState) rememberSum(p *part) {
	if d.arrived(p) {
		d.written.add(p.sum)
	}
	if d.written == nil || d.job.Image.PiecesProved() {
		return
	}
	if p.content == image.Zero {
		p.sum = xxh3.Uint128{}
	}
	for _, r := range d.body(p) {
		for off := r.Off; off < r.End(); off += pieceSize - off%pieceSize {
			d.written.add(p.sum)
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

package copier

import (
	"context"
	"fmt"
	"io"
	"time"

	"testbox-imaging/internal/image"
)

// readers is how many reads of a disk are in flight, writers how many writes.
const (
	readers = 4
	writers = 4
)

// Backup reads a disk and gives it to w piece by piece. The caller then closes w.
// The receipt has no BLAKE3, which w makes, and no Image, Disk and Identity, which
// the caller sets. Unreadable sectors become zeros and are listed in the receipt's
// Bad, and the caller must report them. If the disk is failing, Backup ends as soon
// as this is known, and the error matches ErrFailing.
func Backup(ctx context.Context, src Source, w image.Writer, opt SourceOptions) (image.Receipt, error) {
	opt = opt.withDefaults()
	size := src.Size()
	bad, err := newBadList(src, size, opt)
	if err != nil {
		return image.Receipt{}, err
	}
	receipt := image.Receipt{}
	at := int64(0)
	produce := func(s *rawSlot) error {
		if at >= size {
			return io.EOF
		}
		s.off, s.n = at, min(pieceSize, size-at)
		at += s.n
		return nil
	}
	salvager := opt.salvager(src)
	read := func(s *rawSlot) (err error) {
		s.bad, err = salvager.read(s.data(), s.off)
		return err
	}
	encode := func(s *rawSlot) (err error) {
		s.zero = image.IsZero(s.data())
		s.encoded, err = w.Encode(s.encoded[:0], s.data())
		return err
	}
	collect := func(s *rawSlot) error {
		if err := bad.add(s.bad); err != nil {
			return err
		}
		if err := w.Append(s.data(), s.encoded); err != nil {
			return err
		}
		if s.zero {
			receipt.Zero += s.n
		}
		receipt.Read += s.n
		opt.Progress("read", receipt.Read, size)
		return nil
	}
	start := time.Now()
	slots := readers + 3*opt.Workers
	buffer := buffers(slots, pieceSize, opt.alloc)
	ring := newRing(slots, func() *rawSlot { return &rawSlot{raw: buffer()} })
	err = ring.run(ctx, produce, collect, each(readers, read), each(opt.Workers, encode))
	receipt.Bad = bad.ranges
	receipt.Stages = []image.Stage{{Name: "read", Bytes: receipt.Read, Elapsed: time.Since(start)}}
	if err == nil && receipt.Read != size {
		err = fmt.Errorf("%d of the disk's %d bytes were read", receipt.Read, size)
	}
	return receipt, err
}

// rawSlot is a piece of a disk on its way into an image file.
type rawSlot struct {
	off, n  int64
	raw     []byte
	encoded []byte
	zero    bool
	bad     []image.Range
}

func (s *rawSlot) reset() { *s = rawSlot{raw: s.raw, encoded: s.encoded} }

func (s *rawSlot) data() []byte { return s.raw[:s.n] }

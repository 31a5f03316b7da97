package copier

import (
	"context"
	"fmt"
	"time"

	"testbox-imaging/internal/image"
)

// readers is how many reads, and writers how many writes of a disk are in
// flight.
const (
	readers = 4
	writers = 4
)

// Backup reads a disk and gives it, piece by piece, to w, which the caller
// then closes. The receipt lacks BLAKE3, Image, Disk and Identity: the hash is
// w's to make, the rest the caller knows. Unreadable sectors become zeros and
// are in the receipt's Bad; the caller must say so. Of a disk that is failing,
// the error matches ErrFailing, as soon as that is known.
func Backup(ctx context.Context, src Source, w image.Writer, opt Options) (image.Receipt, error) {
	bad, err := newBadList(src, src.Size(), opt)
	if err != nil {
		return image.Receipt{}, err
	}
	opt = opt.withDefaults()
	b := &backup{src: src, w: w, opt: opt, size: src.Size(), bad: bad}
	start := time.Now()
	err = newRing(readers+3*opt.Workers, 0, opt.Alloc).run(ctx, pieces(0, b.size), b.append, each(readers, b.read), each(opt.Workers, b.encode))
	b.receipt.Bad = b.bad.ranges
	b.receipt.Stages = []image.Stage{{Name: "read", Bytes: b.receipt.Read, Elapsed: time.Since(start)}}
	if err == nil && b.receipt.Read != b.size {
		err = fmt.Errorf("%d of the disk's %d bytes were read", b.receipt.Read, b.size)
	}
	return b.receipt, err
}

type backup struct {
	src     Source
	w       image.Writer
	opt     Options
	size    int64
	bad     badList
	receipt image.Receipt
}

func (b *backup) read(s *slot) (err error) {
	s.bad, err = readPiece(b.src, s.data(), s.one[0].Off, b.opt)
	return err
}

func (b *backup) encode(s *slot) (err error) {
	if image.IsZero(s.data()) {
		s.content = image.Zero
	}
	s.aux, err = b.w.Encode(s.aux[:0], s.data())
	return err
}

func (b *backup) append(s *slot) error {
	if err := b.bad.add(s.bad); err != nil {
		return err
	}
	if err := b.w.Append(s.data(), s.aux); err != nil {
		return err
	}
	if s.content == image.Zero {
		b.receipt.Zero += s.n
	}
	b.receipt.Read += s.n
	b.opt.Progress("read", b.receipt.Read, b.size)
	return nil
}

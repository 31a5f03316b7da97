package copier

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// readBack proves that the disk holds what was written. Head and tail are not
// on the disk yet.
func (r *restore) readBack(ctx context.Context, d *diskState) error {
	if d.job.Image.PiecesProved() {
		return r.readBackByName(ctx, d)
	}
	return r.readBackBySum(ctx, d)
}

// readBackByName compares the disk with the sums that the image tells. A piece's
// sum is the name of its chunk in the store.
func (r *restore) readBackByName(ctx context.Context, d *diskState) error {
	c, err := newComparison(ctx, d)
	if err != nil {
		return err
	}
	c.edgesPending, c.onlyWritten = true, r.opt.Verify == VerifyWritten
	return c.pass(ctx, r.ring, "verify "+d.job.Name, func(s *pieceSlot) error {
		for i := range s.parts {
			p := &s.parts[i]
			if len(p.diff) > 0 {
				off := p.ranges()[0].Off
				return notKept(off, p.end()-off)
			}
			if !c.skips(p) {
				d.receipt.Verified += d.bodyLen(p)
			}
		}
		return nil
	})
}

// readBackBySum compares the disk with the sums of what was written.
func (r *restore) readBackBySum(ctx context.Context, d *diskState) error {
	from, to := d.bodyOff(), d.tailOff()
	at := from
	produce := func(s *pieceSlot) error {
		if at >= to {
			return io.EOF
		}
		r := image.Range{Off: at, Len: min(pieceSize-at%pieceSize, to-at)}
		s.add(part{content: image.Data, n: r.Len, single: [1]image.Range{r}, buffered: true})
		at += s.n
		return nil
	}
	read := func(s *pieceSlot) error {
		p := &s.parts[0]
		if err := readFull(d.job.Target, s.data(p), p.single[0].Off); err != nil {
			return err
		}
		p.sum = sumOf(s.data(p))
		return nil
	}
	got := newSums(d.imageSize)
	collect := func(s *pieceSlot) error {
		p := &s.parts[0]
		got.add(p.sum)
		if !got.same(d.written) {
			n := int64(got.group) * pieceSize
			off := (p.single[0].Off / n) * n
			return notKept(off, p.end()-off)
		}
		d.receipt.Verified += p.n
		r.opt.Progress("verify "+d.job.Name, d.receipt.Verified, to-from)
		return nil
	}
	if err := r.ring.run(ctx, produce, collect, each(readers, read)); err != nil {
		return err
	}
	d.written = nil
	return nil
}

// notKept says that a disk gave back something else than was written.
func notKept(off, n int64) error {
	return fmt.Errorf("the %d bytes at %d read back otherwise than they were written: "+
		"either something else wrote to the disk at the same time, or the disk or its controller is broken", n, off)
}

// maxSums bounds the memory of sums, at 16 bytes each.
const maxSums = 1 << 20

// sums has hashes of what was written, so that the read-back can be compared with
// them and say which place differs. It has a hash for each piece. On disks beyond
// 1 TiB it has one for each group of pieces.
type sums struct {
	group int // number of pieces in one entry, a power of two
	n     int // number of pieces added
	list  []xxh3.Uint128
}

func newSums(size int64) *sums {
	s := &sums{group: 1}
	for size/image.PieceSize/int64(s.group) > maxSums {
		s.group *= 2
	}
	return s
}

// sumOf is the hash of a piece. The hash of zeros is zero, whatever their length.
func sumOf(b []byte) xxh3.Uint128 {
	if image.IsZero(b) {
		return xxh3.Uint128{}
	}
	return xxh3.Hash128(b)
}

// add adds the hash of the next piece.
func (s *sums) add(h xxh3.Uint128) {
	if s.n%s.group == 0 {
		s.list = append(s.list, h)
	} else {
		last := &s.list[len(s.list)-1]
		var b [32]byte
		binary.LittleEndian.PutUint64(b[0:], last.Hi)
		binary.LittleEndian.PutUint64(b[8:], last.Lo)
		binary.LittleEndian.PutUint64(b[16:], h.Hi)
		binary.LittleEndian.PutUint64(b[24:], h.Lo)
		*last = xxh3.Hash128(b[:])
	}
	s.n++
}

// same reports whether the last entry equals the entry of want at the same place.
// As long as the entry lacks pieces of its group, same is true.
func (s *sums) same(want *sums) bool {
	if s.n > want.n {
		return false
	}
	if s.n%s.group != 0 && s.n != want.n {
		return true
	}
	return s.list[len(s.list)-1] == want.list[len(s.list)-1]
}

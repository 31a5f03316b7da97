package copier

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/image"
)

const (
	// zeroRun bounds how many bytes of zeros go as one slot: long enough for a
	// disk to zero them in one command, short enough to stop soon.
	zeroRun = 64 << 20
	// unusedRun is the same for unused bytes.
	unusedRun = 1 << 30
)

// zeros is read only.
var zeros = make([]byte, pieceSize)

// stream reads an image for a pipeline: produce checks that the pieces leave
// nothing out and knows which of them are on the disk already; decode unpacks;
// and hash, in order, proves the whole of an image whose pieces do not prove
// themselves.
type stream struct {
	*disk
	r     image.Reader
	join  bool   // make runs of zero pieces
	holes *holes // of the disk, to compare with zeros; nil: it is read
	cover cover
	end   error         // what Next ended with
	what  image.Content // Zero or Unused
	rest  image.Range   // of the last piece, what was not given out: it is of what
	ahead item          // given out too early, if its Len is not 0
	count int           // of items, but for unused ones
	sum   hash.Hash
}

// item is a piece, or a part of one without data.
type item struct {
	image.Piece
	at    image.Range // of one without data, in the place of Ranges
	right bool        // it is on the disk already
}

func openStream(d *disk, join bool) (*stream, error) {
	r, err := d.Open()
	if err != nil {
		return nil, err
	}
	return &stream{disk: d, r: r, join: join, cover: cover{size: d.RawSize}, sum: blake3.New()}, nil
}

func (st *stream) close() {
	if c, ok := st.r.(io.Closer); ok {
		c.Close()
	}
}

// next gives the next piece, and checks what the reader promised.
func (st *stream) next() (image.Piece, error) {
	if st.end != nil {
		return image.Piece{}, st.end
	}
	p, err := st.r.Next()
	switch {
	case err == io.EOF && !st.cover.whole():
		err = fmt.Errorf("the image ends at byte %d of %d", st.cover.to, st.RawSize)
	case err == nil:
		err = st.check(p)
	}
	st.end = err
	return p, err
}

func (st *stream) check(p image.Piece) error {
	if !st.cover.add(p.Ranges) || p.Len != total(p.Ranges) {
		return fmt.Errorf("the image has a piece of %d bytes at %v where one at %d was due, of %d in all", p.Len, p.Ranges, st.cover.to, st.RawSize)
	}
	isData := p.Content == image.Data
	if p.Content > image.Unused || isData != (p.Decode != nil) || isData && p.Len > pieceSize || !isData && len(p.Ranges) != 1 {
		return fmt.Errorf("the image has a piece of %d bytes of %v in %d ranges", p.Len, p.Content, len(p.Ranges))
	}
	switch r := p.Ranges[0]; {
	case st.stored() && isData && p.Sum == [32]byte{}:
		return errors.New("the image has a piece that does not tell its sum")
	case !st.stored() && (len(p.Ranges) != 1 || r.Off%pieceSize != 0 || r.Len%pieceSize != 0 && r.End() != st.RawSize):
		return fmt.Errorf("the image has a piece of %d bytes at %d", r.Len, r.Off)
	}
	return nil
}

// item gives the next piece; those without data in parts, cut where all passes
// cut them.
func (st *stream) item() (item, error) {
	if it := st.ahead; it.Len > 0 {
		st.ahead = item{}
		return it, nil
	}
	if st.rest.Len == 0 {
		p, err := st.next()
		if err != nil {
			return item{}, err
		}
		if p.Content == image.Data {
			return item{Piece: p, right: st.isRight()}, nil
		}
		st.rest, st.what = p.Ranges[0], p.Content
		if st.opt.Unused == UnusedZero {
			st.what = image.Zero
		}
	}
	return st.part(), nil
}

// part gives the next part of rest.
func (st *stream) part() item {
	run := int64(pieceSize)
	if st.what == image.Unused {
		run = unusedRun
	}
	n := min(st.rest.Len, run-st.rest.Off%run)
	it := item{Piece: image.Piece{Content: st.what, Len: n}, at: image.Range{Off: st.rest.Off, Len: n}}
	st.rest = image.Range{Off: st.rest.Off + n, Len: st.rest.Len - n}
	if st.what != image.Unused {
		it.right = st.isRight()
	}
	return it
}

// isRight counts the items, and says whether this one is on the disk.
func (st *stream) isRight() bool {
	st.count++
	return st.right.has(st.count - 1)
}

// produce fills a slot with the next item, or with a run of zeros that ends at
// a multiple of zeroRun or before another item. Where the disk is known to have
// zeros too, the run ends at a multiple of unusedRun.
func (st *stream) produce(s *slot) error {
	it, err := st.item()
	if err != nil {
		return err
	}
	s.skip, s.items = it.right, 1
	if it.Content == image.Data {
		s.piece, s.ranges, s.n = it.Piece, it.Ranges, it.Len
		return nil
	}
	s.at(it.Content, it.at)
	limit, run := int64(math.MaxInt64), int64(zeroRun)
	if st.holes != nil && s.content == image.Zero {
		limit, run = st.holes.end(it.at.Off), unusedRun
		s.hole = limit >= s.end()
	}
	for (st.join || s.hole) && s.content == image.Zero && s.end()%run != 0 {
		it, err := st.item()
		if err == io.EOF {
			return nil // and again at the next call
		}
		if err != nil {
			return err
		}
		if it.Content != image.Zero || it.right != s.skip || it.at.Off != s.end() || it.at.End() > limit {
			st.ahead = it
			return nil
		}
		s.at(image.Zero, image.Range{Off: s.one[0].Off, Len: s.n + it.Len})
		s.items++
	}
	return nil
}

// decode unpacks a slot.
func (st *stream) decode(s *slot) error {
	if s.content != image.Data {
		return nil
	}
	if err := s.piece.Decode(s.raw); err != nil {
		return err
	}
	if !st.stored() && image.IsZero(s.data()) {
		s.content = image.Zero
	}
	return nil
}

// hash takes the slots in order.
func (st *stream) hash(s *slot) {
	switch {
	case st.stored():
		return
	case s.content == image.Data:
		st.sum.Write(s.data())
		return
	}
	for left := s.n; left > 0; left -= pieceSize {
		st.sum.Write(zeros[:min(left, pieceSize)])
	}
}

// finish gives the receipt the hash of the image's bytes, which must be the
// expected one.
func (st *stream) finish(r *image.Receipt) error {
	if st.stored() {
		r.Root = st.Root.String()
		return nil
	}
	r.BLAKE3 = hex.EncodeToString(st.sum.Sum(nil))
	if st.BLAKE3 != "" && r.BLAKE3 != st.BLAKE3 {
		return fmt.Errorf("the image's bytes have the BLAKE3 %s, its sidecar says %s", r.BLAKE3, st.BLAKE3)
	}
	return nil
}

package copier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

const (
	// zeroRun bounds how many bytes of zeros one part stands for. It is large
	// enough for the disk to clear many bytes with one command, and small
	// enough for the action to stop soon after an error.
	zeroRun = 64 << 20
	// unusedRun bounds how many unused bytes one part stands for.
	unusedRun = 1 << 30
)

// zeros is a piece of zeros. Nobody may write to it.
var zeros = make([]byte, pieceSize)

// stream reads an image for one pass. Its method produce checks that the pieces
// leave nothing out, and marks those that are on the disk already. decode unpacks
// a piece. addHash gets all pieces in order, and hashes an image whose pieces do
// not tell their own sums.
type stream struct {
	image   Image
	r       image.Reader
	onDisk  bits                 // which items are on the disk
	zeroes  bool                 // treat unused bytes as zeros
	holes   *holes               // holes of the disk, which equal zeros without a read, or nil if the disk is read everywhere
	gate    func(to int64) error // called before a part is given out, with the bytes of the image up to its end (nil means no call)
	buffers func(*part) bool     // whether the pass needs a part's bytes, those of the image or those of the disk
	cover   cover
	end     error         // what the reader's Next ended with
	run     image.Range   // rest of a zero or unused piece, handed out in parts
	runKind image.Content // Zero or Unused, for run
	ahead   part          // a part that was read ahead and comes next, if its n is not 0
	region  int           // region in which the last item began, without unused ones
	count   int           // number of items of that region so far, without unused ones
	to      int64         // bytes of all items so far
	hash    hash.Hash     // of all bytes, or nil if the pieces tell their sums
}

// item is a piece of data, or a part of a piece without data.
type item struct {
	image.Piece
	at     image.Range // place of an item without data, used instead of Ranges
	onDisk bool
}

func openStream(ctx context.Context, d *diskState) (*stream, error) {
	r, err := d.job.Image.Open(ctx)
	if err != nil {
		return nil, err
	}
	st := &stream{image: d.job.Image, r: r, onDisk: d.onDisk, zeroes: d.opt.Unused == UnusedZero, cover: coverOf(d.job.Image)}
	if !d.job.Image.PiecesProved() {
		st.hash = blake3.New()
	}
	return st, nil
}

func (st *stream) close() {
	if c, ok := st.r.(io.Closer); ok {
		c.Close()
	}
}

// produce fills a slot with the next items, as long as there is room in it. It
// joins zero items that need no bytes to one part, which ends at a multiple of
// zeroRun. Where the disk is known to have zeros too, the part ends at a region's
// end, since bits has the items of each region by themselves.
func (st *stream) produce(s *pieceSlot) error {
	for {
		p, err := st.part()
		if err == io.EOF && len(s.parts) > 0 {
			return nil // and again at the next call
		}
		if err != nil {
			return err
		}
		run := int64(zeroRun)
		if p.hole {
			run = chunk.RegionSize
		}
		if s.extend(&p, run) {
			continue
		}
		if len(s.parts) > 0 && (st.single(s) || !s.takes(&p)) {
			st.ahead = p
			return nil
		}
		s.add(p)
	}
}

// single reports whether a slot is full although there is room in it. A piece of
// an image that tells no sums is a slot by itself, since its place has a hash in
// sums. So is a long run of zeros that will be written, so that an error stops
// the action soon.
func (st *stream) single(s *pieceSlot) bool {
	last := &s.parts[len(s.parts)-1]
	return !st.image.PiecesProved() || last.content == image.Zero && !last.buffered && !last.onDisk && !last.hole
}

// part gives the next part of the image, which is one item.
func (st *stream) part() (part, error) {
	if p := st.ahead; p.n > 0 {
		st.ahead = part{}
		return p, nil
	}
	it, err := st.item()
	if err != nil {
		return part{}, err
	}
	if st.to += it.Len; st.gate != nil {
		if err := st.gate(st.to); err != nil {
			return part{}, err
		}
	}
	p := part{content: it.Content, n: it.Len, items: 1, onDisk: it.onDisk}
	if it.Content == image.Data {
		p.piece = it.Piece
	} else {
		p.single[0] = it.at
		p.hole = st.holes != nil && it.Content == image.Zero && st.holes.end(it.at.Off) >= it.at.End()
	}
	p.buffered = st.buffers(&p)
	return p, nil
}

// item gives the next item of the image. That is a whole piece of data, or a part
// of a run of zeros or unused bytes. Where a part ends depends only on its place
// on the disk. So every pass over the image has the same items in each region, and
// what one pass notes about them in bits is valid for the next, even if that begins
// with another region.
func (st *stream) item() (item, error) {
	if st.run.Len == 0 {
		p, err := st.next()
		if err != nil {
			return item{}, err
		}
		if p.Content == image.Data {
			return item{Piece: p, onDisk: st.isOnDisk(p.Ranges[0].Off)}, nil
		}
		st.run, st.runKind = p.Ranges[0], p.Content
		if st.zeroes {
			st.runKind = image.Zero
		}
	}
	return st.cutRun(), nil
}

// cutRun cuts the next item off run, the rest of a piece without data.
func (st *stream) cutRun() item {
	most := int64(pieceSize)
	if st.runKind == image.Unused {
		most = unusedRun
	}
	n := min(st.run.Len, most-st.run.Off%most)
	it := item{Piece: image.Piece{Content: st.runKind, Len: n}, at: image.Range{Off: st.run.Off, Len: n}}
	st.run = image.Range{Off: st.run.Off + n, Len: st.run.Len - n}
	if st.runKind != image.Unused {
		it.onDisk = st.isOnDisk(it.at.Off)
	}
	return it
}

// isOnDisk counts one more item, which begins at off, and reports whether it is on
// the disk.
func (st *stream) isOnDisk(off int64) bool {
	if r := regionOf(off); r != st.region {
		st.region, st.count = r, 0
	}
	st.count++
	return st.onDisk.has(st.region, st.count-1)
}

// next gives the next piece, and checks that it is as image.Reader promises.
func (st *stream) next() (image.Piece, error) {
	if st.end != nil {
		return image.Piece{}, st.end
	}
	p, err := st.r.Next()
	switch {
	case err == io.EOF && !st.cover.complete():
		err = st.cover.cutOff()
	case err == nil:
		err = st.check(p)
	}
	st.end = err
	return p, err
}

func (st *stream) check(p image.Piece) error {
	if !st.cover.add(p.Ranges) || p.Len != total(p.Ranges) {
		due, _ := st.cover.next()
		return fmt.Errorf("the image has a piece of %d bytes at %v where one at %d was due, of %d in all",
			p.Len, p.Ranges, due, st.cover.size)
	}
	isData := p.Content == image.Data
	if p.Content > image.Unused || isData != (p.Decode != nil) || isData && p.Len > pieceSize || !isData && len(p.Ranges) != 1 {
		return fmt.Errorf("the image has a piece of %d bytes of %v in %d ranges", p.Len, p.Content, len(p.Ranges))
	}
	if st.image.PiecesProved() {
		if isData && (p.Sum == [32]byte{} || p.Stored == nil) {
			return errors.New("the image has a piece that does not tell its sum, or that cannot be checked by itself")
		}
		return nil
	}
	if r := p.Ranges[0]; len(p.Ranges) != 1 || r.Off%pieceSize != 0 || r.Len%pieceSize != 0 && r.End() != st.cover.size {
		return fmt.Errorf("the image has a piece of %d bytes at %d", r.Len, r.Off)
	}
	return nil
}

// decode brings a part's bytes into the slot's buffer for the image. It spoils
// what the buffer has behind them, so the parts are decoded in their order.
func (st *stream) decode(s *pieceSlot, p *part) error {
	if p.content != image.Data {
		clear(s.data(p))
		return nil
	}
	if err := p.piece.Decode(s.raw[p.at:]); err != nil {
		return err
	}
	if !st.image.PiecesProved() && image.IsZero(s.data(p)) {
		p.content, p.buffered = image.Zero, false // such an image does not tell which pieces are zeros
	}
	return nil
}

// addHash adds a slot to the hash of the image. It must get the slots in order.
func (st *stream) addHash(s *pieceSlot) {
	if st.hash == nil {
		return
	}
	for i := range s.parts {
		p := &s.parts[i]
		if p.content == image.Data {
			st.hash.Write(s.data(p))
			continue
		}
		for left := p.n; left > 0; left -= pieceSize {
			st.hash.Write(zeros[:min(left, pieceSize)])
		}
	}
}

// finish ends a pass over the whole image. It proves the image, and writes into
// the receipt what the image is known by.
func (st *stream) finish(r *image.Receipt) error {
	sum := ""
	if st.hash != nil {
		if c, ok := st.image.(*cutImage); ok {
			c.hashRest(st.hash)
		}
		sum = hex.EncodeToString(st.hash.Sum(nil))
	}
	return st.image.Prove(sum, r)
}

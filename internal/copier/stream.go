package copier

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

const (
	// zeroRun bounds how many bytes of zeros one slot stands for. It is large
	// enough for the disk to clear many bytes with one command, and small
	// enough for the action to stop soon after an error.
	zeroRun = 64 << 20
	// unusedRun bounds how many unused bytes one slot stands for.
	unusedRun = 1 << 30
)

// zeros is a piece of zeros. Nobody may write to it.
var zeros = make([]byte, pieceSize)

// pieceSlot is a piece of an image that is read, or a run of zeros or of unused
// bytes.
type pieceSlot struct {
	raw     []byte         // buffer for the image's bytes, one piece long
	disk    []byte         // buffer for the disk's bytes, one piece long, or nil if no pass of the ring compares
	n       int64          // length in bytes, more than a piece only for Zero and Unused
	content image.Content  // Data that turns out to be zeros becomes Zero
	ranges  []image.Range  // where the slot lies on the disk, in the order of its bytes
	single  [1]image.Range // backing array of ranges for a slot of one run
	piece   image.Piece    // a piece of data before it is decoded
	onDisk  bool           // the comparison found these bytes on the disk
	hole    bool           // the disk is known to have zeros here, so it is not read
	items   int            // how many items of the image the slot is made of
	sum     xxh3.Uint128   // hash of the part of the piece that is neither head nor tail

	runs  []image.Range // runs of the disk that are compared
	reads []image.Range // reads of the disk that contain the runs
	bad   []image.Range // ranges of the disk that cannot be read
	diff  []image.Range // ranges where disk and image differ
}

// newPieceRing makes a ring of pieceSlots. They have a second buffer if disks
// are compared.
func newPieceRing(slots int, compares bool, opt Options) *ring[*pieceSlot] {
	size := pieceSize
	if compares {
		size *= 2
	}
	buffer := buffers(slots, size, opt.alloc)
	return newRing(slots, func() *pieceSlot {
		b := buffer()
		return &pieceSlot{raw: b[:pieceSize:pieceSize], disk: b[pieceSize:]}
	})
}

func (s *pieceSlot) reset() {
	*s = pieceSlot{raw: s.raw, disk: s.disk, runs: s.runs[:0], reads: s.reads[:0], bad: s.bad[:0], diff: s.diff[:0]}
}

// data is the slot's bytes. It must not be called for a run of zeros, which has
// no bytes in memory.
func (s *pieceSlot) data() []byte { return s.raw[:s.n] }

// setRun makes the slot a single run.
func (s *pieceSlot) setRun(c image.Content, r image.Range) {
	s.content, s.n, s.single[0] = c, r.Len, r
	s.ranges = s.single[:]
}

// end is the first byte of the disk after the slot's last range.
func (s *pieceSlot) end() int64 { return s.ranges[len(s.ranges)-1].End() }

// stream reads an image for one pass. Its method produce checks that the pieces
// leave nothing out, and marks those that are on the disk already. decode unpacks
// a piece. addHash gets all pieces in order, and hashes an image whose pieces do
// not tell their own sums.
type stream struct {
	image     Image
	r         image.Reader
	onDisk    bits   // which items are on the disk
	zeroes    bool   // treat unused bytes as zeros
	joinZeros bool   // join zero pieces into longer runs
	holes     *holes // holes of the disk, which equal zeros without a read, or nil if the disk is read everywhere
	cover     cover
	end       error         // what the reader's Next ended with
	run       image.Range   // rest of a zero or unused piece, handed out in parts
	runKind   image.Content // Zero or Unused, for run
	ahead     item          // an item that was read ahead and comes next, if its Len is not 0
	count     int           // number of items so far, without unused ones
	hash      hash.Hash     // of all bytes, or nil if the pieces tell their sums
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
	st := &stream{image: d.job.Image, r: r, onDisk: d.onDisk, zeroes: d.opt.Unused == UnusedZero, cover: cover{size: d.imageSize}}
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

// produce fills a slot with the next item. It may join several zero items to one
// run, which ends at a multiple of zeroRun or before an item of another kind.
// Where the disk is known to have zeros too, the run ends at a multiple of
// unusedRun.
func (st *stream) produce(s *pieceSlot) error {
	it, err := st.item()
	if err != nil {
		return err
	}
	s.onDisk, s.items = it.onDisk, 1
	if it.Content == image.Data {
		s.piece, s.ranges, s.n = it.Piece, it.Ranges, it.Len
		return nil
	}
	s.setRun(it.Content, it.at)
	limit, run := int64(math.MaxInt64), int64(zeroRun)
	if st.holes != nil && s.content == image.Zero {
		limit, run = st.holes.end(it.at.Off), unusedRun
		s.hole = limit >= s.end()
	}
	for (st.joinZeros || s.hole) && s.content == image.Zero && s.end()%run != 0 {
		it, err := st.item()
		if err == io.EOF {
			return nil // and again at the next call
		}
		if err != nil {
			return err
		}
		if it.Content != image.Zero || it.onDisk != s.onDisk || it.at.Off != s.end() || it.at.End() > limit {
			st.ahead = it
			return nil
		}
		s.setRun(image.Zero, image.Range{Off: s.single[0].Off, Len: s.n + it.Len})
		s.items++
	}
	return nil
}

// item gives the next item of the image. That is a whole piece of data, or a part
// of a run of zeros or unused bytes. Where a part ends depends only on its place
// on the disk. So every pass over the image has the same items, and what one pass
// notes about them in bits is valid for the next.
func (st *stream) item() (item, error) {
	if it := st.ahead; it.Len > 0 {
		st.ahead = item{}
		return it, nil
	}
	if st.run.Len == 0 {
		p, err := st.next()
		if err != nil {
			return item{}, err
		}
		if p.Content == image.Data {
			return item{Piece: p, onDisk: st.isOnDisk()}, nil
		}
		st.run, st.runKind = p.Ranges[0], p.Content
		if st.zeroes {
			st.runKind = image.Zero
		}
	}
	return st.part(), nil
}

// part cuts the next item off run, the rest of a piece without data.
func (st *stream) part() item {
	most := int64(pieceSize)
	if st.runKind == image.Unused {
		most = unusedRun
	}
	n := min(st.run.Len, most-st.run.Off%most)
	it := item{Piece: image.Piece{Content: st.runKind, Len: n}, at: image.Range{Off: st.run.Off, Len: n}}
	st.run = image.Range{Off: st.run.Off + n, Len: st.run.Len - n}
	if st.runKind != image.Unused {
		it.onDisk = st.isOnDisk()
	}
	return it
}

// isOnDisk counts one more item, and reports whether it is on the disk.
func (st *stream) isOnDisk() bool {
	st.count++
	return st.onDisk.has(st.count - 1)
}

// next gives the next piece, and checks that it is as image.Reader promises.
func (st *stream) next() (image.Piece, error) {
	if st.end != nil {
		return image.Piece{}, st.end
	}
	p, err := st.r.Next()
	switch {
	case err == io.EOF && st.cover.to != st.cover.size:
		err = fmt.Errorf("the image ends at byte %d of %d", st.cover.to, st.cover.size)
	case err == nil:
		err = st.check(p)
	}
	st.end = err
	return p, err
}

func (st *stream) check(p image.Piece) error {
	if !st.cover.add(p.Ranges) || p.Len != total(p.Ranges) {
		return fmt.Errorf("the image has a piece of %d bytes at %v where one at %d was due, of %d in all",
			p.Len, p.Ranges, st.cover.to, st.cover.size)
	}
	isData := p.Content == image.Data
	if p.Content > image.Unused || isData != (p.Decode != nil) || isData && p.Len > pieceSize || !isData && len(p.Ranges) != 1 {
		return fmt.Errorf("the image has a piece of %d bytes of %v in %d ranges", p.Len, p.Content, len(p.Ranges))
	}
	if st.image.PiecesProved() {
		if isData && (p.Sum == [32]byte{} || p.Check == nil) {
			return errors.New("the image has a piece that does not tell its sum, or that cannot be checked by itself")
		}
		return nil
	}
	if r := p.Ranges[0]; len(p.Ranges) != 1 || r.Off%pieceSize != 0 || r.Len%pieceSize != 0 && r.End() != st.cover.size {
		return fmt.Errorf("the image has a piece of %d bytes at %d", r.Len, r.Off)
	}
	return nil
}

// decode unpacks the slot's piece into raw.
func (st *stream) decode(s *pieceSlot) error {
	if s.content != image.Data {
		return nil
	}
	if err := s.piece.Decode(s.raw); err != nil {
		return err
	}
	if !st.image.PiecesProved() && image.IsZero(s.data()) {
		s.content = image.Zero // such an image does not tell which pieces are zeros
	}
	return nil
}

// addHash adds a slot to the hash of the image. It must get the slots in order.
func (st *stream) addHash(s *pieceSlot) {
	switch {
	case st.hash == nil:
		return
	case s.content == image.Data:
		st.hash.Write(s.data())
		return
	}
	for left := s.n; left > 0; left -= pieceSize {
		st.hash.Write(zeros[:min(left, pieceSize)])
	}
}

// finish ends a pass over the whole image. It proves the image, and writes into
// the receipt what the image is known by.
func (st *stream) finish(r *image.Receipt) error {
	sum := ""
	if st.hash != nil {
		sum = hex.EncodeToString(st.hash.Sum(nil))
	}
	return st.image.Prove(sum, r)
}

// cover checks that the ranges of an image's pieces cover the disk, each byte
// once, in the order that image.Reader promises.
type cover struct {
	size  int64         // of the disk
	to    int64         // every byte before it is covered
	ahead []image.Range // ranges behind to that are covered, in order
}

// add adds a piece's ranges. It returns false if they are out of order, overlap
// others or lie outside of the disk.
func (c *cover) add(ranges []image.Range) bool {
	if len(ranges) == 0 || ranges[0].Off != c.to {
		return false
	}
	at := c.to
	for _, r := range ranges {
		if r.Off < at || r.Len <= 0 || r.Len > c.size-r.Off || !c.insert(r) {
			return false
		}
		at = r.End()
	}
	n := 0
	for n < len(c.ahead) && c.ahead[n].Off == c.to {
		c.to = c.ahead[n].End()
		n++
	}
	c.ahead = slices.Delete(c.ahead, 0, n)
	return true
}

func (c *cover) insert(r image.Range) bool {
	i, _ := slices.BinarySearchFunc(c.ahead, r.Off, func(a image.Range, off int64) int { return cmp.Compare(a.Off, off) })
	if i > 0 && c.ahead[i-1].End() > r.Off || i < len(c.ahead) && c.ahead[i].Off < r.End() {
		return false
	}
	c.ahead = slices.Insert(c.ahead, i, r)
	return true
}

// bits has a flag for each item of an image, in the order of the items.
type bits struct {
	n    int
	word []uint64
}

func (b *bits) add(set bool) {
	if b.n%64 == 0 {
		b.word = append(b.word, 0)
	}
	if set {
		b.word[b.n/64] |= 1 << (b.n % 64)
	}
	b.n++
}

// has gives flag i. It is false for flags that were never added.
func (b *bits) has(i int) bool { return i < b.n && b.word[i/64]>>(i%64)&1 == 1 }

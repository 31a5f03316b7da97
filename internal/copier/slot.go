package copier

import (
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

const pieceSize = image.PieceSize

// slot is what goes through a pipeline in one go: a piece of an image, a run
// of its zeros, a window of a disk that is read, or a chunk of it.
type slot struct {
	seq  int    // order of produce
	raw  []byte // a piece long: the image's bytes
	aux  []byte // a second buffer, for passes that need one: the disk's bytes, or the stored form
	n    int64  // bytes; more than a piece only if they are not Data
	bad  []image.Range
	diff []image.Range // where disk and image differ

	// Of an image that is read.
	content image.Content  // Data that turns out to be zeros becomes Zero
	ranges  []image.Range  // where it lies on the disk, in order
	one     [1]image.Range // behind ranges, if there is one that no piece has
	piece   image.Piece    // still to be decoded
	skip    bool           // found right on the disk
	hole    bool           // the disk has zeros there, without reading it
	items   int            // of the image that the slot is made of
	sum     xxh3.Uint128   // of the part of the piece that is neither head nor tail

	// Of an image that is made.
	win   window
	chunk object.Object
	known bool        // the store has the chunk, or an earlier slot brings it
	again bool        // an earlier slot brings the chunk too
	page  *chunk.Page // of the region that ends here; the slot is then nothing else
}

// reset empties a slot, but for its memory.
func (s *slot) reset(seq int) {
	*s = slot{seq: seq, raw: s.raw, aux: s.aux, bad: s.bad[:0], diff: s.diff[:0], win: s.win.empty()}
}

// data is the slot's bytes; not for a run of zeros.
func (s *slot) data() []byte { return s.raw[:s.n] }

// at makes the slot a single run.
func (s *slot) at(c image.Content, r image.Range) {
	s.content, s.n, s.one[0] = c, r.Len, r
	s.ranges = s.one[:]
}

// end is the first byte of the disk after the slot's.
func (s *slot) end() int64 { return s.ranges[len(s.ranges)-1].End() }

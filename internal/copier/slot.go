package copier

import (
	"iter"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// pieceSlot is some consecutive items of an image. They go through a pipeline
// together, since the chunks of a store are small, and a disk is fast only at
// long reads and writes.
type pieceSlot struct {
	raw   []byte // buffer for the image's bytes, one piece long, or nil if no pass of the ring needs it
	disk  []byte // buffer for the disk's bytes, one piece long, or nil if no pass of the ring needs it
	parts []part // in the order of the image
	n     int64  // bytes of the disk that the parts stand for

	filled int64 // how much of the buffers is given to parts
	end    int64 // where on the disk the last part with a place in the buffers ends

	runs  []image.Range // runs of the disk that are read
	reads []image.Range // reads of the disk that contain the runs
	early bool          // the disk was read while other parts of it were still written
}

// part is a piece of data, or a run of zeros or of unused bytes.
type part struct {
	content  image.Content  // Data that turns out to be zeros becomes Zero
	n        int64          // length in bytes
	single   [1]image.Range // place of a part without data
	piece    image.Piece    // a piece of data before it is decoded
	items    int            // how many items of the image the part is made of
	onDisk   bool           // the comparison found these bytes on the disk
	blank    bool           // the comparison found zeros on the disk, and the image has other bytes
	hole     bool           // the disk is known to have zeros here, so it is not read
	buffered bool           // the bytes have a place in the slot's buffers
	at       int64          // where in the buffers the bytes begin, one range after the other
	sum      xxh3.Uint128   // hash of the part of a piece that is neither head nor tail
	bad      []image.Range  // ranges of the disk that cannot be read
	diff     []image.Range  // ranges where disk and image differ
}

const (
	// shortZeros bounds a run of zeros that is written like data, so that one
	// write takes what lies before and behind it too.
	shortZeros = 64 << 10
	// maxParts bounds the parts of a slot, of which many may take no room.
	maxParts = 1024
)

// newPieceRing makes a ring of pieceSlots. raw and disk say which buffers they
// have.
func newPieceRing(slots int, raw, disk bool, opt Options) *ring[*pieceSlot] {
	size := 0
	for _, has := range []bool{raw, disk} {
		if has {
			size += pieceSize
		}
	}
	buffer := buffers(slots, size, opt.alloc)
	return newRing(slots, func() *pieceSlot {
		b, s := buffer(), new(pieceSlot)
		if raw {
			s.raw, b = b[:pieceSize:pieceSize], b[pieceSize:]
		}
		if disk {
			s.disk = b
		}
		return s
	})
}

func (s *pieceSlot) reset() {
	*s = pieceSlot{raw: s.raw, disk: s.disk, parts: s.parts[:0], runs: s.runs[:0], reads: s.reads[:0]}
}

// takes reports whether there is room for one more part. The bytes of a slot are
// in the order of the disk, and may fill a buffer.
func (s *pieceSlot) takes(p *part) bool {
	if len(s.parts) == maxParts {
		return false
	}
	return !p.buffered || s.filled+p.n <= pieceSize && p.ranges()[0].Off >= s.end
}

// add adds a part.
func (s *pieceSlot) add(p part) {
	if p.buffered {
		p.at = s.filled
		s.filled += p.n
		s.end = p.end()
	}
	s.n += p.n
	s.parts = append(s.parts, p)
}

// extend makes the last part longer by p, if both are one run of zeros that need
// no place in the buffers. limit is where such a part must end at the latest.
func (s *pieceSlot) extend(p *part, limit int64) bool {
	if len(s.parts) == 0 {
		return false
	}
	last := &s.parts[len(s.parts)-1]
	run := func(p *part) bool { return p.content == image.Zero && !p.buffered }
	if !run(last) || !run(p) || last.onDisk != p.onDisk || last.hole != p.hole || last.end() != p.single[0].Off || last.end()%limit == 0 {
		return false
	}
	last.n += p.n
	last.single[0].Len = last.n
	last.items += p.items
	s.n += p.n
	return true
}

// pieces are the parts that are pieces of data with a place in the buffers.
func (s *pieceSlot) pieces() iter.Seq[*part] {
	return func(yield func(*part) bool) {
		for i := range s.parts {
			if p := &s.parts[i]; p.buffered && p.content == image.Data && !yield(p) {
				return
			}
		}
	}
}

// ranges are the places of the bytes on the disk, in the order of the bytes.
func (p *part) ranges() []image.Range {
	if p.piece.Decode != nil {
		return p.piece.Ranges
	}
	return p.single[:]
}

// end is the first byte of the disk after the part's last range.
func (p *part) end() int64 {
	r := p.ranges()
	return r[len(r)-1].End()
}

// data is the part's bytes in the slot's buffer for the image.
func (s *pieceSlot) data(p *part) []byte { return s.raw[p.at:][:p.n] }

// onDisk is the part's bytes in the slot's buffer for the disk.
func (s *pieceSlot) onDisk(p *part) []byte { return s.disk[p.at:][:p.n] }

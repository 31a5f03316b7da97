package copier

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// maxSums bounds the memory of sums, at 16 bytes each.
const maxSums = 1 << 20

// sums remembers what was written, so that the read-back can be compared with
// it and say where it differs: a hash for each piece, or on disks beyond 1 TiB
// for each group of pieces.
type sums struct {
	group int // pieces of one entry, a power of two
	n     int // pieces added
	list  []xxh3.Uint128
}

func newSums(size int64) *sums {
	s := &sums{group: 1}
	for size/image.PieceSize/int64(s.group) > maxSums {
		s.group *= 2
	}
	return s
}

// sumOf is the hash of a piece. Zeros, of any length, have the zero hash.
func sumOf(b []byte) xxh3.Uint128 {
	if image.IsZero(b) {
		return xxh3.Uint128{}
	}
	return xxh3.Hash128(b)
}

// add takes the next piece's hash.
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

// same reports whether the entry just completed by add is equal to the one of
// want; while an entry is not complete it is.
func (s *sums) same(want *sums) bool {
	if s.n > want.n {
		return false
	}
	if s.n%s.group != 0 && s.n != want.n {
		return true
	}
	return s.list[len(s.list)-1] == want.list[len(s.list)-1]
}

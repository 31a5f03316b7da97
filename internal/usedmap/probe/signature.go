package probe

import (
	"encoding/binary"
	"math/bits"
)

// signature describes one signature, by which a kind of volume is recognized.
type signature struct {
	name  string
	start []place  // where the structure with the magic may be
	at    int      // offset of the magic in the structure
	magic []string // the structure has one of these (nil means that check alone decides)
	size  int      // how many bytes of the structure check needs

	// check looks at other fields of the structure. nil means that the magic is
	// enough. A magic of two bytes is often found in random bytes and in other
	// file systems. Then only the check keeps healthy volumes from being in
	// doubt.
	check func(s structure) bool

	// unless is the name of another signature. If that one was found, this one
	// does not count, since volumes of that kind can have it too.
	unless string

	// find gives the offset of the magic, or -1. It is set if the fields above
	// cannot describe the signature.
	find func(w *window) (int64, error)
}

// place is an offset in a volume. With align 0 it counts from the start. Otherwise
// it counts back from the volume's size, rounded down to align, a power of two.
type place struct{ off, align int64 }

func (p place) of(size int64) int64 {
	if p.align == 0 {
		return p.off
	}
	return size&^(p.align-1) - p.off
}

// at gives the places at these offsets from the start.
func at(offs ...int64) []place { return back(0, offs...) }

// back gives the places at these offsets back from the end, which is rounded down
// to align.
func back(align int64, offs ...int64) []place {
	var out []place
	for _, off := range offs {
		out = append(out, place{off, align})
	}
	return out
}

// every gives n places, the first at from, each a step behind the one before.
func every(step, from int64, n int) []place {
	var out []place
	for i := range int64(n) {
		out = append(out, place{off: from + i*step})
	}
	return out
}

// both gives the bytes of numbers in both byte orders. For each number the
// little-endian bytes come first, then the big-endian bytes. structure.order relies
// on this order.
func both[T uint16 | uint32 | uint64](numbers ...T) []string {
	var out []string
	for _, n := range numbers {
		le, be := make([]byte, binary.Size(n)), make([]byte, binary.Size(n))
		binary.Encode(le, binary.LittleEndian, n)
		binary.Encode(be, binary.BigEndian, n)
		out = append(out, string(le), string(be))
	}
	return out
}

// search gives the offset of the magic, or -1.
func (s signature) search(w *window) (int64, error) {
	if s.find != nil {
		return s.find(w)
	}
	size := max(s.size, s.at)
	for _, m := range s.magic {
		size = max(size, s.at+len(m))
	}
	for _, p := range s.start {
		off := p.of(w.v.Size())
		b, err := w.bytes(off, size)
		if err != nil {
			return -1, err
		}
		if b != nil && s.matches(structure{b: b, off: off, size: w.v.Size()}) {
			return off + int64(s.at), nil
		}
	}
	return -1, nil
}

func (s signature) matches(in structure) bool {
	if s.magic == nil {
		return s.check(in)
	}
	for i, m := range s.magic {
		in.magic = i
		if in.has(s.at, m) && (s.check == nil || s.check(in)) {
			return true
		}
	}
	return false
}

// structure is the bytes of a superblock, header or sector.
type structure struct {
	b     []byte
	off   int64 // in the volume
	size  int64 // of the volume
	magic int   // index of the magic that was found, in the signature's list
}

func (s structure) le16(at int) uint16 { return binary.LittleEndian.Uint16(s.b[at:]) }
func (s structure) le32(at int) uint32 { return binary.LittleEndian.Uint32(s.b[at:]) }
func (s structure) le64(at int) uint64 { return binary.LittleEndian.Uint64(s.b[at:]) }
func (s structure) be16(at int) uint16 { return binary.BigEndian.Uint16(s.b[at:]) }
func (s structure) be32(at int) uint32 { return binary.BigEndian.Uint32(s.b[at:]) }
func (s structure) be64(at int) uint64 { return binary.BigEndian.Uint64(s.b[at:]) }

// order is the byte order of the structure, told by the magic that was found. The
// list of magics must be made by both.
func (s structure) order() binary.ByteOrder {
	if s.magic%2 == 0 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

func (s structure) u16(at int) uint16 { return s.order().Uint16(s.b[at:]) }
func (s structure) u32(at int) uint32 { return s.order().Uint32(s.b[at:]) }
func (s structure) u64(at int) uint64 { return s.order().Uint64(s.b[at:]) }

func (s structure) has(at int, text string) bool {
	return string(s.b[at:at+len(text)]) == text
}

// power reports whether n is a power of two from least to most.
func power(n, least, most uint64) bool {
	return bits.OnesCount64(n) == 1 && n >= least && n <= most
}

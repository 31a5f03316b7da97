package index

import (
	"cmp"
	"encoding/binary"

	"testbox-imaging/internal/object"
)

// entry is what the index keeps for an object:
//
//	 0  16 bytes of the name
//	16  u24 number of the pack
//	19  u8  length to read, in units of lenUnit
//	20  u32 offset * 16 + kind * 4 + 1 if a backup relies on it
//	24  u24 bytes before compression, at most maxRaw
//
// The first 16 bytes are enough to identify the name. Making two objects that
// share them takes 2^64 tries, and whoever reads an object compares the full
// name.
type entry [entrySize]byte

const (
	entrySize = 27
	maxUnits  = 1<<8 - 1
	maxRaw    = 1<<24 - 1
	lenUnit   = 4128 // bytes, so that maxUnits of them are enough for the longest chunk and its header
)

func newEntry(key object.Key, l Loc) (e entry) {
	copy(e[:16], key.Name[:])
	units := min((l.Len+lenUnit-1)/lenUnit, maxUnits)
	binary.LittleEndian.PutUint32(e[16:], l.Pack|uint32(units)<<24)
	binary.LittleEndian.PutUint32(e[20:], l.Off<<4|uint32(key.Kind)<<2)
	raw := min(l.Raw, maxRaw)
	e[24], e[25], e[26] = byte(raw), byte(raw>>8), byte(raw>>16)
	return e
}

func (e *entry) bits() uint32      { return binary.LittleEndian.Uint32(e[20:]) }
func (e *entry) kind() object.Kind { return object.Kind(e.bits() >> 2 & 3) }
func (e *entry) marks() uint32     { return e.bits() & 3 }
func (e *entry) touched() bool     { return e.bits()&1 != 0 }
func (e *entry) pack() uint32      { return binary.LittleEndian.Uint32(e[16:]) & MaxPack }
func (e *entry) raw() int          { return int(e[24]) | int(e[25])<<8 | int(e[26])<<16 }
func (e *entry) loc() Loc          { return Loc{e.pack(), e.bits() >> 4, int(e[19]) * lenUnit, e.raw()} }
func (e *entry) name() uint64      { return binary.BigEndian.Uint64(e[:]) }
func (e *entry) item() Item        { return Item{[16]byte(e[:16]), e.kind(), e.loc(), e.touched()} }

func (e *entry) setTouched(is bool) {
	bits := e.bits() &^ 3
	if is {
		bits |= 1
	}
	binary.LittleEndian.PutUint32(e[20:], bits)
}

// compare orders entries by name, then kind.
func (e *entry) compare(o *entry) int {
	if c := cmp.Compare(e.name(), o.name()); c != 0 {
		return c
	}
	if c := cmp.Compare(binary.BigEndian.Uint64(e[8:]), binary.BigEndian.Uint64(o[8:])); c != 0 {
		return c
	}
	return cmp.Compare(e.kind(), o.kind())
}

// search returns the place of an entry in a sorted shard, or the place where it
// would be inserted. Names are spread evenly, so search looks where the name
// would be expected, and corrects this once by the name that it finds there. If
// the names are not spread evenly, steps of growing length find bounds for a
// binary search.
func search(s []entry, e *entry, bits int) (int, bool) {
	if len(s) == 0 {
		return 0, false
	}
	less := func(i int) bool { return s[i].compare(e) < 0 }
	lo, hi := 0, len(s) // entries before lo are less than e, those from hi on are not
	spread := e.spread(bits)
	guess := int(spread * int64(len(s)) >> 32)
	guess += int((spread - s[guess].spread(bits)) * int64(len(s)) >> 32)
	guess = min(max(guess, 0), len(s)-1)
	for step := 2; lo < hi; step *= 2 {
		if less(guess) {
			if lo = guess + 1; lo+step >= hi || hi < len(s) {
				break
			}
			guess = lo + step
		} else {
			if hi = guess; lo+step >= hi || lo > 0 {
				break
			}
			guess = hi - step
		}
	}
	for lo < hi {
		if mid := (lo + hi) / 2; less(mid) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(s) && s[lo].compare(e) == 0
}

// shard returns the number of the entry's shard, of 2^bits shards. It is the
// first bits of the name.
func (e *entry) shard(bits int) int { return int(e.name() >> (64 - bits)) }

// spread returns where in the shard the entry is expected, as a fraction of
// 2^32. It is the 32 bits of the name after those that choose the shard.
func (e *entry) spread(bits int) int64 { return int64(e.name() << bits >> 32) }

package volume

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"testbox-imaging/internal/image"
)

// MaxRanges is how many ranges a Free has at the most (8 MiB). A volume in
// more pieces loses its shortest free ranges, which then count as used: the
// memory for a disk is bounded, whatever is on it.
const MaxRanges = 1 << 19

// maxPending is how many ranges wait to be brought into order.
const maxPending = 1 << 16

// Free is a set of bytes that are not used. Bytes may be added in any order;
// in the order of the disk it costs least. The zero value is empty.
type Free struct {
	sorted  []image.Range // in order, not touching each other
	pending []image.Range
	min     int64 // shorter ranges were dropped; 0: none
}

// Add says that n bytes at off are free. Adding bytes twice is harmless here;
// whether it is a contradiction is for the reader to say.
func (f *Free) Add(off, n int64) {
	if n <= 0 {
		return
	}
	if i := len(f.pending) - 1; i >= 0 {
		last := &f.pending[i]
		if last.End() == off {
			last.Len += n
			return
		}
		if last.Len < f.min { // as settle would drop it
			*last = image.Range{Off: off, Len: n}
			return
		}
	}
	if len(f.pending) >= maxPending {
		f.settle()
	}
	f.pending = append(f.pending, image.Range{Off: off, Len: n})
}

// AddClear adds a unit of bytes for every bit that is clear among the first n
// of a bitmap. The first bit is the lowest of the first byte, and stands for
// the unit at byte off.
func (f *Free) AddClear(bitmap []byte, n int64, off, unit int64) {
	n = min(n, int64(len(bitmap))*8)
	from := int64(-1) // where the run at hand begins that reaches the next word; -1: none
	for at := int64(0); at < n; at += 64 {
		used := word(bitmap, at, n)
		if used == 0 {
			if from < 0 {
				from = at
			}
			continue
		}
		low := bits.TrailingZeros64(used)
		if from < 0 {
			from = at
		}
		f.Add(off+from*unit, (at+int64(low)-from)*unit)
		used |= 1<<low - 1
		from = -1
		if high := bits.LeadingZeros64(used); high > 0 {
			from = at + 64 - int64(high)
			used |= ^uint64(0) << (64 - high)
		}
		f.addInside(used, off+at*unit, unit)
	}
	if from >= 0 {
		f.Add(off+from*unit, (n-from)*unit)
	}
}

// word is 64 bits of a bitmap; those at and after n are set.
func word(bitmap []byte, at, n int64) uint64 {
	var w uint64
	if i := at / 8; int64(len(bitmap)) >= i+8 {
		w = binary.LittleEndian.Uint64(bitmap[i:])
	} else {
		var last [8]byte
		copy(last[:], bitmap[i:])
		w = binary.LittleEndian.Uint64(last[:])
	}
	if left := n - at; left < 64 {
		w |= ^uint64(0) << left
	}
	return w
}

// addInside adds the clear runs of a word whose first and last bits are set.
// Of a bitmap made to cost time most are too short to be kept, and whether
// there are others is seen without going through them.
func (f *Free) addInside(used uint64, off, unit int64) {
	long := ^used
	for s := int64(1); 2*s*unit <= f.min && s < 64; s *= 2 {
		long &= long >> s
	}
	if long == 0 {
		return
	}
	for used != ^uint64(0) {
		a := bits.TrailingZeros64(^used)
		b := a + bits.TrailingZeros64(used>>a)
		f.Add(off+int64(a)*unit, int64(b-a)*unit)
		used |= 1<<b - 1
	}
}

// Cut says that n bytes at off are used after all. It goes through the whole
// set: it is for the few places of which a reader knows beforehand.
func (f *Free) Cut(off, n int64) {
	if n <= 0 {
		return
	}
	f.settle()
	end := off + n
	var out []image.Range
	for _, r := range f.sorted {
		if rend := r.End(); rend <= off || r.Off >= end {
			out = append(out, r)
		} else {
			if r.Off < off {
				out = append(out, image.Range{Off: r.Off, Len: off - r.Off})
			}
			if rend > end {
				out = append(out, image.Range{Off: end, Len: rend - end})
			}
		}
	}
	f.sorted = out
}

// Ranges are the free ranges in the order of the disk, none touching the next.
// The slice is the set's own: it may be read until the set is changed.
func (f *Free) Ranges() []image.Range {
	f.settle()
	return f.sorted
}

// Bytes is how many bytes are free.
func (f *Free) Bytes() int64 {
	n := int64(0)
	for _, r := range f.Ranges() {
		n += r.Len
	}
	return n
}

// Dropped is the length in bytes under which free ranges count as used,
// because there were too many; 0: all were kept.
func (f *Free) Dropped() int64 {
	f.settle()
	return f.min
}

// settle brings what is pending into order, and drops the shortest ranges
// until there is room again.
func (f *Free) settle() {
	if len(f.pending) == 0 {
		return
	}
	if n := len(f.sorted); n > maxPending && cap(f.sorted) < MaxRanges+maxPending {
		f.sorted = append(make([]image.Range, 0, MaxRanges+maxPending), f.sorted...) // once, for good
	}
	all := append(f.sorted, f.pending...)
	byOffset := func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) }
	if !slices.IsSortedFunc(all, byOffset) {
		slices.SortFunc(all, byOffset)
	}
	f.sorted, f.pending = f.join(all), f.pending[:0]
	if len(f.sorted) > MaxRanges {
		f.drop()
	}
}

// join makes one range of those that touch or overlap, in place, and leaves
// out the ones that are too short.
func (f *Free) join(all []image.Range) []image.Range {
	out := all[:0]
	for _, r := range all {
		if n := len(out) - 1; n >= 0 && r.Off <= out[n].End() {
			out[n].Len = max(out[n].Len, r.End()-out[n].Off)
			continue
		}
		if n := len(out) - 1; n >= 0 && out[n].Len < f.min {
			out = out[:n]
		}
		out = append(out, r)
	}
	if n := len(out) - 1; n >= 0 && out[n].Len < f.min {
		out = out[:n]
	}
	return out
}

// drop raises the shortest length that is kept, by powers of two, until at most
// half of the ranges that may be are left.
func (f *Free) drop() {
	var shorter [64]int // ranges by the number of bits of their length
	for _, r := range f.sorted {
		shorter[bits.Len64(uint64(r.Len))]++
	}
	left := len(f.sorted)
	for i, n := range shorter {
		if left -= n; left <= MaxRanges/2 {
			f.min = 1 << i
			break
		}
	}
	f.sorted = f.join(f.sorted)
}

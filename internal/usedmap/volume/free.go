package volume

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"testbox-imaging/internal/image"
)

// MaxRanges is the most ranges that a Free has (8 MiB), so that memory is
// bounded whatever is on the disk. A volume with more free ranges loses the
// shortest of them, which then count as used.
const MaxRanges = 1 << 19

// maxPending is how many ranges are collected before they are sorted in.
const maxPending = 1 << 16

// Free is a set of bytes that are not used. Bytes may be added in any order,
// but the order of the disk is the cheapest. The zero value is empty.
type Free struct {
	sorted  []image.Range // in order, not touching each other
	pending []image.Range
	min     int64 // shorter ranges were dropped; 0 if none were
}

// Add adds n free bytes at off. Bytes may be added twice. A reader to which
// that is a contradiction must notice it itself.
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
		if last.Len < f.min { // settle would drop it too
			*last = image.Range{Off: off, Len: n}
			return
		}
	}
	if len(f.pending) >= maxPending {
		f.settle()
	}
	f.pending = append(f.pending, image.Range{Off: off, Len: n})
}

// AddClear adds a unit of bytes for every clear bit among the first n bits of a
// bitmap. The first bit is the lowest one of the first byte, and stands for the
// unit at byte off.
func (f *Free) AddClear(bitmap []byte, n int64, off, unit int64) {
	n = min(n, int64(len(bitmap))*8)
	from := int64(-1) // start of a clear run that reaches the current word, or -1
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

// word is the 64 bits of a bitmap from bit number at on. Bits from n on are
// set.
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

// addInside adds the clear runs of a word whose first and last bits are set. In
// a malicious bitmap nearly all runs are shorter than f.min. The shifts tell
// whether a word has a longer one, so that such words cost no loop over their
// runs.
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

// Cut makes n bytes at off used again. It goes through the whole set, so it is
// only for the few places that a reader knows beforehand.
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

// Ranges are the free ranges in the order of the disk. No range touches the
// next. The slice belongs to the set, and is valid until the set is changed.
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

// Dropped is the length in bytes below which free ranges count as used, because
// there were too many. It is 0 if none was dropped.
func (f *Free) Dropped() int64 {
	f.settle()
	return f.min
}

// settle sorts the pending ranges in. If there are too many then, it drops the
// shortest.
func (f *Free) settle() {
	if len(f.pending) == 0 {
		return
	}
	if n := len(f.sorted); n > maxPending && cap(f.sorted) < MaxRanges+maxPending {
		f.sorted = append(make([]image.Range, 0, MaxRanges+maxPending), f.sorted...) // allocate the final capacity once
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

// join merges ranges that touch or overlap, in place, and leaves out the ones
// that are too short.
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
// half of MaxRanges are left.
func (f *Free) drop() {
	var shorter [64]int // count of ranges by the bit length of their length
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

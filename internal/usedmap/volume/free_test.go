package volume

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
	"testbox-imaging/internal/image"
)

// model is a Free as one bool a byte.
type model [4096]bool

func (m *model) set(off, n int64, v bool) {
	for i := off; i < off+n; i++ {
		m[i] = v
	}
}

func (m *model) check(t *rapid.T, f *Free) {
	var got model
	end := int64(-1)
	for _, r := range f.Ranges() {
		if r.Len <= 0 || r.Off <= end {
			t.Fatalf("ranges %v are not in order, apart and not empty", f.Ranges())
		}
		got.set(r.Off, r.Len, true)
		end = r.End()
	}
	if got != *m {
		t.Fatal("the set differs from what was added and cut")
	}
}

func TestFreeIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f Free
		var m model
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				off := rapid.Int64Range(0, 4095).Draw(t, "off")
				n := rapid.Int64Range(0, min(300, 4096-off)).Draw(t, "n")
				f.Add(off, n)
				m.set(off, n, true)
			},
			"clear": func(t *rapid.T) {
				bitmap := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bitmap")
				n := rapid.Int64Range(0, 400).Draw(t, "bits")
				off, unit := rapid.Int64Range(0, 100).Draw(t, "off"), rapid.Int64Range(1, 9).Draw(t, "unit")
				f.AddClear(bitmap, n, off, unit)
				for i := int64(0); i < n && i < int64(len(bitmap))*8; i++ {
					if bitmap[i/8]>>(i%8)&1 == 0 {
						m.set(off+i*unit, unit, true)
					}
				}
			},
			"cut": func(t *rapid.T) {
				off := rapid.Int64Range(0, 4095).Draw(t, "off")
				n := rapid.Int64Range(0, 4096-off).Draw(t, "n")
				f.Cut(off, n)
				m.set(off, n, false)
			},
			"": func(t *rapid.T) { m.check(t, &f) },
		})
	})
}

// A volume in more pieces than are kept loses its shortest free ranges and
// gains none: with every other block free, in ever larger blocks, in order and
// out of it.
func TestFreeIsBounded(t *testing.T) {
	for _, shuffled := range []bool{false, true} {
		var f Free
		added, off := int64(0), int64(0)
		var ranges []image.Range
		for i := range int64(3 * MaxRanges) {
			n := int64(512) << (i / (MaxRanges / 2))
			ranges = append(ranges, image.Range{Off: off, Len: n})
			off += 2 * n
		}
		if shuffled {
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(ranges), func(i, j int) { ranges[i], ranges[j] = ranges[j], ranges[i] })
		}
		long := 0
		for _, r := range ranges {
			f.Add(r.Off, r.Len)
			added += r.Len
		}
		for _, r := range ranges {
			if r.Len >= f.Dropped() {
				long++
			}
		}
		got := f.Ranges()
		switch {
		case f.Dropped() == 0 || len(got) > MaxRanges || len(got) < MaxRanges/4:
			t.Errorf("%d ranges are left, none below %d bytes", len(got), f.Dropped())
		case f.Bytes() >= added || len(got) != long:
			t.Errorf("%d bytes are free of %d, in %d ranges; %d are long enough", f.Bytes(), added, len(got), long)
		}
		for _, r := range got {
			if r.Len < f.Dropped() {
				t.Fatalf("%v is shorter than %d", r, f.Dropped())
			}
		}
	}
}

func BenchmarkAddClear(b *testing.B) {
	bitmap := make([]byte, 4096)
	for i := range bitmap {
		bitmap[i] = byte(rand.Uint32())
	}
	b.SetBytes(int64(len(bitmap)))
	for b.Loop() {
		var f Free
		f.AddClear(bitmap, int64(len(bitmap))*8, 0, 4096)
	}
}

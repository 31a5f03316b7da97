package copier

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// drawMap draws the map of a disk of some sectors: parts that begin anywhere,
// and anything of them not used.
func drawMap(t *rapid.T, sectors int64, longest int64) *usedmap.Map {
	m := &usedmap.Map{Size: sectors * 512, SectorSize: 512}
	for at := int64(0); at < sectors; {
		n := min(sectors-at, rapid.Int64Range(1, longest).Draw(t, "part"))
		m.Parts = append(m.Parts, usedmap.Part{Ranges: []image.Range{{Off: at * 512, Len: n * 512}}})
		at += n
	}
	step := rapid.SampledFrom([]int64{3, 40, longest}).Draw(t, "step")
	for at := rapid.Int64Range(0, step).Draw(t, "used"); at < sectors; at += rapid.Int64Range(1, step).Draw(t, "used") {
		n := min(sectors-at, rapid.Int64Range(1, step).Draw(t, "free"))
		m.Free = append(m.Free, image.Range{Off: at * 512, Len: n * 512})
		at += n
	}
	return m
}

// usedBlocks is the plainest way to say which bytes an image has: the blocks of
// each part of which a byte is used, cut where a region ends.
func usedBlocks(m *usedmap.Map) (used []image.Range) {
	free := m.Free
	for _, p := range m.Parts {
		part := p.Ranges[0]
		for off := part.Off; off < part.End(); off += chunk.BlockSize {
			b := image.Range{Off: off, Len: min(chunk.BlockSize, part.End()-off)}
			for len(free) > 0 && free[0].End() <= off {
				free = free[1:]
			}
			if left := without([]image.Range{b}, free[:min(len(free), 10)]); len(left) > 0 {
				used = appendRange(used, b)
			}
		}
	}
	return used
}

func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMap(t, rapid.Int64Range(1, 5000).Draw(t, "sectors"), rapid.SampledFrom([]int64{9, 300, 5000}).Draw(t, "longest"))
		checkWindows(t, m)
	})
}

// TestWindowsAtRegions has parts and free space that reach over the end of a
// region, and not at its blocks.
func TestWindowsAtRegions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sectors = chunk.RegionSize / 512
		m := &usedmap.Map{Size: 2*chunk.RegionSize + 512}
		at := int64(0)
		first, second := rapid.Int64Range(1, sectors).Draw(t, "first"), rapid.Int64Range(sectors+1, 2*sectors).Draw(t, "second")
		for _, cut := range []int64{first, second, 2*sectors + 1} {
			m.Parts = append(m.Parts, usedmap.Part{Ranges: []image.Range{{Off: at * 512, Len: (cut - at) * 512}}})
			at = cut
		}
		for _, mid := range []int64{sectors, 2 * sectors} {
			from, to := rapid.Int64Range(mid-sectors/2+1, mid-1).Draw(t, "from"), rapid.Int64Range(mid-1, mid+1).Draw(t, "to")
			if rapid.Bool().Draw(t, "far") {
				to = min(mid+sectors/2-1, 2*sectors+1)
			}
			if to > from {
				m.Free = append(m.Free, image.Range{Off: from * 512, Len: (to - from) * 512})
			}
		}
		checkWindows(t, m)
	})
}

func checkWindows(t *rapid.T, m *usedmap.Map) {
	w := newWindows(m.Size, m)
	bytes := w.bytes()
	var got []image.Range
	for win := (window{}); w.next(&win); {
		checkWindow(t, m, &win)
		for _, r := range win.runs {
			got = appendRange(got, r)
		}
	}
	if want := usedBlocks(m); !slices.Equal(got, want) || bytes != total(want) {
		t.Fatalf("used are %v, %d bytes, want %v", got, bytes, want)
	}
}

func checkWindow(t *rapid.T, m *usedmap.Map, w *window) {
	end := w.runs[len(w.runs)-1].End()
	part := slices.IndexFunc(m.Parts, func(p usedmap.Part) bool { return w.off < p.Ranges[0].End() })
	if p := m.Parts[part].Ranges[0]; w.grid != p.Off || end > p.End() || w.off != w.runs[0].Off {
		t.Fatalf("window at %d to %d on the grid of %d, its part is %v", w.off, end, w.grid, p)
	}
	if end-w.off > pieceSize || w.off/chunk.RegionSize != (end-1)/chunk.RegionSize {
		t.Fatalf("window from %d to %d", w.off, end)
	}
	left := without(w.runs, w.reads)
	if len(left) > 0 || total(w.reads)-total(w.runs) >= readGap*int64(len(w.runs)) || w.reads[len(w.reads)-1].End() != end {
		t.Fatalf("runs %v are read as %v", w.runs, w.reads)
	}
}

// TestBlocks: a block that a region's end cuts is two.
func TestBlocks(t *testing.T) {
	w := window{grid: 512}
	for off, want := range map[int64]int64{512: 4096, 4608: 4096, chunk.RegionSize - 3584: 3584, chunk.RegionSize: 512} {
		if n := w.block(off, max(off+1, (off/chunk.RegionSize+1)*chunk.RegionSize)); n != want {
			t.Errorf("block at %d has %d bytes, want %d", off, n, want)
		}
	}
}

package copier

import (
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// window is a short part of the disk of which something is used. It is at most a
// piece long, except for holes, and lies in one segment and one region.
type window struct {
	off    int64
	grid   int64         // start of the segment, from which its blocks are counted
	runs   []image.Range // what is used, in whole blocks
	reads  []image.Range // the runs, joined over small gaps
	hole   bool          // the runs are zeros that need not be read, so the window may be longer than a piece
	blocks []mark        // a mark for each block of the runs
}

// mark says what a block contains.
type mark uint8

const (
	markData     mark = iota
	markBoundary      // data that a chunk may end with
	markZero
)

func (w window) empty() window {
	return window{runs: w.runs[:0], reads: w.reads[:0], blocks: w.blocks[:0]}
}

// block is the length of the block at off, in a run that ends at end.
func (w *window) block(off, end int64) int64 {
	return min(chunk.BlockSize-(off-w.grid)%chunk.BlockSize, end-off)
}

// classify sets the marks of all blocks. b has the window's bytes from off on.
func (w *window) classify(b []byte) {
	if w.hole {
		return
	}
	for _, r := range w.runs {
		for off, end := r.Off, r.End(); off < end; {
			n := w.block(off, end)
			w.blocks = append(w.blocks, markOf(b[off-w.off:][:n]))
			off += n
		}
	}
}

func markOf(block []byte) mark {
	switch {
	case image.IsZero(block):
		return markZero
	case chunk.Boundary(block):
		return markBoundary
	}
	return markData
}

// windows goes over the used bytes of a disk. A segment is a partition, or what
// lies between two partitions. Blocks are counted from the beginning of each
// segment, so the files of a partition give the same blocks wherever the partition
// begins.
type windows struct {
	segments []image.Range // what is left of the disk, in order, with at in the first one
	free     []image.Range // unused ranges, in order, perhaps without those before at
	at       int64         // where the next window is looked for
	holes    holes
}

// newWindows makes the windows of a disk of size bytes. Without a map everything
// is used.
func newWindows(size int64, m *usedmap.Map) *windows {
	if m == nil {
		return &windows{segments: []image.Range{{Len: size}}}
	}
	w := &windows{free: m.Free}
	for _, p := range m.Parts {
		w.segments = append(w.segments, p.Ranges[0])
	}
	return w
}

// bytes is how many bytes the runs of all windows have. The receiver is a copy,
// so the caller's windows do not move on.
func (w windows) bytes() (n int64) {
	for win := (window{}); w.next(&win); {
		n += total(win.runs)
	}
	return n
}

// next fills in the next window. It returns false at the end of the disk.
func (w *windows) next(win *window) bool {
	for len(w.segments) > 0 {
		seg := w.segments[0]
		w.at = max(w.at, seg.Off)
		if f := w.unused(); f.Off <= w.at && w.at < f.End() {
			w.at = f.End()
		}
		if w.at < seg.End() {
			w.fill(win)
			return true
		}
		w.segments = w.segments[1:]
	}
	return false
}

// unused is the next unused range of the segment that ends behind at, in whole
// blocks. If there is none, it is an empty range at the segment's end.
func (w *windows) unused() image.Range {
	seg := w.segments[0]
	for len(w.free) > 0 && w.free[0].Off < seg.End() {
		f := w.free[0].Clip(seg.Off, seg.End())
		from, to := w.gridUp(f.Off), w.gridDown(f.End())
		if f.End() == seg.End() {
			to = seg.End() // its last block may be short
		}
		if to > max(from, w.at) {
			return image.Range{Off: from, Len: to - from}
		}
		if w.free[0].End() > seg.End() {
			break // the rest of the free range lies in the next segment
		}
		w.free = w.free[1:]
	}
	return image.Range{Off: seg.End()}
}

// gridDown is the start of the block that off lies in. Blocks are counted from the
// segment's start. gridUp is the start of the next block, or off itself if a block
// begins there.
func (w *windows) gridDown(off int64) int64 {
	return off - (off-w.segments[0].Off)%chunk.BlockSize
}

func (w *windows) gridUp(off int64) int64 { return w.gridDown(off + chunk.BlockSize - 1) }

// fill makes the window that begins at at, where the disk is used.
func (w *windows) fill(win *window) {
	seg := w.segments[0]
	*win = win.empty()
	win.off, win.grid = w.at, seg.Off
	limit := min(seg.End(), w.at+chunk.RegionSize-w.at%chunk.RegionSize)
	if zeros := w.zeros(); zeros > w.at {
		win.hole, limit = true, min(limit, zeros)
	} else {
		limit = min(limit, w.at+pieceSize-(w.at-seg.Off)%pieceSize)
	}
	for w.at < limit {
		f := w.unused()
		if f.Off > w.at {
			end := min(f.Off, limit)
			win.add(image.Range{Off: w.at, Len: end - w.at})
			w.at = end
			continue
		}
		w.at = f.End()
	}
}

// zeros is the end of the whole blocks of zeros that begin at at, as far as they
// are known without a read.
func (w *windows) zeros() int64 {
	end := min(w.holes.end(w.at), w.segments[0].End())
	if end < w.segments[0].End() {
		end = w.gridDown(end)
	}
	return end
}

// add adds a used run.
func (w *window) add(r image.Range) {
	w.runs = append(w.runs, r)
	if !w.hole {
		w.reads = addRead(w.reads, r)
	}
}

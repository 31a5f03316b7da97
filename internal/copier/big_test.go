package copier

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/usedmap"
)

// sparse is a disk of any size in memory: what was never written is zero.
type sparse struct {
	size   int64
	mu     sync.Mutex // guards blocks
	blocks map[int64]*[4096]byte
}

func newSparse(size int64) *sparse { return &sparse{size: size, blocks: map[int64]*[4096]byte{}} }

func (d *sparse) Size() int64 { return d.size }
func (d *sparse) Sync() error { return nil }

// each goes over the blocks of a range.
func (d *sparse) each(off, n int64, do func(block, from, to, at int64)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := int64(0); at < n; {
		block, from := (off+at)/4096, (off+at)%4096
		to := min(4096, from+n-at)
		do(block, from, to, at)
		at += to - from
	}
}

func (d *sparse) ReadAt(b []byte, off int64) (int, error) {
	n := min(int64(len(b)), d.size-off)
	d.each(off, n, func(block, from, to, at int64) {
		if have := d.blocks[block]; have != nil {
			copy(b[at:], have[from:to])
		} else {
			clear(b[at:][:to-from])
		}
	})
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return len(b), nil
}

func (d *sparse) WriteAt(b []byte, off int64) (int, error) {
	d.each(off, int64(len(b)), func(block, from, to, at int64) {
		if d.blocks[block] == nil {
			d.blocks[block] = new([4096]byte)
		}
		copy(d.blocks[block][from:to], b[at:])
	})
	return len(b), nil
}

func (d *sparse) ZeroAt(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for block := range d.blocks {
		if block*4096 < off+n && off < block*4096+4096 {
			from, to := max(0, off-block*4096), min(4096, off+n-block*4096)
			clear(d.blocks[block][from:to])
		}
	}
	return nil
}

// TestRegions has what lies over the ends of regions: chunks, blocks on another
// grid, zeros, unused bytes; and a last region of one sector.
func TestRegions(t *testing.T) {
	const size = 2*chunk.RegionSize + 512
	src := newSparse(size)
	for _, at := range []int64{0, chunk.RegionSize - 300_000, 2*chunk.RegionSize - 5000} {
		noise := bytes.Repeat([]byte{1}, int(min(700_000, size-at)))
		for i := range len(noise) / 512 {
			binary.LittleEndian.PutUint64(noise[i*512:], uint64(at)+uint64(i))
		}
		src.WriteAt(noise, at)
	}
	m := &usedmap.Map{Size: size, SectorSize: 512}
	for _, cut := range [][2]int64{{0, 63 * 512}, {63 * 512, size}} {
		m.Parts = append(m.Parts, usedmap.Part{Ranges: []image.Range{{Off: cut[0], Len: cut[1] - cut[0]}}})
	}
	m.Free = []image.Range{{Off: 2 << 20, Len: 200 << 20}, {Off: chunk.RegionSize + 100<<20, Len: chunk.RegionSize - 101<<20}}
	s := saveOf(t, src, m, SourceOptions{})
	if len(s.im.Root.Pages) != 3 {
		t.Fatalf("%d pages", len(s.im.Root.Pages))
	}
	target := newSparse(size)
	rs, err := Restore(t.Context(), []Job{s.job(t, "sda", target)}, RestoreOptions{})
	must(t, err)
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; off += 1 << 20 {
		n, _ := src.ReadAt(want, off)
		target.ReadAt(got, off)
		if !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("the MiB at %d is not the same", off)
		}
	}
	if r := rs[0]; r.Unused != s.Disk.Unused || r.Written+r.Skipped != s.Disk.Data+s.Disk.Zero {
		t.Errorf("receipt %+v, saved %+v", r, s.Saved)
	}
}

// generated is a disk with noise in some ranges, made when it is read.
type generated struct {
	size   int64
	reads  atomic.Int64
	read   atomic.Int64 // bytes
	factor uint64       // of the noise; the same noise has the same
}

func (g *generated) Size() int64 { return g.size }

func (g *generated) ReadAt(b []byte, off int64) (int, error) {
	g.reads.Add(1)
	g.read.Add(int64(len(b)))
	for i := 0; i+8 <= len(b); i += 8 {
		x := (uint64(off) + uint64(i) + 1) * g.factor
		x ^= x >> 29
		binary.LittleEndian.PutUint64(b[i:], x*0xbf58476d1ce4e5b9)
	}
	return len(b), nil
}

// nothing is a store that keeps names only; what it has, it says to be there.
type nothing struct {
	chunk.Session
	all  bool // every chunk is there
	mu   sync.Mutex
	have map[object.Key]bool
}

func (n *nothing) Missing(_ context.Context, keys []object.Key) ([]object.Key, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range keys {
		if !n.all && !n.have[k] {
			return keys, nil // more than is missing, at times
		}
	}
	return nil, nil
}

func (n *nothing) Put(_ context.Context, o object.Object) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.have[o.Key] = true
	return o.Check()
}

// scattered is the map of a disk of which so many bytes are used, spread over
// some regions.
func scattered(size, used int64, regions int) *usedmap.Map {
	m := &usedmap.Map{Size: size, SectorSize: 512, Parts: []usedmap.Part{{Ranges: []image.Range{{Len: size}}}}}
	each, at := used/int64(regions), int64(0)
	for i := range int64(regions) {
		off := size / int64(regions) * i
		if off > at {
			m.Free = append(m.Free, image.Range{Off: at, Len: off - at})
		}
		at = off + each
	}
	m.Free = append(m.Free, image.Range{Off: at, Len: size - at})
	return m
}

// TestTerabyte saves a disk of 1 TiB with 2 GiB of data in 300 of its regions. What
// is not used costs nothing, and memory is bounded: it has a process of its own.
func TestTerabyte(t *testing.T) {
	if os.Getenv("TESTBOX_CHILD") == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTerabyte$", "-test.v")
		child.Env = append(os.Environ(), "TESTBOX_CHILD=1")
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Log(string(out))
		return
	}
	const used = 2 << 30
	src := &generated{size: 1 << 40, factor: 0x9e3779b97f4a7c15}
	saved, err := Save(t.Context(), src, &nothing{have: map[object.Key]bool{}}, scattered(src.size, used, 300), noTable)
	must(t, err)
	if d := saved.Disk; d.Data < used*9/10 || d.Data+d.Zero+d.Unused != src.size || saved.Receipt.Read != d.Data+d.Zero {
		t.Errorf("saved %+v", saved)
	}
	if n := src.read.Load(); n > used+300*4096 || src.reads.Load() > used/pieceSize+2*300 {
		t.Errorf("%d bytes were read in %d reads", n, src.reads.Load())
	}
	if peak := peakMemory(t); peak > 256<<20 {
		t.Errorf("%d MiB of memory", peak>>20)
	}
	for _, st := range saved.Receipt.Stages {
		t.Logf("%s: %d MiB in %v, %.0f MB/s, busy %.2f", st.Name, st.Bytes>>20, st.Elapsed, st.Rate()/1e6, st.Busy)
	}
}

// peakMemory is the most that this process had in memory, bytes.
func peakMemory(t *testing.T) (kib int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("peak memory: %d MiB", kib>>10)
	return kib << 10
}

// TestAllocations: in its steady state a backup allocates next to nothing.
func TestAllocations(t *testing.T) {
	for _, all := range []bool{false, true} {
		run := func(size int64) (mallocs uint64, chunks int) {
			src := &generated{size: size, factor: 0x9e3779b97f4a7c15}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			saved, err := Save(t.Context(), src, &nothing{all: all, have: map[object.Key]bool{}}, nil, SourceOptions{})
			must(t, err)
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs, saved.Chunks
		}
		run(8 << 20)
		few, a := run(16 << 20)
		many, b := run(80 << 20)
		if perChunk := (float64(many) - float64(few)) / float64(b-a); perChunk > 1 {
			t.Errorf("all chunks are there: %v; %.2f allocations a chunk (%d, %d)", all, perChunk, a, b)
		}
	}
}

package chunk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// diskOf makes a disk of blocks of zeros, noise and text.
func diskOf(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	disk := make([]byte, size)
	for off := 0; off < size; {
		run := disk[off:min(size, off+(1+r.IntN(60))*chunk.BlockSize)]
		switch r.IntN(3) {
		case 0:
			for i := range run {
				run[i] = byte(r.Uint32())
			}
		case 1:
			copy(run, bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), len(run)/44+1))
			run[0] = byte(r.Uint32())
		}
		off += len(run)
	}
	return disk
}

// without is the disk with zeros in the place of what is unused.
func without(disk []byte, unused ...image.Range) []byte {
	disk = bytes.Clone(disk)
	for _, r := range unused {
		clear(disk[r.Off:][:r.Len])
	}
	return disk
}

func open(t testing.TB, st *conform.MemStore, root object.Name) *chunk.Image {
	t.Helper()
	im, err := chunk.OpenImage(context(t), st.Getter(root), root)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func reader(t testing.TB, im *chunk.Image, cache int64) *chunk.DiskReader {
	t.Helper()
	r := im.ReaderAt(context(t), cache)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestReadAtAnywhere(t *testing.T) {
	disk := diskOf(9<<20+512, 1)
	unused := image.Range{Off: 3 << 20, Len: 1<<20 + 4096}
	var st conform.MemStore
	r := reader(t, open(t, &st, conform.SaveImage(t, &st, disk, unused)), 0)
	want := without(disk, unused)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(0, int64(len(disk))+10).Draw(t, "off")
		n := rapid.OneOf(rapid.IntRange(0, 5000), rapid.IntRange(0, 3<<20)).Draw(t, "n")
		got := make([]byte, n)
		gotN, err := r.ReadAt(got, off)
		wantN, wantErr := bytes.NewReader(want).ReadAt(make([]byte, n), off)
		if gotN != wantN || (err == io.EOF) != (wantErr == io.EOF) || err != nil && err != io.EOF {
			t.Fatalf("%d %v, want %d %v", gotN, err, wantN, wantErr)
		}
		if !bytes.Equal(got[:gotN], want[min(off, int64(len(want))):][:gotN]) {
			t.Fatal("wrong bytes")
		}
	})
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("a read at -1: %v", err)
	}
}

// TestReadRegions reads over the borders of regions, of which two are equal
// and the last is shorter.
func TestReadRegions(t *testing.T) {
	disk := make([]byte, 2*chunk.RegionSize+5<<20)
	part := diskOf(3<<20, 2)
	for i := range 3 {
		copy(disk[i*chunk.RegionSize+100<<12:], part)
		copy(disk[max(0, i*chunk.RegionSize-1<<20):], part)
	}
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, disk))
	got, err := io.ReadAll(io.NewSectionReader(reader(t, im, 64<<20), 0, 1<<40))
	if err != nil || !bytes.Equal(got, disk) {
		t.Fatalf("%d bytes came back wrong as %d: %v", len(disk), len(got), err)
	}
}

// TestReadFromMany reads with a cache that is too small for all that is read,
// so that chunks come and go under the hands of others.
func TestReadFromMany(t *testing.T) {
	disk := diskOf(24<<20, 3)
	var st conform.MemStore
	r := reader(t, open(t, &st, conform.SaveImage(t, &st, disk)), 0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			buf := make([]byte, 300_000)
			off := rnd.Int64N(int64(len(disk)))
			for range 150 {
				n, err := r.ReadAt(buf, off)
				if err != nil && err != io.EOF || !bytes.Equal(buf[:n], disk[off:][:n]) {
					t.Errorf("read at %d: %v", off, err)
					return
				}
				if off += int64(n); off == int64(len(disk)) || rnd.IntN(10) == 0 {
					off = rnd.Int64N(int64(len(disk)))
				}
			}
		})
	}
	wg.Wait()
}

// TestReadAhead reads in order in small steps: each object comes once.
func TestReadAhead(t *testing.T) {
	disk := diskOf(30<<20, 4)
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, disk))
	before := st.Gets()
	r := im.ReaderAt(context(t), 64<<20)
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err != nil || !bytes.Equal(got, disk) {
		t.Fatalf("wrong bytes: %v", err)
	}
	r.Close()
	if n, want := st.Gets()-before, len(st.Keys(object.Chunk))+1; n != want {
		t.Errorf("%d objects were fetched, there are %d", n, want)
	}
	if _, err := r.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a closed reader reads")
	}
}

// TestReadDamaged takes away and damages each object: no read gives wrong
// bytes, and errors say which image and where.
func TestReadDamaged(t *testing.T) {
	disk := diskOf(4<<20, 5)
	var st conform.MemStore
	root := conform.SaveImage(t, &st, disk)
	page := st.Keys(object.Page)
	for i, k := range append(st.Keys(object.Chunk), page...) {
		o, err := st.Get(context(t), k, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := chunk.ErrMissing
		if i%2 == 0 {
			st.Lose(k)
		} else {
			st.Flip(k, i*7919)
			want = object.ErrDamaged
		}
		r := reader(t, open(t, &st, root), 0)
		got := make([]byte, len(disk))
		n, err := r.ReadAt(got, 0)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), root.String()) || !strings.Contains(err.Error(), "of the disk") {
			t.Errorf("%v: %v", k, err)
		}
		if !bytes.Equal(got[:n], disk[:n]) {
			t.Errorf("%v: wrong bytes before the error", k)
		}
		st.Set(o)
		if n, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got[:n], disk) {
			t.Errorf("%v is there again: %v", k, err)
		}
	}
}

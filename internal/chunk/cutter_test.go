package chunk_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
)

// cuts gives where the chunks of some blocks end, in bytes.
func cuts(blocks []int, boundary func(block int) bool) (ends []int) {
	var c chunk.Cutter
	off := 0
	for i, n := range blocks {
		off += n
		if c.Add(n, boundary(i)) || i == len(blocks)-1 {
			ends = append(ends, off)
		}
	}
	return ends
}

func TestCutterBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := rapid.IntRange(1, 3000).Draw(t, "every")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		blocks := make([]int, rapid.IntRange(1, 3000).Draw(t, "blocks"))
		for i := range blocks {
			blocks[i] = chunk.BlockSize
			if r.IntN(10) == 0 {
				blocks[i] = 1 + r.IntN(chunk.BlockSize)
			}
		}
		at := 0
		ends := cuts(blocks, func(int) bool { return r.IntN(every) == 0 })
		for i, end := range ends {
			if n := end - at; n > chunk.MaxSize || n < chunk.MinSize && i < len(ends)-1 {
				t.Fatalf("chunk %d has %d bytes", i, n)
			}
			at = end
		}
	})
}

// TestCutterReset: what came before a region does not matter.
func TestCutterReset(t *testing.T) {
	var c chunk.Cutter
	c.Add(chunk.BlockSize, false)
	c.Reset()
	if c != (chunk.Cutter{}) {
		t.Error("something is left of the region before")
	}
}

// stream is a region of blocks that are all different, by their numbers. In one
// of so many, if it is not 0, a file ends.
type stream []uint64

func (s stream) cuts(files uint64) (names []string) {
	blocks := make([]int, len(s))
	block := make([]byte, chunk.BlockSize)
	for i := range blocks {
		blocks[i] = chunk.BlockSize
	}
	at := 0
	for _, end := range cuts(blocks, func(i int) bool {
		rand.NewChaCha8([32]byte{byte(s[i]), byte(s[i] >> 8), byte(s[i] >> 16)}).Read(block)
		if files > 0 && s[i]*0x9e3779b97f4a7c15>>32%files == 0 {
			clear(block[len(block)-100:])
		}
		return chunk.Boundary(block)
	}) {
		names = append(names, string(encode(s[at/chunk.BlockSize:end/chunk.BlockSize])))
		at = end
	}
	return names
}

func encode(s stream) (b []byte) {
	for _, n := range s {
		b = append(b, byte(n), byte(n>>8), byte(n>>16))
	}
	return b
}

// TestCutsDependOnContent: blocks inserted or changed somewhere leave the
// chunks far from there as they were. Both cut lines meet at the first boundary
// at which both chunks are long enough.
func TestCutsDependOnContent(t *testing.T) {
	t.Run("one large file", func(t *testing.T) { cutsDependOnContent(t, 0, 40, 80) })
	t.Run("small files", func(t *testing.T) { cutsDependOnContent(t, 10, 300, 420) })
}

func cutsDependOnContent(t *testing.T, files uint64, fewest, most int) {
	const blocks = 6000
	region := make(stream, blocks)
	for i := range region {
		region[i] = uint64(i)
	}
	before := region.cuts(files)
	if n := len(before); n < fewest || n > most {
		t.Fatalf("%d chunks of %d blocks", n, blocks)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		at, n := r.IntN(blocks), 1+r.IntN(40)
		changed := slices.Insert(slices.Clone(region), at, make(stream, n)...)
		for i := range n {
			changed[at+i] = uint64(1_000_000 + r.IntN(1_000_000))
		}
		after := changed.cuts(files)
		added := 0
		for _, c := range after {
			if !slices.Contains(before, c) {
				added++
			}
		}
		if added > 12 {
			t.Errorf("%d blocks inserted at %d: %d of %d chunks are new", n, at, added, len(after))
		}
	}
}

// TestBoundary: where a file ends.
func TestBoundary(t *testing.T) {
	for _, c := range []struct {
		zeros, size int
		want        bool
	}{{0, 4096, false}, {63, 4096, false}, {64, 4096, true}, {4095, 4096, true}, {64, 512, true}, {40, 41, false}, {63, 63, false}} {
		block := bytes.Repeat([]byte{1}, c.size)
		clear(block[c.size-c.zeros:])
		if got := chunk.Boundary(block); got != c.want {
			t.Errorf("%d zeros behind %d bytes: %v", c.zeros, c.size-c.zeros, got)
		}
	}
}

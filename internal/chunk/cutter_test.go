package chunk_test

import (
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

// stream is a region of blocks that are all different, by their numbers.
type stream []uint64

func (s stream) cuts() (names []string) {
	blocks := make([]int, len(s))
	block := make([]byte, chunk.BlockSize)
	for i := range blocks {
		blocks[i] = chunk.BlockSize
	}
	at := 0
	for _, end := range cuts(blocks, func(i int) bool {
		rand.NewChaCha8([32]byte{byte(s[i]), byte(s[i] >> 8), byte(s[i] >> 16)}).Read(block)
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
	const blocks = 6000
	region := make(stream, blocks)
	for i := range region {
		region[i] = uint64(i)
	}
	before := region.cuts()
	if n := len(before); n < 90 || n > 180 {
		t.Fatalf("%d chunks of %d blocks", n, blocks)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		at, n := r.IntN(blocks), 1+r.IntN(40)
		changed := slices.Insert(slices.Clone(region), at, make(stream, n)...)
		for i := range n {
			changed[at+i] = uint64(1_000_000 + r.IntN(1_000_000))
		}
		after := changed.cuts()
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

package chunk_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

func diff(t testing.TB, a, b *chunk.Image) (out []chunk.Difference) {
	t.Helper()
	err := chunk.Diff(context(t), a, b, func(d chunk.Difference) error {
		out = append(out, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// side is a disk and what of it is not kept.
type side struct {
	disk   []byte
	unused image.Range
}

func (s side) keeps(off int64) bool {
	return off < int64(len(s.disk)) && (off < s.unused.Off || off >= s.unused.End())
}

// plainDiff compares sector by sector.
func plainDiff(a, b side) (out []chunk.Difference) {
	for off := int64(0); off < int64(max(len(a.disk), len(b.disk))); off += 512 {
		d := chunk.Difference{Range: image.Range{Off: off, Len: 512}}
		switch ka, kb := a.keeps(off), b.keeps(off); {
		case ka && !kb:
			d.How = chunk.OnlyA
		case kb && !ka:
			d.How = chunk.OnlyB
		case !ka || bytes.Equal(a.disk[off:off+512], b.disk[off:off+512]):
			continue
		}
		if n := len(out); n > 0 && out[n-1].How == d.How && out[n-1].End() == off {
			out[n-1].Len += 512
		} else {
			out = append(out, d)
		}
	}
	return out
}

func drawUnused(t *rapid.T, disk []byte) image.Range {
	first := rapid.IntRange(0, len(disk)/4096).Draw(t, "unused")
	n := rapid.IntRange(0, len(disk)/4096-first).Draw(t, "unused length")
	return image.Range{Off: int64(first) * 4096, Len: int64(n) * 4096}
}

func TestDiff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := side{disk: diskOf(512*rapid.IntRange(1, 4<<11).Draw(rt, "a"), 1)}
		b := side{disk: diskOf(512*rapid.IntRange(1, 4<<11).Draw(rt, "b"), 1)}
		for range rapid.IntRange(0, 5).Draw(rt, "changes") {
			off := rapid.IntRange(0, len(b.disk)-1).Draw(rt, "at")
			n := rapid.IntRange(1, 20000).Draw(rt, "n")
			if part := b.disk[off:min(len(b.disk), off+n)]; rapid.Bool().Draw(rt, "zero") {
				clear(part)
			} else {
				copy(part, diskOf(len(part), 9))
			}
		}
		a.unused, b.unused = drawUnused(rt, a.disk), drawUnused(rt, b.disk)
		var st conform.MemStore
		got := diff(t, open(t, &st, conform.SaveImage(t, &st, a.disk, a.unused)), open(t, &st, conform.SaveImage(t, &st, b.disk, b.unused)))
		if want := plainDiff(a, b); !slices.Equal(got, want) {
			rt.Fatalf("got %v\nwant %v", got, want)
		}
	})
}

// TestDiffRegions: what is equal is not read.
func TestDiffRegions(t *testing.T) {
	disk := make([]byte, 2*chunk.RegionSize+8<<20)
	copy(disk[10<<20:], diskOf(20<<20, 1))
	copy(disk[2*chunk.RegionSize:], diskOf(8<<20, 2))
	var st conform.MemStore
	a := open(t, &st, conform.SaveImage(t, &st, disk))
	at := 2*chunk.RegionSize + 1<<20 + 700
	disk[at]++
	b := open(t, &st, conform.SaveImage(t, &st, disk))
	before := st.Gets()
	want := []chunk.Difference{{Range: image.Range{Off: int64(at - at%512), Len: 512}, How: chunk.Changed}}
	if got := diff(t, a, b); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Two pages, two chunks, and what is read ahead; all of both are hundreds.
	if n := st.Gets() - before; n > 40 {
		t.Errorf("%d objects were read", n)
	}
	if got := diff(t, a, a); len(got) > 0 {
		t.Errorf("an image differs from itself: %v", got)
	}
}

func TestDiffErrors(t *testing.T) {
	var st conform.MemStore
	a := open(t, &st, conform.SaveImage(t, &st, diskOf(1<<20, 1)))
	b := open(t, &st, conform.SaveImage(t, &st, diskOf(1<<20, 2)))
	stop := errors.New("enough")
	if err := chunk.Diff(context(t), a, b, func(chunk.Difference) error { return stop }); err != stop {
		t.Errorf("found's error came back as %v", err)
	}
	st.Lose(st.Keys(object.Page)[0])
	if err := chunk.Diff(context(t), a, b, func(chunk.Difference) error { return nil }); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("without a page: %v", err)
	}
}

package chunk_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

func outline(t testing.TB, im, base *chunk.Image, more func() bool) (out []chunk.Stretch) {
	t.Helper()
	if err := chunk.Outline(context(t), im, base, more, func(s chunk.Stretch) { out = append(out, s) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func always() bool { return true }

// TestOutline holds the outline to what Diff finds byte by byte. A place that Diff finds is
// never told as the same. Places that are far from all of them are not told as changed.
func TestOutline(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := side{disk: diskOf(512*rapid.IntRange(1, 4<<11).Draw(rt, "a"), 1)}
		b := side{disk: diskOf(512*rapid.IntRange(1, 4<<11).Draw(rt, "b"), 1)}
		if rapid.Bool().Draw(rt, "changes") {
			copy(b.disk[rapid.IntRange(0, len(b.disk)-1).Draw(rt, "at"):], diskOf(20000, 9))
		}
		a.unused, b.unused = drawUnused(rt, a.disk), drawUnused(rt, b.disk)
		var st conform.MemStore
		base := open(t, &st, conform.SaveImage(t, &st, a.disk, a.unused))
		im := open(t, &st, conform.SaveImage(t, &st, b.disk, b.unused))
		changed := make([]bool, im.Root.Size/512)
		at := int64(0)
		for _, s := range outline(t, im, base, always) {
			if s.Off != at || s.Len <= 0 || s.Unread || s.Changed && s.Content == image.Unused {
				rt.Fatalf("%+v comes at byte %d", s, at)
			}
			if at = s.End(); s.Content == image.Unused != !b.keeps(s.Off) {
				rt.Fatalf("%+v has a wrong content", s)
			}
			for i := s.Off / 512; i < s.End()/512; i++ {
				changed[i] = s.Changed
			}
		}
		if at != im.Root.Size {
			rt.Fatalf("the outline ends at %d of %d", at, im.Root.Size)
		}
		first, last := im.Root.Size, int64(0)
		for _, d := range diff(t, base, im) {
			if d.How == chunk.OnlyA {
				continue
			}
			first, last = min(first, d.Off), max(last, d.End())
			for i := d.Off / 512; i < d.End()/512; i++ {
				if !changed[i] {
					rt.Fatalf("byte %d is told as the same, and %v", i*512, d)
				}
			}
		}
		for i, is := range changed {
			if a.unused.Len > 0 || b.unused.Len > 0 {
				break // a chunk can go on behind an unused place
			}
			if far := int64(2 * chunk.MaxSize); is && (int64(i)*512 < first-far || int64(i)*512 > last+far) {
				rt.Fatalf("byte %d is told as changed, and only %d to %d are", i*512, first, last)
			}
		}
	})
}

func TestOutlineLimits(t *testing.T) {
	disk := make([]byte, 3*chunk.RegionSize)
	copy(disk, diskOf(1<<20, 1))
	var st conform.MemStore
	a := open(t, &st, conform.SaveImage(t, &st, disk))
	disk[2*chunk.RegionSize]++
	b := open(t, &st, conform.SaveImage(t, &st, disk))

	reads := 0
	if outline(t, b, a, func() bool { reads++; return true }); reads != 4 { // the two regions of zeros have one page each
		t.Errorf("%d pages were read", reads)
	}
	left := 2
	got := outline(t, b, a, func() bool { left--; return left >= 0 })
	last := got[len(got)-1]
	if want := (chunk.Stretch{Range: b.Root.Region(2), Unread: true, Changed: true}); last != want {
		t.Errorf("behind the limit: %+v, want %+v", last, want)
	}
	for _, s := range outline(t, a, nil, always) {
		if s.Changed {
			t.Errorf("without an earlier image something changed: %+v", s)
		}
	}
	st.Lose(st.Keys(object.Page)[0])
	st.Lose(st.Keys(object.Page)[0])
	if err := chunk.Outline(context(t), b, a, always, func(chunk.Stretch) {}); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("without pages: %v", err)
	}
}

package chunk_test

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// drawPage makes a page of any shape that is allowed.
func drawPage(t *rapid.T) *chunk.Page {
	p := new(chunk.Page)
	left, data := int64(chunk.RegionSize), int64(0)
	for range rapid.IntRange(1, 20).Draw(t, "extents") {
		n := rapid.OneOf(rapid.Int64Range(1, left), rapid.Int64Range(1, min(left, 5000))).Draw(t, "length")
		c := image.Content(rapid.IntRange(0, 2).Draw(t, "content"))
		p.Append(c, n)
		if c == image.Data {
			data += n
		}
		if left -= n; left == 0 {
			break
		}
	}
	for data > 0 {
		n := min(data, rapid.OneOf(rapid.Just(int64(chunk.MaxSize)), rapid.Int64Range(1, chunk.MaxSize)).Draw(t, "chunk"))
		p.Chunks = append(p.Chunks, chunk.Ref{Name: object.NameOf([]byte{byte(n)}), Len: int(n)})
		data -= n
	}
	return p
}

func TestPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPage(t)
		got, err := chunk.ParsePage(p.Marshal())
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("got %+v, %v; want %+v", got, err, p)
		}
		checkSpans(t, p)
	})
}

// checkSpans: the spans are the extents, and their data is that of the chunks.
func checkSpans(t *rapid.T, p *chunk.Page) {
	var again chunk.Page
	var off int64
	chunks := make([]int, len(p.Chunks)) // how much of each was seen
	for s := range p.Spans() {
		if s.Off != off || s.Len < 1 {
			t.Fatalf("span %+v at %d", s, off)
		}
		off += s.Len
		again.Append(s.Content, s.Len)
		if s.Content == image.Data {
			if s.At != chunks[s.Chunk] || s.Chunk > 0 && chunks[s.Chunk-1] != p.Chunks[s.Chunk-1].Len {
				t.Fatalf("span %+v is not what follows", s)
			}
			chunks[s.Chunk] += int(s.Len)
		}
	}
	if n := len(chunks); n > 0 && chunks[n-1] != p.Chunks[n-1].Len || !slices.Equal(again.Extents, p.Extents) {
		t.Fatalf("spans are of %v, extents %v", again.Extents, p.Extents)
	}
}

// TestPageRefuses what Marshal never writes.
func TestPageRefuses(t *testing.T) {
	name := make([]byte, 32)
	page := func(parts ...[]byte) []byte { return slices.Concat(append([][]byte{[]byte("TBXPAGE1")}, parts...)...) }
	zero := []byte{1, 4<<2 | 1, 0} // one extent, 4 bytes of zero; no chunk
	if _, err := chunk.ParsePage(page(zero)); err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{
		"empty":                    {},
		"no magic":                 zero,
		"another version":          append([]byte("TBXPAGE2"), zero...),
		"nothing in it":            page([]byte{0, 0}),
		"no chunks":                page(zero[:2]),
		"something after the end":  page(zero, []byte{0}),
		"an empty extent":          page([]byte{2, 1, 4<<2 | 2, 0}),
		"content 3":                page([]byte{1, 4<<2 | 3, 0}),
		"two that are one":         page([]byte{2, 4<<2 | 1, 4<<2 | 1, 0}),
		"longer than a region":     page([]byte{1, 0x85, 0x80, 0x80, 0x80, 4, 0}),
		"a long number":            page([]byte{1, 4<<2 | 1, 0x80, 0}),
		"a number that overflows":  page([]byte{1}, bytes.Repeat([]byte{0xff}, 10), []byte{0}),
		"more extents than bytes":  page([]byte{0xff, 0xff, 0xff, 0x7f}),
		"more chunks than bytes":   page([]byte{1, 4 << 2, 0xff, 0xff, 0x7f}),
		"a chunk of nothing":       page([]byte{1, 4 << 2, 2}, name, []byte{0}, name, []byte{4}),
		"a chunk that is too long": page([]byte{1, 0x80, 0x80, 0x80, 8, 1}, name, []byte{0x80, 0x80, 0x80, 1}),
		"chunks longer than data":  page([]byte{1, 4 << 2, 1}, name, []byte{5}),
		"chunks shorter than data": page([]byte{1, 4 << 2, 1}, name, []byte{3}),
		"data without a chunk":     page([]byte{1, 4 << 2, 0}),
	} {
		if p, err := chunk.ParsePage(b); err == nil {
			t.Errorf("%s: read as %+v", what, p)
		}
	}
}

func FuzzParsePage(f *testing.F) {
	f.Add([]byte("TBXPAGE1\x01\x11\x00"))
	f.Add(append([]byte("TBXPAGE1\x02\x10\x12\x01"), append(make([]byte, 32), 4)...))
	f.Add(rapid.Custom(drawPage).Example(1).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := chunk.ParsePage(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Marshal(), b) {
			t.Error("read something that Marshal does not write")
		}
		var n int64
		for s := range p.Spans() {
			if s.Content == image.Data && s.At+int(s.Len) > p.Chunks[s.Chunk].Len {
				t.Fatal("a span reaches over its chunk")
			}
			n += s.Len
		}
		if n != p.Len() || n < 1 || n > chunk.RegionSize {
			t.Errorf("%d bytes of spans, %d of extents", n, p.Len())
		}
	})
}

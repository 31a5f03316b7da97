package chunk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

func drawRoot(t *rapid.T) *chunk.Root {
	r := &chunk.Root{SectorSize: 1 << rapid.IntRange(9, 16).Draw(t, "sector")}
	r.Size = rapid.Int64Range(1, 20*chunk.RegionSize/int64(r.SectorSize)).Draw(t, "sectors") * int64(r.SectorSize)
	for off := int64(0); off < r.Size; off += chunk.RegionSize {
		r.Pages = append(r.Pages, object.NameOf(binary.AppendVarint(nil, off)))
	}
	if rapid.Bool().Draw(t, "layout") {
		r.Layout = json.RawMessage(`{"table":"gpt"}`)
	}
	return r
}

func TestRootRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRoot(t)
		got, err := chunk.ParseRoot(r.Marshal())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v, %v; want %+v", got, err, r)
		}
		end := int64(0)
		for i := range r.Pages {
			if p := r.Region(i); p.Off != end || p.Len < 1 {
				t.Fatalf("region %d is %v", i, p)
			} else {
				end += p.Len
			}
		}
		if end != r.Size {
			t.Fatalf("regions end at %d of %d", end, r.Size)
		}
	})
}

// TestLargestRoot: the largest disk fits into an object.
func TestLargestRoot(t *testing.T) {
	r := &chunk.Root{Size: chunk.MaxDisk, SectorSize: 512, Pages: make([]object.Name, chunk.MaxDisk/chunk.RegionSize)}
	b := r.Marshal()
	if got, err := chunk.ParseRoot(b); err != nil || !reflect.DeepEqual(got, r) || len(b) > object.MaxRoot {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestRootRefuses(t *testing.T) {
	root := func(size uint64, sector, pages uint32, rest ...byte) []byte {
		b := binary.LittleEndian.AppendUint64([]byte("TBXROOT1"), size)
		b = binary.LittleEndian.AppendUint32(b, sector)
		return append(binary.LittleEndian.AppendUint32(b, pages), rest...)
	}
	name := make([]byte, 32)
	good := root(4096, 512, 1, name...)
	if _, err := chunk.ParseRoot(good); err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{
		"empty":                    {},
		"no magic":                 good[1:],
		"cut off":                  good[:len(good)-1],
		"no size":                  root(0, 512, 0),
		"larger than any disk":     root(1<<47+512, 512, 1, name...),
		"of negative size":         root(1<<63, 512, 1, name...),
		"sectors of 513":           root(513, 513, 1, name...),
		"sectors of 128 KiB":       root(1<<17, 1<<17, 1, name...),
		"half a sector":            root(4096+256, 512, 1, name...),
		"too many pages":           root(4096, 512, 2, slices.Concat(name, name)...),
		"too few pages":            root(256<<20+512, 512, 1, name...),
		"pages that are not there": root(1<<47, 512, 1<<19, name...),
		"layout that is none":      root(4096, 512, 1, append(name, 'x')...),
		"two layouts":              root(4096, 512, 1, append(name, "{}{}"...)...),
		"layout that is too long":  root(4096, 512, 1, append(name, bytes.Repeat([]byte{' '}, 1<<20+1)...)...),
	} {
		if r, err := chunk.ParseRoot(b); err == nil {
			t.Errorf("%s: read as %+v", what, r)
		}
	}
}

func FuzzParseRoot(f *testing.F) {
	f.Add((&chunk.Root{Size: 4096, SectorSize: 512, Pages: make([]object.Name, 1)}).Marshal())
	f.Add(rapid.Custom(drawRoot).Example(1).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := chunk.ParseRoot(b); err == nil && !bytes.Equal(r.Marshal(), b) {
			t.Error("read something that Marshal does not write")
		}
	})
}

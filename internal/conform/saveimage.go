package conform

import (
	"context"
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// SaveImage writes the image of a disk into a store in the simplest way. It is
// the model of what a real backup does with a disk whose blocks are on one
// grid. Blocks inside an unused range are not stored. The result is the root.
func SaveImage(t testing.TB, st chunk.Session, disk []byte, unused ...image.Range) object.Name {
	t.Helper()
	s := saver{t, st}
	root := &chunk.Root{Size: int64(len(disk)), SectorSize: 512}
	for off := 0; off < len(disk); off += chunk.RegionSize {
		region := disk[off:min(len(disk), off+chunk.RegionSize)]
		p := s.region(region, func(at int64, n int64) bool { return inOne(unused, int64(off)+at, n) })
		root.Pages = append(root.Pages, s.put(object.Page, p.Marshal()))
	}
	return s.put(object.Root, root.Marshal())
}

func inOne(ranges []image.Range, off, n int64) bool {
	for _, r := range ranges {
		if off >= r.Off && off+n <= r.End() {
			return true
		}
	}
	return false
}

type saver struct {
	t  testing.TB
	st chunk.Session
}

func (s saver) put(kind object.Kind, raw []byte) object.Name {
	s.t.Helper()
	key := object.Key{Kind: kind, Name: object.NameOf(raw)}
	if err := s.st.Put(context.Background(), object.Encode(key, raw, nil)); err != nil {
		s.t.Fatal(err)
	}
	return key.Name
}

func (s saver) region(b []byte, unused func(off, n int64) bool) *chunk.Page {
	s.t.Helper()
	p := new(chunk.Page)
	var cut chunk.Cutter
	var open []byte
	end := func() {
		if len(open) > 0 {
			p.Chunks = append(p.Chunks, chunk.Ref{Name: s.put(object.Chunk, open), Len: len(open)})
			open = nil
		}
	}
	for off := 0; off < len(b); off += chunk.BlockSize {
		block := b[off:min(len(b), off+chunk.BlockSize)]
		n := len(block)
		switch {
		case unused(int64(off), int64(n)):
			p.Append(image.Unused, int64(n))
		case image.IsZero(block):
			p.Append(image.Zero, int64(n))
		default:
			p.Append(image.Data, int64(n))
			open = append(open, block...)
			if cut.Add(n, chunk.Boundary(block)) {
				end()
			}
		}
	}
	end()
	return p
}

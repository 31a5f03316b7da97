package boxapi

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// slowPages counts how many pages are read, and how many at a time.
type slowPages struct {
	chunk.Getter
	all, now, most atomic.Int64
}

func (g *slowPages) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	if at.Key().Kind == object.Page {
		g.all.Add(1)
		n := g.now.Add(1)
		defer g.now.Add(-1)
		for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
		}
		time.Sleep(10 * time.Millisecond)
	}
	return g.Getter.Get(ctx, at, buf)
}

// newImage makes an image of so many regions with so many chunks each, and opens it by a
// getter that is made of the store's. Each chunk of a region is another one. All regions are
// equal.
func newImage(t *testing.T, regions, chunks int, wrap func(chunk.Getter) chunk.Getter) *chunk.Image {
	m := new(conform.MemStore)
	ses := m.Begin()
	put := func(kind object.Kind, raw []byte) object.Name {
		key := object.Key{Kind: kind, Name: object.NameOf(raw)}
		if err := ses.Put(t.Context(), object.Encode(key, raw, nil)); err != nil {
			t.Fatal(err)
		}
		return key.Name
	}
	var page chunk.Page
	for i := range chunks {
		content := fmt.Appendf(nil, "chunk %d of %d", i, chunks)
		page.Chunks = append(page.Chunks, chunk.Ref{Name: put(object.Chunk, content), Len: len(content)})
		page.Append(image.Data, int64(len(content)))
	}
	data := page.Len()
	page.Append(image.Zero, chunk.RegionSize-data)
	root := &chunk.Root{Size: int64(regions) * chunk.RegionSize, SectorSize: 512}
	for range regions {
		root.Pages = append(root.Pages, put(object.Page, page.Marshal()))
	}
	name := put(object.Root, root.Marshal())
	im, err := chunk.OpenImage(t.Context(), wrap(m.Getter(name)), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// TestPagesAtOnce: however many requests look for places, few pages are in memory at a
// time, and few are read again. A request is answered before it has read all pages.
func TestPagesAtOnce(t *testing.T) {
	const regions, each = 16, 8
	g := &slowPages{}
	im := newImage(t, regions, 1, func(of chunk.Getter) chunk.Getter { g.Getter = of; return g })
	q := &request{s: &Server{places: newPlaceCache(1 << 20)}}
	var places []wire.Place
	for i := range regions {
		places = append(places, wire.Place{Region: uint32(i)})
	}
	if at, err := q.find(t.Context(), im, places); len(at) != 1 || err != nil || g.all.Load() != 1 {
		t.Errorf("%d places were found at first, of %d pages: %v", len(at), g.all.Load(), err)
	}
	var wg sync.WaitGroup
	for range each {
		for _, p := range places {
			wg.Go(func() {
				if _, err := q.s.places.find(t.Context(), im, p); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if g.most.Load() > pagesAtOnce || g.all.Load() > regions*each/2 {
		t.Errorf("%d pages were read, up to %d at a time", g.all.Load(), g.most.Load())
	}
	if at, err := q.find(t.Context(), im, places); len(at) != regions || err != nil {
		t.Errorf("%d places were found in the end: %v", len(at), err)
	}
}

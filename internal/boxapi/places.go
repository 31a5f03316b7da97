package boxapi

import (
	"context"
	"sync"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// placeCache keeps where the chunks of the regions read last are, for all open
// images together. A region is known by the names of its root and of its page, so
// images that are opened twice share it.
type placeCache struct {
	reads chan struct{} // one for each page that is being read

	mu    sync.Mutex // guards known
	known recent[regionKey, *chunk.Region]
}

type regionKey struct {
	root   object.Name
	region int
}

// pagesAtOnce is how many pages are read at a time to find places. One takes up to about
// 5 MiB meanwhile, which no request counts.
const pagesAtOnce = 4

func newPlaceCache(limit int64) *placeCache {
	return &placeCache{reads: make(chan struct{}, pagesAtOnce), known: newRecent[regionKey, *chunk.Region](limit)}
}

// find returns the place in an image that a client means. If the image has no such
// place, the error matches chunk.ErrMissing.
func (c *placeCache) find(ctx context.Context, im *chunk.Image, p wire.Place) (chunk.Place, error) {
	switch p.Kind() {
	case object.Root:
		return im.RootPlace(), nil
	case object.Page:
		return im.PagePlace(int(p.Region))
	}
	r, err := c.region(ctx, im, regionKey{im.Name, int(p.Region)})
	if err != nil {
		return chunk.Place{}, err
	}
	return r.Place(int(p.Chunk))
}

// atHand reports whether a place is found without reading a page.
func (c *placeCache) atHand(im *chunk.Image, p wire.Place) bool {
	return p.Kind() != object.Chunk || c.get(regionKey{im.Name, int(p.Region)}) != nil
}

func (c *placeCache) region(ctx context.Context, im *chunk.Image, key regionKey) (*chunk.Region, error) {
	if r := c.get(key); r != nil {
		return r, nil
	}
	select {
	case c.reads <- struct{}{}:
		defer func() { <-c.reads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r := c.get(key); r != nil { // another request was faster
		return r, nil
	}
	r, err := im.Region(ctx, key.region)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.put(key, r, 200+32*int64(r.Len()))
	return r, nil
}

func (c *placeCache) get(key regionKey) *chunk.Region {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, _ := c.known.get(key)
	return r
}

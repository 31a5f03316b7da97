package peering

import (
	"context"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// Image is an image that is fetched together with other boxes while it is written. It
// implements copier.Gatherer and copier.Arriving.
type Image struct {
	copier.StoredImage
	node  *Node
	ask   Room
	plain *pager
	s     *session // nil as long as the box is in no room
}

var (
	_ copier.Gatherer = (*Image)(nil)
	_ copier.Arriving = (*Image)(nil)
)

// joinLimit is how long a box waits for the answer whether there is a room. Without one it
// reads from the server.
const joinLimit = 10 * time.Second

// Gather joins the room of the image. If that is not possible, or not wanted, everything is
// read from the server.
func (im *Image) Gather(ctx context.Context, g copier.Gathering) (end func(), err error) {
	if im.node.cfg.Memory == 0 {
		return func() {}, nil
	}
	s, err := im.join(ctx, g)
	switch {
	case err != nil:
		im.node.cfg.Log("everything is read from the server, since this box cannot work with others: %v", err)
	case s != nil:
		im.s = s
		im.StoredImage = copier.StoredImage{Image: s.image, From: s.start}
		s.run()
		return s.fetched, nil
	}
	return func() {}, nil
}

// join returns nil if boxes do not serve each other.
func (im *Image) join(ctx context.Context, g copier.Gathering) (*session, error) {
	port, err := im.node.listen()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	j, err := im.ask.Join(ctx, wire.Join{Port: port, Key: im.node.print})
	if err != nil {
		return nil, err
	}
	im.node.mu.Lock()
	im.node.answered = true
	im.node.mu.Unlock()
	if !j.On {
		return nil, nil
	}
	return newSession(im, g, j), nil
}

// Arrives implements copier.Arriving. What comes from the room was compared with its name.
func (im *Image) Arrives() bool { return im.s != nil }

// Arrived implements copier.Arriving.
func (im *Image) Arrived(p image.Stored) (sum xxh3.Uint128, ok bool) {
	at, _ := chunk.PlaceOf(p)
	return im.s.arrived(at)
}

// Prove implements copier.Image.
func (im *Image) Prove(sum string, r *image.Receipt) error {
	if im.s != nil {
		im.s.account(r)
	}
	return im.StoredImage.Prove(sum, r)
}

// Close leaves the room. Nothing is read from the disk any more when it returns.
func (im *Image) Close() {
	if im.s != nil {
		im.s.close()
	}
}

// pager reads an image from the server, and keeps pages. It implements chunk.Getter and
// chunk.Bulk.
type pager struct {
	chunk.Getter // the server
	image        *chunk.Image
	pages        pages
}

// Get implements chunk.Getter.
func (g *pager) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	if at.Key().Kind == object.Page {
		return g.pages.get(ctx, g.Getter, g.image.PagePlaces(at.Region, pagesTogether), buf)
	}
	return g.Getter.Get(ctx, at, buf)
}

// GetAll implements chunk.Bulk.
func (g *pager) GetAll(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) error {
	return chunk.GetAll(ctx, g.Getter, at, buf, got)
}

// CheckAll implements chunk.Bulk.
func (g *pager) CheckAll(ctx context.Context, at []chunk.Place, buf []byte, got func(error) error) error {
	return chunk.CheckAll(ctx, g.Getter, at, buf, got)
}

// getter reads the image for the passes over a disk that gather. It implements chunk.Getter
// and chunk.Bulk.
type getter struct {
	*pager
	s *session
}

// Get implements chunk.Getter.
func (g *getter) Get(ctx context.Context, at chunk.Place, buf []byte) (o object.Object, err error) {
	if at.Key().Kind != object.Chunk {
		return g.pager.Get(ctx, at, buf)
	}
	err = g.GetAll(ctx, []chunk.Place{at}, buf, func(got object.Object, err error) error {
		o = got
		if err == nil && len(o.Data) > 0 { // it stays there only until this returns
			o.Data = append(buf[:0], o.Data...)
		}
		return err
	})
	return o, err
}

// GetAll implements chunk.Bulk.
func (g *getter) GetAll(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) error {
	for len(at) > 0 {
		n, err := g.s.give(ctx, at, buf, got)
		if err != nil {
			return err
		}
		at = at[n:]
	}
	return nil
}

// Close implements chunk.Getter. Who opened the image closes it.
func (g *getter) Close() error { return nil }

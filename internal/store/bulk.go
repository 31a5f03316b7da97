package store

import (
	"context"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// runWaste is how many bytes of other objects are read along, so that objects which
// are near each other in a pack come by one read.
const runWaste = 128 << 10

var _ chunk.Bulk = (*imageGetter)(nil)

// GetAll implements chunk.Bulk.
func (g *imageGetter) GetAll(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) error {
	for len(at) > 0 {
		n, err := g.run(ctx, at, buf, got)
		if err != nil {
			return err
		}
		at = at[n:]
	}
	return nil
}

// CheckAll implements chunk.Bulk.
func (g *imageGetter) CheckAll(ctx context.Context, at []chunk.Place, buf []byte, got func(error) error) error {
	return g.GetAll(ctx, at, buf, func(_ object.Object, err error) error { return got(err) })
}

// run gets the first objects, which are those that one read brings. It returns how many
// they are. What does not come whole by that read is read by itself, so that all that
// can be wrong with an object is found out in one way.
func (g *imageGetter) run(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) (int, error) {
	r := g.plan(at, cap(buf))
	if len(r.at) < 2 {
		return 1, got(g.Get(ctx, at[0], buf))
	}
	b := buf[:r.to-r.from]
	n, _ := g.from.packReader(ctx, r.name).ReadAt(b, r.from)
	for i, l := range r.at {
		o, err := pack.ParseObject(b[min(int64(l.Off)-r.from, int64(n)):n], int64(l.Off))
		if err != nil || o.Key != at[i].Key() {
			o, err = g.Get(ctx, at[i], nil)
		}
		if err := got(o, err); err != nil {
			return 0, err
		}
	}
	return len(r.at), nil
}

// run is a part of a pack with some objects.
type run struct {
	name     string // of the pack
	from, to int64  // bytes of the pack
	at       []index.Loc
}

// plan finds out how many of the first places one read of at most so many bytes brings.
func (g *imageGetter) plan(at []chunk.Place, most int) (r run) {
	bytes := int64(0)
	for _, p := range at {
		if g.closed.Load() || p.Image() != g.image {
			return r
		}
		l, name, err := g.from.locate(p.Key())
		if err != nil || r.at != nil && name != r.name {
			return r
		}
		from, to := int64(l.Off), int64(l.Off)+int64(l.Len)
		if r.at != nil {
			from, to = min(from, r.from), max(to, r.to)
		}
		if bytes += int64(l.Len); to-from > int64(most) || to-from > bytes+runWaste {
			return r
		}
		r = run{name, from, to, append(r.at, l)}
	}
	return r
}

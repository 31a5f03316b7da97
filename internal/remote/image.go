package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// readsAtOnce is how many requests for objects of an image are under way at once.
const readsAtOnce = 4

// OpenImage implements chunk.Images.
func (c *Client) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	d := r.Disk(disk)
	if d == nil {
		return nil, fmt.Errorf("backup %s of %s has no disk %s: %w", r.ID, r.Box, disk, fs.ErrNotExist)
	}
	g := &getter{c: c, number: c.images.Add(1), open: wire.OpenOf(r, d), turns: make(chan struct{}, readsAtOnce)}
	g.ctx, g.end = context.WithCancelCause(context.Background())
	im, err := g.openImage(ctx, d)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("open disk %s of backup %s of %s: %w", disk, r.ID, r.Box, err)
	}
	return im, nil
}

// getter reads one image. It implements chunk.Bulk.
type getter struct {
	c      *Client
	number uint64
	open   wire.Open
	ctx    context.Context // ends when the image is closed
	end    context.CancelCauseFunc
	turns  chan struct{} // one for each request for objects that is under way
	closed sync.Once
}

var _ chunk.Bulk = (*getter)(nil)

func (g *getter) openImage(ctx context.Context, d *image.RecordedDisk) (*chunk.Image, error) {
	if err := g.c.try(ctx, func(ctx context.Context) (bool, error) { return false, g.ask(ctx) }); err != nil {
		return nil, err
	}
	im, err := chunk.OpenImage(ctx, g, d.Root)
	if err != nil {
		return nil, err
	}
	if im.Root.Size != d.Disk.Size || im.Root.SectorSize != d.Disk.SectorSize {
		return nil, fmt.Errorf("the image has %d bytes in sectors of %d, its record says %d in sectors of %d",
			im.Root.Size, im.Root.SectorSize, d.Disk.Size, d.Disk.SectorSize)
	}
	return im, nil
}

// ask opens the image at the server.
func (g *getter) ask(ctx context.Context) error {
	q := call{method: http.MethodPut, path: wire.ImagePath(g.number), parts: [][]byte{wire.Marshal(g.open)}}
	return g.c.do(ctx, q, none)
}

// post sends a request for objects of the image. If the server does not have the
// image open, as after its restart, post opens it again.
func (g *getter) post(ctx context.Context, path string, places []wire.Place, read func(status int, body io.Reader) error) error {
	q := call{method: http.MethodPost, path: path, parts: [][]byte{wire.AppendPlaces(nil, places)}}
	err := g.c.do(ctx, q, read)
	if !errors.Is(err, wire.ErrNotOpen) {
		return err
	}
	if err := g.ask(ctx); err != nil {
		return err
	}
	if err = g.c.do(ctx, q, read); errors.Is(err, wire.ErrNotOpen) {
		return &awayError{err}
	}
	return err
}

// Get implements chunk.Getter.
func (g *getter) Get(ctx context.Context, at chunk.Place, buf []byte) (o object.Object, err error) {
	err = g.GetAll(ctx, []chunk.Place{at}, buf, func(got object.Object, err error) error {
		o = got
		return err
	})
	return o, err
}

// Check implements chunk.Getter.
func (g *getter) Check(ctx context.Context, at chunk.Place, buf []byte) error {
	return g.CheckAll(ctx, []chunk.Place{at}, buf, func(err error) error { return err })
}

// GetAll implements chunk.Bulk.
func (g *getter) GetAll(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) error {
	read := func(at []chunk.Place, places []wire.Place, body io.Reader) (n int, err error) {
		for ; n < len(places); n++ {
			o, lack, err := receive(body, places[n], at[n].Key(), buf)
			if err != nil {
				return n, broken(err)
			}
			if lack != nil {
				lack = fmt.Errorf("%v: %w", at[n].Key(), lack)
			}
			if err := got(o, lack); err != nil {
				return n, &endError{err}
			}
		}
		return n, nil
	}
	q := question{wire.ReadPath(g.number), func() int { return min(wire.MaxPlaces, g.c.width.now()) }, read}
	return g.all(ctx, at, q, func(err error) error { return got(object.Object{}, err) })
}

// receive reads an object from an answer. lack says what is wrong with the object, err
// what is wrong with the answer.
func receive(body io.Reader, at wire.Place, key object.Key, buf []byte) (o object.Object, lack, err error) {
	h, err := wire.ReadHeader(body)
	switch {
	case err != nil:
		return o, nil, err
	case h.Lack != nil:
		return o, h.Lack, nil
	case h.Kind != at.Kind():
		return o, nil, fmt.Errorf("the server sends a %v where %v is due", h.Kind, at)
	}
	o, err = h.ReadObject(body, buf)
	switch {
	case errors.Is(err, object.ErrDamaged):
		return object.Object{}, err, nil
	case err == nil && o.Key != key:
		return object.Object{}, fmt.Errorf("the server sends %v in its place: %w", o.Key, object.ErrDamaged), nil
	}
	return o, nil, err
}

// CheckAll implements chunk.Bulk. Only the verdicts cross the network.
func (g *getter) CheckAll(ctx context.Context, at []chunk.Place, _ []byte, got func(error) error) error {
	read := func(at []chunk.Place, places []wire.Place, body io.Reader) (n int, err error) {
		verdicts := make([]byte, len(places))
		if _, err := io.ReadFull(body, verdicts); err != nil {
			return 0, broken(err)
		}
		if err := wire.ReadEnd(body); err != nil {
			return 0, err
		}
		for ; n < len(places); n++ {
			err := verdictError(wire.Verdict(verdicts[n]))
			if err != nil {
				err = fmt.Errorf("%v: %w", at[n].Key(), err)
			}
			if err := got(err); err != nil {
				return n, &endError{err}
			}
		}
		return n, nil
	}
	return g.all(ctx, at, question{wire.CheckPath(g.number), func() int { return wire.MaxChecks }, read}, got)
}

// endError is an error of the caller, who wants nothing further.
type endError struct{ err error }

func (e *endError) Error() string { return e.err.Error() }

// question is what is asked about places.
type question struct {
	path  string
	width func() int // of how many places one request may ask
	// read reads the answer to a request. It returns how many of its places have been
	// answered.
	read func(at []chunk.Place, places []wire.Place, body io.Reader) (int, error)
}

// all sends requests about places until each is answered. A place about which nothing can
// be found out is given to failed, with the reason.
func (g *getter) all(ctx context.Context, at []chunk.Place, q question, failed func(error) error) error {
	for len(at) > 0 {
		places, err := g.places(at)
		if len(places) > 0 {
			var came int
			came, err = g.ours(ctx, at[:len(places)], places, q)
			at = at[came:]
		}
		var end *endError
		switch {
		case errors.As(err, &end):
			return end.err
		case err == nil:
			continue
		}
		if err := failed(fmt.Errorf("%v: %w", at[0].Key(), err)); err != nil {
			return err
		}
		at = at[1:]
	}
	return nil
}

// places returns how the first places are sent, as far as they are of this image. If
// there is none, it says why.
func (g *getter) places(at []chunk.Place) (places []wire.Place, err error) {
	for _, p := range at {
		place, err := wire.PlaceOf(p)
		if p.Image() != g.open.Root {
			err = fmt.Errorf("it is of image %v, and asked of image %v: %w", p.Image(), g.open.Root, chunk.ErrMissing)
		}
		if err != nil {
			return places, err
		}
		places = append(places, place)
	}
	return places, nil
}

// ours is all for places of this image. It returns how many were answered.
func (g *getter) ours(ctx context.Context, at []chunk.Place, places []wire.Place, q question) (int, error) {
	done := 0
	var ended *endError // else it would be lost if ctx ends at the same time
	err := g.c.tryWhile(ctx, g.ctx, func(ctx context.Context) (further bool, err error) {
		select {
		case g.turns <- struct{}{}:
			defer func() { <-g.turns }()
		case <-ctx.Done():
			return false, ctx.Err()
		}
		for err == nil && done < len(at) {
			end, came := min(done+q.width(), len(at)), 0
			err = g.post(ctx, q.path, places[done:end], func(_ int, body io.Reader) (err error) {
				if came, err = q.read(at[done:end], places[done:end], body); err == nil {
					err = wire.ReadEnd(body)
				}
				return err
			})
			g.c.width.note(err)
			errors.As(err, &ended)
			done += came
			further = further || came > 0
		}
		if done == len(at) {
			err = nil // what is wrong behind the last one takes nothing away
		}
		return further, err
	})
	if ended != nil {
		return done, ended
	}
	return done, err
}

// verdictError returns the error that a verdict means, or nil.
func verdictError(v wire.Verdict) error {
	if !v.Valid() {
		return fmt.Errorf("the server answers a check with %d, which means nothing", byte(v))
	}
	if p := v.Problem("it is " + v.String()); p != nil {
		return p
	}
	return nil
}

// Close implements chunk.Getter.
func (g *getter) Close() (err error) {
	g.closed.Do(func() {
		g.end(fmt.Errorf("image %v: %w", g.open.Root, chunk.ErrClosed))
		err = g.c.tell(wire.ImagePath(g.number))
	})
	return err
}

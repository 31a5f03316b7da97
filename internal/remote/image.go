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

// readsAtOnce is how many requests for objects of an image are under way at once. What
// is wanted meanwhile goes into the next ones.
const readsAtOnce = 4

// OpenImage implements chunk.Images.
func (c *Client) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	d := r.Disk(disk)
	if d == nil {
		return nil, fmt.Errorf("backup %s of %s has no disk %s: %w", r.ID, r.Box, disk, fs.ErrNotExist)
	}
	g := &getter{c: c, number: c.images.Add(1), open: wire.OpenOf(r, d)}
	g.ctx, g.end = context.WithCancelCause(context.Background())
	g.gets = batcher[*get]{c: c, ctx: g.ctx, atOnce: readsAtOnce, fits: fewer[*get](wire.MaxPlaces), do: g.read}
	g.checks = batcher[wire.Place]{c: c, ctx: g.ctx, atOnce: readsAtOnce, fits: fewer[wire.Place](wire.MaxChecks), do: g.check}
	im, err := g.openImage(ctx, d)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("open disk %s of backup %s of %s: %w", disk, r.ID, r.Box, err)
	}
	return im, nil
}

func fewer[J any](most int) func(batch []*wish[J], _ *wish[J]) bool {
	return func(batch []*wish[J], _ *wish[J]) bool { return len(batch) < most }
}

// getter reads one image. It implements chunk.Getter.
type getter struct {
	c      *Client
	number uint64
	open   wire.Open
	ctx    context.Context // ends when the image is closed
	end    context.CancelCauseFunc
	gets   batcher[*get]
	checks batcher[wire.Place]
	closed sync.Once
}

// get is an object that is wanted, and then it is the object.
type get struct {
	at  wire.Place
	key object.Key
	buf []byte
	got object.Object
}

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

// place returns how a place is sent, if it is of this image.
func (g *getter) place(at chunk.Place) (wire.Place, error) {
	if at.Image() != g.open.Root {
		return wire.Place{}, fmt.Errorf("%v of image %v, asked of image %v: %w", at.Key(), at.Image(), g.open.Root, chunk.ErrMissing)
	}
	return wire.PlaceOf(at)
}

// Get implements chunk.Getter.
func (g *getter) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	p, err := g.place(at)
	if err != nil {
		return object.Object{}, err
	}
	w := &get{at: p, key: at.Key(), buf: buf}
	if err := g.gets.run(ctx, w); err != nil {
		return object.Object{}, fmt.Errorf("%v: %w", at.Key(), err)
	}
	return w.got, nil
}

// read reads the objects of a batch, each into the memory of who waits for it.
func (g *getter) read(ctx context.Context, batch []*wish[*get]) ([]*wish[*get], error) {
	var places []wire.Place
	for _, w := range batch {
		places = append(places, w.job.at)
	}
	err := g.post(ctx, wire.ReadPath(g.number), places, func(_ int, body io.Reader) error {
		for len(batch) > 0 {
			lack, err := batch[0].job.receive(body)
			if err != nil {
				return broken(err)
			}
			batch[0].end(lack)
			batch = batch[1:]
		}
		return wire.ReadEnd(body)
	})
	if len(batch) == 0 {
		return nil, nil
	}
	return batch, err
}

// receive reads the object from an answer. lack says what is wrong with the object,
// err what is wrong with the answer.
func (w *get) receive(body io.Reader) (lack, err error) {
	h, err := wire.ReadHeader(body)
	switch {
	case err != nil:
		return nil, err
	case h.Lack != nil:
		return h.Lack, nil
	case h.Kind != w.at.Kind():
		return nil, fmt.Errorf("the server sends a %v where %v is due", h.Kind, w.at)
	}
	w.got, err = h.ReadObject(body, w.buf)
	switch {
	case errors.Is(err, object.ErrDamaged):
		return err, nil
	case err == nil && w.got.Key != w.key:
		return fmt.Errorf("the server sends %v in its place: %w", w.got.Key, object.ErrDamaged), nil
	}
	return nil, err
}

// Check implements chunk.Getter. Only the verdict crosses the network.
func (g *getter) Check(ctx context.Context, at chunk.Place, _ []byte) error {
	p, err := g.place(at)
	if err != nil {
		return err
	}
	if err := g.checks.run(ctx, p); err != nil {
		return fmt.Errorf("%v: %w", at.Key(), err)
	}
	return nil
}

func (g *getter) check(ctx context.Context, batch []*wish[wire.Place]) ([]*wish[wire.Place], error) {
	var places []wire.Place
	for _, w := range batch {
		places = append(places, w.job)
	}
	var verdicts []byte
	err := g.post(ctx, wire.CheckPath(g.number), places, func(_ int, body io.Reader) error {
		verdicts = make([]byte, len(batch))
		if _, err := io.ReadFull(body, verdicts); err != nil {
			return broken(err)
		}
		return wire.ReadEnd(body)
	})
	if err != nil {
		return batch, err
	}
	for i, w := range batch {
		w.end(verdictError(wire.Verdict(verdicts[i])))
	}
	return nil, nil
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

package boxapi

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// openImage opens an image under a number that the client chose. The image that is
// open under it already is kept if it is the same.
func (s *Server) openImage(ctx context.Context, q *request) error {
	n, err := q.number("image")
	if err != nil {
		return err
	}
	body, release, err := q.small(ctx, wire.MaxOpen, 2)
	if err != nil {
		return err
	}
	defer release()
	open, err := wire.ParseOpen(body)
	if err != nil {
		return errRefused(err)
	}
	if q.grant.MayRead == nil || !q.grant.MayRead(open.Box, open.ID, open.Disk) {
		s.cfg.Overstep(q.token, "to read an image that is not of this job")
		return fmt.Errorf("disk %s of backup %s of %s: %w, or is not of this job", open.Disk, open.ID, open.Box, fs.ErrNotExist)
	}
	im, done, err := s.opening(q.client, n, open)
	if err != nil {
		return err
	}
	if im != nil {
		defer done()
		if err := q.open(ctx, im); err != nil {
			s.mu.Lock()
			q.client.forgetImage(im)
			s.mu.Unlock()
			return err
		}
	}
	return q.answer(http.StatusNoContent, "", nil)
}

// open opens an image in the store.
func (q *request) open(ctx context.Context, im *openedImage) error {
	if err := q.wait(ctx, q.s.opens); err != nil {
		return err
	}
	defer func() { <-q.s.opens }()
	image, err := q.s.cfg.Images.OpenImage(ctx, im.open.Record(), im.open.Disk)
	if err != nil {
		return err
	}
	if err = ctx.Err(); err == nil { // who has gone may have closed it already
		err = q.s.keep(q.client, im, image)
	}
	if err != nil {
		image.Close()
	}
	return err
}

// wait waits for a place in a queue.
func (q *request) wait(ctx context.Context, queue chan struct{}) error {
	timer := time.NewTimer(q.s.cfg.Answer)
	defer timer.Stop()
	select {
	case queue <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy("the server has too much to do at the moment")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rootBytes is about what the root of an open image takes in memory, and at least
// what its stored form has.
func rootBytes(im *chunk.Image) int64 {
	return int64(1024 + len(object.Name{})*len(im.Root.Pages) + len(im.Root.Layout))
}

// opening makes room for an image that a client opens. It returns nil if the client
// has it open already. done must be called at the end.
func (s *Server) opening(c *client, n uint64, open *wire.Open) (im *openedImage, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := c.images[n]
	switch {
	case s.closed || c.gone:
		return nil, nil, errBusy("the server ends this session")
	case have != nil && have.open != *open:
		return nil, nil, errRefused(fmt.Errorf("image %d is another one", n))
	case have != nil && have.image == nil:
		return nil, nil, errBusy("image %d is being opened by another request", n)
	case have != nil:
		return nil, nil, nil
	case c.ending[part{true, n}] != nil:
		return nil, nil, errBusy("an image %d was closed, and is still being read", n)
	case len(c.images) >= wire.MaxImages:
		return nil, nil, errTooMany(c)
	}
	im = &openedImage{number: n, open: *open}
	im.use = newUse(func() {
		s.rooms.leave(im.guest)
		if im.image != nil {
			im.image.Close()
			s.roots -= im.root
		}
	})
	c.images[n] = im
	return im, im.begin(s), nil
}

func errTooMany(c *client) error {
	return errRefused(fmt.Errorf("this session has %d images open, which is as much as it may", len(c.images)))
}

// keep notes that an image is open.
func (s *Server) keep(c *client, im *openedImage, image *chunk.Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	root := rootBytes(image)
	of := root
	for _, other := range c.images {
		of += other.root
	}
	switch {
	case s.closed || im.ended:
		return errBusy("the image was closed while it was opened")
	case of > rootsOfClient && len(c.images) > 1:
		return errTooMany(c)
	case s.roots+root > rootsMemory:
		return errBusy("there are too many images open")
	}
	s.roots += root
	im.root, im.image = root, image
	return nil
}

func (s *Server) closeImage(ctx context.Context, q *request) error {
	n, err := q.number("image")
	if err != nil {
		return err
	}
	s.mu.Lock()
	if im := q.client.images[n]; im != nil {
		q.client.forgetImage(im)
	}
	s.mu.Unlock()
	if err := q.unused(ctx, part{image: true, number: n}); err != nil {
		return err
	}
	return q.answer(http.StatusNoContent, "", nil)
}

// places reads the places that a request asks for, and the image they are of.
func (q *request) places(ctx context.Context, most int) (places []wire.Place, im *openedImage, done func(), err error) {
	n, err := q.number("image")
	if err != nil {
		return nil, nil, nil, err
	}
	body, release, err := q.small(ctx, wire.MaxPlacesBytes(most), 3)
	if err != nil {
		return nil, nil, nil, err
	}
	defer release()
	if places, err = wire.ParsePlaces(body, most); err != nil {
		return nil, nil, nil, errRefused(err)
	}
	im, done, err = q.s.image(q.client, n)
	return places, im, done, err
}

const (
	// readBuffer is for chunks and pages as they are stored, and for what lies between
	// them in a pack.
	readBuffer = object.MaxChunk + 64<<10
	// sendTogether is how many bytes of objects are sent by one write. On a slow line a
	// write must not last for long, since only its end is seen.
	sendTogether = 128 << 10
	// readMemory is what a request that reads objects holds in memory.
	readMemory = readBuffer + sendTogether
)

// roomy returns a buffer of at least readBuffer bytes.
func roomy(buf *[]byte) []byte {
	if cap(*buf) < readBuffer {
		*buf = make([]byte, 0, readBuffer)
	}
	return *buf
}

// needs returns how much memory it takes to read the objects at some places.
func (im *openedImage) needs(places []wire.Place) int64 {
	if slices.Contains(places, wire.Root) {
		return max(readMemory, 2*im.root)
	}
	return readMemory
}

// find returns where the first places are in an image, as many as it has, and as can be
// told by one page. So what is known is sent before the next page is read. If the image
// does not have the first one, find says why.
func (q *request) find(ctx context.Context, im *chunk.Image, places []wire.Place) (at []chunk.Place, err error) {
	for _, p := range places {
		if len(at) > 0 && !q.s.places.atHand(im, p) {
			break
		}
		found, err := q.s.places.find(ctx, im, p)
		if err != nil {
			return at, err
		}
		at = append(at, found)
	}
	return at, nil
}

// senders join what is sent.
var senders = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, sendTogether) }}

// read sends the objects at some places, as they are stored.
func (s *Server) read(ctx context.Context, q *request) error {
	places, im, done, err := q.places(ctx, wire.MaxPlaces)
	if err != nil {
		return err
	}
	defer done()
	release, err := q.hold(ctx, im.needs(places))
	if err != nil {
		return err
	}
	defer release()
	buf, out := buffers.Get().(*[]byte), senders.Get().(*bufio.Writer)
	defer buffers.Put(buf)
	defer senders.Put(out)
	defer out.Reset(nil)
	out.Reset(q)
	q.w.Header().Set("Content-Type", bytesType)
	var head []byte
	send := func(o object.Object, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			head, o = wire.AppendLack(head[:0], err), object.Object{}
		} else {
			head = wire.AppendHeader(head[:0], o)
		}
		q.s.cfg.Sent(q.token, int64(len(o.Data)))
		out.Write(head)
		_, err = out.Write(o.Data) // it remembers an error of the Write before
		return err
	}
	for len(places) > 0 {
		at, err := q.find(ctx, im.image, places)
		if len(at) == 0 {
			err = send(object.Object{}, err)
			places = places[1:]
		} else {
			err = chunk.GetAll(ctx, im.image.Getter(), at, roomy(buf), func(o object.Object, err error) error {
				if err == nil && o.Key != at[0].Key() {
					err = fmt.Errorf("%v is where %v should be: %w", o.Key, at[0].Key(), object.ErrDamaged)
				}
				q.lacks(ctx, places[0], err)
				at, places = at[1:], places[1:]
				return send(o, err)
			})
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

// lacks logs that an object of an image cannot be read.
func (q *request) lacks(ctx context.Context, p wire.Place, err error) {
	if err != nil && ctx.Err() == nil {
		q.s.logf(q.from(), "%s of %s cannot be read for %s: %v", p, q.URL.Path, q.grant.Box, err)
	}
}

// flushEvery is how often a check that takes long sends what it knows, so that the
// client sees that the server is there.
const flushEvery = 2 * time.Second

// check compares objects with the sums of their stored bytes. The answer has a byte
// for each.
func (s *Server) check(ctx context.Context, q *request) error {
	places, im, done, err := q.places(ctx, wire.MaxChecks)
	if err != nil {
		return err
	}
	defer done()
	release, err := q.hold(ctx, im.needs(places))
	if err != nil {
		return err
	}
	defer release()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return q.verdicts(ctx, im.image, places, roomy(buf))
}

// verdicts answers with the verdicts of places of an image.
func (q *request) verdicts(ctx context.Context, im *chunk.Image, places []wire.Place, buf []byte) error {
	q.w.Header().Set("Content-Type", bytesType)
	a := &answer{q: q, ctx: ctx, places: places, last: time.Now()}
	for len(a.places) > 0 {
		at, err := q.find(ctx, im, a.places)
		if len(at) == 0 {
			a.add(err)
			err = a.flush()
		} else {
			err = q.s.verdicts.check(ctx, im.Getter(), at, buf, a)
		}
		if err != nil {
			return err
		}
	}
	_, err := q.Write(a.known)
	return err
}

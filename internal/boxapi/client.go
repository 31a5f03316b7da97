package boxapi

import (
	"context"
	"fmt"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/wire"
)

// client is what the server has for a token. The server's mutex guards it, but for
// what its parts say otherwise.
type client struct {
	requests int       // for the store, being served
	talks    int       // about the job, being served
	used     time.Time // when the last request ended
	session  *session  // nil if none is open
	last     uint64    // the highest number that a session had
	ended    bool      // the session with that number was ended by the client
	images   map[uint64]*openedImage
	gone     bool // the server has forgotten the client, while it still serves requests
	// ending has what was ended while requests still used it.
	ending map[part]*use
}

// part names a session or an image of a client.
type part struct {
	image  bool
	number uint64
}

// use counts the requests that use a session or an image. What is ended stays open
// in the store until no request uses it any more. The server's mutex guards it.
type use struct {
	serving int           // requests
	last    time.Time     // when the last one ended
	close   func()        // closes it in the store
	ended   bool          // by the client, or by the server
	closed  chan struct{} // closed when it is closed in the store
}

func newUse(close func()) use {
	return use{close: close, last: time.Now(), closed: make(chan struct{})}
}

// begin counts a request. The request calls done at its end.
func (u *use) begin(s *Server) (done func()) {
	u.serving++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.serving--
		u.last = time.Now()
		u.release()
	}
}

// end says that no further request comes.
func (u *use) end(c *client, name part) {
	u.ended = true
	if u.serving > 0 {
		c.ending[name] = u
		closed := u.close
		u.close = func() { closed(); delete(c.ending, name) }
	}
	u.release()
}

func (u *use) release() {
	if u.ended && u.serving == 0 {
		u.close()
		close(u.closed)
	}
}

// idle reports whether no request has used it since a time.
func (u *use) idle(before time.Time) bool { return u.serving == 0 && u.last.Before(before) }

// session is a backup in progress.
type session struct {
	use
	number uint64
	backup chunk.Session

	mu     sync.Mutex // guards the fields below
	stored int64      // bytes of objects
	commit *commit    // the last one
}

// openedImage is an image that a client reads.
type openedImage struct {
	use
	number uint64
	open   wire.Open
	image  *chunk.Image // nil while it is being opened
	root   int64        // bytes of the root
	guest  *guest       // in the room of the image; nil if the box has not joined
}

// A kind is a counter of the requests of a client, and how many there may be at once.
type kind func(c *client) (count *int, most int)

func (c *client) store() (*int, int) { return &c.requests, wire.MaxAtOnce }
func (c *client) talk() (*int, int)  { return &c.talks, talksAtOnce }

// client counts a request of a token.
func (s *Server) client(token string, of kind) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[token]
	if c == nil {
		c = &client{images: map[uint64]*openedImage{}, ending: map[part]*use{}}
		s.clients[token] = c
	}
	n, most := of(c)
	if *n >= most {
		return nil, errBusy("there are %d requests of this session at once", *n)
	}
	*n++
	return c, nil
}

func (s *Server) leave(c *client, of kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := of(c)
	*n--
	c.used = time.Now()
}

// session returns the session with a number. A higher number than before begins a
// new session, and ends the one before. A number that the server does not know, as
// after its restart, begins a session too. done must be called at the end.
func (s *Server) session(c *client, n uint64) (ses *session, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || c.gone:
		return nil, nil, errBusy("the server ends this session")
	case n < c.last || n == c.last && c.ended:
		return nil, nil, fmt.Errorf("session %d: %w", n, chunk.ErrClosed)
	case c.session == nil || n > c.last:
		c.endSession()
		backup := s.cfg.Begin()
		c.session, c.last, c.ended = &session{use: newUse(func() { backup.Close() }), number: n, backup: backup}, n, false
	}
	return c.session, c.session.begin(s), nil
}

// endSession ends the session. It is closed in the store once no request uses it. A
// commit in progress goes on there.
func (c *client) endSession() {
	if ses := c.session; ses != nil {
		c.session = nil
		ses.end(c, part{number: ses.number})
	}
}

// end ends everything that a client has.
func (c *client) end() {
	c.gone = true
	c.endSession()
	for _, im := range c.images {
		c.forgetImage(im)
	}
}

// endIdle ends what was not used since a time. It reports whether nothing is left.
func (c *client) endIdle(before time.Time) bool {
	if ses := c.session; ses != nil && ses.idle(before) {
		c.endSession()
	}
	for _, im := range c.images {
		if im.idle(before) {
			c.forgetImage(im)
		}
	}
	return c.session == nil && len(c.images) == 0 && c.requests+c.talks == 0 && c.used.Before(before)
}

// forgetImage forgets an image. It is closed in the store once nothing reads it.
func (c *client) forgetImage(im *openedImage) {
	if !im.ended {
		delete(c.images, im.number)
		im.end(c, part{image: true, number: im.number})
	}
}

// image returns an open image. done must be called at the end.
func (s *Server) image(c *client, n uint64) (im *openedImage, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im = c.images[n]
	if im == nil || im.image == nil {
		return nil, nil, &wire.Problem{Code: wire.CodeNotOpen, Text: fmt.Sprintf("image %d is not open", n)}
	}
	return im, im.begin(s), nil
}

// unused waits until nothing uses what a request has ended. A client that cancels
// its requests and then ends what they use can rely on the answer.
func (q *request) unused(ctx context.Context, name part) error {
	q.s.mu.Lock()
	u := q.client.ending[name]
	q.s.mu.Unlock()
	if u == nil {
		return nil
	}
	timer := time.NewTimer(q.s.cfg.Answer)
	defer timer.Stop()
	select {
	case <-u.closed:
		return nil
	case <-timer.C:
		return errBusy("it is ended, and other requests still use it")
	case <-ctx.Done():
		return ctx.Err()
	}
}

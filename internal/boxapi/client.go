package boxapi

import (
	"fmt"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/wire"
)

// client is what the server has for a token. The server's mutex guards it, but for
// what its parts say otherwise.
type client struct {
	requests int       // being served
	used     time.Time // when the last request ended
	session  *session  // nil if none is open
	last     uint64    // the highest number that a session had
	ended    bool      // the session with that number was ended by the client
	images   map[uint64]*openedImage
	gone     bool // the server has forgotten the client, while it still serves requests
}

// session is a backup in progress.
type session struct {
	number uint64
	backup chunk.Session
	used   time.Time

	mu      sync.Mutex // guards the fields below
	stored  int64      // bytes of objects
	commit  *commit    // the last one
	serving int        // requests; the server's mutex guards it
}

// openedImage is an image that a client reads.
type openedImage struct {
	open    wire.Open
	image   *chunk.Image
	root    int64 // bytes of the root
	serving int
	gone    bool // closed by the client, or by the server, while it is read
	used    time.Time
}

// client counts a request of a token.
func (s *Server) client(token string) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[token]
	if c == nil {
		c = &client{images: map[uint64]*openedImage{}}
		s.clients[token] = c
	}
	if c.requests >= wire.MaxAtOnce {
		return nil, errBusy("there are %d requests of this session at once", c.requests)
	}
	c.requests++
	return c, nil
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.requests--
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
		c.session, c.last, c.ended = &session{number: n, backup: s.cfg.Begin()}, n, false
	}
	ses = c.session
	ses.serving++
	return ses, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		ses.serving--
		ses.used = time.Now()
	}, nil
}

// endSession closes the session in the store. A commit in progress goes on there.
func (c *client) endSession() {
	if c.session != nil {
		c.session.backup.Close()
		c.session = nil
	}
}

// end ends everything that a client has.
func (c *client) end(s *Server) {
	c.gone = true
	c.endSession()
	for n := range c.images {
		c.closeImage(s, n)
	}
}

// endIdle ends what was not used since a time. It reports whether nothing is left.
func (c *client) endIdle(s *Server, before time.Time) bool {
	if ses := c.session; ses != nil && ses.serving == 0 && ses.used.Before(before) {
		c.endSession()
	}
	for n, im := range c.images {
		if im.serving == 0 && im.used.Before(before) {
			c.closeImage(s, n)
		}
	}
	return c.session == nil && len(c.images) == 0 && c.requests == 0 && c.used.Before(before)
}

// closeImage forgets an image. It is closed in the store once nothing reads it.
func (c *client) closeImage(s *Server, n uint64) {
	im := c.images[n]
	if im == nil {
		return
	}
	delete(c.images, n)
	im.gone = true
	im.release(s)
}

// release closes an image in the store that was closed and is not read any more.
func (im *openedImage) release(s *Server) {
	if im.gone && im.serving == 0 {
		im.image.Close()
		s.roots -= im.root
	}
}

// image returns an open image. done must be called at the end.
func (s *Server) image(c *client, n uint64) (im *openedImage, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im = c.images[n]
	if im == nil {
		return nil, nil, &wire.Problem{Code: wire.CodeNotOpen, Text: fmt.Sprintf("image %d is not open", n)}
	}
	im.serving++
	return im, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		im.serving--
		im.used = time.Now()
		im.release(s)
	}, nil
}

// Package boxapi is the server's side of the protocol by which the agent of a box
// uses a store. docs/protocol.md describes the protocol, and package wire has its
// messages. A box runs hostile code by purpose. So a token reaches only what its
// Grant says, nothing can be deleted or replaced, and no client can hold up others.
package boxapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/wire"
)

// Grant is what a token allows.
type Grant struct {
	Box    string     // the only box that a backup may be added of
	Job    string     // for messages
	Arming box.Arming // written into the record; "" if the job has none
	Backup bool       // a backup may be added
	// Most is how many bytes of objects may be sent in one session. An object that is
	// sent again, as after a connection broke, counts again. 0 means no limit.
	Most int64
	// MayRead reports whether the image of a disk of a backup may be read. nil means
	// that none may.
	MayRead func(box, id, disk string) bool
	// Add is called for a commit that nothing speaks against. It calls add, which
	// commits the record, and may set before what the client does not say of it. nil
	// means that the record is committed as it is.
	Add func(ctx context.Context, r *image.Record, add func(context.Context) error) error
}

// Authority knows what a token allows.
type Authority interface {
	// Grant is asked at each request, so it must be fast. If the token is unknown, or
	// may not be used from this address, the error matches fs.ErrNotExist. Any other
	// error makes the client try again.
	Grant(ctx context.Context, token string, from netip.Addr) (Grant, error)
}

// Config says what a server works with.
type Config struct {
	Grants Authority
	// Desk takes what agents say about their jobs. If it is nil, the server has no such
	// requests.
	Desk Desk
	// Begin begins a backup in the store. The session must compare each object with
	// its name, as store.Session does unless it is Trusted.
	Begin func() chunk.Session
	// Images opens images of the store.
	Images chunk.Images
	// Committed returns the backup of a box that an arming has made. It is asked
	// before each commit, since a server that ended in the middle of one does not know
	// how it went. It returns nil if there is none. A nil Committed means that there
	// never is one.
	Committed func(ctx context.Context, box string, arming box.Arming) (*image.Record, error)
	// Memory bounds what requests hold in memory, in bytes (0 means 256 MiB). It must
	// be larger than two of the largest roots. An eighth more is for clients without a
	// session.
	Memory int64
	// Sent is told of bytes of objects that crossed the network for a token, in either
	// direction. nil means that nobody counts them.
	Sent func(token string, bytes int64)
	// Overstep is told that a token asked for what its job does not allow, which no
	// agent does. The request was refused. It must be fast. nil means that nobody is
	// told.
	Overstep func(token, what string)
	// Room says how the box of a token takes part in the room of the boxes that restore the
	// same image. It is asked each time when one joins. If it is nil, the server has no such
	// requests.
	Room func(token string) RoomSetting
	// RoomNews is told what boxes say of each other. It must be fast. nil means that nobody
	// is told.
	RoomNews func(RoomNews)
	// Log is told of what an admin should know, one line at a time. What boxes cause
	// again and again is left out. nil means no log.
	Log func(format string, args ...any)

	// Tests set these. 0 means the limit of package wire.
	Quiet, Answer, Idle time.Duration
}

const (
	defaultMemory = 256 << 20
	// placesMemory bounds the places of chunks that are kept of all open images, in
	// bytes.
	placesMemory = 64 << 20
	// rootsMemory bounds the roots of all open images, in bytes.
	rootsMemory = 256 << 20
	// rootsOfClient bounds the roots of the images of one client, but for the first
	// image.
	rootsOfClient = 16 << 20
	// opensAtOnce is how many images are opened at a time. A root takes up to 64 MiB
	// meanwhile.
	opensAtOnce = 2
	// commitsAtOnce is how many backups are committed at a time. A root takes up to about
	// 64 MiB meanwhile.
	commitsAtOnce = 4
)

// Server serves the requests of agents.
type Server struct {
	cfg      Config
	memory   *memory
	strange  *memory // of strangers
	places   *placeCache
	verdicts *verdicts
	opens    chan struct{}   // one for each image that is being opened
	adds     chan struct{}   // one for each backup that is being committed
	hellos   chan struct{}   // one for each hello that is with the desk
	ctx      context.Context // ends when the server closes
	stop     context.CancelFunc
	spare    sparing.Limit
	rooms    rooms

	mu      sync.Mutex // guards the fields below
	clients map[string]*client
	roots   int64                    // bytes of the roots of all open images
	commits map[string]chan struct{} // boxes of which a backup is being committed; closed when that has ended
	closed  bool
	busy    sync.WaitGroup // requests, commits, and the sweeper
	// strangers counts the requests of strangers, in all and from each address.
	strangers   int
	strangersBy map[netip.Addr]int
}

// New makes a server. The caller closes it.
func New(cfg Config) *Server {
	if cfg.Memory <= 0 {
		cfg.Memory = defaultMemory
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if cfg.Overstep == nil {
		cfg.Overstep = func(string, string) {}
	}
	if cfg.RoomNews == nil {
		cfg.RoomNews = func(RoomNews) {}
	}
	if cfg.Sent == nil {
		cfg.Sent = func(string, int64) {}
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = wire.QuietWait
	}
	if cfg.Answer <= 0 {
		cfg.Answer = wire.AnswerWait
	}
	if cfg.Idle <= 0 {
		cfg.Idle = wire.IdleWait
	}
	s := &Server{
		cfg: cfg, memory: newMemory(cfg.Memory, cfg.Answer/4), strange: newMemory(cfg.Memory/strangeMemory, cfg.Answer/4),
		places: newPlaceCache(placesMemory), verdicts: newVerdicts(verdictsMemory, keepVerdicts),
		opens: make(chan struct{}, opensAtOnce), adds: make(chan struct{}, commitsAtOnce), hellos: make(chan struct{}, deskAtOnce),
		rooms:   rooms{open: map[object.Name]*openRoom{}},
		clients: map[string]*client{}, commits: map[string]chan struct{}{}, strangersBy: map[netip.Addr]int{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.busy.Go(s.sweep)
	return s
}

// Close ends all sessions, closes all images, and waits for requests and commits
// that are being served. Later requests are told to try again, since the next start
// of the server knows the tokens.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.busy.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.clients {
		s.forget(token)
	}
}

// Forget ends what a token has open. The caller sees to it that the token is not
// granted any more.
func (s *Server) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(token)
}

func (s *Server) forget(token string) {
	c := s.clients[token]
	if c == nil {
		return
	}
	delete(s.clients, token)
	c.end()
}

// enter counts a request or a commit, unless the server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.busy.Add(1)
	return true
}

// sweep ends what nobody has used for long.
func (s *Server) sweep() {
	tick := time.NewTicker(max(s.cfg.Idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			s.endIdle(now.Add(-s.cfg.Idle))
		}
	}
}

func (s *Server) endIdle(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, c := range s.clients {
		if c.endIdle(before) {
			c.gone = true
			delete(s.clients, token)
		}
	}
}

// Routes adds the requests that this package serves to a mux. Other requests of the
// agent can be added beside them.
func (s *Server) Routes(mux *http.ServeMux) {
	s.Sessions(mux)
	for pattern, h := range map[string]handler{
		"PUT " + wire.Prefix + "images/{image}":        s.openImage,
		"POST " + wire.Prefix + "images/{image}/read":  s.read,
		"POST " + wire.Prefix + "images/{image}/check": s.check,
		"DELETE " + wire.Prefix + "images/{image}":     s.closeImage,
	} {
		mux.Handle(pattern, s.serve((*request).asStore, h))
	}
	if s.cfg.Room != nil {
		mux.Handle("PUT "+wire.Prefix+"images/{image}/room", s.serve((*request).asStore, s.joinRoom))
		mux.Handle("POST "+wire.Prefix+"images/{image}/room", s.serve((*request).asStore, s.askRoom))
		mux.Handle("DELETE "+wire.Prefix+"images/{image}/room", s.serve((*request).asStore, s.leaveRoom))
	}
	if s.cfg.Desk != nil {
		mux.Handle("POST "+wire.HelloPath, s.serve((*request).asCaller, s.hello))
		mux.Handle("POST "+wire.ReportPath, s.serve((*request).asTalker, s.report))
		mux.Handle("POST "+wire.ResultPath, s.serve((*request).asTalker, s.result))
		mux.Handle("PUT "+wire.InventoryPath+"{name}", s.serve((*request).asTalker, s.inventory))
		mux.Handle("GET "+wire.FirmwarePath, s.serve((*request).asTalker, s.firmware))
	}
}

// Sessions adds only the requests by which a backup is added.
func (s *Server) Sessions(mux *http.ServeMux) {
	for pattern, h := range map[string]handler{
		"POST " + wire.Prefix + "sessions/{session}/missing":          s.missing,
		"POST " + wire.Prefix + "sessions/{session}/objects":          s.objects,
		"POST " + wire.Prefix + "sessions/{session}/commits/{commit}": s.commit,
		"DELETE " + wire.Prefix + "sessions/{session}":                s.endSession,
	} {
		mux.Handle(pattern, s.serve((*request).asStore, h))
	}
	mux.HandleFunc(wire.Prefix, func(w http.ResponseWriter, _ *http.Request) {
		s.sendAway(w, &wire.Problem{Code: wire.CodeNoRequest, Text: "this server has no such request"})
	})
}

// Limit sets the limits of an HTTP server that serves agents: HTTP/1.1 alone, heads
// of requests that are short and come soon, bodies that end some time, and no connection
// that stands idle for ever. The server has its handler already.
func Limit(srv *http.Server) {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.ReadHeaderTimeout = wire.HeaderWait
	srv.IdleTimeout = 2 * wire.QuietWait
	if srv.Handler != nil {
		srv.Handler = boundBody(srv.Handler, wire.QuietWait)
	}
	srv.MaxHeaderBytes = 8 << 10
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(discard{}, "", 0) // a box could fill a log with failed handshakes
	}
	if srv.TLSConfig != nil {
		srv.TLSConfig.MinVersion = tls.VersionTLS13
	}
}

// boundBody gives the body of each request a time in which it must come, unless the
// handler sets another one. net/http reads what a handler has left of a body, and would
// wait for ever. Without a body there must be no such time: it would end the request.
func boundBody(h http.Handler, wait time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(wait))
		}
		h.ServeHTTP(w, r)
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// errBusy makes an error that asks the client to try again.
func errBusy(format string, args ...any) error {
	return &wire.Problem{Code: wire.CodeBusy, Text: fmt.Sprintf(format, args...)}
}

// errRefused makes an error of a request that is wrong.
func errRefused(err error) error {
	var p *wire.Problem
	if errors.As(err, &p) {
		return err
	}
	return &wire.Problem{Code: wire.CodeRefused, Text: err.Error()}
}

// logf writes a line into the log that the client with this address has caused. It can do
// so again and again, so its next lines of this format are left out for a while.
func (s *Server) logf(from netip.Addr, format string, args ...any) {
	if more, ok := s.spare.Take(from.String() + " " + format); ok {
		s.cfg.Log("%s%s", fmt.Sprintf(format, args...), more)
	}
}

// grant finds out what the token of a request allows. If the token is not known, it is
// returned with the error.
func (s *Server) grant(r *http.Request) (string, Grant, error) {
	token, ok := bearer(r)
	if !ok {
		return "", Grant{}, &wire.Problem{Code: wire.CodeToken, Text: "the request has no session token"}
	}
	g, err := s.cfg.Grants.Grant(r.Context(), token, addrOf(r.RemoteAddr))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return token, Grant{}, &wire.Problem{Code: wire.CodeToken, Text: "the session token is not known here"}
	case err != nil:
		s.logf(addrOf(r.RemoteAddr), "a token cannot be looked up: %v", err)
		return "", Grant{}, errBusy("the server cannot look up the session token now")
	}
	return token, g, nil
}

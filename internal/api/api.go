// Package api is the admin API of a server: HTTP with JSON over a Unix socket, where
// the kernel says who asks, and over HTTPS, where a token does. routes.go has the one
// table of all requests, with the role that each of them needs. docs/api.md is made
// from that table and from the types of this package.
//
// Who may ask is not trusted with more than the role allows, and who may not is not
// trusted at all. So bodies, pages, texts, times and numbers of connections have
// limits.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/conns"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/version"
	"testbox-imaging/internal/wire"
)

// Jobs runs the jobs. It is a dispatch.Dispatch.
type Jobs interface {
	Check(ctx context.Context, r dispatch.Request) error
	Meant(ctx context.Context, r dispatch.Request) (*image.Record, error)
	Add(ctx context.Context, r dispatch.Request) ([]dispatch.Status, error)
	Cancel(ctx context.Context, id, by string) (dispatch.Status, error)
	Release(ctx context.Context, addr box.Addr, by string) (dispatch.Status, error)
	Finish(ctx context.Context, addr box.Addr, by string) (dispatch.Status, error)
	SwitchPower(ctx context.Context, addr box.Addr, a power.Action, by string, force bool) (dispatch.Switched, error)
	Job(ctx context.Context, id string) (dispatch.Status, error)
	Jobs(ctx context.Context, f ledger.JobFilter, p ledger.Page) (all []dispatch.Status, next string, err error)
	Needs(ctx context.Context) ([]dispatch.Need, error)
	ArmedBy(arming box.Arming) bool
	Watch() (changes <-chan string, stop func())
	Look()
}

var _ Jobs = (*dispatch.Dispatch)(nil)

// Config says what a server works with.
type Config struct {
	Ledger  *ledger.Ledger
	Jobs    Jobs
	Area    *sharedir.Area // the folders of boxes; nil means that there are none
	Backups Backups        // nil means that there is no store
	Keeper  Keeper         // looks after the store; nil means that nobody does
	// Sessions serves uploads. It asks GrantUpload what a token allows. nil means that
	// there are no uploads.
	Sessions Sessions
	// Schedules are those of the configuration, by their names. Rescheduled is called when one of
	// them was resumed or paused; nil means no call.
	Schedules   []*schedule.Plan
	Rescheduled func()
	// Ended is told of each job that has ended, once for each start of the server. It
	// must not wait. nil means that nobody is told.
	Ended func(Job)
	// BootTested is told of each boot test of a backup that has ended. It must not wait. nil means
	// that nobody is told.
	BootTested func(BootTestEvent)
	// Site is what holds for boxes of which nothing else is set, and which power commands
	// there are.
	Site setting.Site
	// Sights have what was seen of machines at their start. nil means that nobody looks.
	Sights Sights
	// Readdress gives a box another address, with its jobs, logs and backups. nil means
	// that it cannot be done.
	Readdress func(ctx context.Context, from, to box.Addr, by string) error
	// Forgotten is told of each box that was forgotten. nil means that nobody is.
	Forgotten func(box.Addr)
	// Addresses says that this server gives boxes their addresses, by their network cards.
	Addresses bool
	// Facts are the facts of boxes on which power commands depend, by their names there, such
	// as "label:bmc". Only an admin changes them, since they decide which machine is switched.
	Facts []string
	// Stored returns how many bytes the store has, for the metrics. nil means that this
	// is not known.
	Stored func() int64
	// Status says how the parts of the server are. nil means that this is not known.
	Status func() ServerStatus
	// Group is the group whose members may do everything over the Unix socket (""
	// means AdminGroup).
	Group string
	Now   func() time.Time // nil means time.Now
	Log   *slog.Logger     // nil means no log

	// Tests set these. 0 means the usual value.
	Heartbeat, Poll, Patience time.Duration
}

// These limit what clients can take.
const (
	maxHeader      = 64 << 10 // the address of a page can name 1000 boxes
	headerWait     = 10 * time.Second
	idleWait       = 2 * time.Minute
	defaultPatient = 30 * time.Second // for how long a client may take to send a body, or not read what it asked for
	maxConnections = 1000
	eachAddress    = 200
	maxAtOnce      = 100 // requests of one connection
	maxStreams     = 400 // requests that last until the client goes
	eachStreams    = 200 // those with one token, so that it cannot take them from all others
	maxDrain       = maxBody
)

// Server serves the admin API.
type Server struct {
	cfg       Config
	huma      huma.API
	mux       *http.ServeMux
	hub       *hub
	metrics   *metrics
	streams   chan struct{} // holds a value for each request that lasts
	drawings  drawings
	looks     chan struct{} // holds a value for each image that is looked at
	uploads   uploads
	firmwares firmwares
	ctx       context.Context
	stop      context.CancelFunc
	spare     sparing.Limit

	mu        sync.Mutex // guards the fields below
	servers   []*http.Server
	closed    bool
	following map[ledger.Hash]int // streams of each token
}

// New makes a server. The caller closes it before the Dispatch that runs its jobs.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Group == "" {
		cfg.Group = AdminGroup
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 500 * time.Millisecond
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatient
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), streams: make(chan struct{}, maxStreams),
		following: map[ledger.Hash]int{}, looks: make(chan struct{}, maxLooks),
		uploads: uploads{by: map[string]*upload{}}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	s.hub = newHub(s)
	s.register()
	return s
}

// format is JSON in which no text can be taken for HTML.
var format = huma.Format{
	Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
	Unmarshal: json.Unmarshal,
}

// schemaName is the name of a type in the description of the API. Those of package efi are called otherwise, since a boot
// entry is no entry of the audit log.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.PkgPath() == reflect.TypeFor[efi.State]().PkgPath() {
		name = "Firmware" + name
	}
	return name
}

// register adds all routes.
func (s *Server) register() {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "Testbox Imaging", Version: version.String()},
			Components: &huma.Components{Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName)},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	s.huma = humago.New(s.mux, c)
	s.huma.UseMiddleware(s.admit)
	// These come in events alone.
	for _, t := range []reflect.Type{reflect.TypeFor[SightEvent](), reflect.TypeFor[BootTestEvent](), reflect.TypeFor[BoxEvent]()} {
		c.Components.Schemas.Schema(t, true, "")
	}
	for _, r := range routes {
		op := huma.Operation{
			OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Description: r.about, Tags: []string{r.tag},
			DefaultStatus: r.status, MaxBodyBytes: maxBody, BodyReadTimeout: s.cfg.Patience,
		}
		if r.role != "" {
			op.Security = []map[string][]string{{"token": {}}}
		}
		r.add(s, op)
	}
}

// OpenAPI is the description of the API for programs, as JSON.
func (s *Server) OpenAPI() ([]byte, error) { return s.huma.OpenAPI().MarshalJSON() }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Sessions != nil && strings.HasPrefix(r.URL.Path, wire.Prefix) {
		s.serveUpload(w, r)
		return
	}
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(time.Now().Add(2 * s.cfg.Patience))
	if r.ContentLength != 0 { // the HTTP server itself reads what nobody else has read
		ctl.SetReadDeadline(time.Now().Add(s.cfg.Patience))
	}
	defer s.recover(r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	var p *Problem
	switch _, pattern := s.mux.Handler(r); {
	case r.URL.Path != path.Clean(r.URL.Path) || r.URL.RawPath != "" && path.Clean(r.URL.RawPath) != r.URL.RawPath:
		p = newProblem(http.StatusBadRequest, CodeWrong, "the path has parts that are empty or dots")
	case pattern != "" && r.Method != http.MethodHead:
		s.mux.ServeHTTP(w, r)
		return
	default:
		p = s.nowhere(w, r)
	}
	if _, err := io.CopyN(io.Discard, r.Body, maxDrain); err != io.EOF {
		w.Header().Set("Connection", "close")
	}
	p.send(w)
}

// nowhere is the problem of a request that has no route.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) *Problem {
	allowed := ""
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		try := *r
		try.Method = m
		if _, pattern := s.mux.Handler(&try); pattern != "" {
			if allowed != "" {
				allowed += ", "
			}
			allowed += m
		}
	}
	if allowed == "" {
		return newProblem(http.StatusNotFound, CodeNotFound,
			"there is nothing at this path; docs/api.md lists the paths, and so does "+Prefix+"/openapi.json")
	}
	w.Header().Set("Allow", allowed)
	return newProblem(http.StatusMethodNotAllowed, CodeWrong, "this path takes the methods "+allowed)
}

// recover logs a panic, which the HTTP server's own log would not have.
func (s *Server) recover(r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		s.logError(clientOf(r), "", "a request ended by a fault of the server", "method", r.Method, "path", clean(r.URL.Path),
			"fault", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// admit lets a request pass if the caller has the role that its route needs.
func (s *Server) admit(ctx huma.Context, next func(huma.Context)) {
	rt := routeByID[ctx.Operation().OperationID]
	r, w := humago.Unwrap(ctx)
	if rt.role == "" {
		next(ctx)
		return
	}
	c, err := s.who(r)
	if err == nil {
		err = c.allowed(rt)
	}
	if err != nil {
		p := problemOf(err)
		if p.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="testbox"`)
		}
		s.note(r, p, err)
		w.Header().Set("Connection", "close") // the body is not read
		p.send(w)
		return
	}
	c.ctl = http.NewResponseController(w)
	next(huma.WithValue(ctx, callerKey{}, c))
}

// allowed refuses a caller a request that is not for the caller.
func (c *caller) allowed(rt *route) error {
	switch {
	case !c.may(rt.role):
		return forbidden("this needs the role %s, and %s has the role %s", rt.role, c.name, c.role)
	case c.group != "" && rt.all:
		return forbidden("this is not about the boxes of a group alone, and this token is for the group %s", c.group)
	}
	return nil
}

// note logs an error that is the server's own.
func (s *Server) note(r *http.Request, p *Problem, err error) {
	if p.Code == CodeFailed {
		s.logError(clientOf(r), "", "a request failed", "method", r.Method, "path", clean(r.URL.Path), "error", err)
	}
}

// clientOf is the address of a client. Clients of the Unix socket have none.
func clientOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return at.Addr().Unmap().String()
}

// logError logs an error that somebody has caused, who can do so again and again. The next
// ones of this kind and text by the same are left out for a while.
func (s *Server) logError(who, kind, text string, args ...any) {
	if more, ok := s.spare.Take(who + " " + kind + " " + text); ok {
		s.cfg.Log.Error(text+more, args...)
	}
}

// stream makes room for a request that lasts until the client goes.
func (s *Server) stream(ctx context.Context) (leave func(), err error) {
	token := callerOf(ctx).token // none at the socket
	s.mu.Lock()
	defer s.mu.Unlock()
	if token != (ledger.Hash{}) && s.following[token] >= eachStreams {
		return nil, busy("%d clients follow something with this token already; try again later, or with another token", eachStreams)
	}
	select {
	case s.streams <- struct{}{}:
	default:
		return nil, busy("%d clients follow something already; try again later", maxStreams)
	}
	s.following[token]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.following[token]--; s.following[token] == 0 {
			delete(s.following, token)
		}
		<-s.streams
	}, nil
}

// Listen makes the Unix socket. Its folder must exist, and only root may write to it.
// A socket that a dead process has left is replaced.
func Listen(path, group string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("a server listens at %s already", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if st, err := os.Lstat(path); err != nil || st.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s is there and is no socket; remove it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Who connects is known by the kernel. The mode only keeps strangers from trying.
	mode := fs.FileMode(0o600)
	if g, err := user.LookupGroup(group); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err == nil && os.Chown(path, -1, gid) == nil {
			mode = 0o660
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// ServeUnix serves the Unix socket until Close.
func (s *Server) ServeUnix(l net.Listener) error {
	srv := &http.Server{Handler: s, ConnContext: withPeer}
	return s.serve(srv, func() error { return srv.Serve(conns.Limit(l, maxConnections, maxConnections)) })
}

// ServeTLS serves HTTPS until Close. srv has the certificate in its TLSConfig. page gets the requests
// that are none of the API; nil means that there is no page.
func (s *Server) ServeTLS(l net.Listener, srv *http.Server, page http.Handler) error {
	if srv.TLSConfig == nil {
		return errors.New("the admin API is served over TLS alone")
	}
	srv.Handler = s
	if page != nil {
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.isMine(r.URL.Path) {
				s.ServeHTTP(w, r)
				return
			}
			page.ServeHTTP(w, r)
		})
	}
	return s.serve(srv, func() error { return srv.ServeTLS(conns.Limit(l, maxConnections, eachAddress), "", "") })
}

// isMine reports whether a path is one of the API, also if there is nothing at it.
func (s *Server) isMine(path string) bool {
	return path == "/metrics" || path == "/healthz" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, wire.Prefix)
}

func (s *Server) serve(srv *http.Server, run func() error) error {
	boxapi.Limit(srv)
	srv.MaxHeaderBytes, srv.ReadHeaderTimeout, srv.IdleTimeout = maxHeader, min(headerWait, s.cfg.Patience), idleWait
	srv.BaseContext = func(net.Listener) context.Context { return s.ctx }
	if srv.TLSConfig != nil {
		// A browser opens six connections of HTTP/1.1 at most. Each page that is live keeps one of them, so a seventh
		// page would never come.
		srv.Protocols.SetHTTP2(true)
		srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxAtOnce, WriteByteTimeout: s.cfg.Patience}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return http.ErrServerClosed
	}
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	return run()
}

// Close ends all requests that last, waits for the others a little, and closes all
// listeners.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	all := s.servers
	s.mu.Unlock()
	s.hub.close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var wait sync.WaitGroup
	for _, srv := range all {
		wait.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	wait.Wait()
	s.stop()
}

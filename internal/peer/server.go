package peer

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/conns"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/wire"
)

// Source has what this box can send. It has no more than the images that the box restores.
type Source interface {
	// Have returns a bitmap of the units of a page of an image that are here, each with all
	// its chunks. It returns nil if nothing is known of the page.
	Have(root, page object.Name) []byte
	// Chunk returns a chunk of a page, in buf's memory if that is large enough. Its bytes
	// were compared with its name. If it is not here, the error matches chunk.ErrMissing.
	Chunk(ctx context.Context, root, page object.Name, at uint32, buf []byte) (object.Object, error)
}

// ServerConfig says what a Server serves, and to whom.
type ServerConfig struct {
	Key    tls.Certificate
	Source Source
	// Secrets returns the secrets by which the server of the lab lets others read an image. There
	// is none if this box does not serve the image.
	Secrets func(root object.Name) []wire.RoomSecret
	Now     func() time.Time // by the clock of the server of the lab
	// Log is told who was refused. nil means no log.
	Log func(format string, args ...any)
}

const (
	// slotRate is what an upload must have at least, bytes a second: a client gives up at half
	// of that.
	slotRate = 2 * 1e6 / int64(room.MBWait/time.Second)
	// maxConnections and maxEach bound connections, in all and from one address. A peer needs
	// one for each unit, and one for what it asks besides.
	maxConnections = 128
	maxEach        = 2 * (room.PerPeer + 1)
	// sendTogether is how many bytes are sent by one write.
	sendTogether = 128 << 10
)

// Server serves other boxes.
type Server struct {
	cfg    ServerConfig
	http   *http.Server
	spare  sparing.Limit
	sent   atomic.Int64
	served sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	most int64      // bytes that may be sent in a second; 0 means no limit
	busy int        // uploads
	next time.Time  // when the next bytes may be sent
}

// Limit sets how many bytes may be sent in a second. 0 means no limit, as in the beginning.
func (s *Server) Limit(most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
}

// Uploads is how many uploads there are at once with a limit of so many bytes a second: fewer
// where each would be so slow that clients give up, and none at all where one would be.
func Uploads(most int64) int {
	if most <= 0 {
		return room.Uploads
	}
	return int(min(most/slotRate, room.Uploads))
}

// NewServer makes a server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	s := &Server{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.HavePath, s.serve(s.have))
	mux.HandleFunc("POST "+wire.ChunksPath, s.serve(s.chunks))
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: room.QuietWait, IdleTimeout: wire.QuietWait, MaxHeaderBytes: 4 << 10,
		ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cfg.Key}, ClientAuth: tls.RequireAnyClientCert},
	}
	s.http.Protocols.SetHTTP1(true)
	return s
}

// maxUnsent is how many bytes of a connection the kernel keeps that it has not sent. It would take whole units
// else, and the box would say that it has room for further uploads while its port is full. The others
// would ask it for more, and not those whose ports are idle.
const maxUnsent = 16 << 10

// Listen opens a port for a Server.
func Listen(address string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) })
		return cmp.Or(e, err)
	}}
	c.SetMultipathTCP(false) // the connections of such a port would not have the bound
	return c.Listen(context.Background(), "tcp", address)
}

// Serve serves a listener until Close.
func (s *Server) Serve(l net.Listener) error {
	return s.http.ServeTLS(conns.Limit(l, maxConnections, maxEach), "", "")
}

// Close ends all that is being served.
func (s *Server) Close() {
	s.http.Close()
	s.served.Wait()
}

// Free is how many further uploads there is room for.
func (s *Server) Free() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(Uploads(s.most)-s.busy, 0)
}

// upload takes the place of an upload. end gives it back.
func (s *Server) upload() (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy >= Uploads(s.most) {
		return nil, &wire.Problem{Code: wire.CodeBusy, Text: "this box sends to as many others as it may"}
	}
	s.busy++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy--
	}, nil
}

// Sent is how many bytes of chunks were sent.
func (s *Server) Sent() int64 { return s.sent.Load() }

// serve finds out who asks, and for which image.
func (s *Server) serve(h func(w http.ResponseWriter, r *http.Request, root object.Name) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.served.Add(1)
		defer s.served.Done()
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(room.QuietWait))
		root, err := s.admit(r)
		switch {
		case err == nil:
			err = h(w, r, root)
		case !errors.Is(err, errNotServed): // a box that has just left is asked for some seconds more
			from, _, _ := net.SplitHostPort(r.RemoteAddr)
			if more, ok := s.spare.Take(from); ok {
				s.cfg.Log("%s asked for chunks of this box, and was refused: %v%s", from, err, more)
			}
		}
		if err == nil {
			return
		}
		p := wire.ProblemOf(err)
		b := p.Marshal()
		w.Header().Set("Content-Type", wire.ProblemType)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.WriteHeader(p.Status())
		w.Write(b)
	}
}

var errNotServed = fmt.Errorf("%w: this box does not serve the image", wire.ErrToken)

// admit returns the image that a request may be about.
func (s *Server) admit(r *http.Request) (root object.Name, err error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return root, fmt.Errorf("%w: there is no ticket", wire.ErrToken)
	}
	t, err := wire.ParseTicket(text)
	if err != nil {
		return root, fmt.Errorf("%w: %w", wire.ErrToken, err)
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return root, err
	}
	err = errNotServed
	for _, secret := range s.cfg.Secrets(t.Root) {
		if err = secret.Check(t, s.cfg.Now(), from.Addr(), wire.FingerprintOf(r.TLS.PeerCertificates[0])); err == nil {
			break
		}
	}
	return t.Root, err
}

// body reads a whole request.
func body(r *http.Request, most int) ([]byte, error) {
	if r.ContentLength < 0 || r.ContentLength > int64(most) {
		return nil, fmt.Errorf("%w: the request has %d bytes, and may have %d", wire.ErrRefused, r.ContentLength, most)
	}
	b := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, b)
	return b, err
}

func refused(err error) error { return fmt.Errorf("%w: %w", wire.ErrRefused, err) }

// have says which units of some pages are here.
func (s *Server) have(w http.ResponseWriter, r *http.Request, root object.Name) error {
	b, err := body(r, wire.MaxPages*len(object.Name{}))
	if err != nil {
		return err
	}
	pages, err := wire.ParsePages(b)
	if err != nil {
		return refused(err)
	}
	answer := wire.AppendFree(nil, s.Free())
	for _, p := range pages {
		answer = wire.AppendHave(answer, s.cfg.Source.Have(root, p))
	}
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(time.Now().Add(room.UnitWait))
	defer ctl.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	w.Write(answer)
	return nil
}

// buffers are for a chunk each.
var buffers = sync.Pool{New: func() any { return new([object.MaxChunk]byte) }}

// writers are for an answer each.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, sendTogether) }}

// chunks sends some chunks of a page.
func (s *Server) chunks(w http.ResponseWriter, r *http.Request, root object.Name) error {
	b, err := body(r, wire.MaxChunksBytes)
	if err != nil {
		return err
	}
	page, at, err := wire.ParseChunks(b)
	if err != nil {
		return refused(err)
	}
	end, err := s.upload()
	if err != nil {
		return err
	}
	defer end()
	ctl := http.NewResponseController(w)
	ctl.SetReadDeadline(time.Time{}) // it would end the request
	defer ctl.SetWriteDeadline(time.Time{})
	buf := buffers.Get().(*[object.MaxChunk]byte)
	defer buffers.Put(buf)
	out := writers.Get().(*bufio.Writer)
	defer writers.Put(out)
	out.Reset(&paced{s: s, ctx: r.Context(), w: w, ctl: ctl, until: time.Now().Add(room.UnitWait)})
	defer out.Reset(nil)
	var head []byte
	for _, n := range at {
		o, err := s.cfg.Source.Chunk(r.Context(), root, page, n, buf[:0])
		if err != nil {
			head, o = wire.AppendLack(head[:0], err), object.Object{}
		} else {
			head = wire.AppendHeader(head[:0], o)
		}
		out.Write(head)
		if _, err := out.Write(o.Data); err != nil { // it remembers an error of the Write before
			panic(http.ErrAbortHandler)
		}
	}
	if out.Flush() != nil {
		panic(http.ErrAbortHandler) // the client must see that the answer is not whole
	}
	return nil
}

// paced writes an answer, no faster than the limit. It fails when the client is so slow that
// it has given up, and holds a place that others could use.
type paced struct {
	s     *Server
	ctx   context.Context
	w     io.Writer
	ctl   *http.ResponseController
	until time.Time
}

func (p *paced) Write(b []byte) (int, error) {
	if err := pause.For(p.ctx, p.s.turn(len(b))); err != nil {
		return 0, err
	}
	p.until = p.until.Add(time.Duration(len(b)) * room.MBWait / 1e6)
	p.ctl.SetWriteDeadline(p.until)
	n, err := p.w.Write(b)
	p.s.sent.Add(int64(n))
	return n, err
}

// turn returns how long to wait until so many bytes may be sent.
func (s *Server) turn(n int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most <= 0 {
		return 0
	}
	now := time.Now()
	if s.next.Before(now) {
		s.next = now
	}
	wait := s.next.Sub(now)
	s.next = s.next.Add(time.Duration(int64(n) * int64(time.Second) / s.most))
	return wait
}

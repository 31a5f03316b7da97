package server

import (
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"time"

	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/wire"
)

// These bound the connections by which boxes get files over HTTP, in all and from one
// address. Each takes some 50 kB of memory.
const (
	maxWeb    = 1024
	maxWebBox = 16
)

// webIdle is how long a connection may wait for its next request.
const webIdle = 30 * time.Second

// web gives the files of the area out over HTTP, as serve does by TFTP.
func (n *netboot) web() *http.Server {
	s := &http.Server{Handler: http.HandlerFunc(n.serveHTTP)}
	boxapi.Limit(s)
	s.IdleTimeout = webIdle
	return s
}

func (n *netboot) serveHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "the address of the client is not known", http.StatusBadRequest)
		return
	}
	p := &pacedWriter{ResponseWriter: w, ctl: http.NewResponseController(w), pace: wire.NewPace(n.quiet), status: http.StatusOK}
	p.ctl.SetWriteDeadline(time.Now().Add(p.pace.Left()))
	begun := time.Now()
	n.area.ServeHTTP(p, r)
	p.ctl.SetWriteDeadline(time.Now().Add(p.pace.Left())) // for what is still in a buffer
	switch {
	case p.err != nil:
		n.note("http", from.Addr(), r.URL.Path, p.sent, time.Since(begun), p.err)
	case p.status == http.StatusForbidden:
		n.note("http", from.Addr(), r.URL.Path, 0, 0, fs.ErrPermission)
	case p.status == http.StatusNotFound:
		n.note("http", from.Addr(), r.URL.Path, 0, 0, fs.ErrNotExist)
	case r.Method == http.MethodGet && (p.status == http.StatusOK || p.status == http.StatusPartialContent):
		n.note("http", from.Addr(), r.URL.Path, p.sent, time.Since(begun), nil)
	}
}

// pacedWriter cuts a client off that is slower than wire.Pace allows.
type pacedWriter struct {
	http.ResponseWriter
	ctl    *http.ResponseController
	pace   *wire.Pace
	status int
	sent   int64
	err    error // of the write that failed
}

func (p *pacedWriter) WriteHeader(status int) {
	p.status = status
	p.ResponseWriter.WriteHeader(status)
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	begun := time.Now()
	p.ctl.SetWriteDeadline(begun.Add(p.pace.Left()))
	n, err := p.ResponseWriter.Write(b)
	p.pace.Note(n, time.Since(begun))
	p.sent += int64(n)
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) { // an answer to HEAD has no body
		p.err = err
	}
	return n, err
}

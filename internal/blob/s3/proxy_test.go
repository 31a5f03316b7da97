package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// proxy stands before an S3 server and spoils what passes.
type proxy struct {
	Addr    string
	forward http.Handler

	mu    sync.Mutex // guards those below
	match func(*http.Request) bool
	times int
	fault fault
}

// fault handles a request in the place of the server, or before or after it.
type fault func(forward http.Handler, w http.ResponseWriter, r *http.Request)

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: server}
	p := &proxy{forward: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { // the host is signed
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     nil,
	}}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.Addr = s.Listener.Addr().String()
	return p
}

// spoil lets the fault handle the next requests that match, so many of them.
func (p *proxy) spoil(times int, match func(*http.Request) bool, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times, p.match, p.fault = times, match, f
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	hit := p.times > 0 && p.match(r)
	f := p.fault
	if hit {
		p.times--
	}
	p.mu.Unlock()
	if hit {
		f(p.forward, w, r)
	} else {
		p.forward.ServeHTTP(w, r)
	}
}

func answer(status int) fault {
	return func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
	}
}

func hangUp(http.Handler, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// hang answers only when the client gives up.
func hang(_ http.Handler, _ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
	<-r.Context().Done()
}

// lostAnswer does what was asked and does not say so.
func lostAnswer(forward http.Handler, _ http.ResponseWriter, r *http.Request) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// cutUpload gives the server half of the body, then ends both connections.
func cutUpload(forward http.Handler, w http.ResponseWriter, r *http.Request) {
	r.Body = io.NopCloser(io.LimitReader(r.Body, r.ContentLength/2))
	forward.ServeHTTP(w, r)
}

// flipUpload flips a bit in the middle of the body.
func flipUpload(forward http.Handler, w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	b[len(b)/2] ^= 4
	r.Body = io.NopCloser(bytes.NewReader(b))
	forward.ServeHTTP(w, r)
}

// swallow says that it has the blob.
func swallow(_ http.Handler, w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
}

// respond gives the server's answer after a change.
func respond(change func(h http.Header, status *int, body *[]byte)) fault {
	return func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		forward.ServeHTTP(rec, r)
		status, body := rec.Code, rec.Body.Bytes()
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		change(w.Header(), &status, &body)
		w.WriteHeader(status)
		w.Write(body)
	}
}

// cutDownload ends the connection in the middle of the body: its length says
// that there is more.
var cutDownload = respond(func(_ http.Header, _ *int, body *[]byte) { *body = (*body)[:len(*body)/2] })

// shortDownload has half of the body, and its length agrees.
var shortDownload = respond(func(h http.Header, _ *int, body *[]byte) {
	*body = (*body)[:len(*body)/2]
	h.Set("Content-Length", fmt.Sprint(len(*body)))
})

// noRange answers as a server does that knows no ranges.
var noRange = respond(func(h http.Header, status *int, _ *[]byte) {
	*status = http.StatusOK
	h.Del("Content-Range")
})

// otherRange is the answer to another question.
var otherRange = respond(func(h http.Header, _ *int, _ *[]byte) {
	h.Set("Content-Range", strings.Replace(h.Get("Content-Range"), "bytes ", "bytes 1", 1))
})

// flipDownload flips a bit in the middle of the body.
var flipDownload = respond(func(_ http.Header, _ *int, body *[]byte) { (*body)[len(*body)/2] ^= 4 })

package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/wire"
)

// call is one try of a request.
type call struct {
	method string
	path   string
	parts  [][]byte // of the body
	hello  bool     // there is no session yet
}

// do sends a request once, and calls read with the body of the answer. What comes
// after read is not looked at, so read must read to the end. An awayError means that
// another try makes sense.
func (c *Client) do(ctx context.Context, q call, read func(status int, body io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(cancel, c.cfg.Quiet)
	defer w.end()
	body := &sentBody{parts: slices.Clone(q.parts), watch: w}
	defer body.forget() // the transport may read the body even after the answer
	req, err := http.NewRequestWithContext(ctx, q.method, c.cfg.Base+q.path, nil)
	if err != nil {
		return err
	}
	for _, p := range q.parts {
		req.ContentLength += int64(len(p))
	}
	if req.ContentLength > 0 {
		req.Body = body
	}
	if !q.hello {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return transportError(ctx, err)
	}
	defer resp.Body.Close()
	in := &watchedReader{ctx: ctx, r: resp.Body, watch: w}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusNoContent {
		return read(resp.StatusCode, in)
	}
	return problem(resp, in)
}

// transportError makes an error of a connection that broke.
func transportError(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause != nil && cause == ctx.Err():
		return cause // the caller does not want it any more
	case cause != nil:
		err = cause
	case errors.Is(err, wire.ErrKey):
		return err
	}
	return &awayError{err}
}

// problem returns the error that an answer says. What another server than ours
// answers, such as one between, is an answer of a server that is away.
func problem(resp *http.Response, body io.Reader) error {
	b, err := wire.ReadAll(body, wire.MaxProblem)
	if err != nil {
		return err
	}
	if strings.TrimSpace(resp.Header.Get("Content-Type")) != wire.ProblemType {
		err := fmt.Errorf("the server answers %.40q, which no server of ours does", resp.Status)
		if resp.StatusCode >= 500 {
			return &awayError{err}
		}
		return err
	}
	p, err := wire.ParseProblem(b, resp.StatusCode)
	if err != nil {
		return fmt.Errorf("the server answers %.40q: %w", resp.Status, err)
	}
	if p.Code == wire.CodeBusy {
		return &awayError{p}
	}
	return fmt.Errorf("the server says: %w", p)
}

// none is for answers without a body.
func none(status int, body io.Reader) error {
	if status != http.StatusNoContent {
		return fmt.Errorf("the server answers with status %d where there is nothing to say", status)
	}
	return wire.ReadEnd(body)
}

// text reads a short answer.
func text(into *[]byte, most int64) func(int, io.Reader) error {
	return func(status int, body io.Reader) (err error) {
		if status != http.StatusOK {
			return fmt.Errorf("the server answers with status %d where an answer is due", status)
		}
		*into, err = wire.ReadAll(body, most)
		return err
	}
}

// watch ends a request in which nothing moves.
type watch struct {
	mu    sync.Mutex // guards the fields below
	pace  *wire.Pace
	last  time.Time
	timer *time.Timer
}

// errQuiet is the reason why a watch ends a request.
var errQuiet = errors.New("the connection is too slow, or nothing comes any more")

func newWatch(cancel context.CancelCauseFunc, quiet time.Duration) *watch {
	w := &watch{pace: wire.NewPace(quiet), last: time.Now()}
	w.timer = time.AfterFunc(quiet, func() { cancel(errQuiet) })
	return w
}

// moved notes that n bytes were sent or received.
func (w *watch) moved(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.pace.Note(n, now.Sub(w.last))
	w.last = now
	w.timer.Reset(w.pace.Left())
}

func (w *watch) end() { w.timer.Stop() }

// sentBody is the body of a request. Its memory belongs to the caller again after
// forget, although the transport may still read the body then.
type sentBody struct {
	watch *watch

	mu    sync.Mutex // guards the fields below
	parts [][]byte
	gone  bool
}

func (b *sentBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return 0, errors.New("the request has ended")
	}
	for len(b.parts) > 0 && n < len(p) {
		got := copy(p[n:], b.parts[0])
		n += got
		if b.parts[0] = b.parts[0][got:]; len(b.parts[0]) == 0 {
			b.parts = b.parts[1:]
		}
	}
	b.watch.moved(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *sentBody) Close() error { return nil }

func (b *sentBody) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone, b.parts = true, nil
}

// watchedReader is the body of an answer. Its errors say that the connection broke,
// but for io.EOF.
type watchedReader struct {
	ctx   context.Context
	r     io.Reader
	watch *watch
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.watch.moved(n)
	if err != nil && err != io.EOF {
		err = transportError(r.ctx, err)
	}
	return n, err
}

// broken makes an awayError of an answer that ended too early.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return &awayError{fmt.Errorf("the answer is not whole: %w", io.ErrUnexpectedEOF)}
	}
	return err
}

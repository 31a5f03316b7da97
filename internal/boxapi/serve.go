package boxapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/wire"
)

// handler serves one request. If it returns an error, it has sent nothing.
type handler func(ctx context.Context, q *request) error

// request is one request of a client, with its limits.
type request struct {
	*http.Request
	s      *Server
	w      http.ResponseWriter
	ctl    *http.ResponseController
	token  string
	grant  Grant
	client *client // nil for a stranger
	memory *memory // that its body takes
	payer  string  // whom that is counted for
	pace   *wire.Pace
	until  time.Time // when the body must have come; zero if only the pace counts
	sent   bool      // the answer has begun

	yielding sync.Mutex
	yielded  bool                  // others need the memory of this request
	moves    func(time.Time) error // sets the deadline of the read or write that is under way; nil if there is none
}

// admission finds out who sends a request, and counts it for the sender. leave must be
// called at the end.
type admission func(q *request) (leave func(), err error)

// serve bounds what a request can take.
func (s *Server) serve(admit admission, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			s.sendAway(w, &wire.Problem{Code: wire.CodeBusy, Text: "the server is about to end"})
			return
		}
		defer s.busy.Done()
		q := &request{Request: r, s: s, w: w, ctl: http.NewResponseController(w), pace: wire.NewPace(s.cfg.Quiet)}
		defer q.recover()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		err := q.run(ctx, admit, h)
		switch {
		case err == nil:
		case q.sent: // the client must see that the answer is not whole
			panic(http.ErrAbortHandler)
		case r.Context().Err() != nil: // the client has gone, or its body did not come in time; it is not told that it was wrong
			panic(http.ErrAbortHandler)
		case s.ctx.Err() != nil:
			q.refuse(errBusy("the server is about to end"))
		default:
			q.refuse(err)
		}
	})
}

// recover logs a panic, which the HTTP server's own log would not have.
func (q *request) recover() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		q.s.logf(q.from(), "a request of %s (%s %s) ended by a fault of the server: %v\n%s", q.grant.Box, q.Method, q.URL.Path, p,
			debug.Stack())
	}
	panic(http.ErrAbortHandler)
}

func (q *request) run(ctx context.Context, admit admission, h handler) error {
	leave, err := admit(q)
	if err != nil {
		return err
	}
	defer leave()
	return h(ctx, q)
}

// asStore is for requests that use the store.
func (q *request) asStore() (leave func(), err error) {
	if q.token, q.grant, err = q.s.grant(q.Request); err != nil {
		return nil, err
	}
	q.memory, q.payer = q.s.memory, q.token
	c, err := q.s.client(q.token, (*client).store)
	if err != nil {
		return nil, err
	}
	q.client = c
	return func() { q.s.leave(c, (*client).store) }, nil
}

// from returns the address of the client.
func (q *request) from() netip.Addr { return addrOf(q.RemoteAddr) }

func addrOf(s string) netip.Addr {
	a, _ := netip.ParseAddrPort(s)
	return a.Addr().Unmap()
}

// maxDrain is how much of a refused request is read, so that the client gets to see
// the answer. Otherwise its connection is reset while it still sends.
const (
	maxDrain      = wire.MaxBody + wire.MaxObjects*wire.FrameSize
	strangerDrain = 64 << 10 // of a client without a token
)

// refuse sends a problem instead of an answer.
func (q *request) refuse(err error) {
	p := wire.ProblemOf(err)
	var counted *countedError
	if errors.As(err, &counted) {
		p.Counted = counted.n
	}
	if p.Code == wire.CodeForbidden {
		q.s.cfg.Overstep(q.token, "to add a backup that is not of this job")
	}
	if p.Code == wire.CodeFailed {
		q.s.logf(q.from(), "a request of %s (%s %s) failed: %v", q.grant.Box, q.Method, q.URL.Path, err)
	}
	drain := int64(maxDrain)
	if q.client == nil {
		drain = strangerDrain
	}
	if _, err := io.CopyN(io.Discard, q.body(), drain); err != io.EOF {
		q.w.Header().Set("Connection", "close")
	}
	q.ctl.SetWriteDeadline(time.Now().Add(q.pace.Left()))
	sendProblem(q.w, &p)
}

// sendAway answers a request that nobody looks at. net/http reads what is left of the
// body, within the deadline.
func (s *Server) sendAway(w http.ResponseWriter, p *wire.Problem) {
	ctl, until := http.NewResponseController(w), time.Now().Add(s.cfg.Quiet)
	ctl.SetReadDeadline(until)
	ctl.SetWriteDeadline(until)
	sendProblem(w, p)
}

func sendProblem(w http.ResponseWriter, p *wire.Problem) {
	b := p.Marshal()
	w.Header().Set("Content-Type", wire.ProblemType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(p.Status())
	w.Write(b)
}

// bearer returns the token of a request.
func bearer(r *http.Request) (string, bool) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token, ok && wire.ValidToken(token)
}

// number returns a number in the path of a request.
func (q *request) number(name string) (uint64, error) {
	n, err := wire.ParseNumber(q.PathValue(name))
	if err != nil {
		return 0, errRefused(err)
	}
	return n, nil
}

// body returns the body of a request. Reads fail if the client is too slow.
func (q *request) body() io.Reader { return (*pacedBody)(q) }

type pacedBody request

func (b *pacedBody) Read(p []byte) (int, error) {
	start := time.Now()
	deadline := start.Add(b.pace.Left())
	if !b.until.IsZero() && b.until.Before(deadline) {
		deadline = b.until
	}
	defer (*request)(b).move(b.ctl.SetReadDeadline, deadline)()
	n, err := b.Body.Read(p)
	b.pace.Note(n, time.Since(start))
	if err == io.EOF { // else the deadline stays, since net/http reads what is left of the body
		b.ctl.SetReadDeadline(time.Time{})
	}
	return n, err
}

// move sets a deadline for a read or a write. done must be called after it.
func (q *request) move(set func(time.Time) error, deadline time.Time) (done func()) {
	q.yielding.Lock()
	defer q.yielding.Unlock()
	if q.yielded {
		deadline = time.Now()
	}
	set(deadline)
	q.moves = set
	return func() {
		q.yielding.Lock()
		defer q.yielding.Unlock()
		q.moves = nil
	}
}

// yield ends the request, since others need its memory. It may be called at any time. A
// request that the store works on ends at its next read or write.
func (q *request) yield() {
	q.yielding.Lock()
	defer q.yielding.Unlock()
	q.yielded = true
	if q.moves != nil {
		q.moves(time.Now())
	}
}

// received ends the deadline of the last read. Otherwise it would end the request
// while it is served, since the connection is watched for its end.
func (q *request) received() { q.ctl.SetReadDeadline(time.Time{}) }

// small reads a body of at most so many bytes. What it takes in memory, times a
// factor for what is made of it, counts for the client until release is called.
func (q *request) small(ctx context.Context, most int64, factor int64) (b []byte, release func(), err error) {
	if q.ContentLength < 0 || q.ContentLength > most {
		return nil, nil, errRefused(fmt.Errorf("the request has %d bytes, and must say that it has 0 to %d", q.ContentLength, most))
	}
	release, err = q.hold(ctx, q.ContentLength*factor)
	if err != nil {
		return nil, nil, err
	}
	b = make([]byte, q.ContentLength)
	if _, err := io.ReadFull(q.body(), b); err != nil {
		release()
		return nil, nil, errRefused(fmt.Errorf("read the request: %w", err))
	}
	q.received()
	return b, release, nil
}

// hold waits for memory. If there is none for too long, the client is told to try
// again.
func (q *request) hold(ctx context.Context, n int64) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, q.s.cfg.Answer)
	defer cancel()
	return q.memory.acquire(ctx, q.payer, n, q.yield)
}

// Write sends a part of the answer. It fails if the client is too slow.
func (q *request) Write(b []byte) (int, error) {
	q.sent = true
	start := time.Now()
	defer q.move(q.ctl.SetWriteDeadline, start.Add(q.pace.Left()))()
	n, err := q.w.Write(b)
	q.pace.Note(n, time.Since(start))
	return n, err
}

// flush sends on what was written.
func (q *request) flush() error {
	start := time.Now()
	defer q.move(q.ctl.SetWriteDeadline, start.Add(q.pace.Left()))()
	err := q.ctl.Flush()
	q.pace.Note(0, time.Since(start))
	return err
}

// answer sends a whole answer.
func (q *request) answer(status int, contentType string, b []byte) error {
	if contentType != "" {
		q.w.Header().Set("Content-Type", contentType)
	}
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	}
	q.w.WriteHeader(status)
	_, err := q.Write(b)
	return err
}

const (
	jsonType  = "application/json"
	bytesType = "application/octet-stream"
)

// countedError says how many objects of a request were stored before the one that
// the error is about.
type countedError struct {
	n   int
	err error
}

func (e *countedError) Error() string { return e.err.Error() }
func (e *countedError) Unwrap() error { return e.err }

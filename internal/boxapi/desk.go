package boxapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"time"

	"testbox-imaging/internal/wire"
)

// Desk takes what agents say about their jobs. Every message may come several times,
// and from anybody. An error that is a *wire.Problem is sent as it is. If the error
// matches fs.ErrNotExist, the token is not known. At any other error the agent is told
// to try again. What has control characters, or is longer than its limit, was refused
// or cleaned before.
type Desk interface {
	// Hello takes the first word of an agent, which has no session yet.
	Hello(ctx context.Context, h *wire.Hello, from netip.Addr) (*wire.Welcome, error)
	Report(ctx context.Context, token string, from netip.Addr, r *wire.Report) (*wire.Told, error)
	// Inventory stores a file durably. name is one of those that wire.ValidInventory
	// knows. It is not called for a token that the Authority does not know.
	Inventory(ctx context.Context, token string, from netip.Addr, name string, data []byte) error
	// Firmware returns what is known of the firmware of the box. It is not called for a
	// token that the Authority does not know.
	Firmware(ctx context.Context, token string, from netip.Addr) (*wire.Firmware, error)
	// Result takes the end of an action. It is durable when Result returns.
	Result(ctx context.Context, token string, from netip.Addr, r *wire.Result) (*wire.Told, error)
}

// Strangers are clients whose token the Authority does not know, or who have none yet.
// These limits keep what they do from others.
const (
	strangersAtOnce = 256 // requests of all strangers
	strangerAtOnce  = 4   // requests of strangers from one address
	// deskAtOnce is how many hellos are with the desk at once.
	deskAtOnce = 16
	// strangeMemory is which part of all memory they have.
	strangeMemory = 8
	// talksAtOnce is how many requests of a token about its job are served at once.
	// They are counted apart, so that a report comes through beside objects.
	talksAtOnce = 4
)

// asStranger counts a request of somebody without a session.
func (q *request) asStranger() (leave func(), err error) {
	s, from := q.s, q.from()
	q.memory, q.payer = s.strange, from.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strangers >= strangersAtOnce || s.strangersBy[from] >= strangerAtOnce {
		return nil, errBusy("there are too many requests without a session at once")
	}
	s.strangers++
	s.strangersBy[from]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.strangers--
		if s.strangersBy[from]--; s.strangersBy[from] == 0 {
			delete(s.strangersBy, from)
		}
	}, nil
}

// asCaller is for hello.
func (q *request) asCaller() (leave func(), err error) {
	q.until = time.Now().Add(min(q.s.cfg.Quiet, wire.HelloWait))
	return q.asStranger()
}

// asTalker is for the requests about a job. The job may have ended, and the agent not
// know it yet. Then its token is not granted anything, but it must be answered. Nobody
// can tell such an agent from a stranger.
func (q *request) asTalker() (leave func(), err error) {
	q.token, q.grant, err = q.s.grant(q.Request)
	switch {
	case errors.Is(err, wire.ErrToken) && q.token != "":
		q.until = time.Now().Add(q.s.cfg.Quiet)
		return q.asStranger()
	case err != nil:
		return nil, err
	}
	q.memory, q.payer = q.s.memory, q.token
	c, err := q.s.client(q.token, (*client).talk)
	if err != nil {
		return nil, err
	}
	q.client = c
	return func() { q.s.leave(c, (*client).talk) }, nil
}

// desk returns the desk, and bounds how long it takes.
func (q *request) desk(ctx context.Context) (Desk, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, q.s.cfg.Answer)
	return q.s.cfg.Desk, ctx, cancel
}

// deskError makes a problem of an error of the desk.
func (q *request) deskError(err error) error {
	var p *wire.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, fs.ErrNotExist):
		return &wire.Problem{Code: wire.CodeToken, Text: "the session token is not known here"}
	}
	q.s.logf(q.from(), "%s from %v cannot be served now: %v", q.URL.Path, q.from(), err)
	return errBusy("the server cannot do this now")
}

// readFactor is about what a message in JSON takes in memory while it is read, for each
// of its bytes. Package wire sees to it that no message takes much more.
const readFactor = 8

func (s *Server) hello(ctx context.Context, q *request) error {
	body, release, err := q.small(ctx, wire.MaxHello, readFactor)
	if err != nil {
		return err
	}
	defer release()
	h, err := wire.ParseHello(body)
	if err != nil {
		return errRefused(err)
	}
	answer, err := q.welcome(ctx, h)
	if err != nil {
		return err
	}
	if len(answer) > wire.MaxHello { // only one whose hello was genuine gets as much
		q.memory, q.payer = q.s.memory, "a welcome to "+q.from().String()
		release, err := q.hold(ctx, int64(len(answer)))
		if err != nil {
			return err
		}
		defer release()
	}
	return q.answer(http.StatusOK, jsonType, answer)
}

// welcome asks the desk what an agent is to do.
func (q *request) welcome(ctx context.Context, h *wire.Hello) ([]byte, error) {
	if err := q.wait(ctx, q.s.hellos); err != nil {
		return nil, err
	}
	defer func() { <-q.s.hellos }()
	d, ctx, cancel := q.desk(ctx)
	defer cancel()
	w, err := d.Hello(ctx, h, q.from())
	if err != nil {
		return nil, q.deskError(err)
	}
	return wire.MarshalWelcome(w)
}

func (s *Server) report(ctx context.Context, q *request) error {
	body, release, err := q.small(ctx, wire.MaxReport, readFactor)
	if err != nil {
		return err
	}
	defer release()
	r, err := wire.ParseReport(body)
	if err != nil {
		return errRefused(err)
	}
	d, ctx, cancel := q.desk(ctx)
	defer cancel()
	told, err := d.Report(ctx, q.token, q.from(), r)
	return q.told(told, err)
}

func (s *Server) result(ctx context.Context, q *request) error {
	body, release, err := q.small(ctx, wire.MaxResult, readFactor)
	if err != nil {
		return err
	}
	defer release()
	r, err := wire.ParseResult(body)
	if err != nil {
		return errRefused(err)
	}
	d, ctx, cancel := q.desk(ctx)
	defer cancel()
	told, err := d.Result(ctx, q.token, q.from(), r)
	return q.told(told, err)
}

// told sends what an agent is told.
func (q *request) told(t *wire.Told, err error) error {
	if err != nil {
		return q.deskError(err)
	}
	return q.answer(http.StatusOK, jsonType, wire.Marshal(t))
}

func (s *Server) inventory(ctx context.Context, q *request) error {
	name := q.PathValue("name")
	switch {
	case q.client == nil:
		return &wire.Problem{Code: wire.CodeToken, Text: "the session token is not known here"}
	case !wire.ValidInventory(name):
		return errRefused(fmt.Errorf("the inventory has no file %.40q", name))
	}
	body, release, err := q.small(ctx, wire.MaxInventory, 2)
	if err != nil {
		return err
	}
	defer release()
	d, ctx, cancel := q.desk(ctx)
	defer cancel()
	if err := d.Inventory(ctx, q.token, q.from(), name, body); err != nil {
		return q.deskError(err)
	}
	return q.answer(http.StatusNoContent, "", nil)
}

func (s *Server) firmware(ctx context.Context, q *request) error {
	if q.client == nil {
		return &wire.Problem{Code: wire.CodeToken, Text: "the session token is not known here"}
	}
	release, err := q.hold(ctx, 4*wire.MaxFirmware)
	if err != nil {
		return err
	}
	defer release()
	d, ctx, cancel := q.desk(ctx)
	defer cancel()
	f, err := d.Firmware(ctx, q.token, q.from())
	if err != nil {
		return q.deskError(err)
	}
	return q.answer(http.StatusOK, jsonType, wire.Marshal(f))
}

package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// kept is how many changes the hub keeps. A client that is further behind is told to
// read everything anew.
const kept = 1024

// hub keeps the latest changes of all jobs, for all who follow them. A client has only
// a place in them and no queue of its own, so a slow one costs nothing.
type hub struct {
	s    *Server
	name string // of this start of the server, in the ids of events

	mu      sync.Mutex // guards the fields below
	changes []change   // the oldest first
	last    uint64     // number of the latest
	wake    chan struct{}
	ended   map[string]bool // jobs of which tell was told
	tell    func(Job)       // is told of each job that has ended, once

	done    chan struct{} // closed at the end
	closing sync.Once
	wait    sync.WaitGroup
}

// change is a job as it was after a change, or something that was seen of a machine, or that a schedule has done.
type change struct {
	number uint64
	event  string // "job", "box", "sight", "schedule" or "boot-test"
	box    box.Addr
	job    string // "" if it is about no job
	data   []byte // as JSON
	little []byte // the same for whoever sees a group alone; nil means data
	brief  []byte // the same for whoever wants only ids; nil means data
}

// briefJob is what a brief event has of a job.
type briefJob struct {
	ID    string    `json:"id"`
	Box   string    `json:"box"`
	State job.State `json:"state"`
}

func newHub(s *Server) *hub {
	h := &hub{s: s, name: strings.ToLower(rand.Text()[:8]), wake: make(chan struct{}), done: make(chan struct{}), ended: map[string]bool{},
		tell: func(j Job) {
			s.metrics.count(j)
			if s.cfg.Ended != nil {
				s.cfg.Ended(j)
			}
		}}
	ids, stop := s.cfg.Jobs.Watch()
	h.wait.Go(func() {
		defer stop()
		for {
			select {
			case id, more := <-ids:
				if !more {
					return
				}
				if err := h.changed(id); err != nil && s.ctx.Err() == nil {
					s.cfg.Log.Error("a change of a job cannot be passed on", "job", id, "error", err)
				}
			case <-h.done:
				return
			}
		}
	})
	return h
}

func (h *hub) close() {
	h.closing.Do(func() { close(h.done) })
	h.wait.Wait()
}

// changed takes a change of a job.
func (h *hub) changed(id string) error {
	ctx, cancel := context.WithTimeout(h.s.ctx, 10*time.Second)
	defer cancel()
	st, err := h.s.cfg.Jobs.Job(ctx, id)
	if err != nil {
		return err
	}
	jobs, err := h.s.seen(ctx, &caller{}, []dispatch.Status{st})
	if err != nil {
		return err
	}
	return h.add(jobs[0], st.Box)
}

// EndedSince calls do for each job that ended then or later, and which needs nothing more.
func (s *Server) EndedSince(ctx context.Context, since time.Time, do func(Job)) error {
	for p := (ledger.Page{Limit: 500}); ; {
		all, next, err := s.cfg.Jobs.Jobs(ctx, ledger.JobFilter{Ended: since}, p)
		if err != nil {
			return err
		}
		jobs, err := s.seen(ctx, &caller{}, all)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Ended() {
				do(j)
			}
		}
		if p.After = next; next == "" {
			return nil
		}
	}
}

func (h *hub) add(j Job, addr box.Addr) error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	brief, err := json.Marshal(briefJob{j.ID, j.Box, j.State})
	if err != nil {
		return err
	}
	h.push(change{event: "job", box: addr, job: j.ID, data: data, brief: brief})
	h.mu.Lock()
	defer h.mu.Unlock()
	if j.Ended() && !h.ended[j.ID] {
		if len(h.ended) > 8*kept {
			clear(h.ended)
		}
		h.ended[j.ID] = true
		h.tell(j)
	}
	return nil
}

// push adds a change to those that are kept.
func (h *hub) push(c change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	c.number = h.last
	if len(h.changes) == kept {
		copy(h.changes, h.changes[1:])
		h.changes = h.changes[:kept-1]
	}
	h.changes = append(h.changes, c)
	close(h.wake)
	h.wake = make(chan struct{})
}

// cursor is a place among the changes.
type cursor struct {
	h  *hub
	at uint64 // the last change that is known
}

// cursor is the place behind all changes until now.
func (h *hub) cursor() *cursor {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &cursor{h, h.last}
}

// resume is the place behind the event of an id. known is false if nobody can say what
// came after it.
func (h *hub) resume(id string) (c *cursor, known bool) {
	name, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || name != h.name || n > h.last || n+1 < h.first() {
		return &cursor{h, h.last}, false
	}
	return &cursor{h, n}, true
}

// first is the number of the oldest change that is kept. The caller has the lock.
func (h *hub) first() uint64 { return h.last - uint64(len(h.changes)) + 1 }

// more is closed when there is a change behind the place.
func (c *cursor) more() <-chan struct{} {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.h.last > c.at {
		now := make(chan struct{})
		close(now)
		return now
	}
	return c.h.wake
}

// next returns the changes behind the place, only the last one of each job. lost says
// that some of them are not kept any more.
func (c *cursor) next() (some []change, lost bool) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	first := c.h.first()
	if c.at+1 < first {
		c.at = c.h.last
		return nil, true
	}
	latest := map[string]uint64{}
	for _, ch := range c.h.changes[c.at+1-first:] {
		latest[ch.job] = ch.number
	}
	for _, ch := range c.h.changes[c.at+1-first:] {
		if ch.job == "" || latest[ch.job] == ch.number {
			some = append(some, ch)
		}
	}
	c.at = c.h.last
	return some, false
}

func (s *Server) getEvents(ctx context.Context, in *struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"64" doc:"id of the last event that is known"`
	Brief       bool   `query:"brief" doc:"only id, box and state of a job, and events at most once a second"`
}) (*stream, error) {
	leave, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	return &stream{func(hc huma.Context) {
		defer leave()
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		at, known := s.hub.resume(in.LastEventID)
		e := &eventStream{s: s, ctx: ctx, caller: c, w: w, ctl: http.NewResponseController(w), at: at, looked: time.Now(), brief: in.Brief}
		err := e.begin(known)
		for err == nil {
			err = e.step()
		}
		if err != errEnd {
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// eventStream sends events to one client.
type eventStream struct {
	s      *Server
	ctx    context.Context
	caller *caller
	w      http.ResponseWriter
	ctl    *http.ResponseController
	at     *cursor
	looked time.Time // when it was asked whether the caller may still follow
	brief  bool      // the client wants little, and not often
}

// briefPause is how long a client that wants little hears nothing more after some changes. A lab at work has many a second,
// and each would be a write to each browser.
const briefPause = time.Second

func (e *eventStream) id(n uint64) string { return fmt.Sprintf("%s-%d", e.s.hub.name, n) }

// write sends some text within a limit of time.
func (e *eventStream) write(text string) error {
	e.ctl.SetWriteDeadline(time.Now().Add(e.s.cfg.Patience))
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.ctl.Flush()
}

func (e *eventStream) begin(known bool) error {
	if known {
		return e.write(": going on\n\n")
	}
	return e.write(fmt.Sprintf("retry: 1000\nid: %s\nevent: reset\ndata: {}\n\n", e.id(e.at.at)))
}

// step waits for changes and sends them, or sends a sign of life.
func (e *eventStream) step() error {
	select {
	case <-e.at.more():
	case <-e.ctx.Done():
		return e.ctx.Err()
	case <-e.s.hub.done:
		return errEnd
	case <-time.After(e.s.cfg.Heartbeat):
		return e.beat()
	}
	if time.Since(e.looked) >= e.s.cfg.Heartbeat { // changes may come without a pause
		if err := e.beat(); err != nil {
			return err
		}
	}
	some, lost := e.at.next()
	if lost {
		return e.begin(false)
	}
	some, err := e.visible(some)
	if err != nil || len(some) == 0 {
		return err
	}
	var text strings.Builder
	for _, ch := range some {
		data := ch.data
		if e.brief && ch.brief != nil {
			data = ch.brief
		}
		fmt.Fprintf(&text, "id: %s\nevent: %s\ndata: %s\n\n", e.id(ch.number), ch.event, data)
	}
	if err := e.write(text.String()); err != nil || !e.brief {
		return err
	}
	select { // what comes meanwhile is sent together
	case <-time.After(briefPause):
		return nil
	case <-e.ctx.Done():
		return e.ctx.Err()
	case <-e.s.hub.done:
		return errEnd
	}
}

// beat sends a sign of life, if the caller may still follow.
func (e *eventStream) beat() error {
	if e.looked = time.Now(); !e.s.still(e.ctx, e.caller) {
		return errNotStill
	}
	return e.write("event: alive\ndata: {}\n\n") // an event and no comment, since scripts of browsers do not hear of comments
}

// visible leaves out what the caller may not see.
func (e *eventStream) visible(some []change) (out []change, err error) {
	if e.caller.group == "" {
		return some, nil
	}
	err = e.s.cfg.Ledger.View(e.ctx, func(tx *ledger.Tx) error {
		for _, ch := range some {
			if ch.box.IsZero() {
				continue // a machine that is in no group
			}
			if b, err := tx.Box(ch.box); err == nil && e.caller.sees(b) {
				if ch.little != nil {
					ch.data = ch.little
				}
				out = append(out, ch)
			}
		}
		return nil
	})
	return out, err
}

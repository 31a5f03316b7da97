package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
)

// receiver is a web server that is told of jobs. It refuses the first requests.
type receiver struct {
	secret   string
	refuse   int    // the first so many requests
	refuseID string // and all of this id
	status   int    // with this; 0 is 400
	after    string // and this Retry-After

	mu   sync.Mutex // guards the fields below
	ids  []string
	jobs []api.Job
	errs []error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	check, keyErr := standardwebhooks.NewWebhook(r.secret)
	err = errors.Join(err, keyErr)
	if err == nil {
		err = check.Verify(body, req.Header)
	}
	var m struct {
		Type string
		Data api.Job
	}
	if err = errors.Join(err, json.Unmarshal(body, &m)); err != nil || m.Type != "job.ended" {
		r.errs = append(r.errs, err)
	}
	r.ids = append(r.ids, req.Header.Get("webhook-id"))
	if len(r.ids) <= r.refuse || r.refuseID == req.Header.Get("webhook-id") {
		w.Header().Set("Retry-After", r.after)
		http.Error(w, "not now", max(r.status, http.StatusBadRequest))
		return
	}
	r.jobs = append(r.jobs, m.Data)
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

var hookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 32)))

// hookRig is a server's hooks with one receiver.
type hookRig struct {
	t    *testing.T
	r    *receiver
	srv  *httptest.Server
	file string
	said lockedText
}

// lockedText is a log.
type lockedText struct {
	mu sync.Mutex
	strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.String()
}

func newHookRig(t *testing.T, r *receiver) *hookRig {
	r.secret = hookSecret
	rig := &hookRig{t: t, r: r, srv: httptest.NewServer(r), file: filepath.Join(t.TempDir(), "hooks.json")}
	t.Cleanup(rig.srv.Close)
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.errs) > 0 {
			t.Error(r.errs)
		}
	})
	return rig
}

// start is a start of the server. The function that it returns ends it.
func (rig *hookRig) start() (*hooks, func()) {
	rig.t.Helper()
	return rig.startPausing(time.Millisecond)
}

// startPausing is start with so much time between two tries.
func (rig *hookRig) startPausing(pause time.Duration) (*hooks, func()) {
	rig.t.Helper()
	h, err := newHooks([]Hook{{rig.srv.URL, secretFile(rig.t, hookSecret+"\n")}}, rig.file, slog.New(slog.NewTextHandler(&rig.said, nil)))
	must(rig.t, err)
	h.pauses = slices.Repeat([]time.Duration{pause}, 8)
	h.caught.Store(true)
	ctx, stop := context.WithCancel(rig.t.Context())
	var running sync.WaitGroup
	running.Go(func() { h.run(ctx) })
	return h, func() { stop(); running.Wait() }
}

func (rig *hookRig) message(id string, ended time.Time) message {
	rig.t.Helper()
	m, err := messageOf(api.Job{ID: id, Box: "10.0.0.7", Outcome: "done", Since: ended})
	must(rig.t, err)
	return m
}

// until waits until the receiver has taken or refused what it should.
func (rig *hookRig) until(what string, is func(r *receiver) bool) {
	rig.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		rig.r.mu.Lock()
		ok := is(rig.r)
		rig.r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			rig.t.Fatalf("%s: the receiver has %+v; the log says %s", what, rig.r, &rig.said)
		}
	}
}

func taken(ids ...string) func(r *receiver) bool {
	return func(r *receiver) bool {
		return slices.EqualFunc(r.jobs, ids, func(j api.Job, id string) bool { return j.ID == id })
	}
}

// TestHook has a receiver that refuses two requests. It must get the message in the
// end, with the same id each time, and with signatures that the standard's own
// library accepts.
func TestHook(t *testing.T) {
	rig := newHookRig(t, &receiver{refuse: 2, status: http.StatusServiceUnavailable})
	h, stop := rig.start()
	h.tell(rig.message("j7", time.Now()))
	rig.until("a message that is refused twice", taken("j7"))
	stop()
	if got := rig.r.ids; !slices.Equal(got, []string{"job-j7", "job-j7", "job-j7"}) || rig.r.jobs[0].Outcome != "done" {
		t.Errorf("the requests had the ids %q, %+v", got, rig.r.jobs)
	}
}

// TestHookGivesUp has a receiver that never takes one message. Others get through, and what
// is given up is not sent again after a start of the server.
func TestHookGivesUp(t *testing.T) {
	rig := newHookRig(t, &receiver{refuseID: "job-bad"})
	h, stop := rig.start()
	now := time.Now()
	h.tell(rig.message("bad", now))
	h.tell(rig.message("good", now))
	rig.until("the other message", taken("good"))
	rig.until("all tries", func(r *receiver) bool {
		return len(r.ids) == 10 && strings.Contains(rig.said.String(), "did not take a message")
	})
	stop()
	h, stop = rig.start()
	h.tellAgain(rig.message("bad", now))
	h.tell(rig.message("last", now))
	rig.until("the last message", taken("good", "last"))
	stop()
	if n := len(rig.r.ids); n != 11 {
		t.Errorf("there were %d requests", n)
	}
	for i := range hookQueue + 1 { // nobody takes them
		h.tell(message{id: fmt.Sprint(i)})
	}
	if !strings.Contains(rig.said.String(), "misses one") {
		t.Errorf("the log says %q", &rig.said)
	}
}

// TestHookRestart: what a receiver has not taken when the server ends it gets after the next
// start, and what it has taken it does not get again. A receiver that is new is told of
// nothing that ended before.
func TestHookRestart(t *testing.T) {
	rig := newHookRig(t, &receiver{})
	h, stop := rig.startPausing(time.Hour)
	now := time.Now()
	h.tellAgain(rig.message("old", now.Add(-time.Minute)))
	h.tell(rig.message("one", now))
	rig.until("the first message", taken("one"))
	rig.r.mu.Lock()
	rig.r.refuseID = "job-two"
	rig.r.mu.Unlock()
	h.tell(rig.message("two", now))
	rig.until("a message that is refused", func(r *receiver) bool { return slices.Contains(r.ids, "job-two") })
	h.tell(rig.message("three", now))
	rig.until("a message behind one that is refused", taken("one", "three"))
	stop()
	rig.r.mu.Lock()
	rig.r.refuseID = ""
	rig.r.mu.Unlock()
	for range 2 {
		if h, stop = rig.start(); h.missed().After(now) {
			t.Errorf("only what ended after %v is looked for", h.missed())
		}
		for _, id := range []string{"one", "two", "three"} {
			h.tellAgain(rig.message(id, now))
		}
		rig.until("the message that was refused", taken("one", "three", "two"))
		stop()
	}
	must(t, os.WriteFile(rig.file, []byte("damaged"), 0o600))
	_, stop = rig.start()
	stop()
	if !strings.Contains(rig.said.String(), "It is not known what web hooks were told") {
		t.Error(&rig.said)
	}
}

// TestHookSince: how far back a start of the server looks. What waits is looked for, for a
// day, and nothing is forgotten before all of it is in the queue.
func TestHookSince(t *testing.T) {
	rig := newHookRig(t, &receiver{})
	now := time.Now()
	for _, c := range []struct {
		what    string
		marked  time.Duration // in the file
		waiting time.Duration // a message that waits; 0 is none
		caught  bool
		want    time.Duration
	}{
		{"nothing waits", time.Hour, 0, true, hookLate},
		{"a message waits", 3 * time.Hour, 2 * time.Hour, true, 2 * time.Hour},
		{"the queue is filled", 3 * time.Hour, 0, false, 3 * time.Hour},
		{"the server was off for long", 90 * time.Hour, 0, false, hookDay},
		{"the clock was set back", -time.Hour, 0, false, 0},
	} {
		must(t, os.WriteFile(rig.file, fmt.Appendf(nil, `{%q: {"since": %q}}`, rig.srv.URL, now.Add(-c.marked).Format(time.RFC3339Nano)), 0o600))
		h, err := newHooks([]Hook{{rig.srv.URL, secretFile(t, hookSecret)}}, rig.file, slog.New(slog.NewTextHandler(&rig.said, nil)))
		must(t, err)
		if c.waiting > 0 {
			h.tellAgain(rig.message("x", now.Add(-c.waiting)))
		}
		h.caught.Store(c.caught)
		must(t, h.save())
		var marks map[string]hookMark
		text, err := os.ReadFile(rig.file)
		must(t, errors.Join(err, json.Unmarshal(text, &marks)))
		if got := marks[rig.srv.URL].Since; now.Add(-c.want).Sub(got).Abs() > time.Minute {
			t.Errorf("%s: since %v, not %v", c.what, got, now.Add(-c.want))
		}
	}
}

// TestHookAnswers: a receiver may ask to be left alone, or to be told no more.
func TestHookAnswers(t *testing.T) {
	pause := testenv.Effort(time.Second, 2*time.Second)
	rig := newHookRig(t, &receiver{refuse: 1, status: http.StatusTooManyRequests, after: fmt.Sprint(pause.Seconds())})
	h, stop := rig.start()
	began := time.Now()
	h.tell(rig.message("j1", began))
	rig.until("a message that is taken later", taken("j1"))
	if d := time.Since(began); d < pause {
		t.Errorf("it was sent again after %v", d)
	}
	rig.r.mu.Lock()
	rig.r.refuse, rig.r.status = 1000, http.StatusGone
	rig.r.mu.Unlock()
	h.tell(rig.message("j2", began))
	rig.until("410 Gone", func(r *receiver) bool { return strings.Contains(rig.said.String(), "410 Gone") })
	h.tell(rig.message("j3", began))
	stop()
	if n := len(rig.r.ids); n != 3 {
		t.Errorf("there were %d requests", n)
	}
}

// TestHookSecrets: while a secret is changed, a receiver that has either one accepts the
// request.
func TestHookSecrets(t *testing.T) {
	other := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("o", 24)))
	for _, text := range []string{other + "\n" + hookSecret + "\n", hookSecret + "\n" + other} {
		rig := newHookRig(t, &receiver{})
		h, err := newHooks([]Hook{{rig.srv.URL, secretFile(t, text)}}, rig.file, nil)
		must(t, err)
		must(t, h.send(t.Context(), h.all[0], rig.message("j1", time.Now())))
	}
}

func TestHookSecretRefused(t *testing.T) {
	for _, text := range []string{
		"", "whsec_", "whsec_%%%", "whsec_c2hvcnQ=", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", strings.Repeat("x", 2000),
		strings.Repeat(hookSecret+"\n", 5), hookSecret + "\nx",
	} {
		_, err := newHooks([]Hook{{"https://x", secretFile(t, text)}}, "/nonexistent", nil)
		if err == nil || len(text) < 1000 && !errors.As(err, new(*problem.Error)) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

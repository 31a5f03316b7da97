package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/testenv/testkey"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a server with a Unix socket and HTTPS.
type rig struct {
	t      testing.TB
	dir    string
	ledger *ledger.Ledger
	runner *runner
	area   *sharedir.Area
	api    *api.Server
	key    wire.Fingerprint
	url    string // of HTTPS
	socket string
	log    lockedBuffer
	me     string // whoever runs the test, who is an admin at the socket

	mu  sync.Mutex
	now time.Time
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// clock is the server's clock.
func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func newRig(t testing.TB) *rig { t.Helper(); return newRigWith(t, func(*api.Config) {}) }

// newRigWith is newRig with another configuration.
func newRigWith(t testing.TB, tune func(*api.Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	var err error
	r.ledger, err = ledger.Open(t.Context(), filepath.Join(r.dir, "ledger.db"), ledger.Options{})
	must(t, err)
	t.Cleanup(func() { r.ledger.Close() })
	boxes := filepath.Join(r.dir, "boxes")
	must(t, os.Mkdir(boxes, 0o755))
	must(t, os.WriteFile(filepath.Join(boxes, sharedir.Marker), nil, 0o644))
	r.area, err = sharedir.Open(durable.OS{}, boxes)
	must(t, err)
	r.runner = &runner{ledger: r.ledger, now: r.clock, watches: map[chan string]bool{}}
	u, err := user.Current()
	must(t, err)
	g, err := user.LookupGroupId(u.Gid)
	must(t, err)
	r.me = u.Username
	cfg := api.Config{Ledger: r.ledger, Jobs: r.runner, Area: r.area, Group: g.Name,
		Stored: func() int64 { return 12345 }, Now: r.clock,
		Log: slog.New(slog.NewTextHandler(&r.log, nil)), Heartbeat: 100 * time.Millisecond, Poll: 5 * time.Millisecond,
		Patience: time.Second}
	tune(&cfg)
	r.api = api.New(cfg)
	r.socket = filepath.Join(r.dir, "testbox.sock")
	l, err := api.Listen(r.socket, g.Name)
	must(t, err)
	go r.api.ServeUnix(l)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cert, key := newKey(t)
	r.key, r.url = key, "https://"+tcp.Addr().String()
	go r.api.ServeTLS(tcp, &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}, nil)
	t.Cleanup(func() {
		if r.api.Close(); t.Failed() || strings.Contains(r.log.String(), "fault") {
			t.Error(r.log.String())
		}
	})
	return r
}

func newKey(t testing.TB) (tls.Certificate, wire.Fingerprint) {
	t.Helper()
	cert, key, err := testkey.New()
	must(t, err)
	return cert, key
}

// unix is an HTTP client for the socket.
func (r *rig) unix() *http.Client {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	r.t.Cleanup(c.CloseIdleConnections)
	return c
}

// client makes requests as somebody.
type client struct {
	t     testing.TB
	http  *http.Client
	base  string
	token string
	run   *string
}

// root is an admin at the socket.
func (r *rig) root() *client { return &client{t: r.t, http: r.unix(), base: "http://socket"} }

// with is a client with a token.
func (r *rig) with(token string) *client {
	h := remote.NewHTTP(r.key)
	r.t.Cleanup(h.CloseIdleConnections)
	return &client{t: r.t, http: h, base: r.url, token: token}
}

// as is the client in a run of its own.
func (c *client) as(run string) *client {
	other := *c
	other.run = &run
	return &other
}

// token puts a token into the ledger.
func (r *rig) token(t ledger.Token) string {
	r.t.Helper()
	secret := "testbox-" + rand.Text()
	t.Hash = sha256.Sum256([]byte(secret))
	if t.Name == "" {
		t.Name = "of " + string(t.Role)
	}
	must(r.t, r.ledger.Update(r.t.Context(), func(tx *ledger.Tx) error { return tx.PutToken(t) }))
	return secret
}

func (r *rig) group(name string) {
	r.t.Helper()
	must(r.t, r.ledger.Update(r.t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: name}) }))
}

func addr(t testing.TB, s string) box.Addr {
	t.Helper()
	a, err := box.ParseAddr(s)
	must(t, err)
	return a
}

func (r *rig) box(b ledger.Box) {
	r.t.Helper()
	b.Health = ledger.Good
	must(r.t, r.ledger.Update(r.t.Context(), func(tx *ledger.Tx) error { return tx.PutBox(b) }))
}

// do makes a request and returns the status and the answer.
func (c *client) do(method, path string, body any) (int, []byte) {
	c.t.Helper()
	status, _, b := c.raw(method, path, body)
	return status, b
}

func (c *client) raw(method, path string, body any) (int, http.Header, []byte) {
	c.t.Helper()
	var r io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(v)
	case io.Reader:
		r = v
	default:
		b, err := json.Marshal(v)
		must(c.t, err)
		r = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, r)
	must(c.t, err)
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.run != nil {
		q.Header.Set(api.RunHeader, *c.run)
	}
	resp, err := c.http.Do(q)
	must(c.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(c.t, err)
	return resp.StatusCode, resp.Header, b
}

// want makes a request that must have a status, and reads the answer.
func (c *client) want(status int, method, path string, body, into any) {
	c.t.Helper()
	got, b := c.do(method, path, body)
	if got != status {
		c.t.Fatalf("%s %s: %d %s", method, path, got, b)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
}

// refused makes a request that must end with a problem of a code.
func (c *client) refused(code api.Code, method, path string, body any) *api.Problem {
	c.t.Helper()
	status, head, b := c.raw(method, path, body)
	var p api.Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Code != code || p.Status != status || head.Get("Content-Type") != api.ProblemType {
		c.t.Fatalf("%s %s: %d %s, not %q", method, path, status, b, code)
	}
	if p.Detail == "" || strings.ContainsAny(p.Error(), "\n\x00\x1b") {
		c.t.Errorf("%s %s: the error says %q", method, path, p.Error())
	}
	return &p
}

// runner stands for a Dispatch: its jobs change only when the test says so.
type runner struct {
	ledger *ledger.Ledger
	now    func() time.Time

	mu      sync.Mutex
	n       int
	watches map[chan string]bool
	looks   int
	needs   []dispatch.Need
	armed   box.Arming // of a job

	switches func(ctx context.Context, what string) (dispatch.Switched, error)
}

// ArmedBy implements api.Jobs.
func (r *runner) ArmedBy(arming box.Arming) bool { return arming == r.armed }

type doc struct {
	Job     job.Job
	Options dispatch.Options
	Status  dispatch.Status
}

func (f *runner) tell(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		w <- id
	}
}

func (f *runner) put(ctx context.Context, st dispatch.Status, key string, add bool) error {
	d, err := json.Marshal(doc{st.Job, st.Options, st})
	if err != nil {
		return err
	}
	j := ledger.Job{ID: st.ID, Box: st.Box, State: string(st.State), Created: st.Asked, Changed: st.Since, By: st.By, Key: key, Doc: d}
	if st.State == job.Ended {
		j.Ended = st.Since
	}
	err = f.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if add {
			return tx.AddJob(j)
		}
		old, err := tx.Job(st.ID)
		if err != nil {
			return err
		}
		j.Key = old.Key
		return tx.UpdateJob(j)
	})
	if err == nil {
		f.tell(st.ID)
	}
	return err
}

// set changes a job.
func (f *runner) set(t testing.TB, id string, change func(*dispatch.Status)) {
	t.Helper()
	st, err := f.Job(t.Context(), id)
	must(t, err)
	st.Step++
	st.Since = f.now()
	change(&st)
	must(t, f.put(t.Context(), st, "", false))
}

func (f *runner) Check(context.Context, dispatch.Request) error { return nil }

// Meant implements api.Jobs.
func (f *runner) Meant(context.Context, dispatch.Request) (*image.Record, error) {
	return nil, problem.Refusef("there is no backup to use")
}

func (f *runner) Add(ctx context.Context, r dispatch.Request) (all []dispatch.Status, err error) {
	for _, a := range r.Boxes {
		if r.Key != "" {
			old, _, err := f.Jobs(ctx, ledger.JobFilter{Box: a, By: r.By, Key: r.Key}, ledger.Page{})
			if err != nil {
				return nil, err
			}
			if len(old) > 0 {
				all = append(all, old[0])
				continue
			}
		}
		f.mu.Lock()
		f.n++
		id := fmt.Sprintf("j%d", f.n)
		f.mu.Unlock()
		o := job.Order{ID: id, Box: a, Action: r.Action, By: r.By, WaitUp: r.WaitUp}
		st := dispatch.Status{Job: job.New(o, job.Seed{}, f.now()), Options: r.Options}
		if err := f.put(ctx, st, r.Key, true); err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

func (f *runner) end(ctx context.Context, id, by string, o box.Outcome) (dispatch.Status, error) {
	st, err := f.Job(ctx, id)
	if err != nil {
		return st, err
	}
	st.State, st.Outcome, st.Text, st.Since, st.Settled = job.Ended, o, by+" did it.", f.now(), true
	return st, f.put(ctx, st, "", false)
}

func (f *runner) Cancel(ctx context.Context, id, by string) (dispatch.Status, error) {
	return f.end(ctx, id, by, job.Cancelled)
}

func (f *runner) last(ctx context.Context, a box.Addr, by string) (dispatch.Status, error) {
	all, _, err := f.Jobs(ctx, ledger.JobFilter{Box: a, Open: true}, ledger.Page{})
	if err != nil || len(all) == 0 {
		return dispatch.Status{}, fmt.Errorf("%w: %w", ledger.ErrNotFound, err)
	}
	return f.end(ctx, all[0].ID, by, box.Done)
}

func (f *runner) Release(ctx context.Context, a box.Addr, by string) (dispatch.Status, error) {
	return f.last(ctx, a, by)
}

func (f *runner) Finish(ctx context.Context, a box.Addr, by string) (dispatch.Status, error) {
	return f.last(ctx, a, by)
}

func (f *runner) SwitchPower(ctx context.Context, a box.Addr, action power.Action, by string, force bool) (dispatch.Switched, error) {
	if f.switches == nil {
		return dispatch.Switched{}, problem.Refusef("%s has no power command", a)
	}
	return f.switches(ctx, fmt.Sprintf("%s %s by %s, %v", a, action, by, force))
}

func (f *runner) Job(ctx context.Context, id string) (st dispatch.Status, err error) {
	err = f.ledger.View(ctx, func(tx *ledger.Tx) error {
		j, err := tx.Job(id)
		if err != nil {
			return err
		}
		var d doc
		err = json.Unmarshal(j.Doc, &d)
		st = d.Status
		return err
	})
	return st, err
}

func (f *runner) Jobs(ctx context.Context, flt ledger.JobFilter, p ledger.Page) (all []dispatch.Status, next string, err error) {
	err = f.ledger.View(ctx, func(tx *ledger.Tx) error {
		jobs, n, err := tx.Jobs(flt, p)
		next = n
		for _, j := range jobs {
			var d doc
			if err := json.Unmarshal(j.Doc, &d); err != nil {
				return err
			}
			all = append(all, d.Status)
		}
		return err
	})
	return all, next, err
}

func (f *runner) Watch() (<-chan string, func()) {
	w := make(chan string, 10000)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches[w] = true
	return w, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watches, w)
		close(w)
	}
}

func (f *runner) Look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
}

func (r *runner) Needs(context.Context) ([]dispatch.Need, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.needs, nil
}

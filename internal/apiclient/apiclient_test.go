package apiclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/testenv/fakelab"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a server that can be started again.
type rig struct {
	t      *testing.T
	dir    string
	socket string
	lab    *fakelab.Lab
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir()}
	r.socket = filepath.Join(r.dir, "sock")
	r.start()
	t.Cleanup(func() { r.lab.Close() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	u, err := user.Current()
	must(r.t, err)
	g, err := user.LookupGroupId(u.Gid)
	must(r.t, err)
	r.lab, err = fakelab.Start(r.dir, r.socket, g.Name)
	must(r.t, err)
}

func (r *rig) client(cfg apiclient.Config) *apiclient.Client {
	r.t.Helper()
	if cfg.Server == "" {
		cfg.Server = r.socket
	}
	c, err := apiclient.New(cfg)
	must(r.t, err)
	r.t.Cleanup(c.Close)
	return c
}

func settled(j api.Job) bool { return j.Resting() }

// TestFlow: over HTTPS a job is asked for and followed to its end, and is in the audit
// log.
func TestFlow(t *testing.T) {
	r := newRig(t)
	root := r.client(apiclient.Config{})
	var tok api.Token
	must(t, root.Do(t.Context(), "POST", apiclient.Path("tokens"), api.NewToken{Name: "ci", Role: "operator"}, &tok))
	c := r.client(apiclient.Config{Server: r.lab.URL, Key: r.lab.Key, Token: tok.Secret})
	var list api.JobList
	must(t, c.Do(t.Context(), "POST", apiclient.Path("jobs"), api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1", "10.0.0.101"},
		Key: "k", Why: "because"}, &list))
	var ids []string
	for _, j := range list.Jobs {
		ids = append(ids, j.ID)
	}
	last, states := map[string]api.Job{}, map[job.State]bool{}
	must(t, c.Watch(t.Context(), ids, func(j api.Job) {
		if old := last[j.Box]; old.Step > j.Step {
			t.Errorf("step %d comes after %d", j.Step, old.Step)
		}
		last[j.Box], states[j.State] = j, true
	}, settled))
	one, two := last["10.0.0.1"], last["10.0.0.101"]
	if one.Outcome != box.Done || one.Backup == "" || len(one.Receipts) != 1 || one.By != "token ci" ||
		two.Outcome != box.Refused || two.Text == "" {
		t.Errorf("%+v", last)
	}
	if !states[job.Running] || !states[job.Ended] {
		t.Errorf("the states were %v", states)
	}
	var log api.Entries
	must(t, root.Do(t.Context(), "GET", apiclient.Path("audit")+"?who=token+ci", nil, &log))
	if len(log.Entries) != 2 || log.Entries[0].From != "127.0.0.1" || log.Entries[0].Why == "" {
		t.Errorf("%+v", log)
	}
	// A watch of jobs that have ended ends at once.
	must(t, c.Watch(t.Context(), ids, func(api.Job) {}, settled))
	var boxes api.BoxList
	must(t, c.Do(t.Context(), "GET", apiclient.Path("boxes"), nil, &boxes))
	if l := boxes.Boxes; len(l) != 2 || l[0].Last == nil || l[0].Last.Outcome != box.Done || l[0].Last.Action != box.Backup {
		t.Errorf("%+v", boxes)
	}
}

// TestSudo: what root does by sudo is in the audit log with who called sudo.
func TestSudo(t *testing.T) {
	testenv.Root(t)
	r := newRig(t)
	for _, user := range []string{"alice", ""} {
		t.Setenv("SUDO_USER", user)
		must(t, r.client(apiclient.Config{}).Do(t.Context(), "PUT", apiclient.Path("groups", "rack3"), api.SetGroup{}, nil))
		var all api.Entries
		must(t, r.client(apiclient.Config{}).Do(t.Context(), "GET", apiclient.Path("audit"), nil, &all))
		if from := all.Entries[0].From; from == "socket" != (user == "") || !strings.Contains(from, user) {
			t.Errorf("the audit log has %q", from)
		}
	}
}

// TestErrors: what the server refuses is told as what it is.
func TestErrors(t *testing.T) {
	r := newRig(t)
	c := r.client(apiclient.Config{})
	for path, kind := range map[string]problem.Kind{"jobs/nowhere": problem.Wrong, "jobs?x=1": problem.Wrong, "nowhere": problem.Wrong} {
		err := c.Do(t.Context(), "GET", api.Prefix+"/"+path, nil, nil)
		var p *problem.Error
		if !errors.As(err, &p) || p.Kind != kind {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := c.Do(t.Context(), "POST", apiclient.Path("jobs"), api.NewJobs{Action: box.Restore, Targets: []string{"10.0.0.1"}}, nil)
	var p *problem.Error
	if !errors.As(err, &p) || p.Kind != problem.Refused {
		t.Errorf("a restore without a backup: %v", err)
	}
	other := r.client(apiclient.Config{Server: r.lab.URL, Key: wire.Fingerprint{1}, Token: "x"})
	start := time.Now()
	if err := other.Do(t.Context(), "GET", apiclient.Path("me"), nil, nil); err == nil || !strings.Contains(err.Error(), "another key") ||
		time.Since(start) > 10*time.Second {
		t.Errorf("a server with another key: %v", err)
	}
	if key, err := apiclient.KeyOf(t.Context(), r.lab.URL); err != nil || key != r.lab.Key {
		t.Errorf("the key is %v, %v", key, err)
	}
	for _, cfg := range []apiclient.Config{{}, {Server: "server:8443"}, {Server: "http://x", Token: "x"}, {Server: "https://x/y", Token: "x"},
		{Server: "https://u:p@x", Token: "x"}, {Server: "https://x", Token: "a b"}, {Server: "https://x", Token: ""}} {
		if _, err := apiclient.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// TestRestart: a server that is started again is asked again, and jobs are followed
// over that.
func TestRestart(t *testing.T) {
	r := newRig(t)
	c := r.client(apiclient.Config{Away: 20 * time.Second})
	var list api.JobList
	must(t, c.Do(t.Context(), "POST", apiclient.Path("jobs"), api.NewJobs{Action: box.RefreshInfo, Targets: []string{"10.0.0.103"}}, &list))
	id := list.Jobs[0].ID
	seen := make(chan api.Job, 100)
	done := make(chan error, 1)
	go func() { done <- c.Watch(t.Context(), []string{id}, func(j api.Job) { seen <- j }, settled) }()
	<-seen
	r.lab.Close()
	time.Sleep(300 * time.Millisecond)
	r.start()
	var j api.Job
	must(t, c.Do(t.Context(), "POST", apiclient.Path("jobs", id, "cancel"), api.Reason{}, &j))
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("the end of the job was not seen")
	}
	var last api.Job
	for len(seen) > 0 {
		last = <-seen
	}
	if last.Outcome != job.Cancelled {
		t.Errorf("%+v", last)
	}
}

// TestLost: a server that is gone for good is said to be lost, and not before its time.
func TestLost(t *testing.T) {
	r := newRig(t)
	c := r.client(apiclient.Config{Away: 500 * time.Millisecond})
	var list api.JobList
	must(t, c.Do(t.Context(), "POST", apiclient.Path("jobs"), api.NewJobs{Action: box.RefreshInfo, Targets: []string{"10.0.0.103"}}, &list))
	seen := make(chan api.Job, 100)
	done := make(chan error, 2)
	go func() {
		done <- c.Watch(t.Context(), []string{list.Jobs[0].ID}, func(j api.Job) { seen <- j }, settled)
	}()
	go func() { done <- c.FollowLog(t.Context(), "10.0.0.103", 0, io.Discard) }()
	<-seen
	time.Sleep(100 * time.Millisecond)
	r.lab.Close()
	start := time.Now()
	for range 2 {
		if err := <-done; !errors.Is(err, apiclient.ErrLost) || time.Since(start) > 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	}
	if err := c.Do(t.Context(), "GET", apiclient.Path("me"), nil, nil); !errors.Is(err, apiclient.ErrLost) {
		t.Error(err)
	}
	must(t, os.RemoveAll(r.socket))
	if err := c.Do(t.Context(), "GET", apiclient.Path("me"), nil, nil); !errors.Is(err, apiclient.ErrLost) || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	r.start()
}

// TestBusy: of a server that answers all the time that it is busy nobody says that the
// connection is lost.
func TestBusy(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"code":"busy","detail":"there are 16 uploads at once"}`)
	})}
	go srv.Serve(l)
	defer srv.Close()
	c, err := apiclient.New(apiclient.Config{Server: l.Addr().String(), Away: time.Second})
	must(t, err)
	err = c.Do(t.Context(), "GET", apiclient.Path("me"), nil, nil)
	if !errors.Is(err, apiclient.ErrLost) || !strings.Contains(err.Error(), "there are 16 uploads at once") ||
		strings.Contains(err.Error(), "lost") {
		t.Error(err)
	}
}

// TestOnce: what must not be done twice is asked for once, and nobody says that it was done.
func TestOnce(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	must(t, err)
	var asked atomic.Int64
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	})}
	go s.Serve(l)
	defer s.Close()
	c, err := apiclient.New(apiclient.Config{Server: l.Addr().String(), Away: time.Second})
	must(t, err)
	defer c.Close()
	err = c.Once(t.Context(), "POST", apiclient.Path("boxes", "10.0.0.7", "power"), api.SwitchBox{}, nil)
	if !errors.Is(err, apiclient.ErrLost) || asked.Load() != 1 {
		t.Errorf("%d times, %v", asked.Load(), err)
	}
}

// TestCutShort: a file of which only a part came is no whole one.
func TestCutShort(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "one\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})}
	go s.Serve(l)
	defer s.Close()
	c, err := apiclient.New(apiclient.Config{Server: l.Addr().String(), Away: time.Second})
	must(t, err)
	defer c.Close()
	out := &buffer{}
	err = c.Get(t.Context(), apiclient.Path("boxes", "10.0.0.7", "log"), out)
	if !errors.Is(err, apiclient.ErrLost) || out.String() != "one\n" {
		t.Errorf("%q came, %v", out.String(), err)
	}
}

// TestLog: a log is followed over a restart of the server, each line once.
func TestLog(t *testing.T) {
	r := newRig(t)
	c := r.client(apiclient.Config{Away: 20 * time.Second})
	addr, err := box.ParseAddr("10.0.0.7")
	must(t, err)
	must(t, c.Do(t.Context(), "POST", apiclient.Path("boxes"), api.NewBox{Address: "10.0.0.7"}, nil))
	folder, err := r.lab.Area.Box(addr)
	must(t, err)
	add := func(text string) {
		f, err := os.OpenFile(folder.Path(box.LogFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		must(t, err)
		fmt.Fprint(f, text)
		must(t, f.Close())
	}
	add("one\ntwo\n")
	out := &buffer{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.FollowLog(ctx, "10.0.0.7", -4, out) }()
	wants := func(want string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); out.String() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log is %q, not %q", out.String(), want)
			}
		}
	}
	wants("two\n")
	add("three\n")
	wants("two\nthree\n")
	r.lab.Close()
	add("four\n")
	r.start()
	wants("two\nthree\nfour\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestLiar: whatever a server answers, it is no success, and the error can be shown at
// a terminal.
func TestLiar(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) }))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	c, err := apiclient.New(apiclient.Config{Server: socket, Away: testenv.Effort(20*time.Millisecond, 200*time.Millisecond)})
	must(t, err)
	defer c.Close()
	say := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
	}
	for what, h := range map[string]http.HandlerFunc{
		"noise":           say(200, "application/json", "noise"),
		"a page":          say(200, "text/html", "<html>"),
		"another type":    say(200, "application/json", `{"jobs":7}`),
		"a redirect":      say(307, "", ""),
		"a proxy":         say(502, "text/html", "<html>bad gateway"),
		"no problem":      say(400, api.ProblemType, "{}"),
		"a wrong problem": say(500, api.ProblemType, `{"code":7}`),
		"escape codes":    say(409, api.ProblemType, `{"code":"refused","detail":"\u001b[2Jgone\nand more","errors":[{"message":"\u0007"}]}`),
		"a long problem":  say(409, api.ProblemType, `{"code":"refused","detail":"`+strings.Repeat("x", 50000)+`"}`),
		"an endless problem": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(409)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 10000)); err != nil {
					return
				}
			}
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"jobs":[]}`)
		},
		"busy for ever": say(503, api.ProblemType, `{"code":"busy","detail":"later"}`),
	} {
		answer.Store(&h)
		var list api.JobList
		for name, err := range map[string]error{
			"do":    c.Do(t.Context(), "GET", apiclient.Path("jobs"), nil, &list),
			"watch": c.Watch(t.Context(), []string{"j"}, func(api.Job) { t.Errorf("%s: a job is told", what) }, settled),
		} {
			if err == nil || len(err.Error()) > 4000 || strings.ContainsAny(err.Error(), "\n\x1b\x07") {
				t.Errorf("%s: %s gives %.200q", what, name, fmt.Sprint(err))
			}
		}
	}
}

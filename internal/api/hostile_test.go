package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/setting"
)

// TestHostileBodies: nothing that is not a right request is taken, and each answer says
// what is wrong in text that a terminal can show.
func TestHostileBodies(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1"})
	c := r.root()
	deep := strings.Repeat("[", 20000)
	for what, body := range map[string]string{
		"nothing":            "",
		"noise":              "noise",
		"a list":             "[]",
		"null":               "null",
		"cut off":            `{"action":"backup","targets":["10.0.0.1"]`,
		"two bodies":         `{"action":"backup","targets":["10.0.0.1"]}{"x":1}`,
		"an unknown field":   `{"action":"backup","targets":["10.0.0.1"],"wait":true}`,
		"an unknown option":  `{"action":"backup","targets":["10.0.0.1"],"options":{"disk":["sda"]}}`,
		"an unknown action":  `{"action":"format","targets":["10.0.0.1"]}`,
		"no action":          `{"targets":["10.0.0.1"]}`,
		"no targets":         `{"action":"backup","targets":[]}`,
		"a text for a list":  `{"action":"backup","targets":"10.0.0.1"}`,
		"a number in a list": `{"action":"backup","targets":[1]}`,
		"control characters": `{"action":"backup","targets":["10.0.0.1\u001b[2J\n"]}`,
		"a zero byte":        `{"action":"backup","targets":["10.0.0.1"],"why":"a\u0000b"}`,
		"turned text":        `{"action":"backup","targets":["10.0.0.1"],"key":"a\u202eb"}`,
		"HTML":               `{"action":"backup","targets":["<script>alert(1)</script>"]}`,
		"dots":               `{"action":"backup","targets":["../../etc"]}`,
		"a long target":      `{"action":"backup","targets":["` + strings.Repeat("x", 300) + `"]}`,
		"a long key":         `{"action":"backup","targets":["10.0.0.1"],"key":"` + strings.Repeat("x", 201) + `"}`,
		"many targets":       `{"action":"backup","targets":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`,
		"deep":               `{"action":"backup","targets":` + deep + `}`,
		"bad UTF-8":          "{\"action\":\"backup\",\"targets\":[\"\xff\xfe\"]}",
		"huge":               `{"action":"backup","targets":["10.0.0.1"],"why":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if what == "a zero byte" {
			continue // of a reason; the audit log makes it printable
		}
		status, head, b := c.raw("POST", "/api/v1/jobs", body)
		var p api.Problem
		if err := json.Unmarshal(b, &p); err != nil || status < 400 || status >= 500 || head.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: %d %.300s", what, status, b)
			continue
		}
		if strings.ContainsAny(p.Error(), "\x00\x1b\n\r\u202e") || len(b) > 8000 || strings.Contains(string(b), "<script>") {
			t.Errorf("%s: the error is %.300q", what, b)
		}
	}
	var list api.JobList
	c.want(200, "GET", "/api/v1/jobs", nil, &list)
	if len(list.Jobs) != 0 {
		t.Errorf("%+v", list)
	}
	for _, body := range []string{`{"name":"<b>"}`, `{"name":"a\u0007"}`, `{"name":"10.0.0.9"}`, `{"name":"a/b"}`, `{"labels":["a\nb"]}`,
		`{"labels":[" a"]}`, `{"health":"bad","healthReason":"\u001b[31m"}`, `{"disks":"\u0000"}`, `{"macs":["52:54:00:00:00:01"]}`} {
		c.refused(api.CodeWrong, "PATCH", "/api/v1/boxes/web-1", body)
	}
	c.want(201, "POST", "/api/v1/jobs", `{"action":"backup","targets":["10.0.0.1"],"why":"a\u0000\u001bb <b>"}`, nil)
}

// TestHostilePaths: paths with dots, encoded slashes and the like lead nowhere.
func TestHostilePaths(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	must(t, os.WriteFile(r.dir+"/boxes/maintenance.log", []byte("of all boxes"), 0o644))
	c := r.root()
	for _, path := range []string{"/", "/api/v1", "/api/v1/", "/api/v1/../v1/jobs", "/api/v1//jobs", "/api/v1/./jobs", "/api/v1/jobs/",
		"/api/v2/jobs",
		"/api/v1/boxes/..", "/api/v1/boxes/../log", "/api/v1/boxes/%2e%2e/log", "/api/v1/boxes/..%2f..%2fetc/log", "/api/v1/boxes/%00/log",
		"/api/v1/boxes/%0a%1b%5b/log", "/api/v1/jobs/%2e%2e", "/api/v1/jobs/..%2fx", "/api/v1/jobs/a%20b", "/debug/pprof/",
		"/docs", "/openapi.json",
		"/api/v1/boxes//log", "/api/v1/boxes/127.0.0.1/log", "/api/v1/boxes/0.0.0.0/log", "/api/v1/boxes/%3Cscript%3E"} {
		status, head, b := c.raw("GET", path, nil)
		var p api.Problem
		if err := json.Unmarshal(b, &p); err != nil || status != 404 && status != 400 || head.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: %d %.300q", path, status, b)
		}
		if strings.ContainsAny(p.Error(), "\x00\x1b\n") || strings.Contains(string(b), "<script>") {
			t.Errorf("%s: %q", path, b)
		}
	}
	for _, q := range []struct{ method, path, allow string }{
		{"PUT", "/api/v1/jobs", "GET, POST"}, {"DELETE", "/api/v1/jobs", "GET, POST"}, {"HEAD", "/api/v1/jobs", "GET, POST"},
		{"OPTIONS", "/api/v1/jobs", "GET, POST"}, {"TRACE", "/healthz", "GET"}, {"POST", "/healthz", "GET"}, {"BREW", "/metrics", "GET"},
		{"POST", "/api/v1/boxes/10.0.0.1", "GET, PATCH, DELETE"},
	} {
		status, head, _ := c.raw(q.method, q.path, nil)
		if status != 405 || head.Get("Allow") != q.allow {
			t.Errorf("%s %s: %d, %q", q.method, q.path, status, head.Get("Allow"))
		}
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"} {
		if _, head, _ := c.raw("GET", "/api/v1/boxes", nil); head.Get(name) != want {
			t.Errorf("%s is %q", name, head.Get(name))
		}
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestEndlessBody: a body without an end is cut off, and takes little memory.
func TestEndlessBody(t *testing.T) {
	r := newRig(t)
	for _, c := range []*client{r.root(), r.with(r.token(ledger.Token{Role: ledger.Admin})), r.with("")} {
		for _, q := range []methodPath{{"POST", "/api/v1/jobs"}, {"POST", "/nowhere"}, {"PUT", "/api/v1/jobs"}, {"GET", "/api/v1/jobs"}} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			req, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, io.LimitReader(endless{}, 1<<40))
			must(t, err)
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, err := c.http.Do(req)
			if err == nil {
				if resp.StatusCode < 400 && q.method != "GET" {
					t.Errorf("%s %s: %d", q.method, q.path, resp.StatusCode)
				}
				resp.Body.Close()
			}
			if ctx.Err() != nil {
				t.Errorf("%s %s: it is not cut off", q.method, q.path)
			}
			cancel()
			if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 64<<20 {
				t.Errorf("%s %s took %d MiB", q.method, q.path, (after.TotalAlloc-before.TotalAlloc)>>20)
			}
		}
	}
}

// TestStrangers: a connection that says nothing, or says it slowly, is closed.
func TestStrangers(t *testing.T) {
	r := newRig(t)
	tcp := func() (net.Conn, error) {
		return tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	}
	unix := func() (net.Conn, error) { return net.Dial("unix", r.socket) }
	var wait sync.WaitGroup
	for what, text := range map[string]string{
		"silent":      "",
		"half a head": "GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n",
		"half a body": "POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
	} {
		for _, dial := range []func() (net.Conn, error){tcp, unix} {
			wait.Go(func() {
				c, err := dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(c, text)
				if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s: the connection is still open", what)
				}
			})
		}
	}
	wait.Wait()
}

// TestPlainHTTP: tokens are not taken without TLS.
func TestPlainHTTP(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: r.api}
	go srv.Serve(l)
	defer srv.Close()
	c := &client{t: t, http: http.DefaultClient, base: "http://" + l.Addr().String(), token: r.token(ledger.Token{Role: ledger.Admin})}
	c.refused(api.CodeUnauthorized, "GET", "/api/v1/me", nil)
}

// event is one of those that the server sends.
type event struct{ id, name, data string }

// follow reads events until stop is called.
func (c *client) follow(lastID string) (events <-chan event, stop func()) {
	c.t.Helper()
	return c.followAs("/api/v1/events", lastID)
}

func (c *client) followAs(path, lastID string) (events <-chan event, stop func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", c.base+path, nil)
	must(c.t, err)
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	if lastID != "" {
		q.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := c.http.Do(q)
	must(c.t, err)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		c.t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	out := make(chan event, 10000)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var e event
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.name != "" {
					out <- e
				}
				e = event{}
			}
		}
	}()
	return out, cancel
}

// next is the next event but signs of life.
func next(t *testing.T, events <-chan event) event {
	t.Helper()
	over := time.After(10 * time.Second)
	for {
		select {
		case e, more := <-events:
			if !more {
				return event{name: "end"}
			}
			if e.name != "alive" {
				return e
			}
		case <-over:
			t.Fatal("there is no event")
		}
	}
}

// TestBriefEvents: a page hears which job has changed and no more of it, and hears of the last change.
func TestBriefEvents(t *testing.T) {
	r := newRig(t)
	c := r.root()
	events, stop := c.followAs("/api/v1/events?brief=true", "")
	defer stop()
	if e := next(t, events); e.name != "reset" {
		t.Fatalf("%+v", e)
	}
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	id := list.Jobs[0].ID
	e, want := next(t, events), `{"id":"`+id+`","box":"10.0.0.1","state":"queued"}`
	if e.name != "job" || e.data != want {
		t.Errorf("got %+v, want %s", e, want)
	}
	for range 20 {
		r.runner.set(t, id, func(st *dispatch.Status) { st.State, st.Text = job.Armed, "it is armed" })
	}
	r.runner.set(t, id, func(st *dispatch.Status) { st.State, st.Outcome, st.Settled = job.Ended, box.Done, true })
	want = strings.Replace(want, "queued", "ended", 1)
	for e.data != want {
		if e = next(t, events); e.name != "job" || strings.Contains(e.data, "it is armed") {
			t.Fatalf("got %+v, want %s", e, want)
		}
	}
}

// TestEvents: whoever follows sees each job as it is at last, also after the connection
// broke.
func TestEvents(t *testing.T) {
	r := newRig(t)
	c := r.root()
	events, stop := c.follow("")
	first := next(t, events)
	if first.name != "reset" || first.id == "" {
		t.Fatalf("%+v", first)
	}
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	id := list.Jobs[0].ID
	e := next(t, events)
	var j api.Job
	must(t, json.Unmarshal([]byte(e.data), &j))
	if e.name != "job" || j.ID != id || j.State != job.Queued || e.id == first.id {
		t.Errorf("%+v", e)
	}
	stop()
	for range 10 {
		r.runner.set(t, id, func(st *dispatch.Status) { st.State, st.Text = job.Armed, "a <b>\n\n&" })
	}
	r.runner.set(t, id, func(st *dispatch.Status) { st.State, st.Outcome, st.Settled = job.Ended, box.Done, true })
	time.Sleep(100 * time.Millisecond)
	events, stop = c.follow(e.id)
	for e = next(t, events); ; e = next(t, events) {
		must(t, json.Unmarshal([]byte(e.data), &j))
		if e.name != "job" || j.Text != "a <b>\n\n&" {
			t.Fatalf("%+v", e)
		}
		if j.State == job.Ended {
			break
		}
	}
	stop()
	for _, id := range []string{"x", first.id + "9999", "nowhere-1", strings.Replace(first.id, "-", "--", 1), "-"} {
		events, stop = c.follow(id)
		if e := next(t, events); e.name != "reset" {
			t.Errorf("after the id %q comes %+v", id, e)
		}
		stop()
	}
	events, stop = c.follow("")
	defer stop()
	for alive := 0; alive < 3; {
		select {
		case e := <-events:
			if e.name == "alive" && e.data == "{}" && e.id == "" { // no comment, since scripts of browsers do not hear of comments
				alive++
			}
		case <-time.After(10 * time.Second):
			t.Fatal("there is no sign of life")
		}
	}
	r.api.Close()
	if e := next(t, events); e.name != "end" && e.name != "reset" {
		t.Errorf("after the server's end there is %+v", e)
	}
}

// TestEventsLost: who is far behind is told to read anew.
func TestEventsLost(t *testing.T) {
	r := newRig(t)
	c := r.root()
	events, stop := c.follow("")
	first := next(t, events)
	stop()
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	for range 1100 {
		r.runner.tell(list.Jobs[0].ID)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		events, stop = c.follow(first.id)
		e := next(t, events)
		if stop(); e.name == "reset" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", e)
		}
	}
}

// TestEventsOfOthers: a token that is for a group sees the jobs of its boxes alone, and
// one that has ended sees no more.
func TestEventsOfOthers(t *testing.T) {
	r := newRig(t)
	r.group("a")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"a"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	events, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "a", Expires: r.clock().Add(time.Minute)})).follow("")
	defer stop()
	next(t, events)
	r.root().want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.2", "10.0.0.1"}}, nil)
	if e := next(t, events); !strings.Contains(e.data, `"10.0.0.1"`) {
		t.Errorf("%+v", e)
	}
	r.pass(2 * time.Minute)
	if e := next(t, events); e.name != "end" {
		t.Errorf("the token has ended, and there is %+v", e)
	}
}

// TestSlowReader: a client that does not read is cut off.
func TestSlowReader(t *testing.T) {
	r := newRig(t)
	c := r.root()
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	conn, err := net.Dial("unix", r.socket)
	must(t, err)
	defer conn.Close()
	io.WriteString(conn, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	big := strings.Repeat("x", 100<<10)
	start := time.Now()
	conn.SetWriteDeadline(start.Add(15 * time.Second))
	for time.Since(start) < 20*time.Second {
		r.runner.set(t, list.Jobs[0].ID, func(st *dispatch.Status) { st.Text = big })
		time.Sleep(20 * time.Millisecond)
		if _, err := conn.Write([]byte("x")); err != nil && !os.IsTimeout(err) {
			return // the server has closed it
		}
	}
	t.Error("the connection is still open")
}

// TestManyStreams: those who follow are counted, and others go on.
func TestManyStreams(t *testing.T) {
	r := newRig(t)
	c := r.root()
	for range 400 {
		_, stop := c.follow("")
		defer stop()
	}
	if status, code := c.try("GET", "/api/v1/events"); status != 503 || code != api.CodeBusy {
		t.Errorf("one more: %d %s", status, code)
	}
	c.want(200, "GET", "/api/v1/me", nil, nil)
}

// TestManyStreamsOfOne: one token cannot take all places from the others, and gets them back.
func TestManyStreamsOfOne(t *testing.T) {
	r := newRig(t)
	with := func() *client {
		t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		r.t.Cleanup(t.CloseIdleConnections)
		return &client{t: r.t, http: &http.Client{Transport: t}, base: r.url, token: r.token(ledger.Token{Role: ledger.Viewer})}
	}
	greedy, other := with(), with()
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for range 200 {
		_, stop := greedy.follow("")
		stops = append(stops, stop)
	}
	if status, code := greedy.try("GET", "/api/v1/events"); status != 503 || code != api.CodeBusy {
		t.Errorf("one more: %d %s", status, code)
	}
	_, stop := other.follow("")
	defer stop()
	_, stop = r.root().follow("")
	defer stop()
	stops[0]()
	stops = stops[1:]
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if status, code := greedy.try("GET", "/api/v1/jobs/nothing?wait=1"); status == 404 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a place that was left is not free: %d %s", status, code)
		}
	}
}

// TestLog: a log is read whole, from an offset, and as it grows.
func TestLog(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	c.refused(api.CodeNotFound, "GET", "/api/v1/boxes/10.0.0.1/log", nil)
	folder, err := r.area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	path := folder.Path(box.LogFile)
	must(t, os.WriteFile(path, []byte("one\ntwo\n"), 0o644))
	for query, want := range map[string]string{"": "one\ntwo\n", "?offset=4": "two\n", "?offset=-4": "two\n", "?offset=-99": "one\ntwo\n",
		"?offset=8": "", "?offset=9": "one\ntwo\n"} {
		status, head, b := c.raw("GET", "/api/v1/boxes/10.0.0.1/log"+query, nil)
		if status != 200 || string(b) != want || !strings.HasPrefix(head.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q", query, status, b)
		}
	}
	resp, err := c.http.Get(c.base + "/api/v1/boxes/10.0.0.1/log?offset=4&follow=true")
	must(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	wants := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%q, not %q, %v", lines.Text(), want, lines.Err())
		}
	}
	wants("two")
	add := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
		must(t, err)
		fmt.Fprint(f, text)
		must(t, f.Close())
	}
	add("three\n")
	wants("three")
	add("four\n")
	must(t, os.Rename(path, path+".1"))
	add("five\n")
	wants("four")
	wants("five")
	must(t, os.WriteFile(path, []byte("6\n"), 0o644))
	wants("6")
	// A link leads nowhere else, and a pipe hangs nobody.
	must(t, os.Remove(path))
	must(t, os.WriteFile(r.dir+"/secret", []byte("secret"), 0o644))
	must(t, os.Symlink(r.dir+"/secret", path))
	if status, b := c.do("GET", "/api/v1/boxes/10.0.0.1/log", nil); status != 500 || strings.Contains(string(b), "secret\n") {
		t.Errorf("%d %s", status, b)
	}
}

// TestInventory: the three forms of the inventory.
func TestInventory(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	c.refused(api.CodeNotFound, "GET", "/api/v1/boxes/10.0.0.1/inventory", nil)
	folder, err := r.area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	for name, text := range map[string]string{box.InfoJSON: `{"a":1}`, box.InfoText: "text", box.InfoZip: "zip"} {
		must(t, folder.WriteFile(name, []byte(text)))
	}
	for query, want := range map[string]string{"": `application/json|{"a":1}`, "?form=json": `application/json|{"a":1}`,
		"?form=text": "text/plain; charset=utf-8|text", "?form=zip": "application/zip|zip"} {
		_, head, b := c.raw("GET", "/api/v1/boxes/10.0.0.1/inventory"+query, nil)
		if got := head.Get("Content-Type") + "|" + string(b); got != want {
			t.Errorf("%s: %q", query, got)
		}
	}
	c.refused(api.CodeWrong, "GET", "/api/v1/boxes/10.0.0.1/inventory?form=../x", nil)
}

// TestMetrics: the figures have jobs, boxes and the store.
func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1", "10.0.0.2"}}, &list)
	c.want(200, "POST", "/api/v1/jobs/"+list.Jobs[0].ID+"/cancel", "{}", nil)
	wants := []string{`testbox_jobs{state="queued"} 1`, `testbox_jobs{state="held"} 0`, `testbox_boxes{health="good"} 1`,
		"testbox_store_bytes 12345", `testbox_jobs_ended_total{action="backup",class="",outcome="cancelled"} 1`, "testbox_info{", "go_goroutines"}
	var b []byte
	for range 100 {
		_, b = c.do("GET", "/metrics", nil)
		if strings.Contains(string(b), "jobs_ended_total") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, want := range wants {
		if !strings.Contains(string(b), want) {
			t.Errorf("there is no %s", want)
		}
	}
	var h api.Health
	r.with("").want(200, "GET", "/healthz", nil, &h)
	if h.Status != "ok" {
		t.Errorf("%+v", h)
	}
	must(t, r.ledger.Close())
	r.with("").refused(api.CodeBusy, "GET", "/healthz", nil)
}

// TestGroups: settings of a group are set and taken away. Settings that cannot be read are said, and can be replaced.
func TestGroups(t *testing.T) {
	r := newRigWith(t, func(cfg *api.Config) { cfg.Site.Powers = []string{"bmc", "pdu"} })
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutGroup(ledger.Group{Name: "rack", Settings: []byte(`{"other":1}`)})
	}))
	c := r.root()
	var all []api.Group
	c.want(200, "GET", "/api/v1/groups", nil, &all)
	if len(all) != 1 || !strings.Contains(all[0].Unread, "group set") || all[0].Most != nil {
		t.Errorf("%+v", all)
	}
	two := 2
	var g api.Group
	c.want(200, "PUT", "/api/v1/groups/rack", api.SetGroup{Most: &two, Power: "bmc", Keep: "daily=7,last=3", Peers: "off", Why: "a test"}, &g)
	if g.Most == nil || *g.Most != 2 || g.Power != "bmc" || g.Keep != "last=3,daily=7" || g.Peers != "off" || g.Unread != "" {
		t.Errorf("%+v", g)
	}
	set := func() string {
		var text string
		must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
			all, err := tx.Groups()
			text = string(all[0].Settings)
			return err
		}))
		return text
	}
	if got := set(); got != `{"most":2,"power":"bmc","keep":"last=3,daily=7","peers":"off"}` {
		t.Error(got)
	}
	var log api.Entries
	c.want(200, "GET", "/api/v1/audit", nil, &log)
	if e := log.Entries[0]; e.On != "rack" || e.Why != "at most 2 boxes; power bmc; keep last=3,daily=7; peers off; a test" {
		t.Errorf("%+v", e)
	}
	for body, want := range map[string]string{
		`{"power":"no"}`:    "there are bmc, pdu",
		`{"keep":"last=0"}`: "from 1 to",
		`{"keep":"3"}`:      "write all, or numbers",
		`{"most":-1}`:       "most",
		`{"peers":"maybe"}`: "peers",
	} {
		if p := c.refused(api.CodeWrong, "PUT", "/api/v1/groups/rack", body); !strings.Contains(p.Error(), want) {
			t.Errorf("%s: %v", body, p)
		}
	}
	c.want(200, "PUT", "/api/v1/groups/rack", api.SetGroup{Power: "none", Keep: "all"}, nil)
	if got := set(); got != `{"power":"none","keep":"all"}` {
		t.Error(got)
	}
	c.want(200, "PUT", "/api/v1/groups/rack", api.SetGroup{Power: "default", Keep: "default", Peers: "default"}, nil)
	if got := set(); got != `{}` {
		t.Error(got)
	}
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	c.refused(api.CodeRefused, "DELETE", "/api/v1/groups/rack", nil)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c.want(204, "DELETE", "/api/v1/groups/rack", nil, nil)
	c.refused(api.CodeWrong, "PUT", "/api/v1/groups/a%0ab", api.SetGroup{})
}

// TestBoxSettings: what is set for a box is shown beside what holds for it, and only an admin sets it.
func TestBoxSettings(t *testing.T) {
	r := newRigWith(t, func(cfg *api.Config) {
		cfg.Site = setting.Site{Power: "bmc", Keep: setting.Keep{Last: 9}, Powers: []string{"bmc", "pdu"}}
	})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutGroup(ledger.Group{Name: "rack", Settings: []byte(`{"power":"pdu","keep":"daily=7"}`)})
	}))
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	const path = "/api/v1/boxes/10.0.0.1"
	c := r.root()
	peers, peersWhy := "on", ""
	holds := func(change, power, why, keep, keepWhy string) {
		t.Helper()
		var b api.Box
		if change != "" {
			c.want(200, "PATCH", path, change, nil)
		}
		c.want(200, "GET", path, nil, &b)
		want := api.Effective{Power: power, PowerWhy: why, Keep: keep, KeepWhy: keepWhy, Peers: peers, PeersWhy: peersWhy}
		if b.Effective == nil || *b.Effective != want {
			t.Errorf("after %s: %+v, not %+v", change, b.Effective, want)
		}
	}
	holds("", "pdu", "for the group rack", "daily=7", "for the group rack")
	holds(`{"power":"bmc"}`, "bmc", "for the box", "daily=7", "for the group rack")
	holds(`{"power":"none","keep":"last=3"}`, "none", "for the box", "last=3", "for the box")
	holds(`{"power":"default","groups":[]}`, "bmc", "in the configuration", "last=3", "for the box")
	holds(`{"keep":"default"}`, "bmc", "in the configuration", "last=9", "in the configuration")
	peers, peersWhy = "off", "for the box"
	holds(`{"peers":"off"}`, "bmc", "in the configuration", "last=9", "in the configuration")
	peers, peersWhy = "on", ""
	holds(`{"peers":"default"}`, "bmc", "in the configuration", "last=9", "in the configuration")
	for body, want := range map[string]string{
		`{"power":"no"}`: "there are bmc, pdu",
		`{"keep":"no"}`:  "write all, or numbers",
		`{"peers":"no"}`: "peers",
		`{}`:             "say what is to be changed",
	} {
		if p := c.refused(api.CodeWrong, "PATCH", path, body); !strings.Contains(p.Error(), want) {
			t.Errorf("%s: %v", body, p)
		}
	}
	operator := r.with(r.token(ledger.Token{Role: ledger.Operator}))
	for _, body := range []string{`{"power":"none"}`, `{"keep":"last=1"}`, `{"peers":"off"}`} {
		operator.refused(api.CodeForbidden, "PATCH", path, body)
	}
	operator.want(200, "PATCH", path, `{"labels":["x"]}`, nil)

	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Settings: []byte(`{"later":1}`)})
	why := "the settings of the box 10.0.0.1 cannot be read: json: unknown field \"later\"; " +
		"`testbox box set` with --power, --keep and --peers makes them anew"
	peers, peersWhy = "off", why
	holds("", "none", why, "all", why)
	holds(`{"labels":["x"]}`, "none", why, "all", why)
	c.refused(api.CodeRefused, "PATCH", path, `{"keep":"last=3","power":"default"}`)
	peers, peersWhy = "on", ""
	holds(`{"keep":"last=3","power":"default","peers":"default"}`, "bmc", "in the configuration", "last=3", "for the box")
	var all api.BoxList
	c.want(200, "GET", "/api/v1/boxes", nil, &all)
	if all.Boxes[0].Keep != "last=3" || all.Boxes[0].Power != "" || all.Boxes[0].Effective != nil {
		t.Errorf("%+v", all.Boxes[0])
	}
}

// TestMarks: a request whose marks are of another box, or of a box for which no backup is meant any more, makes no job.
func TestMarks(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	ask := func(of string) map[string]any {
		return map[string]any{"action": "restore", "targets": []string{"10.0.0.1"}, "marks": map[string]string{of: "00"}}
	}
	c.refused(api.CodeWrong, "POST", "/api/v1/jobs", ask("10.0.0.2"))
	c.refused(api.CodeRefused, "POST", "/api/v1/jobs", ask("10.0.0.1"))
	var list api.JobList
	if c.want(200, "GET", "/api/v1/jobs", nil, &list); len(list.Jobs) != 0 {
		t.Errorf("there are %d jobs", len(list.Jobs))
	}
}

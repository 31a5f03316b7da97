package boxapi_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

// newDeskAttack is an attack on a server with a desk, which knows the attack's token.
func newDeskAttack(t *testing.T, tune func(*boxapi.Config)) (*attack, *desk) {
	d := newDesk()
	a := newAttack(t, func(c *boxapi.Config) {
		c.Desk = d
		if tune != nil {
			tune(c)
		}
	})
	d.tokens[a.token] = true
	return a, d
}

// got returns how many messages the desk has taken.
func (d *desk) got() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.hellos) + len(d.reports) + len(d.results) + len(d.files)
}

func helloText(spoil func(h *wire.Hello)) []byte {
	h := newHello()
	h.Protocol, h.Token = wire.Version, strings.Repeat("a", wire.MinToken)
	spoil(h)
	return wire.Marshal(h)
}

// TestFailuresFillNoLog: a box that asks again and again for what fails causes one line,
// and each kind of failure has its own.
func TestFailuresFillNoLog(t *testing.T) {
	var lines atomic.Int64
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Log = func(string, ...any) { lines.Add(1) } })
	d.mu.Lock()
	d.fail = errors.New("no space left on device")
	d.mu.Unlock()
	for n := range 20 {
		report := wire.Marshal(&wire.Report{Number: uint64(n + 1)})
		if _, code, answer := a.send(t, a.token, "POST", "/agent/v1/report", report); code != wire.CodeBusy {
			t.Fatalf("code %q: %s", code, answer)
		}
	}
	if n := lines.Load(); n != 1 {
		t.Errorf("the log has %d lines", n)
	}
}

// TestHostileAgent sends what an agent should never say of its job. Nothing of it comes
// to the desk.
func TestHostileAgent(t *testing.T) {
	a, d := newDeskAttack(t, nil)
	other := strings.Repeat("a", 26)
	good := string(wire.Marshal(&wire.Report{Number: 1}))
	done := string(wire.Marshal(&wire.Result{Outcome: box.Done}))
	hello := string(helloText(func(*wire.Hello) {}))
	lines := func(n int) string {
		return `{"number":1,"lines":[{"text":""}` + strings.Repeat(`,{"text":""}`, n-1) + `]}`
	}
	const report, result, inventory = "report", "result", "inventory/"
	for _, c := range []struct {
		what, token, method, path, body string
		want                            wire.Code
	}{
		{"a report without a token", "", "POST", report, good, wire.CodeToken},
		{"a report of another token", other, "POST", report, good, wire.CodeToken},
		{"a token with a dot", "a.b", "POST", report, good, wire.CodeToken},
		{"a result without a token", "", "POST", result, done, wire.CodeToken},
		{"a result of another token", other, "POST", result, done, wire.CodeToken},
		{"a file without a token", "", "PUT", inventory + box.InfoText, "x", wire.CodeToken},
		{"a file of another token", other, "PUT", inventory + box.InfoText, "x", wire.CodeToken},
		{"a large file of another token", other, "PUT", inventory + box.InfoText, strings.Repeat("x", mib), wire.CodeToken},

		{"an empty hello", "", "POST", "hello", "", wire.CodeRefused},
		{"a hello of no object", "", "POST", "hello", "[]", wire.CodeRefused},
		{"a hello and more", "", "POST", "hello", hello + "{}", wire.CodeRefused},
		{"a hello with more fields", "", "POST", "hello", strings.Replace(hello, "{", `{"job":"1",`, 1), wire.CodeRefused},
		{"a huge hello", "", "POST", "hello", hello + strings.Repeat(" ", wire.MaxHello), wire.CodeRefused},
		{"a hello with an escape", "", "POST", "hello", string(helloText(func(h *wire.Hello) { h.UUID = "\x1b[2J" })), wire.CodeRefused},
		{"a hello with dots", "", "POST", "hello", string(helloText(func(h *wire.Hello) { h.Arming = "../../../etc/xx" })), wire.CodeRefused},
		{"a short token", "", "POST", "hello", string(helloText(func(h *wire.Hello) { h.Token = "a" })), wire.CodeRefused},
		{"a box that is none", "", "POST", "hello", strings.Replace(hello, theBox, "127.0.0.1", 1), wire.CodeRefused},
		{"a hello by GET", "", "GET", "hello", "", wire.CodeNoRequest},
		{"a hello by PUT", "", "PUT", "hello", hello, wire.CodeNoRequest},

		{"an empty report", a.token, "POST", report, "", wire.CodeRefused},
		{"a report and more", a.token, "POST", report, good + good, wire.CodeRefused},
		{"report 0", a.token, "POST", report, `{"number":0}`, wire.CodeRefused},
		{"report -1", a.token, "POST", report, `{"number":-1}`, wire.CodeRefused},
		{"report 1.5", a.token, "POST", report, `{"number":1.5}`, wire.CodeRefused},
		{"report 2^53", a.token, "POST", report, `{"number":9007199254740992}`, wire.CodeRefused},
		{"an unknown step", a.token, "POST", report, `{"number":1,"step":"../x"}`, wire.CodeRefused},
		{"less than nothing", a.token, "POST", report, `{"number":1,"done":-1}`, wire.CodeRefused},
		{"too many lines", a.token, "POST", report, lines(wire.MaxLines + 1), wire.CodeRefused},
		{"very many lines", a.token, "POST", report, lines(20_000), wire.CodeRefused},
		{"a line of a kind that is none", a.token, "POST", report, `{"number":1,"lines":[{"kind":"x","text":"x"}]}`, wire.CodeRefused},
		{"a huge report", a.token, "POST", report, good + strings.Repeat(" ", wire.MaxReport), wire.CodeRefused},
		{"nested", a.token, "POST", report, strings.Repeat("[", 100_000), wire.CodeRefused},

		{"no outcome", a.token, "POST", result, `{}`, wire.CodeRefused},
		{"an unknown outcome", a.token, "POST", result, `{"outcome":"<b>fine</b>"}`, wire.CodeRefused},
		{"an unknown class", a.token, "POST", result, `{"outcome":"failed","class":"x"}`, wire.CodeRefused},
		{"very many receipts", a.token, "POST", result, `{"outcome":"done","receipts":[{}` + strings.Repeat(",{}", 100_000) + `]}`, wire.CodeRefused},
		{"a receipt that cannot be", a.token, "POST", result, `{"outcome":"done","receipts":[{"read":-1}]}`, wire.CodeRefused},
		{"a huge result", a.token, "POST", result, done + strings.Repeat(" ", wire.MaxResult), wire.CodeRefused},

		{"no name", a.token, "PUT", inventory, "x", wire.CodeNoRequest},
		{"dots in the name", a.token, "PUT", inventory + "%2e%2e%2f" + box.InfoText, "x", wire.CodeRefused},
		{"a slash in the name", a.token, "PUT", inventory + "x%2f" + box.InfoText, "x", wire.CodeRefused},
		{"a path with dots", a.token, "PUT", inventory + "../../../" + box.InfoText, "x", ""},
		{"two dots", a.token, "PUT", inventory + "%2e%2e", "x", wire.CodeRefused},
		{"a NUL in the name", a.token, "PUT", inventory + box.InfoText + "%00", "x", wire.CodeRefused},
		{"the box's log", a.token, "PUT", inventory + box.LogFile, "x", wire.CodeRefused},
		{"the named disks", a.token, "PUT", inventory + box.DisksFile, "x", wire.CodeRefused},
		{"a deletion", a.token, "DELETE", inventory + box.InfoText, "", wire.CodeNoRequest},
		{"a look at it", a.token, "GET", inventory + box.InfoText, "", wire.CodeNoRequest},
		{"a huge file", a.token, "PUT", inventory + box.InfoText, strings.Repeat("x", wire.MaxInventory+1), wire.CodeRefused},
	} {
		status, code, answer := a.send(t, c.token, c.method, "/agent/v1/"+c.path, []byte(c.body))
		if status < 300 || code != c.want {
			t.Errorf("%s: status %d, code %q, want %q: %.200s", c.what, status, code, c.want, answer)
		}
	}
	if n := d.got(); n != 0 {
		t.Errorf("the desk has taken %d messages", n)
	}
}

// TestDeskTexts: what is taken has texts that do no harm in a log.
func TestDeskTexts(t *testing.T) {
	a, d := newDeskAttack(t, nil)
	bad := "a\x1b]0;x\x07\r\n\x00\u202e<script>&" + strings.Repeat("x", 5000)
	receipt := image.Receipt{Image: bad, Disk: bad, Identity: image.Identity{Serial: bad, Model: bad}, Stages: []image.Stage{{Name: bad}}}
	for path, m := range map[string]any{
		"report": &wire.Report{Number: 1, Text: bad, Lines: []wire.Line{{Text: bad}}},
		"result": &wire.Result{Outcome: box.Failed, Text: bad, Warnings: []string{bad}, Receipts: []image.Receipt{receipt}},
	} {
		if status, code, _ := a.send(t, a.token, "POST", "/agent/v1/"+path, wire.Marshal(m)); status != 200 {
			t.Fatal(path, status, code)
		}
	}
	p, r := d.reports[0], d.results[0]
	for _, s := range []string{p.Text, p.Lines[0].Text, r.Text, r.Warnings[0], r.Receipts[0].Image, r.Receipts[0].Disk,
		r.Receipts[0].Identity.Serial, r.Receipts[0].Identity.Model, r.Receipts[0].Stages[0].Name} {
		if s != wire.Clean(s) || !strings.HasPrefix(s, "a?]0;x?? ??<script>&xx") || len(s) > wire.MaxText {
			t.Errorf("the desk has %.80q", s)
		}
	}
}

// TestRepeated: every message may come again. The desk gets it each time, with its number.
func TestRepeated(t *testing.T) {
	a, d := newDeskAttack(t, nil)
	for _, n := range []int{1, 1, 7, 3} {
		a.send(t, a.token, "POST", "/agent/v1/report", fmt.Appendf(nil, `{"number":%d}`, n))
	}
	var got []uint64
	for _, r := range d.reports {
		got = append(got, r.Number)
	}
	if fmt.Sprint(got) != "[1 1 7 3]" {
		t.Errorf("reports %v", got)
	}
	for range 3 {
		for path, want := range map[string]string{"result": `{"word":"restart","time":"2026-11-29T10:00:00Z"}`, "inventory/" + box.InfoText: ""} {
			method, body := "POST", []byte(`{"outcome":"done"}`)
			if want == "" {
				method = "PUT"
			}
			if status, _, answer := a.send(t, a.token, method, "/agent/v1/"+path, body); string(answer) != want || status/100 != 2 {
				t.Errorf("%s: status %d, %s", path, status, answer)
			}
		}
	}
	if len(d.results) != 3 {
		t.Errorf("%d results", len(d.results))
	}
}

// TestSlowTalkers: connections that are silent, slow or endless are cut off, with a token
// and without one.
func TestSlowTalkers(t *testing.T) {
	const quiet = 700 * time.Millisecond
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Quiet = quiet })
	var ends sync.WaitGroup
	slow := func(token, path, length, trickle string) {
		c := a.rawRequest(t, path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n"+length+"\r\n\r\n")
		ends.Go(func() {
			start := time.Now()
			go drip(c, trickle)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if answer, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s, %s, with %.9q: it was not cut off in %v, answer %.50q", path, length, trickle, time.Since(start), answer)
			}
		})
	}
	stranger := strings.Repeat("a", 26)
	for _, token := range []string{a.token, stranger, ""} {
		for _, path := range []string{"POST /agent/v1/hello", "POST /agent/v1/report", "POST /agent/v1/result",
			"PUT /agent/v1/inventory/" + box.InfoText} {
			for _, trickle := range []string{"", " "} {
				for _, length := range []string{"Content-Length: 16000", "Content-Length: 200", "Transfer-Encoding: chunked"} {
					slow(token, path, length, trickle)
				}
			}
		}
	}
	ends.Wait()
	// It is fast enough for one with a token.
	slow(stranger, "POST /agent/v1/result", "Content-Length: 300000", strings.Repeat(" ", 500))
	slow("", "POST /agent/v1/hello", "Content-Length: 16000", strings.Repeat(" ", 250))
	ends.Wait()
	if n := d.got(); n != 0 {
		t.Errorf("the desk has taken %d messages", n)
	}
}

// drip writes a text again and again.
func drip(c net.Conn, text string) {
	for text != "" {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// dialFrom makes an HTTP client with a local address of its own.
func (a *attack) dialFrom(t *testing.T, ip string) *attack {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(c.CloseIdleConnections)
	return &attack{rig: a.rig, http: c, mine: a.mine, others: a.others, token: a.token}
}

// TestManyHellos: one address cannot keep the desk from others, however many hellos it
// sends and however long they take.
func TestManyHellos(t *testing.T) {
	var with, most atomic.Int64
	block := make(chan bool)
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Answer = time.Minute })
	text := helloText(func(*wire.Hello) {})
	d.wait = func(ctx context.Context) {
		n := with.Add(1)
		defer with.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		select {
		case <-block:
		case <-ctx.Done():
		}
	}
	var codes sync.Map
	var ends sync.WaitGroup
	for range 20 {
		ends.Go(func() {
			_, code, _, _ := a.sendContext(t.Context(), "", "POST", "/agent/v1/hello", text)
			n, _ := codes.LoadOrStore(code, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
		})
	}
	other := a.dialFrom(t, "127.0.0.2")
	for with.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	ends.Go(func() {
		if status, code, _, err := other.sendContext(t.Context(), "", "POST", "/agent/v1/hello", text); status != 200 {
			t.Errorf("a hello from another address: %d %q, %v", status, code, err)
		}
	})
	counter, _ := codes.LoadOrStore(wire.CodeBusy, new(atomic.Int64))
	busy := counter.(*atomic.Int64)
	for deadline := time.Now().Add(50 * time.Second); (with.Load() < 5 || busy.Load() < 10) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	close(block)
	ends.Wait()
	if n := most.Load(); n != 5 || busy.Load() < 10 {
		t.Errorf("%d hellos were with the desk at once, %d were told to come again", n, busy.Load())
	}
}

// TestDeskHangs: a desk that does not answer makes no agent wait for ever, and nothing
// that does not need it.
func TestDeskHangs(t *testing.T) {
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Answer = 200 * time.Millisecond })
	d.wait = func(ctx context.Context) { <-ctx.Done() }
	d.fail = context.DeadlineExceeded
	for path, body := range map[string][]byte{"POST hello": helloText(func(*wire.Hello) {}), "POST report": []byte(`{"number":1}`),
		"POST result": []byte(`{"outcome":"done"}`), "PUT inventory/" + box.InfoText: nil} {
		method, path, _ := strings.Cut(path, " ")
		start := time.Now()
		if status, code, _ := a.send(t, a.token, method, "/agent/v1/"+path, body); code != wire.CodeBusy || time.Since(start) > 30*time.Second {
			t.Errorf("%s: status %d, code %q after %v", path, status, code, time.Since(start))
		}
	}
	must(t, a.client(all).Begin().Put(t.Context(), object1(1)))
}

// TestReportBesideObjects: a report comes through while a token has as many requests for
// the store as it may.
func TestReportBesideObjects(t *testing.T) {
	a, _ := newDeskAttack(t, nil)
	for range wire.MaxAtOnce {
		a.rawRequest(t, fmt.Sprintf("POST /agent/v1/sessions/1/objects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
			"Content-Length: 1000\r\n\r\n", a.token))
	}
	for range 100 {
		if _, code, _ := a.send(t, a.token, "DELETE", "/agent/v1/images/1", nil); code == wire.CodeBusy {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if status, code, _ := a.send(t, a.token, "POST", "/agent/v1/report", []byte(`{"number":1}`)); status != 200 {
		t.Errorf("a report: %d %q", status, code)
	}
}

// TestStrangersMemory: what strangers send takes nothing from boxes that are at work, and
// not much memory.
func TestStrangersMemory(t *testing.T) {
	testenv.Long(t, "3 seconds")
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Memory, c.Quiet = 64*mib, 3*time.Second })
	head := fmt.Sprintf("POST /agent/v1/result HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n",
		strings.Repeat("a", 26), wire.MaxResult)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var ends sync.WaitGroup
	for i := range 6 {
		c := a.rawRequest(t, head)
		ends.Go(func() { io.Copy(c, io.LimitReader(endlessZeros{}, wire.MaxResult-1-int64(i))) })
	}
	for range 3 { // half of all memory, or more, at once
		o := object.Encode(object.Key{Kind: object.Root, Name: object.NameOf(make([]byte, 20*mib))}, make([]byte, 20*mib), nil)
		start := time.Now()
		status, code, _ := a.send(t, a.let(all), "POST", "/agent/v1/sessions/1/objects", frame(o, nil))
		if took := time.Since(start); status != 200 || took > 2*time.Second {
			t.Errorf("a large object: %d %q after %v", status, code, took)
		}
	}
	ends.Wait()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 150*mib {
		t.Errorf("%d MiB are in use", used/mib)
	}
	if n := d.got(); n != 0 {
		t.Errorf("the desk has taken %d messages", n)
	}
}

type endlessZeros struct{}

func (endlessZeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestWelcomes: the answer to a hello may be long, and a client that does not read it is
// cut off.
func TestWelcomes(t *testing.T) {
	const quiet = 500 * time.Millisecond
	a, d := newDeskAttack(t, func(c *boxapi.Config) { c.Quiet = quiet })
	rec := *a.mine
	rec.Disks = slices.Clone(rec.Disks)
	rec.Disks[0].Kernel = strings.Repeat("x", mib)
	for range 12 {
		d.welcome.Job.Known = append(d.welcome.Job.Known, &rec)
	}
	text := helloText(func(*wire.Hello) {})
	deaf := a.rawRequest(t, fmt.Sprintf("POST /agent/v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
	w, err := a.client(all).Hello(t.Context(), newHello())
	must(t, err)
	if len(w.Job.Known) != 12 || w.Word != job.Work {
		t.Errorf("%d known backups", len(w.Job.Known))
	}
	time.Sleep(3 * quiet)
	deaf.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.Copy(io.Discard, deaf); n > 8*mib || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("who does not read got %d bytes, %v", n, err)
	}
}

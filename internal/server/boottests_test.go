package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/calendar"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

// TestBootWindows: what the configuration may say of when boot tests begin.
func TestBootWindows(t *testing.T) {
	for _, text := range []string{"", "20:00", "20:00-20:00", "24:00-06:00", "20:00-25:00", "8:00-9:00", "Always"} {
		if _, err := bootWindows(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	at := time.Date(2026, 11, 30, 19, 59, 0, 0, time.Local)
	for text, want := range map[string]bool{"20:00-06:00": false, "always": true, "00:00-24:00": true, "mon 19:00-20:00": true,
		"tue 19:00-20:00": false} {
		w, err := bootWindows(text)
		must(t, err)
		if open, _ := w.Open(at); open != want {
			t.Errorf("%q has %v: %v", text, at, open)
		}
	}
}

// bootRig are a server's boot tests with machines that are none.
type bootRig struct {
	*bootTests
	t     *testing.T
	state *Config
	clock time.Time

	mu      sync.Mutex // guards the fields below
	tested  []string   // first bytes of the disks
	told    []string
	noted   []string
	working int
	missing error
	// machine is the next test; nil passes.
	machine func(context.Context) (*image.BootTest, error)
}

func newBootRig(t *testing.T) *bootRig {
	t.Helper()
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	r := &bootRig{t: t, state: &cfg, clock: time.Now().UTC().Truncate(time.Second)}
	r.start(openStore(t, &cfg))
	return r
}

// opens lets tests begin in a window alone, in UTC.
func (r *bootRig) opens(window string) {
	r.t.Helper()
	w, err := calendar.ParseWindows([]string{window}, "UTC")
	must(r.t, err)
	r.text, r.within = window, w
}

// start makes them anew, as a start of the server does.
func (r *bootRig) start(s *store.Locked) {
	r.bootTests = &bootTests{
		text: "always", small: true, store: s, every: time.Millisecond, news: make(chan struct{}, 1),
		boxes: func() []named { return []named{{"10.0.0.7", "web-7"}, {"10.0.0.8", ""}, {"10.0.0.9", ""}} },
		log:   slog.New(slog.NewTextHandler(io.Discard, nil)), now: func() time.Time { return r.clock },
		settled: map[string]string{}, untested: map[string]string{}, later: map[string]time.Time{},
		work:  func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.working },
		ready: func() error { return r.missing },
		note:  func(w api.LastUpkeep) { r.noted = append(r.noted, w.Work+" "+w.Outcome+" "+w.Found) },
	}
	r.bootTests.told = func(rec *image.Record, name string, err error) {
		e := api.BootTestOf(rec, name, "", r.clock, err)
		if e.Boot != nil {
			r.told = append(r.told, fmt.Sprintf("%s %s %s", e.Box, e.Name, e.Boot.Verdict))
		} else {
			r.told = append(r.told, fmt.Sprintf("%s %s %s", e.Box, e.Name, e.Error))
		}
	}
	r.test = func(ctx context.Context, disks []boottest.Disk) (*image.BootTest, error) {
		first := make([]byte, 1)
		if _, err := disks[0].ReadAt(first, 0); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.tested = append(r.tested, fmt.Sprint(first[0]))
		machine := r.machine
		r.mu.Unlock()
		if machine != nil {
			return machine(ctx)
		}
		return r.result(image.BootPassed), nil
	}
}

func (r *bootRig) result(v image.Verdict) *image.BootTest {
	b := &image.BootTest{Time: r.clock, Verdict: v, Sign: image.SignRead, Firmware: "bios", Text: "as said"}
	if v == image.BootPassed {
		b.Sign = image.SignLogin
	}
	return b
}

// steps makes tests until none can be made, and returns which disks were tested.
func (r *bootRig) steps() []string {
	r.t.Helper()
	r.tested = nil
	for n := 0; r.step(r.t.Context()); n++ {
		if n > 20 {
			r.t.Fatal("it tests for ever")
		}
	}
	return r.tested
}

func (r *bootRig) tests(what string, want ...string) {
	r.t.Helper()
	if got := r.steps(); !slices.Equal(got, want) {
		r.t.Errorf("%s: the disks %v are tested, and %v should", what, got, want)
	}
}

func (r *bootRig) boot(rec *image.Record) *image.BootTest {
	r.t.Helper()
	now, err := r.store.Record(r.t.Context(), rec.Box, rec.ID)
	must(r.t, err)
	return now.Boot
}

// TestBootTestsEachOnce: the latest backup of each box is tested once, also when the server was started again, and the
// result is kept and told.
func TestBootTestsEachOnce(t *testing.T) {
	r := newBootRig(t)
	r.tests("an empty store")
	old := commit(t, r.store, "10.0.0.7", 1)
	first := commit(t, r.store, "10.0.0.7", 2)
	commit(t, r.store, "stranger", 3)
	r.tests("a backup", "2")
	if b := r.boot(first); b == nil || b.Verdict != image.BootPassed {
		t.Errorf("the result is %+v", b)
	}
	if r.boot(old) != nil {
		t.Error("an older backup was tested")
	}
	r.tests("again")
	r.clock = r.clock.Add(2 * bootAgain)
	r.tests("again, much later")
	r.start(r.store)
	r.tests("after a start of the server")
	r.machine = func(context.Context) (*image.BootTest, error) { return r.result(image.BootFailed), nil }
	older := commit(t, r.store, "10.0.0.8", 4)
	_, err := r.store.SetTime(t.Context(), older.Box, older.ID, older.Time.Add(-time.Hour))
	must(t, err)
	commit(t, r.store, "10.0.0.7", 5)
	r.tests("two new ones, the older one first", "4", "5")
	r.tests("failed ones")
	want := []string{"10.0.0.7 web-7 passed", "10.0.0.8  failed", "10.0.0.7 web-7 failed"}
	if !slices.Equal(r.told, want) {
		t.Errorf("it tells %q", r.told)
	}
	if len(r.noted) != 3 || !strings.HasPrefix(r.noted[0], "boot-test done backup "+first.ID+" of 10.0.0.7: passed, as said") ||
		!strings.HasPrefix(r.noted[2], "boot-test failed ") {
		t.Errorf("it notes %q", r.noted)
	}
}

// TestBootTestsBusy: a backup for whose test this machine was too busy is tested once more an hour later.
func TestBootTestsBusy(t *testing.T) {
	r := newBootRig(t)
	rec := commit(t, r.store, "10.0.0.7", 1)
	r.machine = func(context.Context) (*image.BootTest, error) {
		b := r.result(image.BootUnproven)
		b.Busy = 1
		return b, nil
	}
	r.tests("the first time", "1")
	r.tests("at once")
	r.start(r.store)
	r.clock = r.clock.Add(bootAgain)
	r.tests("an hour later", "1")
	r.clock = r.clock.Add(2 * bootAgain)
	r.tests("still later")
	if b := r.boot(rec); b.Busy != 2 || b.Verdict != image.BootUnproven {
		t.Errorf("the result is %+v", b)
	}
	if !strings.HasPrefix(r.noted[1], "boot-test unproven ") {
		t.Errorf("it notes %q", r.noted)
	}
}

// TestBootTestsNoResult: a test without a result is told, keeps no other waiting, and is made again in a day.
func TestBootTestsNoResult(t *testing.T) {
	r := newBootRig(t)
	rec := commit(t, r.store, "10.0.0.7", 1)
	commit(t, r.store, "10.0.0.8", 2)
	broken := errors.New("the backup cannot be read")
	r.machine = func(context.Context) (*image.BootTest, error) { return nil, broken }
	r.tests("two", "1", "2")
	if r.boot(rec) != nil || len(r.told) != 2 || r.told[0] != "10.0.0.7 web-7 the backup cannot be read" ||
		!strings.HasPrefix(r.noted[0], "boot-test failed ") {
		t.Errorf("it tells %q and notes %q", r.told, r.noted)
	}
	r.machine = nil
	r.tests("at once")
	r.clock = r.clock.Add(bootNone)
	r.tests("a day later", "1", "2")
}

// TestBootTestsWithin: tests begin within their part of the day alone, and with QEMU alone.
func TestBootTestsWithin(t *testing.T) {
	r := newBootRig(t)
	commit(t, r.store, "10.0.0.7", 1)
	r.opens("20:00-06:00")
	day := r.clock.Truncate(24 * time.Hour)
	r.clock = day.Add(12 * time.Hour)
	r.tests("at noon")
	if v := r.bootTests.state(); v.Next == nil || v.Next.Hour() != 20 || v.Waiting != 1 || v.Held != "" || v.Window != "20:00-06:00" {
		t.Errorf("it says %+v", v)
	}
	r.clock, r.missing = day.Add(23*time.Hour), errors.New("there is no QEMU")
	r.tests("without QEMU")
	if v := r.bootTests.state(); v.Next != nil || v.Waiting != 1 || v.Held != "there is no QEMU" {
		t.Errorf("it says %+v", v)
	}
	r.missing = nil
	r.tests("at night", "1")
	if v := r.bootTests.state(); v.Next != nil || v.Waiting != 0 || v.Held != "" || v.Testing != nil {
		t.Errorf("it says %+v", v)
	}
	var none *bootTests
	none.wake()
	none.run(t.Context())
	if none.state() != nil {
		t.Error("there are tests without any")
	}
}

// TestBootTestsReadOnce: the record of a backup that waits is read once, and once more before it is tested.
func TestBootTestsReadOnce(t *testing.T) {
	r := newBootRig(t)
	first, second := commit(t, r.store, "10.0.0.7", 1), commit(t, r.store, "10.0.0.8", 2)
	_, err := r.store.SetTime(t.Context(), first.Box, first.ID, first.Time.Add(-time.Hour))
	must(t, err)
	r.opens(r.clock.Add(time.Hour).Format("15:04") + "-" + r.clock.Add(2*time.Hour).Format("15:04"))
	r.tests("outside of their part of the day")
	files, err := filepath.Glob(filepath.Join(r.state.StoreDir(), "records", second.Box, "*"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("the records are in %q", files)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.WriteFile(files[0], []byte("nobody may read this"), 0o600))
	r.tests("again")
	if v := r.bootTests.state(); v.Waiting != 2 {
		t.Errorf("it says %+v", v)
	}
	must(t, os.WriteFile(files[0], text, 0o600))
	must(t, r.store.SetBoot(t.Context(), second.Box, second.ID, r.result(image.BootPassed)))
	r.within = calendar.Windows{}
	r.tests("the second one was tested by hand", "1")
}

// TestBootTestsGiveWay: on a small machine no test begins while boxes are at work. A test that is under way ends when one begins, and when
// the server ends. Neither is a result, and the test is made again.
func TestBootTestsGiveWay(t *testing.T) {
	r := newBootRig(t)
	rec := commit(t, r.store, "10.0.0.7", 1)
	r.working = 1
	r.tests("beside a box at work")
	if v := r.bootTests.state(); v.Waiting != 1 || !strings.Contains(v.Held, "boxes are at work") {
		t.Errorf("it says %+v", v)
	}
	r.working = 0
	r.machine = func(ctx context.Context) (*image.BootTest, error) {
		if v := r.bootTests.state(); v.Waiting != 0 || v.Testing == nil || v.Testing.Name != "web-7" || v.Testing.Backup != rec.ID {
			t.Errorf("it says %+v", v)
		}
		r.mu.Lock()
		r.working = 1
		r.mu.Unlock()
		<-ctx.Done()
		return r.result(image.BootFailed), nil // it was judged when it was ended
	}
	r.tests("a box begins", "1")
	r.working = 0
	ctx, stop := context.WithCancel(t.Context())
	r.machine = func(ctx context.Context) (*image.BootTest, error) {
		stop()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.tested = nil
	r.run(ctx)
	if len(r.tested) != 1 || r.boot(rec) != nil || len(r.told) != 0 || len(r.noted) != 0 {
		t.Errorf("it tests %q, tells %q and notes %q", r.tested, r.told, r.noted)
	}
	r.start(r.store)
	r.machine = nil
	r.tests("after the next start", "1")

	// On another machine boxes make no difference.
	commit(t, r.store, "10.0.0.8", 2)
	r.small, r.working = false, 1
	r.tests("beside a box at work, with many processors", "2")
}

// TestBootTestsFollow: a backup is tested soon after it was made.
func TestBootTestsFollow(t *testing.T) {
	r := newBootRig(t)
	r.every = time.Hour
	tested := make(chan struct{})
	r.machine = func(context.Context) (*image.BootTest, error) { close(tested); return r.result(image.BootPassed), nil }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx) }()
	commit(t, r.store, "10.0.0.7", 1)
	r.wake()
	select {
	case <-tested:
	case <-time.After(2 * time.Minute):
		t.Error("the backup is not tested")
	}
	stop()
	<-ended
}

// TestBootTestHooks: web hooks are told of a boot test that failed, also of one of which they were not told before the server ended.
func TestBootTestHooks(t *testing.T) {
	p := newParts(t)
	told := make(chan string, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var m struct {
			Type string
			Data api.BootTestEvent
		}
		err := json.NewDecoder(req.Body).Decode(&m)
		told <- fmt.Sprintf("%s %s %s %s %v", m.Type, m.Data.Box, m.Data.Backup, m.Data.Boot.Verdict, err)
	}))
	defer srv.Close()
	p.Config.Hooks = []Hook{{srv.URL, secretFile(t, hookSecret)}}
	l := openBook(t, p.Config)
	must(t, l.Close())
	wanted := func(r *image.Record) {
		t.Helper()
		select {
		case got := <-told:
			if want := "boot-test.failed 10.0.0.7 " + r.ID + " failed <nil>"; got != want {
				t.Errorf("the hook is told %q, not %q", got, want)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("the hook is not told")
		}
	}
	at, stop := run(t, p)
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", at.Socket)
	}}}
	defer local.CloseIdleConnections()
	first := commit(t, p.Store, "10.0.0.7", 1)
	for _, verdict := range []image.Verdict{image.BootUnproven, image.BootFailed} { // it is told of the second one alone
		body, err := json.Marshal(api.NewBootTest{BootTest: api.BootTest{Time: time.Now(), Verdict: verdict, Sign: image.SignRead,
			Firmware: "bios"}})
		must(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://server/api/v1/backups/10.0.0.7/"+first.ID+"/boot-test",
			bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := local.Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	wanted(first)
	must(t, stop())
	second := commit(t, p.Store, "10.0.0.7", 2)
	// The hook is new, and is told of what ended after the first start, while results have whole seconds.
	failed := &image.BootTest{Time: time.Now().UTC().Truncate(time.Second).Add(time.Second), Verdict: image.BootFailed, Sign: image.SignRead,
		Firmware: "bios"}
	must(t, p.Store.SetBoot(t.Context(), second.Box, second.ID, failed))
	_, stop = run(t, p)
	wanted(second)
	must(t, stop())
	if len(told) > 0 {
		t.Errorf("the hook is told %q too", <-told)
	}
}

// TestBootTestsLook: a configuration that has boot tests needs QEMU.
func TestBootTestsLook(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p := newParts(t)
	must(t, Wrong(Look(t.Context(), p.Config, p.ready)))
	p.Config.Upkeep.BootTest = "20:00-06:00"
	const want = "boot tests of backups: there is no qemu-system-x86_64; install"
	if err := Wrong(Look(t.Context(), p.Config, p.ready)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without QEMU: %v", err)
	}
	for text, ok := range map[string]bool{"": true, "always": true, "22:00-24:00": true, "night": false} {
		cfg := DefaultConfig()
		cfg.Upkeep.BootTest = text
		if err := CheckConfig(&cfg); (err == nil) != ok {
			t.Errorf("boot-test = %q: %v", text, err)
		}
	}
}

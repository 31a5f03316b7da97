package boxapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net/netip"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

var testTime = time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)

// desk remembers what it was told. It knows the tokens of the rig, and those that said
// hello.
type desk struct {
	mu      sync.Mutex // guards the fields below
	tokens  map[string]bool
	fail    error
	wait    func(ctx context.Context)
	hellos  []*wire.Hello
	reports []*wire.Report
	results []*wire.Result
	files   map[string][]byte
	welcome *wire.Welcome
}

func newDesk() *desk {
	return &desk{tokens: map[string]bool{}, files: map[string][]byte{}, welcome: &wire.Welcome{Word: job.Work, Time: testTime,
		Job: &wire.Job{ID: "job-1", Action: box.Restore, Attempt: 1, Host: "seven"}}}
}

// take is called with each message.
func (d *desk) take(ctx context.Context, token string, from netip.Addr, note func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wait != nil {
		d.mu.Unlock()
		d.wait(ctx)
		d.mu.Lock()
	}
	switch {
	case d.fail != nil:
		return d.fail
	case !from.IsLoopback() || token != "" && !d.tokens[token]:
		return fs.ErrNotExist
	}
	note()
	return nil
}

func (d *desk) Hello(ctx context.Context, h *wire.Hello, from netip.Addr) (*wire.Welcome, error) {
	return d.welcome, d.take(ctx, "", from, func() { d.tokens[h.Token] = true; d.hellos = append(d.hellos, h) })
}

func (d *desk) Report(ctx context.Context, token string, from netip.Addr, r *wire.Report) (*wire.Told, error) {
	return &wire.Told{Word: job.GoOn, Time: testTime}, d.take(ctx, token, from, func() { d.reports = append(d.reports, r) })
}

func (d *desk) Inventory(ctx context.Context, token string, from netip.Addr, name string, data []byte) error {
	return d.take(ctx, token, from, func() { d.files[name] = bytes.Clone(data) })
}

func (d *desk) Firmware(ctx context.Context, token string, from netip.Addr) (*wire.Firmware, error) {
	state := efi.State{Kind: efi.UEFI}
	note := &efi.Note{Format: efi.NoteFormat, State: state, NetworkFirst: &efi.NetworkFirst{Result: efi.OrderKept}}
	return &wire.Firmware{Before: note, Image: &state}, d.take(ctx, token, from, func() {})
}

func (d *desk) Result(ctx context.Context, token string, from netip.Addr, r *wire.Result) (*wire.Told, error) {
	return &wire.Told{Word: job.Restart, Time: testTime}, d.take(ctx, token, from, func() { d.results = append(d.results, r) })
}

func newHello() *wire.Hello {
	addr, _ := box.ParseAddr(theBox)
	return &wire.Hello{Agent: "1.0", Box: addr, Arming: "0123456789abcdef", Secret: "1-00112233445566778899aabbccddeeff",
		MACs: []string{"52:54:00:12:34:56"}, UUID: "0a0b0c0d-0000-1111-2222-333344445555"}
}

// TestJob: an agent says hello, reports, sends its inventory and its result.
func TestJob(t *testing.T) {
	d := newDesk()
	r := newRig(t, nil, func(c *boxapi.Config) { c.Desk = d })
	token := rand.Text()
	c := r.clientOf(token, nil)
	w, err := c.Hello(t.Context(), newHello())
	must(t, err)
	if w.Job == nil || w.Job.ID != "job-1" || w.Word != job.Work || !w.Time.Equal(testTime) {
		t.Errorf("welcome %+v", w)
	}
	if h := d.hellos[0]; h.Token != token || h.Protocol != wire.Version || h.Box.String() != theBox || len(h.MACs) != 1 {
		t.Errorf("hello %+v", h)
	}
	r.mu.Lock()
	r.grants[token] = all
	r.mu.Unlock()
	told, err := c.Report(t.Context(), &wire.Report{Number: 1, Writes: true, Step: wire.StepWrite, Text: "half", Done: 1, Total: 2,
		Lines: []wire.Line{{Kind: wire.LineHello}, {Text: "a\x1b[2J<b>"}}})
	must(t, err)
	if got := d.reports[0]; told.Word != job.GoOn || !got.Writes || got.Lines[1].Text != "a?[2J<b>" {
		t.Errorf("told %+v, the report is %+v", told, got)
	}
	for _, name := range []string{box.InfoText, box.InfoZip} {
		must(t, c.Inventory(t.Context(), name, []byte(name)))
	}
	must(t, c.Inventory(t.Context(), box.InfoJSON, nil))
	if len(d.files) != 3 || string(d.files[box.InfoZip]) != box.InfoZip {
		t.Errorf("the inventory is %v", d.files)
	}
	f, err := c.Firmware(t.Context())
	if err != nil || f.Before == nil || f.Before.NetworkFirst.Result != efi.OrderKept || f.Image == nil || f.Image.Kind != efi.UEFI {
		t.Errorf("the firmware is %+v, %v", f, err)
	}
	told, err = c.Result(t.Context(), &wire.Result{Outcome: box.Done, Receipts: []image.Receipt{{Image: "sda", Disk: "vda"}}})
	must(t, err)
	if told.Word != job.Restart || d.results[0].Outcome != box.Done || len(d.results[0].Receipts) != 1 {
		t.Errorf("told %+v, the result is %+v", told, d.results[0])
	}
	// The job has ended, and nothing is granted any more. The agent did not get the answer.
	r.mu.Lock()
	delete(r.grants, token)
	r.mu.Unlock()
	if told, err = c.Result(t.Context(), &wire.Result{Outcome: box.Done}); err != nil || told.Word != job.Restart {
		t.Errorf("a repeated result: %+v, %v", told, err)
	}
	wantErr(t, "a file after the end", c.Inventory(t.Context(), box.InfoText, nil), wire.ErrToken)
	_, err = c.Firmware(t.Context())
	wantErr(t, "the firmware after the end", err, wire.ErrToken)
	_, err = r.clientOf(rand.Text(), nil).Report(t.Context(), &wire.Report{Number: 1})
	wantErr(t, "another token", err, wire.ErrToken)
}

// TestDeskFails: while the desk fails, the agent tries again. What it refuses is refused.
func TestDeskFails(t *testing.T) {
	d := newDesk()
	r := newRig(t, nil, func(c *boxapi.Config) { c.Desk = d })
	alive := 0
	c := r.clientOf(r.let(all), func(cfg *remote.Config) { cfg.Alive = func() { alive++ } })
	set := func(err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fail = err
	}
	set(errors.New("the ledger is locked"))
	go func() {
		time.Sleep(300 * time.Millisecond)
		set(nil)
	}()
	_, err := c.Hello(t.Context(), newHello())
	must(t, err)
	if alive < 2 {
		t.Errorf("the watchdog was told %d times", alive)
	}
	set(&wire.Problem{Code: wire.CodeForbidden, Text: "not today"})
	_, err = c.Result(t.Context(), &wire.Result{Outcome: box.Done})
	wantErr(t, "what the desk refuses", err, wire.ErrForbidden)
	none := newRig(t, nil, nil)
	_, err = none.client(all).Hello(t.Context(), newHello())
	wantErr(t, "a server without a desk", err, wire.ErrRefused)
}

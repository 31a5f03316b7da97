package agent

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sharedir"
)

// dispatched is a box whose server runs package dispatch over a ledger.
type dispatched struct {
	*serverBench

	mu   sync.Mutex         // guards the fields below
	d    *dispatch.Dispatch // of the server that runs
	file *bootcfg.Cmdline   // the box's boot file; nil if there is none
}

func newDispatched(t *testing.T) *dispatched {
	b := &dispatched{serverBench: newServerBench(t)}
	b.rig.KillServer()
	file := filepath.Join(t.TempDir(), "ledger.db")
	b.rig.real = func() (boxapi.Authority, boxapi.Desk, func()) {
		l, err := ledger.Open(context.Background(), file, ledger.Options{})
		b.must(err)
		area, err := sharedir.Open(durable.OS{}, b.rig.dir)
		b.must(err)
		d, err := dispatch.Open(context.Background(), dispatch.Config{Ledger: l, Boots: b, Backups: b, Area: area,
			Limits: job.Limits{Attempts: 3, Silence: time.Minute, Arming: time.Hour, Up: time.Hour}})
		b.must(err)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.d = d
		return d, d, func() { d.Close(); l.Close() }
	}
	b.rig.StartServer()
	return b
}

// Arm implements dispatch.Boots.
func (b *dispatched) Arm(_ context.Context, j job.Job, opt dispatch.Options, secret string) error {
	at := b.rig.address()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.file = &bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: j.Action, Arming: j.Arming, Address: j.Box, Host: "box11", Disks: opt.Disks,
		AcceptMachine: opt.AcceptMachine, Server: at, Key: b.rig.key.String(), Secret: secret}
	return nil
}

// Disarm implements dispatch.Boots.
func (b *dispatched) Disarm(_ context.Context, _ box.Addr, arming box.Arming) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil && b.file.Arming == arming {
		b.file = nil
	}
	return nil
}

// Armed implements dispatch.Boots.
func (b *dispatched) Armed(_ context.Context, _ box.Addr, arming box.Arming, secret string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.file != nil && b.file.Arming == arming && b.file.Secret == secret
}

// CheckBoxes implements dispatch.Boots.
func (b *dispatched) CheckBoxes([]box.Addr) error { return nil }

// Ready implements dispatch.Boots.
func (b *dispatched) Ready(box.Action) error { return nil }

// Of implements dispatch.Backups.
func (b *dispatched) Of(context.Context, box.Addr) ([]*image.Record, error) {
	return b.rig.Records(), nil
}

// Find implements dispatch.Backups.
func (b *dispatched) Find(context.Context, box.Addr, string) (*image.Record, error) {
	if all := b.rig.Records(); len(all) > 0 {
		return all[0], nil
	}
	return nil, fs.ErrNotExist
}

func (b *dispatched) server() *dispatch.Dispatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.d
}

// ask asks for a job, and waits until the box is armed for it.
func (b *dispatched) ask(action box.Action) (id string) {
	b.t.Helper()
	all, err := b.server().Add(context.Background(), dispatch.Request{Boxes: []box.Addr{b.addr}, Action: action, By: "ann"})
	b.must(err)
	b.until("the box is armed", func() bool {
		return b.status(all[0].ID).State == job.Armed && b.armedFor() == all[0].Arming
	})
	return all[0].ID
}

// armedFor is the arming of the box's boot file.
func (b *dispatched) armedFor() box.Arming {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return ""
	}
	return b.file.Arming
}

func (b *dispatched) until(what string, is func() bool) {
	b.t.Helper()
	for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			b.t.Fatalf("%s: it does not happen", what)
		}
	}
}

func (b *dispatched) status(id string) dispatch.Status {
	b.t.Helper()
	s, err := b.server().Job(context.Background(), id)
	b.must(err)
	return s
}

// boot starts the box from its boot file.
func (b *dispatched) boot() (box.Outcome, Next, *session) {
	b.t.Helper()
	b.mu.Lock()
	if b.file == nil {
		b.t.Fatal("the box has no boot file")
	}
	cmd := *b.file
	b.mu.Unlock()
	s := newSession(b.config(cmd.Words()))
	s.away = b.away
	outcome, next := s.start(context.Background())
	return outcome, next, s
}

func (b *dispatched) want(action box.Action, want box.Outcome) {
	b.t.Helper()
	id := b.ask(action)
	outcome, next, _ := b.boot()
	if s := b.status(id); outcome != want || next != Restart || s.State != job.Ended || s.Outcome != want || b.armedFor() != "" {
		b.t.Fatalf("%s: %q, next %v; the job is %s, %q, %s, armed %q:\n%s", action, outcome, next, s.State, s.Outcome, s.Text, b.armedFor(),
			b.console.String())
	}
}

// remoteAddr lets connections come from the box.
type remoteAddr struct {
	net.Listener
	ip string
}

type fromBox struct {
	net.Conn
	ip string
}

func (l remoteAddr) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return fromBox{c, l.ip}, err
}

func (c fromBox) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 1000} }

// TestServerDispatch runs agents over a whole server: actions, a restart in the middle, a
// cancelled restore that leaves the box held, and a new job that takes over.
func TestServerDispatch(t *testing.T) {
	quickReports(t)
	b := newDispatched(t)
	b.disk("vda", "S1", 1)
	b.write("sys/class/net/eth0/address", "52:54:00:12:34:56\n")
	good := b.read("dev/vda")
	b.want(box.Backup, box.Done)
	b.wreck("vda")
	b.want(box.Verify, box.Differs)
	hits := b.gone("read", func() {
		go func() {
			b.rig.KillServer()
			time.Sleep(200 * time.Millisecond)
			b.rig.StartServer()
		}()
	})
	b.want(box.Restore, box.Done)
	if *hits != 1 || b.read("dev/vda") != good {
		t.Fatalf("the disk is not restored, or the server was not started anew (%d)", *hits)
	}
	b.want(box.Verify, box.Done)
	b.want(box.RefreshInfo, box.Done)

	b.wreck("vda")
	id := b.ask(box.Restore)
	var once sync.Once
	b.rig.Refuse(func(r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/read") && b.status(id).Wrote {
			once.Do(func() {
				_, err := b.server().Cancel(context.Background(), id, "ann")
				b.must(err)
				time.Sleep(500 * time.Millisecond)
			})
		}
		return false
	})
	outcome, next, _ := b.boot()
	if s := b.status(id); outcome != job.Cancelled || next != Hold || s.State != job.Held {
		t.Fatalf("%q, next %v; the job is %s:\n%s", outcome, next, s.State, b.console.String())
	}
	outcome, next, held := b.boot() // somebody restarts it
	if outcome != box.Refused || next != Hold {
		t.Fatalf("a held box: %q, next %v", outcome, next)
	}
	if held.arming.Ask() != Hold {
		t.Error("a held box that asks again is not held")
	}
	id = b.ask(box.Restore)
	if next := held.arming.Ask(); next != Restart {
		t.Errorf("a held box that has a new job: %v", next)
	}
	outcome, next, _ = b.boot()
	s := b.status(id)
	if outcome != box.Done || next != Restart || s.State != job.Ended || s.Outcome != box.Done || b.read("dev/vda") != good {
		t.Fatalf("%q, next %v; the job is %s, %q:\n%s", outcome, next, s.State, s.Text, b.console.String())
	}
	log := b.rig.ReadLog()
	for _, want := range []string{"backup: done\n", "verify: done, disk and image differ\n", "restore: done\n", "restore: cancelled: "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if len(s.Receipts) != 1 || s.Backup == "" {
		t.Errorf("the status of the restore is %+v", s)
	}
}

package agent

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

// serverBench is a box made of folders and files, and its server.
type serverBench struct {
	*bench
	rig  *Rig
	away time.Duration
}

func newServerBench(t *testing.T) *serverBench {
	b := newBench(t)
	return &serverBench{bench: b, rig: NewRig(t, b.addr), away: 5 * time.Second}
}

// arm makes a job, and returns the command line of a start.
func (b *serverBench) arm(action box.Action, change func(*bootcfg.Cmdline)) bootcfg.Cmdline {
	c := bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: action, Arming: box.NewArming(), Address: b.addr, Host: "box11"}
	if change != nil {
		change(&c)
	}
	b.rig.Arm(c)
	return c
}

// session is a start of the box. Each start has the secret that is in the boot file.
func (b *serverBench) session(c bootcfg.Cmdline) *session {
	b.t.Helper()
	c = b.rig.Started(c)
	s := newSession(b.config("BOOT_IMAGE=maintenance-boot/v/vmlinuz " + c.Words()))
	s.away = b.away
	return s
}

// run is a start of the box. It returns the outcome, and what the box does next.
func (b *serverBench) run(c bootcfg.Cmdline) (box.Outcome, Next) {
	b.t.Helper()
	return b.session(c).start(context.Background())
}

// want runs the agent, and wants an outcome that ended the job.
func (b *serverBench) want(c bootcfg.Cmdline, want box.Outcome) {
	b.t.Helper()
	got, next := b.run(c)
	if got != want || next != Restart {
		b.t.Fatalf("outcome is %q, not %q, next %v:\n%s", got, want, next, b.console.String())
	}
	if j := b.rig.Job(); j.State != job.Ended || j.Outcome != want || b.rig.Armed() {
		b.t.Fatalf("after %q the job is %s, %q, armed %v:\n%s", want, j.State, j.Outcome, b.rig.Armed(), b.console.String())
	}
}

func (b *serverBench) do(action box.Action, want box.Outcome) {
	b.t.Helper()
	b.want(b.arm(action, nil), want)
}

// result is the last result that the server was told.
func (b *serverBench) result() *wire.Result {
	b.t.Helper()
	b.rig.mu.Lock()
	defer b.rig.mu.Unlock()
	if len(b.rig.results) == 0 {
		b.t.Fatalf("the server was told no result:\n%s", b.console.String())
	}
	return b.rig.results[len(b.rig.results)-1]
}

func (b *serverBench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// quickReports lets reports be sent often.
func quickReports(t *testing.T) {
	old := reportEvery
	reportEvery = 10 * time.Millisecond
	t.Cleanup(func() { reportEvery = old })
}

func TestServerBackupWreckRestore(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	a0, b0 := b.read("dev/vda"), b.read("dev/vdb")
	b.do(box.Backup, box.Done)
	if r := b.rig.Records(); len(r) != 1 || len(r[0].Disks) != 2 || r[0].Host != "box11" {
		t.Fatalf("the backups are %+v", r)
	}
	b.write("dev/vda", strings.Repeat("x", len(a0)))
	b.write("dev/vdb", b0[:100]+strings.Repeat("\x00", len(b0)-100))
	b.do(box.Verify, box.Differs)
	b.do(box.Restore, box.Done)
	if b.read("dev/vda") != a0 || b.read("dev/vdb") != b0 {
		t.Fatal("a disk is not what it was")
	}
	if r := b.result(); len(r.Receipts) != 2 || r.Receipts[0].Verified != int64(len(a0)) || r.Class != "" || r.Text != "" {
		t.Errorf("the result is %+v", r)
	}
	b.do(box.Verify, box.Done)
	b.do(box.BackupAgain, box.Done)
	b.do(box.RefreshInfo, box.Done)
	log := b.rig.ReadLog()
	for _, want := range []string{"backup, arming ", "backup: done\n", "restore: done\n", "info: inventory written"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
}

// TestServerDelta: of an image that is on the disk already, nothing is fetched.
func TestServerDelta(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	data := []byte(b.read("dev/vda"))
	for i := range 100 {
		data[3<<20+i] ^= 1
	}
	b.write("dev/vda", string(data))
	b.do(box.Restore, box.Done)
	if r := b.result().Receipts[0]; r.Skipped < r.Written || r.Written == 0 {
		t.Errorf("the receipt is %+v", r)
	}
}

// TestServerRefusals: nothing is changed, and the server knows why.
func TestServerRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b *serverBench, c *bootcfg.Cmdline)
		class job.Class // "" if the server cannot be told
		says  string
	}{
		"no backup": {func(b *serverBench, c *bootcfg.Cmdline) { b.rig.none = true }, job.ClassBox, "names no backup"},
		"no such disk": {func(b *serverBench, c *bootcfg.Cmdline) {
			*c = b.arm(box.Restore, func(l *bootcfg.Cmdline) { l.Disks = []string{"sdz"} })
		}, job.ClassBox, "sdz"},
		"a bad list of disks": {func(b *serverBench, c *bootcfg.Cmdline) { s := "# vda\n"; b.rig.selection = &s }, job.ClassBox,
			"disk-devices.lst"},
		"rescue in the ram form": {func(b *serverBench, c *bootcfg.Cmdline) { *c = b.arm(box.Rescue, nil) }, job.ClassBox, "nobody to log in"},
		"other address": {func(b *serverBench, c *bootcfg.Cmdline) {
			b.bench.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") }
		}, job.ClassBox, "10.88.0.12"},
		"smaller disk": {func(b *serverBench, c *bootcfg.Cmdline) {
			b.write("sys/block/vda/size", "4096\n")
			b.write("dev/vda", b.read("dev/vda")[:2<<20])
		}, job.ClassBox, "vda"},
		"armed anew": {func(b *serverBench, c *bootcfg.Cmdline) {
			b.rig.Arm(bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: box.Verify, Arming: box.NewArming(), Address: b.addr})
		}, "", "armed anew"},
		"another key":   {func(b *serverBench, c *bootcfg.Cmdline) { b.rig.key[0] ^= 1 }, "", "another key"},
		"not armed":     {func(b *serverBench, c *bootcfg.Cmdline) { b.rig.Event(job.Result{}); b.rig.jobs = nil }, "", "nothing to do"},
		"server is off": {func(b *serverBench, c *bootcfg.Cmdline) { b.rig.KillServer(); b.away = time.Second }, "", "has not answered"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newServerBench(t)
			b.disk("vda", "S1", 1)
			b.do(box.Backup, box.Done)
			b.wreck("vda")
			cmd := b.arm(box.Restore, nil)
			told := len(b.rig.results)
			c.spoil(b, &cmd)
			before := b.read("dev/vda")
			outcome, next := b.run(cmd)
			if outcome != box.Refused || !strings.Contains(b.console.String(), c.says) {
				t.Fatalf("outcome %q:\n%s", outcome, b.console.String())
			}
			if b.read("dev/vda") != before {
				t.Fatal("the disk was changed")
			}
			switch {
			case c.class == "" && len(b.rig.results) != told:
				t.Errorf("the server was told %+v", b.result())
			case c.class != "" && (b.result().Outcome != box.Refused || b.result().Class != c.class || !strings.Contains(b.result().Text, c.says)):
				t.Errorf("the server was told %+v", b.result())
			}
			if at := map[bool]Next{true: Restart, false: Retry}[c.class != "" || name == "not armed"]; next != at {
				t.Errorf("the box does %v next, not %v", next, at)
			}
		})
	}
}

// gone kills the server at the first request with a path, for a while.
func (b *serverBench) gone(path string, with func()) (hits *int) {
	var once sync.Once
	hits = new(int)
	b.rig.Refuse(func(r *http.Request) bool {
		hit := false
		if strings.Contains(r.URL.Path, path) {
			once.Do(func() {
				*hits++
				hit = true
				with()
			})
		}
		return hit
	})
	return hits
}

// TestServerAway: a server that is away for a while, or is started again, at any
// request, costs no more than time.
func TestServerAway(t *testing.T) {
	quickReports(t)
	for _, action := range []box.Action{box.Backup, box.Restore, box.Verify} {
		paths := []string{"hello", "report", "inventory/", "result"}
		switch action {
		case box.Backup:
			paths = append(paths, "missing", "objects", "commits")
		case box.Restore:
			paths = append(paths, "images/1", "read", "check")
		}
		for _, path := range paths {
			t.Run(string(action)+" "+path, func(t *testing.T) {
				b := newServerBench(t)
				b.disk("vda", "S1", 1)
				good := b.read("dev/vda")
				if action != box.Backup {
					b.do(box.Backup, box.Done)
					b.must(os.RemoveAll(b.rig.dir + "/" + b.addr.String())) // so that there is an inventory to be sent
				}
				if action == box.Restore {
					b.wreck("vda")
				}
				hits := b.gone(path, func() {
					go func() {
						b.rig.KillServer()
						time.Sleep(300 * time.Millisecond)
						b.rig.StartServer()
					}()
				})
				b.do(action, box.Done)
				if *hits != 1 {
					t.Fatalf("there was no request %s", path)
				}
				if b.read("dev/vda") != good {
					t.Error("the disk is not what it was")
				}
				if n := len(b.rig.Records()); n != 1 {
					t.Errorf("there are %d backups", n)
				}
			})
		}
	}
}

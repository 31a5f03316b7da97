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
	"testbox-imaging/internal/testenv"
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
	return &serverBench{bench: b, rig: NewRig(t, b.addr), away: 30 * time.Second}
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
		for i, path := range paths {
			if i%testenv.Effort(3, 1) != 0 {
				continue
			}
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

// TestServerTold: the log and the receipts reach the server, and the record has what
// it needs.
func TestServerTold(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.write("sys/class/net/eth0/address", "52:54:00:12:34:56\n")
	b.write("sys/class/net/lo/address", "00:00:00:00:00:00\n")
	b.write("sys/class/dmi/id/product_uuid", "11112222-3333-4444-8555-666677778888\n")
	b.do(box.Backup, box.Done)
	h := b.rig.hellos[0]
	if len(h.MACs) != 1 || h.MACs[0] != "52:54:00:12:34:56" || h.UUID == "" || h.Protocol != wire.Version || len(h.Token) < wire.MinToken {
		t.Errorf("the hello is %+v", h)
	}
	for _, h := range b.rig.hellos {
		if h.Token != b.rig.hellos[0].Token || h.Secret != b.rig.hellos[0].Secret {
			t.Error("a start says hello with another token")
		}
	}
	steps := map[wire.Step]bool{}
	for i, r := range b.rig.reports {
		steps[r.Step] = true
		if r.Number != uint64(i+1) {
			t.Errorf("report %d has the number %d", i+1, r.Number)
		}
		if r.Writes {
			t.Error("a backup asks whether it may write")
		}
	}
	if !steps[wire.StepCommit] || !steps[wire.StepInventory] && !steps[wire.StepRead] {
		t.Errorf("the server was told the steps %v", steps)
	}
	b.wreck("vda")
	first := len(b.rig.reports)
	b.do(box.Restore, box.Done)
	writes := 0
	for _, r := range b.rig.reports[first:] {
		if r.Writes {
			writes++
		}
	}
	if writes != 1 {
		t.Errorf("a restore asks %d times whether it may write", writes)
	}
	b.write("sys/class/dmi/id/product_uuid", "99992222-3333-4444-8555-666677778888\n")
	if got, _ := b.run(b.arm(box.Restore, nil)); got != box.Refused {
		t.Errorf("on another machine the outcome is %q", got)
	}
	b.want(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.AcceptMachine = true }), box.Done)
}

// TestServerNothingToWrite: a restore that finds all on the disk writes nothing, and
// does not ask.
func TestServerNothingToWrite(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.do(box.Restore, box.Done)
	for _, r := range b.rig.reports {
		if r.Writes {
			t.Error("the server was asked")
		}
	}
	if b.rig.Job().Wrote {
		t.Error("the job counts as one that has written")
	}
}

// TestServerCommittedAlready: power is lost between the commit and the result. The
// next start makes no second backup.
func TestServerCommittedAlready(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	cmd := b.arm(box.Backup, nil)
	b.away = time.Second
	b.rig.Refuse(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/result") })
	if got, next := b.run(cmd); got != box.Failed || next != Retry {
		t.Fatalf("%q without an answer to the result, next %v:\n%s", got, next, b.console.String())
	}
	if !b.rig.Armed() || len(b.rig.Records()) != 1 {
		t.Fatal("the box is disarmed, or there is no backup")
	}
	b.rig.Refuse(nil)
	b.want(cmd, box.Done)
	if n := len(b.rig.Records()); n != 1 {
		t.Errorf("there are %d backups", n)
	}
}

// cancelAt cancels the job at the first request with a path, and goes on when the
// agent knows it.
func (b *serverBench) cancelAt(path string) {
	b.gone(path, func() {
		b.rig.Event(job.Cancel{By: "ann"})
		b.rig.waitStop()
	})
}

// waitStop waits until the agent was told to stop.
func (r *Rig) waitStop() {
	for start := time.Now(); !r.told(job.Stop) && time.Since(start) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // the answer is on its way
}

// TestServerCancel: an action can be cancelled at every stage. A disk to which nothing
// was written stays what it was, and the other does not boot.
func TestServerCancel(t *testing.T) {
	quickReports(t)
	for _, c := range []struct {
		action box.Action
		path   string
		wrote  bool
	}{
		{box.Backup, "inventory/", false}, {box.Backup, "missing", false}, {box.Backup, "objects", false},
		{box.Restore, "images/1", false}, {box.Restore, "check", false}, {box.Restore, "read", true}, {box.Verify, "images/1", false},
	} {
		t.Run(string(c.action)+" "+c.path, func(t *testing.T) {
			b := newServerBench(t)
			b.disk("vda", "S1", 1)
			if c.action != box.Backup {
				b.do(box.Backup, box.Done)
			}
			if c.action == box.Restore {
				b.wreck("vda")
			}
			before := b.read("dev/vda")
			backups := len(b.rig.Records())
			cmd := b.arm(c.action, nil)
			if c.wrote {
				b.rig.Refuse(nil)
				b.cancelWhenWriting()
			} else {
				b.cancelAt(c.path)
			}
			got, next := b.run(cmd)
			if got != job.Cancelled || b.result().Outcome != job.Cancelled || b.result().Class != job.ClassAdmin {
				t.Fatalf("outcome %q, the server was told %+v:\n%s", got, b.result(), b.console.String())
			}
			if len(b.rig.Records()) != backups {
				t.Error("there is a backup")
			}
			j, after := b.rig.Job(), b.read("dev/vda")
			if !c.wrote && (next != Restart || j.State != job.Ended || after != before) {
				t.Errorf("next %v, the job is %s, the disk is as before: %v", next, j.State, after == before)
			}
			if c.wrote && (next != Hold || j.State != job.Held || strings.Trim(after[:1<<20], "\x00") != "") {
				t.Errorf("next %v, the job is %s, the first MiB is clear: %v", next, j.State, strings.Trim(after[:1<<20], "\x00") == "")
			}
			if log := b.rig.ReadLog(); !strings.Contains(log, string(c.action)+": cancelled: the server told this box to stop") {
				t.Errorf("the log does not say so:\n%s", log)
			}
		})
	}
}

// cancelWhenWriting cancels the job when the agent reads what it is about to write,
// after it was let write.
func (b *serverBench) cancelWhenWriting() {
	var once sync.Once
	b.rig.Refuse(func(r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/read") && b.rig.Job().Wrote {
			once.Do(func() {
				b.rig.Event(job.Cancel{By: "ann"})
				b.rig.waitStop()
			})
		}
		return false
	})
}

// TestServerHeld: a box whose disk is not fit to run asks until somebody decides.
func TestServerHeld(t *testing.T) {
	quickReports(t)
	old := holdEvery
	holdEvery = 20 * time.Millisecond
	defer func() { holdEvery = old }()
	for what, decide := range map[string]func(b *serverBench){
		"released": func(b *serverBench) { b.rig.Event(job.Release{By: "ann"}) },
		"a new job": func(b *serverBench) {
			b.rig.Arm(bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: box.Restore, Arming: box.NewArming(), Address: b.addr})
		},
	} {
		b := newServerBench(t)
		b.disk("vda", "S1", 1)
		b.do(box.Backup, box.Done)
		b.wreck("vda")
		cmd := b.arm(box.Restore, nil)
		b.cancelWhenWriting()
		if _, next := b.run(cmd); next != Hold {
			t.Fatalf("next is %v", next)
		}
		// The box loses power, and is held again.
		b.away = 50 * time.Millisecond // so that it hears that the server is away
		s := b.session(cmd)
		outcome, next := s.start(t.Context())
		if outcome != box.Refused || next != Hold || b.rig.Job().State != job.Held {
			t.Fatalf("a held box: %q, next %v, the job is %s:\n%s", outcome, next, b.rig.Job().State, b.console.String())
		}
		var alive int
		s.cfg.Alive = func() { alive++ }
		b.rig.KillServer()
		time.AfterFunc(300*time.Millisecond, b.rig.StartServer)
		time.AfterFunc(500*time.Millisecond, func() { decide(b) })
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if next := s.hold(ctx); next != Restart || time.Since(start) < 500*time.Millisecond || ctx.Err() != nil {
			t.Errorf("%s: next is %v after %v", what, next, time.Since(start))
		}
		cancel()
		if !strings.Contains(b.console.String(), "This box is held") {
			t.Error("the console does not say it")
		}
	}
}

// TestServerGivesUp: the server gives the job to somebody else while the agent is at
// work. The agent ends, and writes nothing more.
func TestServerGivesUp(t *testing.T) {
	quickReports(t)
	for _, path := range []string{"check", "read", "objects", "commits", "report"} {
		t.Run(path, func(t *testing.T) {
			b := newServerBench(t)
			b.disk("vda", "S1", 1)
			action := box.Backup
			if path == "check" || path == "read" {
				action = box.Restore
				b.do(box.Backup, box.Done)
				b.wreck("vda")
			}
			before, backups := b.read("dev/vda"), len(b.rig.Records())
			cmd := b.arm(action, nil)
			b.gone(path, func() {
				b.rig.Arm(bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: box.Verify, Arming: box.NewArming(), Address: b.addr})
			})
			got, next := b.run(cmd)
			if got.Class() != box.Again || next == Stay || next == Hold {
				t.Fatalf("outcome %q, next %v:\n%s", got, next, b.console.String())
			}
			after := b.read("dev/vda")
			if path != "read" && after != before {
				t.Error("the disk was written")
			}
			if path == "read" && after != before && strings.Trim(after[:1<<20], "\x00") != "" {
				t.Error("the disk may boot")
			}
			if n := len(b.rig.Records()); n != backups {
				t.Errorf("there are %d backups", n)
			}
			if j := b.rig.Job(); j.State != job.Armed || j.Attempt != 1 {
				t.Errorf("the new job is %s, attempt %d", j.State, j.Attempt)
			}
		})
	}
}

// TestServerDamage: a chunk that is damaged in the store is named, and nothing is
// written.
func TestServerDamage(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	b.rig.damage()
	b.rig.KillServer()
	b.rig.StartServer()
	got, next := b.run(b.arm(box.Restore, nil))
	if got != box.Failed || next != Retry || b.read("dev/vda") != before {
		t.Fatalf("outcome %q, next %v, the disk is as before: %v:\n%s", got, next, b.read("dev/vda") == before, b.console.String())
	}
	if r := b.result(); r.Class != job.ClassImage || !strings.Contains(r.Text, "chunk ") {
		t.Errorf("the server was told %+v", r)
	}
	if j := b.rig.Job(); j.Wrote || j.State != job.Armed || j.Attempt != 2 {
		t.Errorf("the job is %+v", j)
	}
}

// TestServerSlowCommit: a commit that takes long is waited for, with signs of life.
func TestServerSlowCommit(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.rig.slow = 700 * time.Millisecond
	b.rig.KillServer()
	b.rig.StartServer()
	alive := make(chan time.Time, 100000)
	b.bench.mend = func(c *Config) { c.Alive = func() { alive <- time.Now() } }
	old := aliveEvery
	aliveEvery = 20 * time.Millisecond
	defer func() { aliveEvery = old }()
	b.do(box.Backup, box.Done)
	close(alive)
	last, longest := time.Time{}, time.Duration(0)
	for at := range alive {
		if !last.IsZero() {
			longest = max(longest, at.Sub(last))
		}
		last = at
	}
	if longest > 500*time.Millisecond {
		t.Errorf("there was no sign of life for %v", longest)
	}
}

// TestServerLost: objects that the server lost before the commit are sent again.
func TestServerLost(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	b.gone("commits", func() { b.rig.KillServer(); go b.rig.StartServer() })
	b.do(box.Backup, box.Done)
	if r := b.result(); len(r.Receipts) != 2 {
		t.Errorf("there are %d receipts of two disks", len(r.Receipts))
	}
	if !strings.Contains(b.console.String(), "the disks are read again") {
		t.Errorf("nothing was lost:\n%s", b.console.String())
	}
	if d := b.rig.Records()[0].Disks; len(d) != 2 {
		t.Errorf("the record has %d disks", len(d))
	}
}

// TestServerLosesAgain: objects that are lost before each commit make the backup fail.
// There is no backup then, and the outcome says whose fault that is. One loss less does
// no harm.
func TestServerLosesAgain(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.rig.mu.Lock()
	b.rig.losing = maxTries
	b.rig.limits.Attempts = 1
	b.rig.mu.Unlock()
	b.do(box.Backup, box.Failed)
	if r := b.result(); r.Outcome != box.Failed || r.Class != job.ClassServer || !strings.Contains(r.Text, "not in the store") {
		t.Errorf("the result is %+v", r)
	}
	if all := b.rig.Records(); len(all) != 0 {
		t.Errorf("there are %d backups", len(all))
	}
	if n := strings.Count(b.console.String(), "the disks are read again"); n != maxTries-1 {
		t.Errorf("the disks were read again %d times", n)
	}
	b.rig.mu.Lock()
	b.rig.losing = maxTries - 1
	b.rig.mu.Unlock()
	b.do(box.Backup, box.Done)
	if all := b.rig.Records(); len(all) != 1 {
		t.Errorf("there are %d backups", len(all))
	}
}

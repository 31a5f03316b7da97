package proc

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

// TestServedCancelAnywhere cancels a job at each state in which people see it, and
// lets the server restart right after. A box whose disk was not written to starts its own
// disk, and one whose disk was written to does not.
func TestServedCancelAnywhere(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	b.act(done, "backup")
	cancel := func(id string) {
		t.Helper()
		s.does(done, []string{"cancel", id})
		s.kill()
		s.start()
	}
	ended := func(what, id string, armed bool) {
		t.Helper()
		s.until(what, serverLimit, func() bool { j := b.job(id); return j.State == "ended" && j.Settled })
		if j := b.job(id); j.Outcome != "cancelled" || b.armed() != armed {
			t.Errorf("%s: %+v, armed: %v", what, j, b.armed())
		}
		s.does(refused, []string{"cancel", id}, "has ended")
		s.does(refused, []string{"release", b.addr}, "not held")
		s.does(refused, []string{"finish", b.addr}, "not up for rescue")
	}

	first := b.ask("restore")
	queued := b.ask("restore")
	b.boot()
	cancel(queued)
	ended("cancelled in the queue", queued, true) // for the job before
	cancel(first)
	ended("cancelled while armed", first, false)
	if r := b.start().wait(); r.code == done || sda.hash(t) != want {
		t.Errorf("the box that was started by then: %d", r.code)
	}

	// While it reads.
	id := b.ask("backup")
	b.boot()
	i := b.intruder()
	if w := i.hello(); w != job.Work {
		t.Fatalf("the server says %q", w)
	}
	cancel(id)
	if text := i.gets(200, "a report", "POST", wire.ReportPath, wire.Marshal(&wire.Report{Number: 1})); !strings.Contains(text, `"stop"`) {
		t.Errorf("the answer to a report after a cancel: %s", text)
	}
	i.gets(200, "a result", "POST", wire.ResultPath, wire.Marshal(&wire.Result{Outcome: job.Cancelled}))
	ended("cancelled while it reads", id, false)

	// After the first write.
	id = b.ask("restore")
	b.boot()
	sda.wreck(t)
	sda.server.set(faultSet{HoldAt: 4})
	a := b.start()
	s.until("the disk is being written", serverLimit, func() bool { return sda.server.state().Held != "" })
	cancel(id)
	sda.server.release()
	a.wait()
	sda.server.set(faultSet{})
	s.until("the box is held", serverLimit, func() bool { j := b.job(id); return j.State == "held" && j.Settled })
	if j := b.job(id); j.Outcome != "cancelled" || !b.armed() {
		t.Fatalf("cancelled while it writes: %+v, armed: %v", j, b.armed())
	}
	s.does(refused, []string{"cancel", id}, "release")
	s.does(refused, []string{"box", "forget", b.addr})

	// Nothing but a release or a restore lets the box go: no restart of the server, no lost boot file,
	// no other action, no restart of the box.
	for what, do := range map[string]func(){
		"the server restarts":      func() { s.kill(); s.start() },
		"the boot file is removed": func() { must(t, os.Remove(b.bootFile())) },
		"a backup waits":           func() { s.does(done, []string{"backup", b.addr}) },
		"the box says that it is done": func() {
			i.send("POST", wire.ResultPath, bytes.NewReader(wire.Marshal(&wire.Result{Outcome: box.Done})))
		},
	} {
		held := b.intruder()
		do()
		for range 2 {
			if w := held.hello(); w != job.Hold || !b.armed() {
				t.Errorf("%s: the server says %q, armed: %v", what, w, b.armed())
			}
			held.token += "x" // the box has restarted
		}
	}
	restore := b.ask("restore")
	s.until("the new job has written its boot file", serverLimit, func() bool { j := b.job(restore); return j.State == "armed" && j.Settled })
	if w := i.hello(); w != job.Restart && w != job.Refuse {
		t.Errorf("the agent of the held job is told %q after another has taken over", w)
	}
	cancel(restore)
	s.until("the box is held again", serverLimit, func() bool { j := b.job(restore); return j.State == "held" && j.Settled })
	if !b.armed() {
		t.Error("a job that took over was cancelled, and the box would start a half restored disk")
	}
	restore = b.ask("restore")
	s.until("the new job has written its boot file", serverLimit, func() bool { j := b.job(restore); return j.State == "armed" && j.Settled })
	b.boot()
	b.start().ends(done)
	if j := b.job(restore); j.Outcome != "done" || sda.hash(t) != want {
		t.Errorf("the restore in the end: %+v", j)
	}
	time.Sleep(time.Second) // the backup that has waited begins
	s.does(done, []string{"cancel", b.addr})
	if b.armed() {
		t.Error("the box is armed, and all its jobs have ended")
	}
}

// waiting is a command with --wait that runs.
type waiting struct {
	cmd *exec.Cmd
	out bytes.Buffer
	err bytes.Buffer
}

func (s *serverSite) waits(args ...string) *waiting {
	s.t.Helper()
	w := &waiting{cmd: exec.Command(s.prog.testbox, args...)}
	w.cmd.Env = append(os.Environ(), "TESTBOX_SERVER="+s.socket())
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.err
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, w.cmd.Start())
	s.t.Cleanup(func() { w.cmd.Process.Kill() })
	return w
}

// ends waits for the end. stdout must be the jobs in JSON, and nothing else.
func (w *waiting) ends(t testing.TB, what string, code int) (jobs []servedJob) {
	t.Helper()
	ended := make(chan struct{})
	go func() { w.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(serverLimit):
		t.Fatalf("%s: it does not end", what)
	}
	if is := w.cmd.ProcessState.ExitCode(); is != code {
		t.Errorf("%s: it ended with %d instead of %d:\n%s\n%s", what, is, code, &w.out, &w.err)
	}
	if err := json.Unmarshal(w.out.Bytes(), &jobs); err != nil {
		t.Errorf("%s: stdout is no JSON (%v):\n%s\n%s", what, err, &w.out, &w.err)
	}
	return jobs
}

// TestServedWaits has commands that wait, and what comes between. No exit code says that
// a job is done which is not.
func TestServedWaits(t *testing.T) {
	t.Parallel()
	const pending, cancelled = 8, 11
	s := newServerSite(t, "")
	b := s.box(11, disk("sda", scattered(1)))
	start := func() *waiting { return s.waits("backup", b.addr, "--job-key", "nightly", "--wait", "--json") }
	one, two := start(), start()
	b.boot()
	short := s.waits("backup", b.addr, "--job-key", "nightly", "--wait", "--json", "--timeout", "300ms")
	if jobs := short.ends(t, "a short wait", pending); len(jobs) != 1 || jobs[0].State != "armed" {
		t.Errorf("a short wait: %+v", jobs)
	}
	interrupted := start()
	s.until("it waits", serverLimit, func() bool { return interrupted.cmd.Process.Signal(syscall.Signal(0)) == nil })
	time.Sleep(500 * time.Millisecond)
	must(t, interrupted.cmd.Process.Signal(syscall.SIGINT))
	interrupted.ends(t, "an interrupted wait", pending)
	s.kill()
	time.Sleep(time.Second)
	s.start()
	b.start().ends(done)
	var ids []string
	for _, w := range []*waiting{one, two, start()} {
		for _, j := range w.ends(t, "a wait over a restart of the server", done) {
			if ids = append(ids, j.ID); j.State != "ended" || j.Outcome != "done" || j.ID != ids[0] {
				t.Errorf("a wait over a restart of the server: %+v", j)
			}
		}
	}
	s.does(refused, []string{"restore", b.addr, "--job-key", "nightly"}, "new key")
	s.does(wrongUse, []string{"backup", "group:nobody", "--wait", "--json"}, "no box")
	s.does(wrongUse, []string{"backup", "no such box", "--wait", "--json"})

	w := s.waits("restore", b.addr, "--wait", "--json")
	b.boot()
	s.does(done, []string{"cancel", b.addr})
	w.ends(t, "a wait for a job that is cancelled", cancelled)
}

// TestServedHandmade has what somebody has made by hand of a box's folder and of its boot
// file, while the box is at work.
func TestServedHandmade(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)

	// The inventory and the log cannot be written. The disk is backed up all the same.
	must(t, os.MkdirAll(b.folder("testbox-info.txt/x"), 0o755))
	must(t, os.Symlink(filepath.Join(s.state, "elsewhere"), b.folder("maintenance.log")))
	begun := time.Now()
	if j, out := b.act(done, "backup"); j.Outcome != "done" || !strings.Contains(out, "inventory: ") {
		t.Errorf("a backup without an inventory: %+v\n%s", j, out)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("a backup without an inventory took %v", took)
	}
	if _, err := os.Stat(filepath.Join(s.state, "elsewhere")); err == nil {
		t.Error("the log was written through a link")
	}

	// The boot file is gone at the end, or is somebody else's.
	for what, change := range map[string]func(){
		"gone":       func() {},
		"a link":     func() { must(t, os.Symlink(filepath.Join(s.state, "nothing"), b.bootFile())) },
		"for itself": func() { must(t, os.WriteFile(b.bootFile(), []byte("DEFAULT own\nLABEL own\n KERNEL own\n"), 0o644)) },
	} {
		id := b.ask("backup")
		b.boot()
		a := b.start()
		a.waitLine("seen: disk")
		must(t, os.Remove(b.bootFile()))
		change()
		s.until(what+": the job has ended", serverLimit, func() bool { return b.job(id).State == "ended" })
		if what == "for itself" {
			if j := b.job(id); j.Settled || !b.armed() {
				t.Errorf("a boot file that is not ours is taken for one that is removed: %+v, armed: %v", j, b.armed())
			}
		}
		os.Remove(b.bootFile())
		a.ends(done)
		if j := b.job(id); j.Outcome != "done" || j.Attempt != 1 || b.armed() {
			t.Errorf("the boot file is %s: %+v, armed: %v", what, j, b.armed())
		}
	}
}

// TestServedOldCopy takes a copy of the ledger in which a job waits that was done after
// the copy. It is not done once more. If it was at work, the box is held.
func TestServedOldCopy(t *testing.T) {
	t.Parallel()
	sda, sdb := disk("sda", scattered(1)), disk("sda", scattered(2))
	sdb.faulty = true
	s := newServerSite(t, "")
	one, two := s.box(11, sda), s.box(12, sdb)
	one.act(done, "backup")
	two.act(done, "backup")
	finished, broken := one.ask("restore"), two.ask("restore")
	one.boot()
	two.boot()
	s.end()
	run(t, "", "cp", filepath.Join(s.state, "ledger.db"), filepath.Join(s.state, "ledger-copy.db"))
	s.start()
	one.start().ends(done)
	writeAt(t, sda.file, 3*mib, noise(9, 4096))
	today := sda.hash(t)
	sdb.wreck(t)
	sdb.server.set(faultSet{HoldAt: 4})
	a := two.start()
	s.until("the disk is being written", serverLimit, func() bool { return sdb.server.state().Held != "" })
	s.kill()
	must(t, os.Remove(filepath.Join(s.state, "ledger.db")))
	s.does(done, []string{"server", "recover", "--config", s.config()}, "2 jobs")
	a.kill()
	sdb.server.release()
	<-a.ended
	sdb.server.set(faultSet{})
	s.start()
	s.until("what the jobs of the copy need is done", serverLimit, func() bool {
		return one.job(finished).Settled && two.job(broken).Settled
	})
	if j := one.job(finished); j.State != "ended" || one.armed() || sda.hash(t) != today {
		t.Errorf("a restore that was done after the copy: %+v, armed: %v", j, one.armed())
	}
	if j := two.job(broken); j.State != "held" || !two.armed() {
		t.Errorf("a restore that was at work: %+v, armed: %v", j, two.armed())
	}
	two.boot()
	two.start().ends(refused)
	next := two.ask("restore")
	s.until("the new job has written its boot file", serverLimit, func() bool { j := two.job(next); return j.State == "armed" && j.Settled })
	two.boot()
	two.start().ends(done)
}

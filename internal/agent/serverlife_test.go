package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

func debianRoot(c *bootcfg.Cmdline) {
	c.Fetch = bootcfg.RootFile{Server: netip.MustParseAddrPort("10.88.0.1:80"), Path: "/1", SHA256: strings.Repeat("0a", 32)}
}

// TestServerRescue: a rescue stays up. The programs of that start speak in its session,
// which only root can read, and finish ends it.
func TestServerRescue(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.write("ssh/ssh_host_ed25519_key.pub", ed25519Key)
	b.bench.mend = func(c *Config) { c.Run, c.SSHDir = b.path("run"), b.path("ssh") }
	b.mkdir("run")
	cmd := b.rig.Started(b.arm(box.Rescue, debianRoot))
	outcome, next := b.run(cmd)
	if outcome != box.Rescuing || next != Stay || b.rig.Job().State != job.Rescue {
		t.Fatalf("outcome %q, next %v, the job is %s:\n%s", outcome, next, b.rig.Job().State, b.console.String())
	}
	if keys := b.result().HostKeys; len(keys) != 1 || keys[0]+" root@box11\n" != ed25519Key {
		t.Errorf("the server was told the host keys %q", keys)
	}
	st, err := os.Stat(b.path("run", tokenName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the token has the mode %v, %v", st.Mode(), err)
	}
	b.verb(cmd.Words(), func(c Config) box.Outcome { return Writable(c, []string{"vdz"}, false) }, box.Refused)
	if !strings.Contains(b.rig.ReadLog(), "rescue: up for rescue") {
		t.Errorf("the log has\n%s", b.rig.ReadLog())
	}
	// The service is started anew in this start of the box.
	s := newSession(b.config(cmd.Words()))
	if outcome, next := s.start(t.Context()); outcome != box.Rescuing || next != Stay || b.rig.Job().Attempt != 1 {
		t.Fatalf("a second agent: outcome %q, next %v, the job is %s:\n%s", outcome, next, b.rig.Job().State, b.console.String())
	}
	b.verb(cmd.Words(), Finish, box.Done)
	if j := b.rig.Job(); j.State != job.Ended || j.Outcome != box.Done || b.rig.Armed() {
		t.Errorf("the job is %s, %q", j.State, j.Outcome)
	}
	if keys := b.result().HostKeys; len(keys) != 0 {
		t.Errorf("finish says the host keys %q", keys)
	}
	if !strings.HasSuffix(b.rig.ReadLog(), "rescue: done\n") {
		t.Errorf("the log has\n%s", b.rig.ReadLog())
	}
	b.verb(cmd.Words(), Finish, box.Done) // as after --stay
	if n := len(b.rig.hellos); n > 4 {
		t.Errorf("finish says hello")
	}
}

// TestServerAttend: a rescue that is ended at the server ends at the box. A server that
// is away ends nothing.
func TestServerAttend(t *testing.T) {
	old := holdEvery
	holdEvery = 10 * time.Millisecond
	defer func() { holdEvery = old }()
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.away = time.Second
	b.bench.mend = func(c *Config) { c.Run = b.path("run") }
	b.mkdir("run")
	cmd := b.rig.Started(b.arm(box.Rescue, debianRoot))
	if outcome, _ := b.run(cmd); outcome != box.Rescuing {
		t.Fatalf("outcome %q:\n%s", outcome, b.console.String())
	}
	ended := make(chan box.Outcome, 1)
	cfg := b.config(cmd.Words())
	go func() { ended <- Attend(t.Context(), cfg) }()
	hellos := func() int {
		b.rig.mu.Lock()
		defer b.rig.mu.Unlock()
		return len(b.rig.hellos)
	}
	more := func() {
		t.Helper()
		for n, end := hellos(), time.Now().Add(time.Minute); hellos() < n+3; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it does not ask:\n%s", b.console.String())
			}
		}
	}
	more()
	b.rig.KillServer()
	time.Sleep(50 * time.Millisecond)
	b.rig.StartServer()
	more()
	select {
	case o := <-ended:
		t.Fatalf("it ended before the rescue, with %q:\n%s", o, b.console.String())
	default:
	}
	if b.rig.Job().Attempt != 1 || b.rig.Job().State != job.Rescue {
		t.Errorf("the job is %+v", b.rig.Job())
	}
	other := cmd
	other.Key = strings.Repeat("0a", 32)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if o := Attend(ctx, b.config(other.Words())); o != box.Failed {
		t.Errorf("a server that cannot be asked ends the rescue: %q", o)
	}
	b.rig.Event(job.Finish{By: "bob"})
	select {
	case o := <-ended:
		if o != box.Done || !strings.Contains(b.console.String(), "was ended at the server") {
			t.Errorf("it ended with %q:\n%s", o, b.console.String())
		}
	case <-time.After(time.Minute):
		t.Fatalf("it did not end:\n%s", b.console.String())
	}
	// Who ended it on the box, and wants the box to stay up, has it so.
	cmd = b.rig.Started(b.arm(box.Rescue, debianRoot))
	b.must(os.Remove(b.path("run", tokenName)))
	if outcome, _ := b.run(cmd); outcome != box.Rescuing {
		t.Fatalf("outcome %q:\n%s", outcome, b.console.String())
	}
	b.verb(cmd.Words(), Finish, box.Done)
	b.verb(cmd.Words(), func(c Config) box.Outcome { return Attend(t.Context(), c) }, box.Done)
	if strings.Contains(b.console.String(), "was ended at the server") {
		t.Errorf("a box that stays up is restarted:\n%s", b.console.String())
	}
	// In share mode, and outside of a rescue, there is nothing to attend.
	if o := Attend(t.Context(), b.config(b.armRescue(nil))); o != box.Done {
		t.Errorf("share mode: %q", o)
	}
	backup := b.rig.Started(b.arm(box.Backup, nil))
	if o := Attend(t.Context(), b.config(backup.Words())); o != box.Refused {
		t.Errorf("a backup: %q", o)
	}
}

// TestServerFinishAway: a rescue that cannot be ended at the server is not restarted.
func TestServerFinishAway(t *testing.T) {
	b := newServerBench(t)
	b.bench.mend = func(c *Config) { c.Run = b.path("run") }
	b.mkdir("run")
	cmd := b.rig.Started(b.arm(box.Rescue, debianRoot))
	b.verb(cmd.Words(), Finish, box.Refused)
	b.says("no agent has begun a session")
	b.run(cmd)
	b.rig.Refuse(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/result") })
	s := newSession(b.config(cmd.Words()))
	s.away = 500 * time.Millisecond
	if err := s.finish(); outcomeOf(err) != box.Failed || !strings.Contains(err.Error(), "still armed") {
		t.Errorf("finish without an answer: %v", err)
	}
	if b.rig.Job().State != job.Rescue {
		t.Errorf("the job is %s", b.rig.Job().State)
	}
}

// TestServerObituary: process 1 says what the agent did not live to say.
func TestServerObituary(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.mkdir("run")
	cmd := b.rig.Started(b.arm(box.Backup, nil))
	open := LogOpener(Config{Run: b.path("run")})
	say := func(format string, args ...any) { t.Errorf(format, args...) }
	if _, err := open(&cmd, say); !errors.Is(err, errNoSession) {
		t.Fatalf("before an agent began: %v", err)
	}
	// An agent that began, reported, and died.
	b.bench.mend = func(c *Config) { c.Run = b.path("run") }
	s := newSession(b.config(cmd.Words()))
	b.must(s.readCmdline())
	b.must(s.openHome())
	b.must(s.log.Flush())
	s.arming.(*Server).Close()
	if b.rig.Job().State != job.Running || b.rig.jobs[0].number == 0 {
		t.Fatalf("the job is %+v", b.rig.Job())
	}
	log, err := open(&cmd, say)
	b.must(err)
	log.Error("the agent was killed by signal %d", 9)
	b.must(log.Flush())
	if text := b.rig.ReadLog(); !strings.HasSuffix(text, "error: the agent was killed by signal 9\n") {
		t.Errorf("the log has\n%s", text)
	}
	if r := b.result(); r.Outcome != box.Failed || r.Class != job.ClassBox || r.Text != "the agent was killed by signal 9" {
		t.Errorf("the result is %+v", r)
	}
	if j := b.rig.Job(); j.State != job.Armed || j.Attempt != 2 {
		t.Errorf("the job is %s, attempt %d", j.State, j.Attempt)
	}
	b.bench.mend = nil
	b.want(cmd, box.Done)
}

// newTestReports makes the reports of an agent whose job is armed.
func newTestReports(t *testing.T, b *serverBench) (*Server, Log) {
	t.Helper()
	cmd := b.rig.Started(b.arm(box.Backup, nil))
	s, err := NewServer(ServerConfig{Cmd: &cmd, Console: io.Discard, Now: time.Now, Away: 200 * time.Millisecond})
	b.must(err)
	t.Cleanup(s.Close)
	b.must(s.Reach())
	return s, (&serverHome{Server: s}).Log("box11")
}

// TestReportsWhileAway: lines of a while without the server come later, in order and
// once. There is a bound, and who logs never waits.
func TestReportsWhileAway(t *testing.T) {
	b := newServerBench(t)
	s, log := newTestReports(t, b)
	var lose atomic.Bool // answers
	b.rig.lose = func(r *http.Request) bool { return lose.Load() && strings.HasSuffix(r.URL.Path, "/report") }
	log.Info("one")
	lose.Store(true)
	if err := log.Flush(); err == nil || !strings.Contains(err.Error(), "1 lines are not at the server") {
		t.Errorf("flush without an answer: %v", err)
	}
	log.Info("two")
	lose.Store(false)
	b.must(log.Flush())
	if text := b.rig.ReadLog(); strings.Count(text, "info: one\n") != 1 || !strings.HasSuffix(text, "info: two\n") {
		t.Errorf("the log has\n%s", text)
	}
	b.rig.Refuse(func(*http.Request) bool { return true })
	start := time.Now()
	for i := range maxLines + 500 {
		log.Info("line %d %s", i, strings.Repeat("<", 2000))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("lines were waited for, %v", took)
	}
	if n := s.reports.left(); n > maxLines {
		t.Errorf("%d lines are kept", n)
	}
	b.rig.Refuse(nil)
	b.must(log.Flush())
	text := b.rig.ReadLog()
	if !strings.Contains(text, "error: [500 lines are missing here]\n") || strings.Contains(text, "line 499 ") ||
		!strings.Contains(text, "line 500 ") || !strings.Contains(text, fmt.Sprintf("line %d ", maxLines+499)) {
		t.Errorf("the log has %d bytes, and begins with %.500s", len(text), text)
	}
}

// TestReportsInTime: a report comes in time without being asked for, and at once for
// an error.
func TestReportsInTime(t *testing.T) {
	if reportEvery >= wire.ReportEvery {
		t.Errorf("there is a report every %v", reportEvery)
	}
	b := newServerBench(t)
	old := reportEvery
	t.Cleanup(func() { reportEvery = old })
	reportEvery = time.Hour // so that the report comes for the error, however slow the machine is
	s, log := newTestReports(t, b)
	_, err := s.Open()
	b.must(err)
	log.Error("at once")
	count := func() int {
		b.rig.mu.Lock()
		defer b.rig.mu.Unlock()
		return len(b.rig.reports)
	}
	for start := time.Now(); count() == 0 || !strings.Contains(b.rig.ReadLog(), "at once"); time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("an error is not reported at once, or is not in the log")
		}
	}
	s.Close()
	quickReports(t)
	s, _ = newTestReports(t, b)
	_, err = s.Open()
	b.must(err)
	for start, first := time.Now(), count(); count() < first+3; time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("there are no reports")
		}
	}
}

// TestReportsShowNoLife: reports go on beside a disk that hangs, so they must not keep
// the watchdog quiet. Who waits for the server does.
func TestReportsShowNoLife(t *testing.T) {
	quickReports(t)
	old := aliveEvery
	aliveEvery = 10 * time.Millisecond
	defer func() { aliveEvery = old }()
	b := newServerBench(t)
	cmd := b.rig.Started(b.arm(box.Backup, nil))
	var signs atomic.Int64
	s, err := NewServer(ServerConfig{Cmd: &cmd, Console: io.Discard, Now: time.Now, Away: 300 * time.Millisecond,
		Alive: func() { signs.Add(1) }})
	b.must(err)
	defer s.Close()
	_, err = s.Open()
	b.must(err)
	b.rig.Refuse(func(*http.Request) bool { return true })
	time.Sleep(50 * time.Millisecond)
	before := signs.Load()
	time.Sleep(700 * time.Millisecond)
	if n := signs.Load() - before; n != 0 {
		t.Errorf("reports showed %d signs of life", n)
	}
	if err := (&serverHome{Server: s}).Writes(t.Context()); !errors.Is(err, ErrTrouble) {
		t.Errorf("a server that is away lets the box write: %v", err)
	}
	if signs.Load() == before {
		t.Error("waiting for the server shows no sign of life")
	}
}

// TestReportsOfRoom: a report says how the box takes part in a room, and says nothing of it as long as it is in none.
func TestReportsOfRoom(t *testing.T) {
	r := newReports(&Server{}, false)
	var state *wire.RoomState
	if r.next(false).Room != nil {
		t.Error("a box without a room says that it has one")
	}
	r.attends(func() *wire.RoomState { return state })
	if r.next(false).Room != nil {
		t.Error("a box that was not let into a room says that it has one")
	}
	state = &wire.RoomState{Boxes: 3, FromPeers: 7}
	r.progress(wire.StepWrite, "", 1, 2, 90*time.Second)
	if got := r.next(false).Room; got == nil || *got != (wire.RoomState{Boxes: 3, FromPeers: 7, Left: 90}) {
		t.Errorf("the report says %+v", got)
	}
	if r.attends(nil); r.next(true).Room != nil {
		t.Error("a box that has left its room says that it has one")
	}
}

// TestServerClasses: whose fault it is.
func TestServerClasses(t *testing.T) {
	damaged := fmt.Errorf("chunk 1: %w", object.ErrDamaged)
	away := &remote.AwayError{For: time.Minute, Err: errors.New("no route")}
	for _, c := range []struct {
		action box.Action
		err    error
		want   job.Class
	}{
		{box.Restore, damaged, job.ClassImage},
		{box.Verify, fmt.Errorf("x: %w", chunk.ErrMissing), job.ClassImage},
		{box.Restore, &wire.Problem{Code: wire.CodeNotFound}, job.ClassImage},
		{box.Restore, os.ErrNotExist, job.ClassBox},
		{box.Backup, fmt.Errorf("x: %w", chunk.ErrMissing), job.ClassServer},
		{box.Backup, &wire.Problem{Code: wire.CodeForbidden}, job.ClassServer},
		{box.Backup, &wire.Problem{Code: wire.CodeFull}, job.ClassServer},
		{box.Restore, &wire.Problem{Code: wire.CodeFailed}, job.ClassServer},
		{box.Backup, troubled(fmt.Errorf("x: %w", away)), job.ClassNetwork},
		{box.Restore, wire.ErrKey, job.ClassNetwork},
		{box.Backup, copier.ErrFailing, job.ClassBox},
		{box.Restore, errors.New("input/output error"), job.ClassBox},
	} {
		if got := resultOf(c.action, End{Outcome: box.Failed, Err: c.err}).Class; got != c.want {
			t.Errorf("%s, %v: class %q, want %q", c.action, c.err, got, c.want)
		}
	}
	if r := resultOf(box.Restore, End{Outcome: box.BadSectors, Err: errBadSectors}); r.Class != "" {
		t.Errorf("a success has the class %q", r.Class)
	}
}

// TestServerTroubleIsNoRefusal: a refusal ends the job at once, and a server that is
// away must not have that effect.
func TestServerTroubleIsNoRefusal(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	for path, want := range map[string]job.Class{"images/1": job.ClassNetwork} {
		b.away = 300 * time.Millisecond
		b.rig.Refuse(func(r *http.Request) bool { return strings.Contains(r.URL.Path, path) })
		got, next := b.run(b.arm(box.Restore, nil))
		if r := b.result(); got != box.Failed || next != Retry || r.Class != want {
			t.Errorf("without answers to %s: %q, next %v, %+v:\n%s", path, got, next, r, b.console.String())
		}
	}
}

// TestServerImages: what the server says of the images counts.
func TestServerImages(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	b.do(box.Backup, box.Done)
	old := b.rig.Records()[0]
	good := b.read("dev/vda")
	b.wreck("vda")
	b.wreck("vdb")
	wrecked := b.read("dev/vdb")
	list := "vda\n"
	b.rig.selection = &list
	b.do(box.BackupAgain, box.Done)
	says := "vdb, which backup " + old.ID + " has, is not in this one"
	if r := b.rig.Records()[0]; len(r.Disks) != 1 || !strings.Contains(b.rig.ReadLog(), says) {
		t.Errorf("the backup is %+v:\n%s", r, b.rig.ReadLog())
	}
	b.rig.image = old
	b.do(box.Restore, box.Done)
	if b.read("dev/vda") != good || b.read("dev/vdb") != wrecked {
		t.Error("the disks are not vda of the old backup, and vdb as it was")
	}
	damaged := *old
	damaged.Disks = append([]image.RecordedDisk(nil), old.Disks...)
	damaged.Disks[0].Bad = []image.Range{{Off: 512, Len: 512}}
	b.rig.image = &damaged
	b.do(box.Verify, box.BadSectors)
}

// TestToken: a token that cannot be one is drawn anew.
func TestToken(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := tokenOf(dir, true); !errors.Is(err, errNoSession) {
		t.Errorf("there is none: %v", err)
	}
	for _, torn := range []string{"", "short", strings.Repeat("/", 26)} {
		os.WriteFile(dir+"/"+tokenName, []byte(torn), 0o600)
		first, old, err := tokenOf(dir, false)
		if err != nil || old || len(first) < wire.MinToken {
			t.Errorf("%q: %q, %v, %v", torn, first, old, err)
		}
		for _, join := range []bool{true, false} {
			if second, old, err := tokenOf(dir, join); second != first || !old || err != nil {
				t.Errorf("the second program has %q, %v, %v", second, old, err)
			}
		}
	}
	one, _, _ := tokenOf("", false)
	if two, old, _ := tokenOf("", false); one == two || old {
		t.Error("without a folder, two programs have one token")
	}
}

func TestStartedVersion(t *testing.T) {
	if v := startedVersion("BOOT_IMAGE=maintenance-boot/12.5-1/vmlinuz quiet"); v != "12.5-1" {
		t.Errorf("the version is %q", v)
	}
	if startedVersion("quiet") == "" {
		t.Error("there is no version")
	}
}

// TestServerStopBeforeWrite: a job that was cancelled before the first write writes
// nothing, also if the box hears of it by that answer.
func TestServerStopBeforeWrite(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	cmd := b.arm(box.Restore, nil)
	b.gone("check", func() { b.rig.Event(job.Cancel{By: "ann"}) })
	if got, next := b.run(cmd); got != job.Cancelled || next != Restart || b.read("dev/vda") != before || b.rig.Job().Wrote {
		t.Errorf("%q, next %v, the disk is as before: %v:\n%s", got, next, b.read("dev/vda") == before, b.console.String())
	}
}

// TestServerNotTaken: the server gave the start up while nobody heard of it. What was
// done does not count then, and the box tries again.
func TestServerNotTaken(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	cmd := b.arm(box.RefreshInfo, nil)
	b.rig.limits.Silence = time.Nanosecond
	b.gone("result", func() { b.rig.Event(job.Tick{}) })
	got, next := b.run(cmd)
	if got != box.Failed || next != Retry || !b.rig.Armed() {
		t.Errorf("%q, next %v, armed %v:\n%s", got, next, b.rig.Armed(), b.console.String())
	}
	b.says("the server does not take the outcome")
}

// TestServerOtherAction: the server's job is another one than the boot file's.
func TestServerOtherAction(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	b.arm(box.Verify, nil)
	b.rig.mu.Lock()
	j := b.rig.jobs[len(b.rig.jobs)-1]
	cmd := bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: box.Restore, Arming: j.Arming, Address: b.addr, Server: b.rig.at,
		Key: b.rig.key.String(), Secret: j.secret}
	b.rig.mu.Unlock()
	s := newSession(b.config(cmd.Words()))
	if got, _ := s.start(t.Context()); got != box.Refused || b.read("dev/vda") != before {
		t.Errorf("the outcome is %q:\n%s", got, b.console.String())
	}
	b.says("the server asks for verify")
}

// TestServerGivesUpQuietly: an agent that hears by a report that it has no part in the
// job any more ends, even if nothing else asks the server.
func TestServerGivesUpQuietly(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	s, _ := newTestReports(t, b)
	h, err := s.Open()
	b.must(err)
	ctx, end := h.Watch(t.Context())
	defer end()
	b.rig.Arm(bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: box.Verify, Arming: box.NewArming(), Address: b.addr})
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the action goes on")
	}
	var stop *StopError
	if !errors.As(context.Cause(ctx), &stop) || stop.Cancelled {
		t.Errorf("the reason is %v", context.Cause(ctx))
	}
	if again, end := h.Watch(t.Context()); again.Err() == nil {
		t.Error("another action may begin")
	} else {
		end()
	}
	if err := h.Writes(t.Context()); err == nil {
		t.Error("the box may write")
	}
}

// TestServerCancelCommit: a commit that has begun is not interrupted.
func TestServerCancelCommit(t *testing.T) {
	quickReports(t)
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.rig.slow = 300 * time.Millisecond
	b.rig.KillServer()
	b.rig.StartServer()
	cmd := b.arm(box.Backup, nil)
	b.rig.Refuse(func(r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/commits/") {
			b.rig.Event(job.Cancel{By: "ann"})
		}
		return false
	})
	got, _ := b.run(cmd)
	if n := len(b.rig.Records()); got != box.Done || n != 1 || b.result().Outcome != box.Done {
		t.Errorf("the outcome is %q, and there are %d backups:\n%s", got, n, b.console.String())
	}
}

// TestServerAllUsed: a job decides whether all of each disk is kept.
func TestServerAllUsed(t *testing.T) {
	testenv.Tools(t, "mkfs.ext4")
	for _, all := range []bool{false, true} {
		b := newServerBench(t)
		b.disk("vda", "S1", 1)
		b.write("dev/vda", strings.Repeat("\x00", len(b.read("dev/vda"))))
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", b.path("dev/vda")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b.rig.allUsed = all
		b.do(box.Backup, box.Done)
		if unused := b.rig.Records()[0].Disks[0].Unused; unused > 0 == all {
			t.Errorf("all bytes are asked for: %v, and %d are not kept", all, unused)
		}
	}
}

// TestServerSmaller: a disk that is too small is not begun.
func TestServerSmaller(t *testing.T) {
	b := newServerBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	cmd := b.rig.Started(b.arm(box.Restore, nil))
	s, err := NewServer(ServerConfig{Cmd: &cmd, Console: io.Discard, Now: time.Now})
	b.must(err)
	defer s.Close()
	h, err := s.Open()
	b.must(err)
	images, err := h.List()
	b.must(err)
	d := disk.Disk{Name: "vda", Identity: images[0].Info().Disk}
	b.must(images[0].Check(t.Context(), d, nil))
	d.SectorSize = 4096
	if images[0].Check(t.Context(), d, nil) == nil {
		t.Error("an image with other sectors is taken")
	}
	d = disk.Disk{Name: "vda", Identity: images[0].Info().Disk}
	d.Size -= 512
	if images[0].Check(t.Context(), d, nil) == nil {
		t.Error("an image is taken for a smaller disk")
	}
}

package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// TestMain also plays the programs that tests start.
func TestMain(m *testing.M) {
	if dev := os.Getenv("PID1_TEST_OUTLIVE"); dev != "" {
		outliveMain(dev)
	}
	if play := os.Getenv("PID1_TEST_KEEPER"); play != "" {
		keeperMain(play)
	}
	if name := os.Getenv("PID1_TEST_SEND"); name != "" {
		sendMain(name)
	}
	if play := os.Getenv("PID1_TEST_CHILD"); play != "" {
		childMain(play)
	}
	os.Exit(m.Run())
}

func childMain(play string) {
	beat := Heartbeat()
	fmt.Println("args", strings.Join(os.Args[1:], " "))
	switch play {
	case "good":
		for range 1000 {
			beat()
		}
		fmt.Fprintln(os.Stderr, "to stderr")
		// An orphan: the test's process is no init, so it only must not confuse.
		exec.Command("/bin/sh", "-c", "sleep 0.1 &").Run()
	case "panic":
		panic("no more disks")
	case "killed":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "rescues":
		os.Exit(box.ExitRescuing)
	case "refuses":
		fmt.Fprintln(os.Stderr, "wrong use")
		os.Exit(2)
	}
	os.Exit(0)
}

func TestRunChild(t *testing.T) {
	for play, want := range map[string]string{
		"good":    "",
		"panic":   "exited with status 2: panic: no more disks",
		"killed":  "killed by signal 9",
		"refuses": "exited with status 2: wrong use",
	} {
		t.Run(play, func(t *testing.T) {
			t.Setenv("PID1_TEST_CHILD", play)
			var out lockedBuffer
			var beats atomic.Int64
			end, err := runChild("/proc/self/exe", []string{"run", "--reboot"}, &out, func() { beats.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
			if (want == "") != end.ok() || !strings.Contains(end.Error(), want) {
				t.Errorf("ended with %q, want %q", end, want)
			}
			if !strings.Contains(out.String(), "args run --reboot") {
				t.Errorf("the console has %q", out.String())
			}
			if play == "good" && (beats.Load() == 0 || !strings.Contains(out.String(), "to stderr")) {
				t.Errorf("%d heartbeats, console %q", beats.Load(), out.String())
			}
		})
	}
}

func TestRunChildCannotStart(t *testing.T) {
	if _, err := runChild("/nonexistent", nil, &lockedBuffer{}, func() {}); err == nil {
		t.Error("a program that is not there ran")
	}
}

func TestHeartbeatWithoutInit(t *testing.T) { Heartbeat()() }

func TestTail(t *testing.T) {
	var tl tail
	for i := range 3 * tailSize / 100 {
		fmt.Fprintf(&tl, "%099d\n", i)
	}
	s := tl.String()
	if len(s) != tailSize || !strings.HasSuffix(s, fmt.Sprintf("%099d\n", 3*tailSize/100-1)) {
		t.Errorf("kept %d bytes ending in %q", len(s), s[len(s)-10:])
	}
}

// A terminal that someone stopped with Ctrl-S must not hold anything up.
func TestConsoleNeverBlocks(t *testing.T) {
	c := newConsole()
	stuck := make(chan struct{})
	defer close(stuck)
	c.add(writerFunc(func(b []byte) (int, error) { <-stuck; return len(b), nil }))
	var good lockedBuffer
	c.add(&good)
	for i := range 2 * consoleQueue {
		fmt.Fprintf(c, "line %d\n", i)
		time.Sleep(time.Microsecond)
	}
	start := time.Now()
	c.drain(10 * time.Millisecond)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("drain took %v", took)
	}
	waitFor(t, "the good console", func() bool { return strings.HasPrefix(good.String(), "line 0\nline 1\n") })
}

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulse(time.Minute)
		dead := time.Time{}
		go p.guard(func() { dead = time.Now() })
		for range 5 {
			time.Sleep(50 * time.Second)
			p.beat()
		}
		last := time.Now()
		if !p.alive() {
			t.Error("dead at a beat")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if d := dead.Sub(last); d < time.Minute || d > time.Minute+2*time.Second {
			t.Errorf("dead %v after the last beat", d)
		}
	})
}

// In rescue nobody beats any more, until the unit is started again.
func TestPulseRests(t *testing.T) {
	p := newPulse(time.Nanosecond)
	time.Sleep(time.Microsecond)
	if p.alive() {
		t.Error("alive without a beat")
	}
	if p.rest(); !p.alive() {
		t.Error("dead at rest")
	}
	p.beat()
	time.Sleep(time.Microsecond)
	if p.alive() {
		t.Error("a beat did not end the rest")
	}
}

func TestMountAllRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		areas := []area{
			{from: bootcfg.NFSPath{Server: netip.MustParseAddr("10.0.0.1"), Path: "/a"}, dir: t.TempDir() + "/a"},
			{from: bootcfg.NFSPath{Server: netip.MustParseAddr("10.0.0.1"), Path: "/b"}, dir: t.TempDir() + "/b"},
		}
		var said lockedBuffer
		tries := 0
		mount := func(a area) error {
			if tries++; tries < 4 {
				return unix.ECONNREFUSED
			}
			return nil
		}
		start := time.Now()
		err := mountAll(context.Background(), areas, mount, func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) })
		if err != nil || tries != 5 || time.Since(start) != 3*mountRetry {
			t.Errorf("%v after %d tries and %v", err, tries, time.Since(start))
		}
		if n := strings.Count(said.String(), "cannot mount 10.0.0.1:/a"); n != 3 || !strings.Contains(said.String(), "mounted 10.0.0.1:/b") {
			t.Errorf("said\n%s", said.String())
		}
		if _, err := os.Stat(areas[1].dir); err != nil {
			t.Error(err)
		}
	})
}

func TestMountAllEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := mountAll(ctx, []area{{dir: t.TempDir()}}, func(area) error { return unix.EACCES }, func(string, ...any) {})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestMountWithoutBackup: the agent is reached without the backup area, so that
// an arming can end, but never without the area that has the boot file.
func TestMountWithoutBackup(t *testing.T) {
	from := bootcfg.NFSPath{Server: netip.MustParseAddr("10.0.0.1"), Path: "/a"}
	const limit = 5 * time.Minute
	for broken, want := range map[string]error{"": nil, "backup": nil, "tftp": context.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			areas := []area{{from: from, dir: t.TempDir(), mark: "tftp"}, {from: from, dir: t.TempDir(), mark: "backup", optional: true}}
			mount := func(a area) error {
				if a.mark == broken {
					return unix.EACCES
				}
				return nil
			}
			start := time.Now()
			err := mountAreas(ctx, areas, mount, limit, func(string, ...any) {})
			if !errors.Is(err, want) {
				t.Errorf("without %q: %v", broken, err)
			}
			if took := time.Since(start); broken == "" && took != 0 || broken == "backup" && took != limit {
				t.Errorf("without %q: it took %v", broken, took)
			}
		})
	}
}

// TestAreasOfAMode: share mode's areas are mounted in share mode only.
func TestAreasOfAMode(t *testing.T) {
	for mode, want := range map[bootcfg.Mode]int{bootcfg.ShareMode: 2, bootcfg.ServerMode: 0} {
		s := &system{cmd: &bootcfg.Cmdline{Mode: mode}}
		if got := s.areas(); len(got) != want {
			t.Errorf("in mode %q the areas are %v", mode, got)
		}
	}
}

// deadLog is a log that may not answer.
type deadLog struct {
	answers bool
	text    string
}

func (d *deadLog) Error(format string, args ...any) { d.text += fmt.Sprintf(format, args...) }
func (d *deadLog) Flush() error {
	if !d.answers {
		time.Sleep(time.Hour)
	}
	return nil
}

// TestObituary: why the agent died is in the box's log, and a log that does not
// answer holds up nothing for long.
func TestObituary(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			log := &deadLog{answers: answers}
			s := &system{cmd: &bootcfg.Cmdline{}, con: newConsole(),
				openLog: func(*bootcfg.Cmdline, func(string, ...any)) (Log, error) { return log, nil }}
			start := time.Now()
			s.obituary(errors.New("it died"))
			if took := time.Since(start); log.text != "it died" || took > time.Minute || answers && took > 0 {
				t.Errorf("a log that answers %v has %q after %v", answers, log.text, took)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

func TestAgentArgs(t *testing.T) {
	s := &system{cmd: &bootcfg.Cmdline{Host: "box42"}}
	args := s.agentArgs(netip.MustParseAddr("10.40.41.42"))
	if !slices.Equal(args[len(args)-4:], []string{"--address", "10.40.41.42", "--host", "box42"}) || args[0] != "run" ||
		args[1] != "--reboot" {
		t.Error(args)
	}
	// What process 1 says after the agent's death, it says in the agent's session.
	if i := slices.Index(args, "--run"); i < 0 || args[i+1] != bootcfg.RunDir {
		t.Error(args)
	}
	s.cmd.Host = ""
	if args := s.agentArgs(netip.Addr{}); slices.Contains(args, "--address") || slices.Contains(args, "--host") {
		t.Error(args)
	}
}

func TestFeedEvery(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{time.Minute: watchdogFeed, 15 * time.Second: 5 * time.Second} {
		if got := feedEvery(timeout); got != want {
			t.Errorf("%v: %v", timeout, got)
		}
	}
}

// When nothing moves any more the watchdog is to bite.
func TestFeedEnds(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := &system{live: newPulse(time.Nanosecond)}
	ended := make(chan struct{})
	go func() { s.feed(&watchdog{file: null, every: time.Millisecond}); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("it is fed on")
	}
}

// A watchdog of the software is taken only if asked for, one that does not
// open is passed over.
func TestOpenWatchdogChooses(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	for name, identity := range map[string]string{"watchdog0": softIdentity, "watchdog1": "broken", "watchdog2": "i6300ESB timer"} {
		os.MkdirAll(class+"/"+name, 0o755)
		os.WriteFile(class+"/"+name+"/identity", []byte(identity+"\n"), 0o644)
		if identity != "broken" {
			os.WriteFile(dev+"/"+name, nil, 0o644)
		}
	}
	for soft, want := range map[bool]string{false: "watchdog2 (i6300ESB timer)", true: "watchdog0 (Software Watchdog)"} {
		dog := openWatchdog(class, dev, soft)
		if dog == nil || dog.name != want || dog.timeout != watchdogTimeout {
			t.Errorf("soft %v gave %+v", soft, dog)
		}
	}
	if dog := openWatchdog(t.TempDir(), dev, false); dog != nil {
		t.Errorf("none gave %+v", dog)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

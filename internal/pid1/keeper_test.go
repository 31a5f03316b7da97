package pid1

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

// keeperMain plays the keeper that startKeeper starts.
func keeperMain(play string) {
	ready := os.NewFile(readyFD, "ready")
	switch play {
	case "mounts":
		session, _ := unix.Getsid(0)
		if os.Getenv(keeperEnv) == "" || session != os.Getpid() || os.Args[0] != "testbox-keeper" {
			os.Exit(1)
		}
		ready.WriteString(readyWord)
		ready.Close()
		time.Sleep(300 * time.Millisecond) // outlives its parent's wait
	case "dies":
	}
	os.Exit(0)
}

func TestStartKeeper(t *testing.T) {
	for play, want := range map[string]bool{"mounts": true, "dies": false} {
		t.Setenv("PID1_TEST_KEEPER", play)
		if err := startKeeper("/proc/self/exe", "/root"); (err == nil) != want {
			t.Errorf("%s: %v", play, err)
		}
		unix.Wait4(-1, nil, 0, nil)
	}
	if err := startKeeper("/nonexistent", "/root"); err == nil {
		t.Error("a program that is not there ran")
	}
}

// testInbox is a keeper's socket of a name of its own.
func testInbox(t *testing.T) (name string, beats, rescues *atomic.Int64) {
	t.Helper()
	name = fmt.Sprintf("@testbox-keeper-test-%d-%s", os.Getpid(), t.Name())
	inbox, err := listenKeeper(name)
	if err != nil {
		t.Fatal(err)
	}
	beats, rescues = new(atomic.Int64), new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		inbox.serve(func() { beats.Add(1) }, func() { rescues.Add(1) })
	}()
	t.Cleanup(func() { inbox.conn.Close(); <-done })
	return name, beats, rescues
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the keeper hears only root")
	}
}

func TestKeeperLine(t *testing.T) {
	needRoot(t)
	name, beats, rescues := testInbox(t)
	line, err := dialKeeper(name)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 100 {
		line.beat()
	}
	most := 1 + int64(time.Since(start)/lineEvery) // more than one on a slow machine
	// Whatever is no word of ours is passed over, and so are descriptors that
	// come along.
	for _, junk := range []string{"", "x", "..", "RR", strings.Repeat(".", 4000)} {
		line.conn.Write([]byte(junk))
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	raw, err := line.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte{wordBeat}, unix.UnixRights(int(null.Fd())), nil, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := line.rescue(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "rescue", func() bool { return rescues.Load() == 1 })
	if n := beats.Load(); n < 2 || n > most+1 {
		t.Errorf("%d beats, want one a second of 100, and that with a descriptor", n)
	}
}

// A keeper without a service, and a service without a keeper.
func TestKeeperLineGone(t *testing.T) {
	if _, err := dialKeeper("@testbox-keeper-nobody"); err == nil {
		t.Error("dialed nobody")
	}
	var none *keeperLine
	none.beat()
	if err := none.rescue(); err != nil {
		t.Error(err)
	}
	inbox, err := listenKeeper(fmt.Sprintf("@testbox-keeper-gone-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	line, err := dialKeeper(inbox.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	inbox.conn.Close()
	line.beat()
	if err := line.rescue(); err == nil {
		t.Error("a keeper that is gone heard")
	}
}

// A service must not hang on a keeper that does not listen.
func TestKeeperLineFull(t *testing.T) {
	inbox, err := listenKeeper(fmt.Sprintf("@testbox-keeper-full-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.conn.Close()
	line, err := dialKeeper(inbox.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for err == nil && time.Since(start) < time.Minute {
		err = line.send(wordBeat)
	}
	if netErr, ok := err.(net.Error); !ok || !netErr.Timeout() {
		t.Errorf("a full socket gave %v", err)
	}
}

// sendMain is another user's try to be the service.
func sendMain(name string) {
	line, err := dialKeeper(name)
	if err == nil {
		err = line.rescue()
	}
	if err != nil || os.Getuid() == 0 {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestKeeperHearsOnlyRoot(t *testing.T) {
	needRoot(t)
	name, beats, rescues := testInbox(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PID1_TEST_SEND="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	line, err := dialKeeper(name)
	if err != nil {
		t.Fatal(err)
	}
	line.beat()
	waitFor(t, "root's beat, behind the other's word", func() bool { return beats.Load() == 1 })
	if rescues.Load() != 0 {
		t.Error("any user can stop the keeper")
	}
}

// What modprobe says is told, and it is called without the initramfs's options.
func TestUdevDrivers(t *testing.T) {
	dir := t.TempDir()
	fake := "#!/bin/sh\n[ -z \"$MODPROBE_OPTIONS\" ] && [ $1 = softdog ] && exit 0\necho \"no module $*\"\nexit 1\n"
	if err := os.WriteFile(dir+"/modprobe", []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	t.Setenv("MODPROBE_OPTIONS", "-qb")
	var said lockedBuffer
	u := udevDrivers{func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) }, rootModules(&bootcfg.Cmdline{})}
	if !u.byName("softdog") || said.String() != "" {
		t.Errorf("said %q", said.String())
	}
	if u.loadAlways(); !strings.Contains(said.String(), "cannot load module overlay: exit status 1 no module overlay\n") || u.scan() != 0 {
		t.Errorf("said %q", said.String())
	}
}

// The ram form's boot file starts no keeper.
func TestBringRootNeedsRoot(t *testing.T) {
	s := testSystem(t, &bootcfg.Cmdline{})
	if err := s.bringRoot(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "names no root") {
		t.Error(err)
	}
}

func TestBusyUdev(t *testing.T) {
	queue := filepath.Join(t.TempDir(), "queue")
	if busyUdev(queue) != 0 {
		t.Error("udev is at work without a queue")
	}
	if err := os.WriteFile(queue, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if busyUdev(queue) != 1 {
		t.Error("udev's queue is not seen")
	}
}

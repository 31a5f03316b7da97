package pid1

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/testenv"
)

// What the played keeper and the test agree on.
const (
	outliveName  = "@testbox-keeper-outlives"
	outliveWords = "the service was heard"
)

// outliveMain plays a keeper that says on a terminal, which was hung up, that it
// heard the service, and ends.
func outliveMain(dev string) {
	root, err := os.OpenRoot(dev)
	if err != nil {
		panic(err)
	}
	term := &terminal{dev: root, name: "tty0"}
	if err := term.open(); err != nil {
		panic(err)
	}
	inbox, err := listenKeeper(outliveName)
	if err != nil {
		panic(err)
	}
	os.NewFile(readyFD, "ready").WriteString(readyWord)
	inbox.serve(func() {
		term.file.Close()
		if _, err := term.Write([]byte(outliveWords)); err != nil {
			panic(err)
		}
		os.Exit(0)
	}, func() {})
}

// TestKeeperOutlivesRoot changes the root as run-init does, in a mount
// namespace of its own, below a process that was started before.
func TestKeeperOutlivesRoot(t *testing.T) {
	if dir := os.Getenv(insideEnv); dir != "" {
		insideOutlive(t, dir)
		return
	}
	testenv.Root(t)
	testenv.Tools(t, "unshare")
	runInside(t, t.TempDir(), "TestKeeperOutlivesRoot", "--mount", "--net")
}

func insideOutlive(t *testing.T, dir string) {
	dev, root := filepath.Join(dir, "dev"), filepath.Join(dir, "root")
	for _, d := range []string{dev, root} {
		if err := mountDir("tmpfs", d, "tmpfs", ""); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dev+"/tty0", "", 0o644)
	if err := os.Mkdir(root+"/dev", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PID1_TEST_OUTLIVE", dev)
	if err := startKeeper("/proc/self/exe", root); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dev, root+"/dev", "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Chdir(root); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chroot("."); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/self"); err == nil {
		t.Fatal("the root is the old one")
	}
	line, err := dialKeeper(outliveName)
	if err != nil {
		t.Fatal(err)
	}
	line.beat()
	var status unix.WaitStatus
	if _, err := unix.Wait4(-1, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the keeper ended with %v, %v", status.ExitStatus(), err)
	}
	if text := read(t, "/dev/tty0"); text != outliveWords {
		t.Errorf("the terminal has %q", text)
	}
}

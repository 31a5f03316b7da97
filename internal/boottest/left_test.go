package boottest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/testenv"
)

// asTester makes this program a process that tests a disk which never ends.
const asTester = "TESTBOX_BOOT_TESTER"

func TestMain(m *testing.M) {
	switch os.Getenv(asTester) {
	case "":
		filtersAtStart, _ = filters(os.Getpid())
		os.Exit(m.Run())
	case "confined":
		os.Exit(confined())
	}
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	o := boottest.Emulated(boottest.Options{Timeout: time.Hour, Log: func(string, ...any) {}})
	_, err := boottest.Run(ctx, disk(sector("\x00", begin, serial, halt)), o)
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "the error is", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// confined tries what QEMU may do and may not. It ends with 0 if all is as it should be.
func confined() (code int) {
	open := func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	}
	must := func(what string, ok bool) {
		if !ok {
			fmt.Fprintln(os.Stderr, "not as it should be:", what)
			code = 1
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must("listening", err == nil)
	must("a file before", open("/etc/passwd") == nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := boottest.Confine(); err != nil {
			must(err.Error(), false)
			return
		}
		must("a file", errors.Is(open("/etc/passwd"), fs.ErrPermission))
		must("the memory of others", errors.Is(open(fmt.Sprintf("/proc/%d/mem", os.Getppid())), fs.ErrPermission))
		must("a library", open("/usr/bin/prlimit") == nil)
		must("a new file", errors.Is(os.WriteFile("/tmp/testbox-confined", nil, 0o600), fs.ErrPermission))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		must("a socket", err == nil)
		at := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
		err = unix.Connect(fd, at)
		must("a connection", err == unix.EACCES || version() < 4)
		if err := boottest.NoSockets(); err != nil {
			must(err.Error(), false)
		}
		must("a connection of a socket that was there", unix.Connect(fd, at) == unix.EPERM)
		_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must("a new socket", err == unix.EPERM)
		out, err := exec.Command("/usr/bin/prlimit", "--version").CombinedOutput()
		must("a program: "+string(out), err == nil)
		out, err = exec.Command("/usr/bin/cat", "/etc/passwd").CombinedOutput()
		must("a file of a program: "+string(out), err != nil)
	}()
	<-done
	must("a file of another thread", open("/etc/passwd") == nil)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must("a socket of another thread", err == nil && unix.Close(fd) == nil)
	return code
}

// version is what the kernel knows of Landlock.
func version() int {
	v, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	return int(v)
}

// TestConfined: what starts QEMU takes rights from it, also if it has no others to take, and keeps its own.
func TestConfined(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "prlimit")
	if version() <= 0 {
		t.Skip("this kernel has no Landlock")
	}
	for _, uid := range []int{0, 65534} {
		cmd := testerCommand(t, uid, "confined")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("as user %d: %v\n%s", uid, err, out)
		}
	}
}

// testerCommand is a process that is this program.
func testerCommand(t *testing.T, uid int, as string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir() // where also others may run the program
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	self, err := os.Executable()
	must(t, err)
	data, err := os.ReadFile(self)
	must(t, err)
	program := filepath.Join(dir, "tester")
	must(t, os.WriteFile(program, data, 0o755))
	cmd := exec.Command(program)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), asTester+"="+as)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// tester starts such a process, with capabilities that what it starts has too, and returns it and the number of its QEMU.
func tester(t *testing.T, uid int, capabilities ...uintptr) (cmd *exec.Cmd, qemu int) {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "qemu-system-x86_64", "nice", "prlimit")
	cmd = testerCommand(t, uid, "1")
	cmd.Stderr, cmd.SysProcAttr.AmbientCaps = os.Stderr, capabilities
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	until(t, "QEMU runs", func() bool {
		all, err := filepath.Glob("/proc/[0-9]*/stat")
		must(t, err)
		for _, path := range all {
			name, after := statOf(path)
			if strings.HasPrefix(name, "qemu") && len(after) > 1 && after[1] == strconv.Itoa(cmd.Process.Pid) && after[0] != "Z" {
				qemu, _ = strconv.Atoi(strings.Split(path, "/")[2])
			}
		}
		// It is settled when its filter of system calls is in place, beside that with which it is started.
		if qemu == 0 {
			return false
		}
		n, err := filters(qemu)
		return err == nil && n >= filtersAtStart+2
	})
	began := beginOf(qemu)
	t.Cleanup(func() { // what the code should have done
		if began != "" && beginOf(qemu) == began {
			syscall.Kill(qemu, syscall.SIGKILL)
		}
	})
	return cmd, qemu
}

// beginOf is the time at which a process began, and "" if it is none any more. Numbers of processes are used again.
func beginOf(pid int) string {
	const begun = 19
	if _, now := statOf(fmt.Sprintf("/proc/%d/stat", pid)); len(now) > begun && now[0] != "Z" {
		return now[begun]
	}
	return ""
}

// statOf has the name of a process, and what follows it in /proc/PID/stat: state, parent, and so on.
func statOf(path string) (name string, after []string) {
	stat, _ := os.ReadFile(path)
	head, rest, _ := strings.Cut(string(stat), ") ")
	_, name, _ = strings.Cut(head, "(")
	return name, strings.Fields(rest)
}

func statusOf(pid int) (map[string]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	m := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		m[key] = strings.Join(strings.Fields(value), " ")
	}
	return m, err
}

// filters is how many filters of system calls the main thread of a process has.
func filters(pid int) (int, error) {
	status, err := statusOf(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(status["Seccomp_filters"])
}

// filtersAtStart is how many this process had before its tests. Its main thread has another one when it was the one that
// started a QEMU.
var filtersAtStart int

// TestIsolated looks at a QEMU that was started by root: at its rights, its network and its files.
func TestIsolated(t *testing.T) {
	_, qemu := tester(t, 0)
	status, err := statusOf(qemu)
	must(t, err)
	for key, want := range map[string]string{"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "Seccomp": "2"} {
		if status[key] != want {
			t.Errorf("%s is %q and not %q", key, status[key], want)
		}
	}
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", qemu)); err != nil || strings.TrimSpace(string(score)) != "1000" {
		t.Errorf("it is not the first to go if memory is short: %s, %v", score, err)
	}
	for _, ns := range []string{"net", "ipc"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		must(t, err)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", qemu, ns))
		must(t, err)
		if ours == its {
			t.Errorf("it is in our namespace %s", ours)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", qemu))
	must(t, err)
	for _, fd := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", qemu, fd.Name()))
		must(t, err)
		ours := to == "/dev/null" || strings.HasPrefix(to, "/memfd:testbox-screen") || strings.HasPrefix(to, "/usr/share/") // firmware
		if strings.HasPrefix(to, "/") && !ours {
			t.Errorf("it has %s open", to)
		}
	}
	if len(fds) < 5 {
		t.Errorf("only %d of its files are seen", len(fds))
	}
}

// TestNoCapabilities: QEMU has none of the capabilities that the service of a server has, which is not root.
func TestNoCapabilities(t *testing.T) {
	cmd, qemu := tester(t, 65534, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW)
	const none = "0000000000000000"
	if status, _ := statusOf(cmd.Process.Pid); status["CapEff"] == none || status["CapAmb"] == none {
		t.Fatal("the process that tests has no capabilities")
	}
	status, err := statusOf(qemu)
	must(t, err)
	for _, key := range []string{"CapEff", "CapPrm", "CapAmb"} {
		if status[key] != none {
			t.Errorf("%s is %s", key, status[key])
		}
	}
}

// TestNothingStays: QEMU is gone when a test is interrupted, and soon after its tester is killed. Both with
// the rights of root, and of a user, who has less to hold it by.
func TestNothingStays(t *testing.T) {
	for _, c := range []struct {
		name   string
		uid    int
		signal syscall.Signal
	}{
		{"interrupted", 0, syscall.SIGTERM},
		{"killed", 0, syscall.SIGKILL},
		{"interrupted, by a user", 65534, syscall.SIGTERM},
		{"killed, by a user", 65534, syscall.SIGKILL},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, qemu := tester(t, c.uid)
			began := beginOf(qemu)
			gone := func() bool { return beginOf(qemu) != began }
			must(t, cmd.Process.Signal(c.signal))
			err := cmd.Wait()
			if c.signal == syscall.SIGTERM {
				must(t, err)
				if !gone() {
					t.Error("QEMU outlives a test that was interrupted")
				}
			}
			until(t, "QEMU is gone", gone)
			until(t, "no file is left", func() bool { // one of another test is there for a moment
				left, err := filepath.Glob("/var/tmp/testbox-boot-test-*")
				must(t, err)
				return len(left) == 0
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/testenv"
)

// mounting is a folder with a store that has a disk with an ext4 in its first
// partition, and the program, which is run as a person does.
type mounting struct {
	t                 *testing.T
	dir, at, disk, fs string
	program           string
}

// TestMount runs the program itself, since what it does is about processes.
func TestMount(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mkfs.ext4", "sfdisk", "mount", "umount", "cmp", "dd")
	program := testenv.Build(t, "cmd/testbox")
	for name, test := range map[string]func(*mounting){
		"returns": (*mounting).returns, "terminal closes": (*mounting).hangUp, "fails": (*mounting).fails, "in use": (*mounting).inUse,
		"killed": (*mounting).killed, "reader ends": (*mounting).readerEnds,
	} {
		t.Run(name, func(t *testing.T) { test(newMounting(t, program)) })
	}
}

func newMounting(t *testing.T, program string) *mounting {
	m := &mounting{t: t, dir: t.TempDir(), program: program}
	m.at, m.disk, m.fs = filepath.Join(m.dir, "mnt"), filepath.Join(m.dir, "disk"), filepath.Join(m.dir, "fs")
	m.sh(`mkdir mnt files && echo "it works" >files/hello && truncate -s 16M fs && mkfs.ext4 -q -d files fs`)
	m.sh(`truncate -s 32M disk && printf 'label: gpt\nstart=2048,size=16M\n' | sfdisk -q disk`)
	m.sh(`dd if=fs of=disk bs=1M seek=1 conv=notrunc status=none`)
	m.sh(`testbox store init && testbox image create nbox sda=disk`)
	t.Cleanup(func() {
		unix.Unmount(m.at, unix.MNT_DETACH)
		m.ended()
	})
	return m
}

// sh runs a line of shell in which testbox is the program, and gives what it
// printed on both. The pipe that it prints to must end with it.
func (m *mounting) sh(line string) string {
	m.t.Helper()
	out, err := m.try(line)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func (m *mounting) try(line string) (string, error) {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(m.program)+":"+os.Getenv("PATH"), "TESTBOX_STORE=store", "TMPDIR="+m.dir)
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// processes are those of the program that serve a mount of this store.
func (m *mounting) processes() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		text, _ := os.ReadFile(path)
		if bytes.HasPrefix(text, []byte("testbox\x00image\x00mount")) && bytes.Contains(text, []byte(m.dir)) {
			pid := 0
			fmt.Sscanf(path, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// wait waits until something is so.
func (m *mounting) wait(what string, so func() bool) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// ended waits until no process serves a mount any more.
func (m *mounting) ended() {
	m.t.Helper()
	m.wait("the mount's process ends", func() bool { return len(m.processes()) == 0 })
}

func (m *mounting) logs() (text string) {
	names, _ := filepath.Glob(filepath.Join(m.dir, "testbox-mount-*.log"))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		text += name + ": " + string(b)
	}
	return text
}

// returns: when image mount has returned the files can be opened, also
// where its output is read by a program; a process of its own session goes on,
// and holds the store, until the folder is unmounted.
func (m *mounting) returns() {
	t := m.t
	out := m.sh(`out=$(testbox image mount nbox mnt) && cmp disk mnt/sda.raw && cmp fs mnt/sda-part1.raw && echo "$out"`)
	for _, want := range []string{"is mounted on " + m.at, "sda.raw", "sda-part1.raw", "16.0 MiB  ext4", "umount " + m.at, "testbox-mount-"} {
		if !strings.Contains(out, want) {
			t.Errorf("it says %q, without %q", out, want)
		}
	}
	if out := m.sh("mkdir look && mount -o loop,ro mnt/sda-part1.raw look && cat look/hello && umount look"); out != "it works\n" {
		t.Errorf("the partition's file system says %q", out)
	}
	pids := m.processes()
	if len(pids) != 1 {
		t.Fatalf("the mount has the processes %v", pids)
	}
	if sid, err := unix.Getsid(pids[0]); err != nil || sid != pids[0] {
		t.Errorf("process %d is of the session %d, %v", pids[0], sid, err)
	}
	if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pids[0])); cwd != "/" {
		t.Errorf("the process is in %s", cwd)
	}
	m.sh("testbox image create nbox sda=disk && testbox image delete --keep-last 1 --yes")
	if out, err := m.try("testbox image mount nbox mnt"); err == nil || !strings.Contains(out, "umount") || len(m.processes()) != 1 {
		t.Errorf("a second mount says %v, %s", err, out)
	}
	m.sh("dd if=mnt/sda.raw of=/dev/null bs=1M iflag=direct && umount mnt")
	m.ended()
	if log := m.logs(); log != "" {
		t.Errorf("it leaves a log: %s", log)
	}
}

// fails: the exit code tells that it is not mounted, what is wrong is
// said once, and nothing is left.
func (m *mounting) fails() {
	t := m.t
	for line, want := range map[string]string{
		"testbox image mount typo mnt":                     "exit status 2: testbox: typo has no backup",
		"testbox image mount nbox nosuch":                  "exit status 2: testbox: there is no folder " + m.dir + "/nosuch",
		"testbox image mount --foreground nbox disk":       "exit status 2: testbox: disk is no folder",
		"testbox image mount nbox ''":                      "exit status 2: testbox: the name of the folder is empty",
		"testbox image mount nbox files":                   "exit status 2: testbox: " + m.dir + "/files is not empty",
		"TESTBOX_STORE=files testbox image mount nbox mnt": "exit status 2: testbox: ",
	} {
		out, err := m.try(line)
		if got := fmt.Sprintf("%v: %s", err, out); !strings.HasPrefix(got, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	m.ended()
	if log := m.logs(); log != "" {
		t.Errorf("it leaves a log: %s", log)
	}
}

// inUse: an interrupt of a mount that is in use says in the log that it
// ends when nothing uses it any more, and it does.
func (m *mounting) inUse() {
	t := m.t
	m.sh("testbox image mount nbox mnt")
	f, err := os.Open(filepath.Join(m.at, "sda.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Kill(m.processes()[0], unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	m.wait("the log says so", func() bool { return strings.Contains(m.logs(), "ends by itself as soon as nothing uses it") })
	m.sh("cmp disk mnt/sda.raw")
	f.Close()
	m.ended()
	if _, err := os.Stat(filepath.Join(m.at, "sda.raw")); err == nil {
		t.Error("the folder is still mounted")
	}
}

// hangUp: the end of the terminal of a mount in the foreground takes it away,
// and leaves none that nobody serves.
func (m *mounting) hangUp() {
	// Whoever runs the tests with nohup has this signal ignored.
	m.sh("env --default-signal=HUP testbox image mount --foreground nbox $PWD/mnt >said 2>&1 &")
	m.wait("the mount is there", func() bool {
		text, _ := os.ReadFile(filepath.Join(m.dir, "said"))
		return bytes.Contains(text, []byte("an interrupt ends it"))
	})
	if err := unix.Kill(m.processes()[0], unix.SIGHUP); err != nil {
		m.t.Fatal(err)
	}
	m.ended()
	if names, err := os.ReadDir(m.at); err != nil || len(names) > 0 {
		m.t.Errorf("the folder has %v, %v", names, err)
	}
}

// readerEnds: a mount is served on when nobody reads what is printed any more.
func (m *mounting) readerEnds() {
	m.sh("testbox image mount nbox mnt | true; cmp disk mnt/sda.raw && umount mnt")
	m.sh("testbox image mount --foreground nbox $PWD/mnt 2>&1 | true &")
	m.wait("the mount is there", func() bool {
		_, err := os.Stat(filepath.Join(m.at, "sda.raw"))
		return err == nil
	})
	time.Sleep(100 * time.Millisecond) // it prints
	m.sh("cmp disk mnt/sda.raw && umount mnt")
}

// killed: who meets what a killed mount left is told what to do, and
// the next mount there does it.
func (m *mounting) killed() {
	t := m.t
	m.sh("testbox image mount nbox mnt")
	if err := unix.Kill(m.processes()[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.ended()
	m.wait("the folder is a dead mount", func() bool {
		_, err := os.Stat(m.at)
		return errors.Is(err, syscall.ENOTCONN)
	})
	out, err := m.try("testbox image create other sda=mnt/sda.raw")
	const want = "the program that served the mount on mnt was killed; `umount mnt`, or without root `fusermount3 -u mnt`"
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("below a dead mount: %v, %s", err, out)
	}
	out = m.sh("testbox image mount nbox mnt && cmp disk mnt/sda.raw && umount mnt")
	if !strings.Contains(out, "a mount that was killed had left on "+m.at) {
		t.Errorf("over a dead mount it says %s", out)
	}
}

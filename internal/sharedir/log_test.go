package sharedir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

func eightOClock() time.Time {
	return time.Date(2026, 11, 22, 9, 0, 0, 0, time.FixedZone("", 3600))
}

// newLog is a log on a file system in memory.
func newLog(t testing.TB) (*Log, *faults.Volatile, *bytes.Buffer) {
	t.Helper()
	v, console := newArea(t), &bytes.Buffer{}
	return openFolder(t, v).Log("web1", LogOptions{Append: v.Append, Console: console, Now: eightOClock}), v, console
}

func wantText(t testing.TB, fsys durable.FS, file, want string) {
	t.Helper()
	got, err := durable.ReadFile(fsys, filepath.Join(root, file), 16<<20)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s has\n%s\nwant\n%s", file, got, want)
	}
}

const (
	boxLog    = "10.40.41.42/maintenance.log"
	boxOutput = "10.40.41.42/maintenance-output.log"
	stamp     = "2026-11-22T08:00:00+00:00: 10.40.41.42: "
)

func TestLog(t *testing.T) {
	l, v, console := newLog(t)
	l.Hello()
	l.Announce("action: %s", "backup")
	l.Info("disk %s", "sda")
	l.Output("sda1 ext4\r\nsda2 swap\n\n")
	l.Error("first\nsecond\x1b[2J")
	session := "==================== 2026-11-22T08:00:00+00:00: 10.40.41.42: web1 ====================\n"
	failed := stamp + "error: first\n" + stamp + `error: second\x1b[2J` + "\n"
	wantText(t, v, boxLog, session+stamp+"info: action: backup\n"+stamp+"info: disk sda\n"+failed)
	everything := session + stamp + "info: action: backup\n" + stamp + "info: disk sda\nsda1 ext4\nsda2 swap\n" + failed
	wantText(t, v, boxOutput, everything)
	wantText(t, v, "maintenance.log", stamp+"info: hello from web1\n"+stamp+"info: action: backup\n"+failed)
	if console.String() != everything {
		t.Errorf("console has\n%s", console)
	}
}

// TestConsoleLog: without an area nothing is written and nothing is missing.
func TestConsoleLog(t *testing.T) {
	var console bytes.Buffer
	l := ConsoleLog(openFolder(t, newArea(t)).addr, "web1",
		LogOptions{Console: &console, Now: eightOClock, Append: func(path string, _ []byte) (int, error) {
			t.Errorf("%q was written", path)
			return 0, syscall.EIO
		}})
	l.Hello()
	l.Announce("action")
	l.Error("error")
	if err := l.Flush(); err != nil {
		t.Error(err)
	}
	if want := stamp + "info: action\n" + stamp + "error: error\n"; !strings.HasSuffix(console.String(), want) {
		t.Errorf("console has\n%s", &console)
	}
}

// TestLogAreaGone: lines of a while in which nothing can be written are written
// later, in order, and no call fails.
func TestLogAreaGone(t *testing.T) {
	l, v, console := newLog(t)
	gone := false
	l.opt.Append = func(path string, data []byte) (int, error) {
		if gone {
			n, _ := v.Append(path, data[:len(data)/2]) // torn
			return n, syscall.ESTALE
		}
		return v.Append(path, data)
	}
	l.Info("one")
	gone = true
	l.Info("two")
	l.Error("three")
	if err := l.Flush(); err == nil || !strings.Contains(err.Error(), boxLog) || !strings.Contains(err.Error(), boxOutput) {
		t.Errorf("flush says %v", err)
	}
	gone = false
	l.Info("four")
	must(t, l.Flush())
	wantText(t, v, boxLog, stamp+"info: one\n"+stamp+"info: two\n"+stamp+"error: three\n"+stamp+"info: four\n")
	wantText(t, v, "maintenance.log", stamp+"error: three\n")
	for _, says := range []string{"cannot write to /area/" + boxLog, "writing to /area/" + boxLog + " again"} {
		if strings.Count(console.String(), says) != 1 {
			t.Errorf("console does not say once %q:\n%s", says, console)
		}
	}
}

func TestLogKeepsLittle(t *testing.T) {
	l, v, _ := newLog(t)
	l.opt.Append = func(string, []byte) (int, error) { return 0, errors.New("gone") }
	for i := range 3000 {
		l.Info("%d %s", i, strings.Repeat("x", 4000))
	}
	if n := len(l.events.kept); n > maxKept {
		t.Errorf("%d bytes kept", n)
	}
	l.opt.Append = v.Append
	must(t, l.Flush())
	got, err := durable.ReadFile(v, root+"/"+boxLog, maxKept)
	must(t, err)
	lines := strings.Split(string(got), "\n")
	if lines[0] != "[lines are missing here]" || !strings.HasPrefix(lines[len(lines)-2], stamp+"info: 2999 ") {
		t.Errorf("kept lines run from %.80q to %.80q", lines[0], lines[len(lines)-2])
	}
	for i, line := range lines[1 : len(lines)-1] {
		if !strings.HasPrefix(line, stamp) {
			t.Fatalf("line %d is torn: %.80q", i+1, line)
		}
	}
}

// TestGlobalLogOverwritten: another box's line lands where ours was written.
func TestGlobalLogOverwritten(t *testing.T) {
	l, v, _ := newLog(t)
	lost := 0
	l.opt.Append = func(path string, data []byte) (int, error) {
		if path == root+"/maintenance.log" && lost < 2 {
			lost++
			_, err := v.Append(path, []byte("a line of another box\n"))
			return len(data), err
		}
		return v.Append(path, data)
	}
	l.Error("disk is broken")
	wantText(t, v, "maintenance.log", strings.Repeat("a line of another box\n", 2)+stamp+"error: disk is broken\n")
	wantText(t, v, boxLog, stamp+"error: disk is broken\n")
}

func TestLogFromManyGoroutines(t *testing.T) {
	l, v, _ := newLog(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				l.Info("worker %d", i)
			}
		})
	}
	wg.Wait()
	got, err := durable.ReadFile(v, root+"/"+boxLog, 1<<20)
	must(t, err)
	if n := strings.Count(string(got), "\n"+stamp+"info: worker "); n != 159 {
		t.Errorf("%d whole lines after the first", n)
	}
}

func TestAppendFile(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "log")
	for _, line := range []string{"one\n", "two\n"} {
		n, err := AppendFile(path, []byte(line))
		if n != 4 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	got, err := os.ReadFile(path)
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	if string(got) != "one\ntwo\n" || st.Mode().Perm() != 0o664 {
		t.Errorf("log has %q, mode %v", got, st.Mode())
	}
	must(t, os.Rename(path, path+".1")) // the admin rotates it
	if _, err := AppendFile(path, []byte("three\n")); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "three\n" {
		t.Errorf("new log has %q", got)
	}
}

// TestAppendFileHostile: a log that a hostile box made something else.
func TestAppendFileHostile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "disk")
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	must(t, errors.Join(os.WriteFile(target, []byte("partition table"), 0o644), os.Symlink(target, link), syscall.Mkfifo(pipe, 0o644)))
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	must(t, err)
	defer reader.Close()
	for _, path := range []string{link, pipe, dir, filepath.Join(dir, "missing", "log")} {
		if n, err := AppendFile(path, []byte("line\n")); err == nil || n != 0 {
			t.Errorf("%s: %d bytes written, %v", path, n, err)
		}
	}
	if got, _ := os.ReadFile(target); string(got) != "partition table" {
		t.Errorf("the link's target has %q", got)
	}
}

func FuzzVisibleLines(f *testing.F) {
	for _, s := range []string{"", "plain", "a\tb", "two\nlines\r\n", "\x1b]0;title\a", "\xff\xfe", "\u202egnp.exe", "\u2028", "\r",
		strings.Repeat("x", 5000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := visibleLines(s)
		if len(lines) == 0 {
			t.Fatal("no line")
		}
		for _, line := range lines {
			if len(line) > maxLine+100 {
				t.Errorf("line of %d bytes", len(line))
			}
			for _, r := range line {
				if r != '\t' && (!unicode.IsPrint(r) || r == '\n') {
					t.Errorf("%q holds %U", line, r)
				}
			}
			if again := visible(line); len(line) < maxLine && again != line {
				t.Errorf("%q becomes %q", line, again)
			}
		}
		if got := fmt.Sprint(lines); len(s) < maxLine && visible(s) == s && got != "["+s+"]" {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

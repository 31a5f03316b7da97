package sharedir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// osArea is an area of the operating system's file system.
func osArea(t *testing.T) *Folder {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, Marker), nil, 0o644))
	return openOS(t, dir)
}

func openOS(t *testing.T, dir string) *Folder {
	t.Helper()
	area, err := Open(durable.OS{}, dir)
	must(t, err)
	f, err := area.Box(address(t))
	must(t, err)
	return f
}

func TestOnDisk(t *testing.T) {
	f := osArea(t)
	must(t, f.SetNames("web1"))
	must(t, backup(f, armingA, None, "sda", "sdb"))
	must(t, backup(f, armingB, Retire, "sda"))
	es, err := f.Images()
	must(t, err)
	checkEntries(t, es, "sda+")
	old, err := f.OldImages()
	must(t, err)
	checkEntries(t, old, "sda+", "sdb+")
	if ahead, err := f.Clock(); err != nil || ahead.Abs() > 3*time.Second {
		t.Errorf("clock is ahead by %v (%v)", ahead, err)
	}
	if free, known := f.Free(); !known || free <= 0 {
		t.Errorf("free space %d, known %v", free, known)
	}
	l := f.Log("web1", LogOptions{})
	l.Hello()
	l.Error("an error")
	must(t, l.Flush())
	for _, path := range []string{f.Path(box.LogFile), f.Path(outputName), f.area.GlobalLog(), f.Path("web1"), f.Path("sda.raw.gz")} {
		st, err := os.Stat(path)
		if err != nil || st.Size() == 0 || st.Mode().Perm() != 0o664 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
}

// TestKilledAgent kills a process that makes one backup after the other, again
// and again, and looks at what it left. The process says when it begins, and
// when it has made its first and its second backup. Each round waits for one of
// these lines and kills it a while later, so a slow machine kills no sooner.
func TestKilledAgent(t *testing.T) {
	f := osArea(t)
	for round := range 20 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SHAREDIR_AGENT="+f.area.root)
		pipe, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(pipe)
		for range round%3 + 1 {
			if !lines.Scan() {
				t.Fatalf("the process ended by itself: %v", lines.Err())
			}
		}
		time.Sleep(time.Duration(round*700) * time.Microsecond)
		must(t, child.Process.Kill())
		child.Wait()
		must(t, f.Recover())
		checkWhole(t, f)
	}
	if es, err := f.OldImages(); err != nil || len(es) == 0 {
		t.Errorf("no agent came as far as to a second backup: %v, %v", es, err)
	}
}

// checkWhole wants the current images to be of one arming, and the old ones.
func checkWhole(t *testing.T, f *Folder) {
	t.Helper()
	for what, list := range map[string]func() ([]Entry, error){"images": f.Images, "old images": f.OldImages} {
		es, err := list()
		must(t, err)
		if len(es) != 0 {
			checkEntries(t, es, "sda+", "sdb+")
		}
		for _, e := range es {
			got, err := os.ReadFile(e.Path)
			if err != nil || string(got) != string(imageBytes(e.Facts.Arming, e.Name)) || e.Facts.Arming != es[0].Facts.Arming {
				t.Errorf("%s: %s of %s is wrong or mixed with %s (%v)", what, e.Name, e.Facts.Arming, es[0].Facts.Arming, err)
			}
		}
	}
}

// TestMain is the process that TestKilledAgent kills, if it is asked to be.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SHAREDIR_AGENT"); dir != "" {
		fmt.Println(agentToKill(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// agentToKill makes backups until it is killed, or one fails. It prints a line
// before the first one, and after the first two.
func agentToKill(dir string) error {
	area, err := Open(durable.OS{}, dir)
	if err != nil {
		return err
	}
	addr, err := box.ParseAddr("10.40.41.42")
	if err != nil {
		return err
	}
	f, err := area.Box(addr)
	for n := 0; err == nil; n++ {
		if n <= 2 {
			fmt.Println(n, "backups are made")
		}
		err = backup(f, box.NewArming(), Retire, "sda", "sdb")
	}
	return err
}

func TestSmallFiles(t *testing.T) {
	f := osArea(t)
	if _, err := f.ReadDisks(); !errors.Is(err, ErrNoDisks) {
		t.Errorf("no list of disks: %v", err)
	}
	must(t, f.WriteFile(box.DisksFile, []byte("sda\n")))
	if data, err := f.ReadDisks(); string(data) != "sda\n" {
		t.Errorf("list of disks is %q, %v", data, err)
	}
}

// TestLinkToAnotherBox: two boxes never share a folder. A link to a folder of no other
// box is an admin's own affair.
func TestLinkToAnotherBox(t *testing.T) {
	f := osArea(t)
	root := filepath.Dir(f.Dir())
	must(t, os.WriteFile(f.Path(box.DisksFile), []byte("sda\n"), 0o644))
	area, err := Open(durable.OS{}, root)
	must(t, err)
	other, err := box.ParseAddr("10.0.0.99")
	must(t, err)
	link := filepath.Join(root, other.String())
	for what, to := range map[string]string{"a link": f.addr.String(), "a link by a link": "between", "an absolute link": f.Dir()} {
		if to == "between" {
			must(t, os.Symlink(f.addr.String(), filepath.Join(root, to)))
		}
		must(t, os.Symlink(to, link))
		var refused *problem.Error
		if _, err := area.Box(other); !errors.As(err, &refused) || !strings.Contains(err.Error(), "is a link to that of box "+f.addr.String()) {
			t.Errorf("%s: %v", what, err)
		}
		if data, err := area.Look(other).ReadDisks(); !errors.As(err, &refused) {
			t.Errorf("%s: the disks are %q, %v", what, data, err)
		}
		must(t, os.Remove(link))
	}
	elsewhere := t.TempDir()
	must(t, os.Symlink(elsewhere, link))
	g, err := area.Box(other)
	must(t, err)
	must(t, g.WriteFile(box.InfoText, []byte("x")))
	if _, err := os.Stat(filepath.Join(elsewhere, box.InfoText)); err != nil {
		t.Error(err)
	}
	if _, err := area.Look(other).ReadDisks(); !errors.Is(err, ErrNoDisks) {
		t.Error(err)
	}
}

package bootfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// newFolder makes a folder of boot files in a TFTP area of its own.
func newFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), bootcfg.ConfigDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newText makes the boot file of a new arming.
func newText(t *testing.T, action box.Action) ([]byte, box.Arming) {
	t.Helper()
	server := netip.MustParseAddr("10.88.0.1")
	c := bootcfg.Cmdline{
		Action: action, Arming: box.NewArming(), Address: addr,
		TFTP: bootcfg.NFSPath{Server: server, Path: "/t"}, Backup: bootcfg.NFSPath{Server: server, Path: "/b"},
	}
	text, err := bootcfg.Generate(bootcfg.BootFile{Cmdline: c, Kernel: "k", Initrd: "i"})
	if err != nil {
		t.Fatal(err)
	}
	return text, c.Arming
}

// armedFor is the arming that is in place; "" is none.
func armedFor(t *testing.T, dir string) box.Arming {
	t.Helper()
	file, err := New(durable.OS{}, dir).Read(addr)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil || file.Cmdline == nil {
		t.Fatalf("%+v, %v", file, err)
	}
	return file.Cmdline.Arming
}

// TestArmedWhileArming lets another admin arm the box, or disarm it, before each
// operation of Write. Who is told that the box is armed finds the own arming in
// place.
func TestArmedWhileArming(t *testing.T) {
	for _, c := range []struct {
		replace, otherReplaces, disarms bool
	}{{}, {replace: true}, {otherReplaces: true}, {replace: true, otherReplaces: true}, {disarms: true}, {replace: true, disarms: true}} {
		seen := 0
		for k := 1; ; k++ {
			dir := newFolder(t)
			mine, myID := newText(t, box.Backup)
			others, otherID := newText(t, box.Restore)
			var otherErr error
			reached := false
			m := &meanwhile{FS: durable.OS{}, do: map[int]func(){k: func() {
				reached = true
				if c.disarms {
					_, otherErr = New(durable.OS{}, dir).Disarm(addr, myID)
				} else {
					otherErr = New(durable.OS{}, dir).Write(addr, others, c.otherReplaces)
				}
			}}}
			err := New(m, dir).Write(addr, mine, c.replace)
			if !reached {
				break
			}
			seen++
			when := fmt.Sprintf("%+v, before operation %d of %d", c, k, m.n)
			stands := armedFor(t, dir)
			switch {
			case (err == nil) != (stands == myID):
				t.Errorf("%s: %v, and %q is in place", when, err, stands)
			case c.disarms && (err == nil) == (otherErr == nil):
				t.Errorf("%s: %v, and disarmed: %v", when, err, otherErr)
			case !c.disarms && otherErr != nil && stands == otherID:
				t.Errorf("%s: the other one is told %v", when, otherErr)
			case err == nil && otherErr == nil && !c.replace:
				t.Errorf("%s: both are told that it is armed", when)
			case !c.disarms && err != nil && !errors.Is(err, fs.ErrExist) && !errors.As(err, new(*ArmedAnewError)),
				c.disarms && err != nil && !errors.As(err, new(*DisarmedError)):
				t.Errorf("%s: %v", when, err)
			}
			if left := names(t, dir); left != addr.Hex() && !(c.disarms && left == "") {
				t.Errorf("%s: left is %q", when, left)
			}
		}
		if seen < 3 {
			t.Fatalf("only %d operations were seen", seen)
		}
	}
}

// TestArmedAtOnce: of many admins who arm a box at the same time, one does, and
// that arming is in place.
func TestArmedAtOnce(t *testing.T) {
	for range 20 {
		dir := newFolder(t)
		const admins = 8
		var ids [admins]box.Arming
		var errs [admins]error
		var wg sync.WaitGroup
		for i := range admins {
			text, id := newText(t, box.Backup)
			ids[i] = id
			wg.Go(func() { errs[i] = New(durable.OS{}, dir).Write(addr, text, false) })
		}
		wg.Wait()
		told := 0
		for i, err := range errs {
			if err == nil {
				told++
				if stands := armedFor(t, dir); stands != ids[i] {
					t.Errorf("%s is told that the box is armed, and %s is in place", ids[i], stands)
				}
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		}
		if told != 1 {
			t.Errorf("%d of %d are told that the box is armed", told, admins)
		}
	}
}

// TestLeftovers: what crashes left is no box, and the next write or removal of
// the same box's boot file removes it. What may be in use stays.
func TestLeftovers(t *testing.T) {
	for _, disarm := range []bool{false, true} {
		dir := newFolder(t)
		hex := addr.Hex()
		for name, age := range map[string]time.Duration{
			hex + ".tmp": 2 * time.Hour, hex + ".ABC.tmp": 2 * time.Hour, // left
			hex + ".XYZ.tmp": time.Minute, "0A58000C.ABC.tmp": 2 * time.Hour, hex + ".txt": 2 * time.Hour, // stay
		} {
			text, _ := newText(t, box.Restore)
			path, when := filepath.Join(dir, name), time.Now().Add(-age)
			if err := errors.Join(os.WriteFile(path, text, 0o644), os.Chtimes(path, when, when)); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := New(durable.OS{}, dir).List(); err != nil || len(all) != 0 {
			t.Errorf("leftovers are listed: %v, %v", all, err)
		}
		if later, err := New(durable.OS{}, dir).Later(addr); err != nil || len(later) != 0 {
			t.Errorf("a loader takes leftovers: %v, %v", later, err)
		}
		var err error
		if disarm {
			_, err = New(durable.OS{}, dir).Disarm(addr, arm(t, dir, box.Backup))
		} else {
			text, _ := newText(t, box.Backup)
			err = New(durable.OS{}, dir).Write(addr, text, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := hex + ".XYZ.tmp " + hex + ".txt 0A58000C.ABC.tmp"
		if !disarm {
			want = hex + " " + want
		}
		if left := names(t, dir); left != want {
			t.Errorf("disarm %v: left is %q, want %q", disarm, left, want)
		}
	}
}

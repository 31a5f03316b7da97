package bootfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

var addr = func() box.Addr {
	a, err := box.ParseHex("0A58000B")
	if err != nil {
		panic(err)
	}
	return a
}()

// arm writes a boot file of a new arming, as an admin does.
func arm(t *testing.T, dir string, action box.Action) box.Arming {
	t.Helper()
	text, id := newText(t, action)
	if err := durable.WriteFile(durable.OS{}, dir+"/"+addr.Hex(), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return id
}

// meanwhile does something before the k-th operation on the file system.
type meanwhile struct {
	durable.FS
	do map[int]func() // by k, counted from 1
	n  int
}

func (m *meanwhile) next() {
	m.n++
	if do := m.do[m.n]; do != nil {
		do()
	}
}

func (m *meanwhile) Open(path string) (durable.Readable, error) { m.next(); return m.FS.Open(path) }
func (m *meanwhile) Rename(a, b string) error                   { m.next(); return m.FS.Rename(a, b) }
func (m *meanwhile) RenameNew(a, b string) error                { m.next(); return m.FS.RenameNew(a, b) }
func (m *meanwhile) Remove(path string) error                   { m.next(); return m.FS.Remove(path) }
func (m *meanwhile) SyncDir(path string) error                  { m.next(); return m.FS.SyncDir(path) }

// names are the files in a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	all, err := (durable.OS{}).ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// TestArmedAnewWhileDisarming arms the box anew before each operation of Disarm,
// and a third time before each later one. The newest arming stays, whole, and
// nothing else does.
func TestArmedAnewWhileDisarming(t *testing.T) {
	for k := 1; ; k++ {
		reached := false
		for again := k; again <= k+6; again++ {
			dir := t.TempDir()
			first := arm(t, dir, box.Backup)
			var newest box.Arming
			anew := func() { newest = arm(t, dir, box.Restore) }
			m := &meanwhile{FS: durable.OS{}, do: map[int]func(){k: anew, again: anew}}
			removed, err := New(m, dir).Disarm(addr, first)
			if newest == "" {
				break
			}
			reached = true
			when := fmt.Sprintf("armed anew before operation %d and %d of %d", k, again, m.n)
			var other *ArmedAnewError
			if err != nil && !errors.As(err, &other) {
				t.Errorf("%s: %v", when, err)
			}
			if err == nil && removed.Cmdline.Arming != first {
				t.Errorf("%s: it says that %s was removed", when, removed.Cmdline.Arming)
			}
			if left := names(t, dir); left != addr.Hex() {
				t.Errorf("%s: left is %q", when, left)
				continue
			}
			if file, err := New(durable.OS{}, dir).Read(addr); err != nil || file.Cmdline == nil || file.Cmdline.Arming != newest {
				t.Errorf("%s: the newest arming is lost: %+v, %v", when, file, err)
			}
		}
		if !reached {
			if k < 5 {
				t.Fatalf("only %d operations were seen", k-1)
			}
			return
		}
	}
}

// TestDisarm: an arming is removed by its id, also if its file was edited, and
// nothing else is.
func TestDisarm(t *testing.T) {
	edit := func(dir string) error {
		text, err := os.ReadFile(dir + "/" + addr.Hex())
		return errors.Join(err, os.WriteFile(dir+"/"+addr.Hex(), append(text, "LABEL memtest\n  KERNEL memtest\n"...), 0o644))
	}
	for _, c := range []struct {
		what   string
		do     func(dir string) error
		mine   bool // the id that is asked for is that of the file
		gone   bool
		as     any // what the error is
		edited bool
	}{
		{what: "its own", mine: true, gone: true},
		{what: "its own, edited", do: edit, mine: true, gone: true, edited: true},
		{what: "another's", as: new(*ArmedAnewError)},
		{what: "another's, edited", do: edit, as: new(*NotOursError)},
		{what: "another program's", mine: true, as: new(*NotOursError), do: func(dir string) error {
			return os.WriteFile(dir+"/"+addr.Hex(), bootcfg.DefaultConfig(), 0o644)
		}},
		{what: "a folder", mine: true, as: new(*NotOursError), do: func(dir string) error {
			return errors.Join(os.Remove(dir+"/"+addr.Hex()), os.MkdirAll(dir+"/"+addr.Hex()+"/x", 0o755))
		}},
	} {
		dir := t.TempDir()
		id := arm(t, dir, box.Backup)
		if c.do != nil {
			if err := c.do(dir); err != nil {
				t.Fatal(err)
			}
		}
		if !c.mine {
			id = box.NewArming()
		}
		removed, err := New(durable.OS{}, dir).Disarm(addr, id)
		if left := names(t, dir); (left == "") != c.gone || (err == nil) != c.gone || c.as != nil && !errors.As(err, c.as) {
			t.Errorf("%s: left is %q, %v", c.what, left, err)
		}
		if err == nil && (removed.Err != nil) != c.edited {
			t.Errorf("%s: what was removed is %+v", c.what, removed)
		}
	}
	if _, err := New(durable.OS{}, t.TempDir()).Disarm(addr, box.NewArming()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a boot file: %v", err)
	}
}

// TestDisarmFails: whatever fails, a box of which it is not said that it is
// disarmed has its boot file, if the file system can give it back.
func TestDisarmFails(t *testing.T) {
	for k, hit := 1, true; hit; k++ {
		dir := t.TempDir()
		id := arm(t, dir, box.Backup)
		kth := &faults.Kth{FS: durable.OS{}, K: k}
		_, err := New(kth, dir).Disarm(addr, id)
		hit = kth.Failed() != ""
		switch left := names(t, dir); {
		case err == nil && left != "":
			t.Errorf("%s fails: disarmed, and left is %q", kth.Failed(), left)
		case err != nil && left != addr.Hex() && !strings.HasPrefix(kth.Failed(), "sync"):
			t.Errorf("%s fails: %v, and left is %q", kth.Failed(), err, left)
		}
		if err != nil && !errors.Is(err, faults.ErrInjected) {
			t.Errorf("%s fails: %v", kth.Failed(), err)
		}
	}
}

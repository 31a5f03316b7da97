package proc

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// The tests of this file are of the rig itself: a rig that cannot fail proves
// nothing.

func TestRigSquash(t *testing.T) {
	testenv.Root(t)
	src := tempDir(t)
	must(t, os.Mkdir(filepath.Join(src, "open"), 0o777))
	must(t, os.Chmod(filepath.Join(src, "open"), 0o777))
	must(t, os.Mkdir(filepath.Join(src, "closed"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "secret"), []byte("x"), 0o600))
	s := serveFolder(t, src, true)

	if err := os.WriteFile(filepath.Join(s.dir, "closed", "f"), nil, 0o644); !errors.Is(err, os.ErrPermission) {
		t.Errorf("root wrote into a folder of root's through the squashing mount: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(s.dir, "secret")); !errors.Is(err, os.ErrPermission) {
		t.Errorf("root read a file of root's through the squashing mount: %v", err)
	}
	f := filepath.Join(s.dir, "open", "f")
	must(t, os.WriteFile(f, []byte("hello"), 0o644))
	if err := os.Chown(f, 0, 0); !errors.Is(err, os.ErrPermission) {
		t.Errorf("chown through the squashing mount: %v", err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(src, "open", "f"), &st))
	if st.Uid != nobody || st.Gid != nobody {
		t.Errorf("a file made by root belongs to %d:%d, not to nobody", st.Uid, st.Gid)
	}
	must(t, os.Rename(f, f+"2"))
	if b, err := os.ReadFile(f + "2"); err != nil || string(b) != "hello" {
		t.Errorf("read back %q, %v", b, err)
	}
	must(t, os.Remove(f+"2"))
}

func TestRigFaults(t *testing.T) {
	testenv.Root(t)
	src := tempDir(t)
	s := serveFolder(t, src, false)
	path := filepath.Join(s.dir, "f")
	must(t, os.WriteFile(path, make([]byte, 64<<10), 0o644))
	write := func(off int64, n int) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{1}, n), off)
		return errors.Join(err, f.Sync(), f.Close())
	}
	t.Run("room", func(t *testing.T) {
		s.set(faultSet{Limited: true, Room: 8192})
		must(t, write(0, 8192))
		if err := write(0, 1); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("write without room: %v", err)
		}
		s.set(faultSet{Limited: true, LateFull: true})
		if err := write(0, 1); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("write and sync without room: %v", err)
		}
	})
	t.Run("fail", func(t *testing.T) {
		s.set(faultSet{FailAt: 2})
		if err := write(0, 1); !errors.Is(err, unix.EIO) { // 1 is the write, 2 the sync
			t.Errorf("failing sync: %v", err)
		}
		if n := s.state().Changes; n != 2 {
			t.Errorf("%d changes counted", n)
		}
	})
	t.Run("drop", func(t *testing.T) {
		s.set(faultSet{DropEvery: 1})
		before, err := os.ReadFile(filepath.Join(src, "f"))
		must(t, err)
		must(t, write(32<<10, 512))
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(before, after) || s.state().Dropped != 1 {
			t.Error("the write was not dropped")
		}
	})
	t.Run("drop one", func(t *testing.T) {
		before, err := os.ReadFile(filepath.Join(src, "f"))
		must(t, err)
		s.set(faultSet{DropAt: 3})
		must(t, write(8<<10, 512)) // 1 and its sync
		must(t, write(40<<10, 512))
		must(t, write(48<<10, 512))
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(after[40<<10:41<<10], before[40<<10:41<<10]) || after[8<<10] != 1 || after[48<<10] != 1 || s.state().Dropped != 1 {
			t.Errorf("not the third request was dropped, %d were", s.state().Dropped)
		}
	})
	t.Run("bad read", func(t *testing.T) {
		s.set(faultSet{BadReads: []image.Range{{Off: 4096, Len: 512}}})
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		if _, err := f.ReadAt(make([]byte, 512), 4096); !errors.Is(err, unix.EIO) {
			t.Errorf("read of a bad sector: %v", err)
		}
		if _, err := f.ReadAt(make([]byte, 512), 4608); err != nil {
			t.Errorf("read after a bad sector: %v", err)
		}
	})
}

func TestRigFreezeAndHold(t *testing.T) {
	testenv.Root(t)
	s := serveFolder(t, tempDir(t), false)
	path := filepath.Join(s.dir, "f")
	done := make(chan error)
	write := func() { done <- os.WriteFile(path, []byte("x"), 0o644) }

	s.set(faultSet{FreezeAt: 1})
	go write()
	select {
	case <-done:
		t.Fatal("a frozen server answered")
	case <-time.After(200 * time.Millisecond):
	}
	s.set(faultSet{})
	must(t, <-done)

	must(t, os.Remove(path))
	s.set(faultSet{HoldAt: 2})
	go write() // 1 creates, 2 writes
	for s.state().Held == "" {
		time.Sleep(time.Millisecond)
	}
	if held := s.state().Held; held != "write f" {
		t.Errorf("held %q", held)
	}
	s.release()
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("held write: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 0 {
		t.Errorf("the held write was done: %v, %v", st, err)
	}
}

// TestRigLoop checks that a loop device above a FUSE file sees the file's
// faults and nothing of a cache.
func TestRigLoop(t *testing.T) {
	testenv.Root(t)
	src := tempDir(t)
	data := make([]byte, 8<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(src, "d"), data, 0o644))
	s := serveFolder(t, src, false)
	dev := loop(t, filepath.Join(s.dir, "d"), 512, true, 0, 0)
	f, err := os.OpenFile(dev, os.O_RDWR|unix.O_DIRECT|unix.O_EXCL, 0)
	must(t, err)
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer unix.Munmap(buf)

	if _, err := f.ReadAt(buf, 1<<20); err != nil || !bytes.Equal(buf, data[1<<20:2<<20]) {
		t.Fatalf("plain read: %v", err)
	}
	s.set(faultSet{BadReads: []image.Range{{Off: 3<<20 + 512, Len: 512}}})
	if _, err := f.ReadAt(buf, 3<<20); !errors.Is(err, unix.EIO) {
		t.Errorf("read over a bad sector: %v", err)
	}
	if _, err := f.ReadAt(buf[:512], 3<<20); err != nil {
		t.Errorf("read before a bad sector: %v", err)
	}
	s.set(faultSet{DropEvery: 1})
	clear(buf)
	if _, err := f.WriteAt(buf, 4<<20); err != nil {
		t.Fatal(err)
	}
	must(t, f.Sync())
	if _, err := f.ReadAt(buf, 4<<20); err != nil || !bytes.Equal(buf, data[4<<20:5<<20]) {
		t.Errorf("a dropped write was seen: %v", err)
	}
	if s.state().Dropped == 0 {
		t.Error("no write was dropped")
	}
}

func TestRigReadOnly(t *testing.T) {
	testenv.Root(t)
	file := filepath.Join(tempDir(t), "d")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o644))
	path := loop(t, file, 512, false, 0, 0)
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer dev.Close()
	for _, ro := range []bool{false, true, false} {
		must(t, setReadOnly(dev, ro))
		if _, err := dev.WriteAt(make([]byte, 512), 0); errors.Is(err, unix.EPERM) != ro || readOnly(t, path) != ro {
			t.Errorf("read-only %v: write gave %v", ro, err)
		}
	}
}

func TestRigLoopSectorsAndParts(t *testing.T) {
	testenv.Root(t)
	file := filepath.Join(tempDir(t), "d")
	must(t, os.WriteFile(file, make([]byte, 8<<20), 0o644))
	size := func(dev string) (sector int, bytes uint64) {
		f, err := os.Open(dev)
		must(t, err)
		defer f.Close()
		sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
		must(t, err)
		n, err := f.Seek(0, 2)
		must(t, err)
		return sector, uint64(n)
	}
	if s, n := size(loop(t, file, 4096, false, 0, 0)); s != 4096 || n != 8<<20 {
		t.Errorf("sector %d, size %d", s, n)
	}
	if s, n := size(loop(t, file, 512, false, 1<<20, 2<<20)); s != 512 || n != 2<<20 {
		t.Errorf("part: sector %d, size %d", s, n)
	}
}

// TestRigContent lets other programs say what the contents are.
func TestRigContent(t *testing.T) {
	testenv.Root(t)
	for name, c := range map[string]struct {
		fill content
		is   string
	}{
		"ext4":  {plainExt4(1), `TYPE="ext4"`},
		"dirty": {dirtyExt4, `TYPE="ext4"`},
		"gpt":   {gptExt4(1), `PTTYPE="gpt"`},
		"swap":  {hibernatedSwap, `TYPE="swsuspend"`},
		"lvm":   {lvmPV, `TYPE="LVM2_member"`},
		"md":    {mdHalf, `TYPE="linux_raid_member"`},
	} {
		path := filepath.Join(tempDir(t), "d")
		must(t, os.WriteFile(path, nil, 0o644))
		must(t, os.Truncate(path, 16*mib))
		c.fill(t, path)
		if out := run(t, "", "blkid", "-p", path); !strings.Contains(out, c.is) {
			t.Errorf("%s: blkid says %s", name, out)
		}
		if st, err := os.Stat(path); err != nil || st.Size() != 16*mib {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

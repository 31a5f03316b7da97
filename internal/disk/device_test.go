package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"testbox-imaging/internal/testenv"
)

// fileDisk is a regular file of n bytes that stands for disk sda, by a link.
func fileDisk(t testing.TB, n int64, sector int) (devDir, file string, d Disk) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "image")
	devDir = filepath.Join(dir, "dev")
	must(t, os.WriteFile(file, nil, 0o600), os.Truncate(file, n), os.Mkdir(devDir, 0o755), os.Symlink(file, filepath.Join(devDir, "sda")))
	d = Disk{Name: "sda"}
	d.Size, d.SectorSize = n, sector
	return devDir, file, d
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, devDir string, d Disk, write bool) *Device {
	t.Helper()
	dev, err := Open(devDir, d, write)
	must(t, err)
	t.Cleanup(func() { dev.Close() })
	return dev
}

// checkLikeMemory does drawn reads, writes and zeroings, aligned and not, and
// holds the device to a slice of memory that gets the same, and
// at the end the file behind it.
func checkLikeMemory(t *testing.T, dev *Device, file string) {
	t.Helper()
	model := make([]byte, dev.Size())
	must(t, dev.ZeroAt(0, dev.Size()))
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			unit := rapid.SampledFrom([]int64{1, 512, 4096, 65536}).Draw(t, "unit")
			off := rapid.Int64Range(0, dev.Size()/unit).Draw(t, "offset") * unit
			n := rapid.Int64Range(0, 300).Draw(t, "length") * unit
			shift := rapid.SampledFrom([]int{0, 0, 1, 512}).Draw(t, "buffer")
			n = min(n, 3<<20)
			buf := AlignedBuffer(int(n) + shift)[shift:]
			switch op := rapid.SampledFrom([]string{"read", "write", "zero"}).Draw(t, "operation"); op {
			case "read":
				want := model[off:min(off+n, dev.Size())]
				got, err := dev.ReadAt(buf, off)
				if got != len(want) || !bytes.Equal(buf[:got], want) || (err == io.EOF) != (got < len(buf)) || err != nil && err != io.EOF {
					t.Fatalf("read of %d at %d: %d, %v, same %v", n, off, got, err, bytes.Equal(buf[:got], want))
				}
			case "write":
				b := byte(rapid.IntRange(1, 255).Draw(t, "byte"))
				for i := range buf {
					buf[i] = b + byte(i)
				}
				got, err := dev.WriteAt(buf, off)
				if inside := n <= dev.Size()-off; inside != (err == nil) || inside && got != len(buf) || !inside && got != 0 {
					t.Fatalf("write of %d at %d: %d, %v", n, off, got, err)
				}
				if err == nil {
					copy(model[off:], buf)
				}
			case "zero":
				err := dev.ZeroAt(off, n)
				if (n <= dev.Size()-off) != (err == nil) {
					t.Fatalf("zero of %d at %d: %v", n, off, err)
				}
				if err == nil {
					clear(model[off : off+n])
				}
			}
		}
	})
	must(t, dev.Sync())
	got, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(got, model) {
		t.Error("the file does not have what was written")
	}
}

func TestDeviceFile(t *testing.T) {
	for _, c := range []struct {
		size   int64
		sector int
	}{{4 << 20, 512}, {4 << 20, 4096}, {3<<20 + 512, 512}} {
		t.Run(fmt.Sprint(c.size, " in ", c.sector), func(t *testing.T) {
			devDir, file, d := fileDisk(t, c.size, c.sector)
			dev := open(t, devDir, d, true)
			if c.size%fileAlign != 0 && dev.direct {
				t.Error("O_DIRECT on a file whose end is no whole block")
			}
			if dev.Size() != c.size || dev.SectorSize() != c.sector {
				t.Errorf("%d bytes in sectors of %d", dev.Size(), dev.SectorSize())
			}
			checkLikeMemory(t, dev, file)
			must(t, dev.RereadPartitions(), Protect(devDir, d, true), Protect(devDir, d, false))
		})
	}
}

// Without O_DIRECT, as on file systems that have none.
func TestDeviceFileBuffered(t *testing.T) {
	devDir, file, d := fileDisk(t, 2<<20, 512)
	dev := open(t, devDir, d, true)
	must(t, dev.f.Close(), dev.openBuffered(file, true))
	checkLikeMemory(t, dev, file)
}

func TestOpenRefuses(t *testing.T) {
	devDir, _, d := fileDisk(t, 1<<20, 512)
	other, sectors, none, char, odd := d, d, d, d, d
	other.Size += 512
	sectors.SectorSize = 0
	none.Name = "sdq"
	char.Name, odd.Name = "null", "odd"
	odd.Size = 1000
	must(t, os.Symlink("/dev/null", filepath.Join(devDir, "null")), os.WriteFile(filepath.Join(devDir, "odd"), make([]byte, 1000), 0o600))
	for part, d := range map[string]Disk{
		"1048576 bytes, but sysfs says 1049088": other, "no such file": none, "neither a block device nor a file": char, "not whole sectors": odd,
	} {
		if dev, err := Open(devDir, d, false); err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), d.Name) {
			t.Errorf("%v, %v; want an error with %q", dev, err, part)
		}
	}
	if dev, err := Open(devDir, sectors, false); err == nil {
		t.Errorf("%v opened without a sector size", dev)
	}
	dev := open(t, devDir, d, false)
	if _, err := dev.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a disk opened for reading was written")
	}
	if _, err := dev.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a read at -1 is no error")
	}
	if err := dev.ZeroAt(0, -1); err == nil {
		t.Error("zeroing -1 bytes is no error")
	}
}

// TestOpenFlags: what is read does not come from the page cache, and what is
// read only cannot be written.
func TestOpenFlags(t *testing.T) {
	devDir, file, d := fileDisk(t, 1<<20, 512)
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Skipf("the file system has no O_DIRECT: %v", err)
	}
	must(t, f.Close())
	for write, access := range map[bool]int{false: unix.O_RDONLY, true: unix.O_RDWR} {
		dev := open(t, devDir, d, write)
		block := &Device{name: "sda"}
		if block.openBlock(file, write) == nil { // what it opens is no block device, but open
			t.Error("a file is taken for a block device")
		}
		for what, dev := range map[string]*Device{"file": dev, "block device": block} {
			flags, err := unix.FcntlInt(dev.f.Fd(), unix.F_GETFL, 0)
			must(t, err)
			if flags&unix.O_DIRECT == 0 || flags&unix.O_ACCMODE != access {
				t.Errorf("a %s, to be written %v, is opened with %#x", what, write, flags)
			}
			must(t, dev.Close())
		}
	}
}

// TestUncache: without O_DIRECT nothing of what is read next is in the page
// cache.
func TestUncache(t *testing.T) {
	const size = 1 << 20
	devDir, file, d := fileDisk(t, size, 512)
	var fs unix.Statfs_t
	must(t, unix.Statfs(file, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("on this file system all is in memory")
	}
	dev := open(t, devDir, d, true)
	must(t, dev.f.Close(), dev.openBuffered(file, true))
	_, err := dev.WriteAt(make([]byte, size), 0)
	must(t, err)
	m, err := unix.Mmap(int(dev.f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(m)
	cached := func() (n int) {
		pages := make([]byte, size/os.Getpagesize())
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m))), size,
			uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
		if errno != 0 {
			t.Fatal(errno)
		}
		for _, p := range pages {
			n += int(p & 1)
		}
		return n
	}
	if cached() == 0 {
		t.Skip("nothing that was written is in the page cache")
	}
	for range 100 { // the kernel drops no page that something else holds just now
		must(t, dev.uncache(0, size))
		if cached() == 0 {
			return
		}
	}
	t.Errorf("%d pages are still in the page cache", cached())
}

// TestLock: of two testboxes one writes a file, or both read it.
func TestLock(t *testing.T) {
	devDir, file, d := fileDisk(t, 1<<20, 512)
	for _, c := range []struct{ first, second, may bool }{{false, false, true}, {false, true, false}, {true, false, false},
		{true, true, false}} {
		first := open(t, devDir, d, c.first)
		second, err := Open(devDir, d, c.second)
		if c.may != (err == nil) || !c.may && !errors.Is(err, ErrInUse) {
			t.Errorf("open for writing %v, then %v: %v", c.first, c.second, err)
		}
		if err == nil {
			must(t, second.Close())
		}
		must(t, first.Close())
	}
	before, err := os.Stat(file)
	must(t, err, os.Rename(file, file+".away"), os.WriteFile(file, make([]byte, 1<<20), 0o600))
	dev := open(t, devDir, d, false)
	if err := dev.lockFile(before, false); err == nil {
		t.Error("a file that was replaced while it was opened is taken")
	}
}

// A disk that gives less than it has is no end of the disk.
func TestReadOfShrunkFile(t *testing.T) {
	devDir, file, d := fileDisk(t, 1<<20, 512)
	dev := open(t, devDir, d, false)
	must(t, os.Truncate(file, 512<<10))
	n, err := dev.ReadAt(AlignedBuffer(1<<20), 0)
	if n != 512<<10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestAlignedBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 1 << 20} {
		b := AlignedBuffer(n)
		if len(b) != n || cap(b) != n || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4096 != 0 {
			t.Errorf("%d bytes: length %d, capacity %d", n, len(b), cap(b))
		}
	}
}

// onSyncFolder opens a file of a page in a folder that counts syncs.
func onSyncFolder(t *testing.T) (s *testenv.Syncs, file string, dev *Device) {
	t.Helper()
	s = testenv.SyncFolder(t)
	file = filepath.Join(s.Dir, "image")
	must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	d := Disk{Name: "sda"}
	d.Size, d.SectorSize = 4096, 512
	dev, err := OpenPath(file, d, true)
	must(t, err)
	t.Cleanup(func() { dev.Close() })
	return s, file, dev
}

// TestSyncIsReal: what was written is synced by the operating system, and an
// error of that is told.
func TestSyncIsReal(t *testing.T) {
	s, _, dev := onSyncFolder(t)
	if _, err := dev.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	s.Counts()
	must(t, dev.Sync())
	if files, _ := s.Counts(); files != 1 {
		t.Errorf("the file is synced %d times", files)
	}
	s.Fail(unix.EIO, 0)
	if err := dev.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("a sync that fails: %v", err)
	}
	s.Fail(0, 0)
}

// TestUncacheSyncs: what was written is on the disk before it is read, without
// O_DIRECT.
func TestUncacheSyncs(t *testing.T) {
	s, file, dev := onSyncFolder(t)
	must(t, dev.f.Close(), dev.openBuffered(file, true))
	_, err := dev.WriteAt([]byte{1}, 0)
	must(t, err)
	s.Counts()
	for _, want := range []int{1, 0} {
		_, err = dev.ReadAt(make([]byte, 512), 0)
		must(t, err)
		if files, _ := s.Counts(); files != want {
			t.Errorf("a read syncs the file %d times, not %d", files, want)
		}
	}
}

// Parts of one block written at the same time are all kept.
func TestConcurrentWrites(t *testing.T) {
	devDir, file, d := fileDisk(t, 1<<20, 512)
	dev := open(t, devDir, d, true)
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			if _, err := dev.WriteAt(bytes.Repeat([]byte{byte(i)}, 1000), int64(i)*1000); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(file)
	must(t, err)
	for i := range 256 {
		if !bytes.Equal(got[i*1000:(i+1)*1000], bytes.Repeat([]byte{byte(i)}, 1000)) {
			t.Fatalf("write %d was lost", i)
		}
	}
}

func TestErrMedium(t *testing.T) {
	dev := &Device{name: "sda"}
	for errno, medium := range map[unix.Errno]bool{unix.EIO: true, unix.ENODATA: true, unix.EILSEQ: true, unix.ENODEV: false,
		unix.ENXIO: false, unix.EINVAL: false} {
		err := dev.wrap("read", 4096, &os.PathError{Op: "read", Path: "/dev/sda", Err: errno})
		if errors.Is(err, ErrMedium) != medium || !errors.Is(err, errno) || !strings.Contains(err.Error(), "disk sda: read at byte 4096") {
			t.Errorf("%v is of the medium: %v", err, !medium)
		}
	}
}

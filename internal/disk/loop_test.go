package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/testenv"
)

// The bench of these tests:
//
//	dev/sda -> /dev/loopN -> image (a file)
//	           /dev/loopNp1, p2 if the image has partitions

// loopDisk is a loop device of n bytes that is called sda below devDir.
func loopDisk(t testing.TB, n int64, sector int, args ...string) (devDir, file, node string, d Disk) {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "losetup")
	devDir, file, d = fileDisk(t, n, sector)
	node = strings.TrimSpace(run(t, "losetup", append([]string{"--find", "--show", "--sector-size", fmt.Sprint(sector), file}, args...)...))
	t.Cleanup(func() {
		setReadOnly(node, false)
		run(t, "losetup", "-d", node)
	})
	must(t, os.Remove(filepath.Join(devDir, "sda")), os.Symlink(node, filepath.Join(devDir, "sda")))
	must(t, Protect(devDir, d, false)) // a loop device keeps it from its last use
	return devDir, file, node, d
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestDeviceLoop(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			devDir, file, _, d := loopDisk(t, 4<<20, sector)
			dev := open(t, devDir, d, true)
			if !dev.direct || !dev.block || dev.SectorSize() != sector {
				t.Fatalf("%+v", dev)
			}
			checkLikeMemory(t, dev, file)
		})
	}
}

// What is read comes from the disk, also when the page cache has something
// else: here the disk (the file below) changes behind the kernel's back.
func TestReadPassesThePageCache(t *testing.T) {
	devDir, file, node, d := loopDisk(t, 1<<20, 512)
	cached, err := os.Open(node)
	must(t, err)
	defer cached.Close()
	b := AlignedBuffer(1 << 20)
	_, err = cached.ReadAt(b, 0)
	must(t, err)
	dev := open(t, devDir, d, false)
	below, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer below.Close()
	_, err = below.WriteAt([]byte("changed"), 4096)
	must(t, err)

	if _, err = cached.ReadAt(b[:512], 4096); err != nil || bytes.HasPrefix(b, []byte("changed")) {
		t.Fatalf("the page cache has the new bytes too (%v): this test shows nothing", err)
	}
	for _, off := range []int64{4096, 4095} { // aligned, and through a buffer
		if _, err = dev.ReadAt(b[:512], off); err != nil || !bytes.Contains(b[:512], []byte("changed")) {
			t.Errorf("read at %d: %q, %v", off, b[:10], err)
		}
	}
}

// TestLoopDoesNotTurn: the kernel says so of a loop device, and knows nothing of
// it.
func TestLoopDoesNotTurn(t *testing.T) {
	devDir, _, node, d := loopDisk(t, 1<<20, 512)
	dev := open(t, devDir, d, false)
	if dev.Rotational() || dev.Cached() {
		t.Errorf("a loop device turns: %v, is behind a cache: %v", dev.Rotational(), dev.Cached())
	}
	must(t, dev.Close())
	if says := queueAttr(node, "rotational"); says != "0" && says != "1" {
		t.Errorf("the kernel says %q of whether a loop device turns", says)
	}
}

func TestOpenLoopRefuses(t *testing.T) {
	devDir, _, _, d := loopDisk(t, 1<<20, 512)
	larger, sectors := d, d
	larger.Size *= 2
	sectors.SectorSize = 4096
	for part, d := range map[string]Disk{"1048576 bytes, but sysfs says 2097152": larger,
		"sectors of 512 bytes, but sysfs says 4096": sectors} {
		if dev, err := Open(devDir, d, false); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, %v; want an error with %q", dev, err, part)
		}
	}
	must(t, Protect(devDir, d, true))
	if _, err := Open(devDir, d, true); err == nil || !strings.Contains(err.Error(), "disk sda") {
		t.Errorf("a protected disk: %v", err)
	}
	must(t, open(t, devDir, d, false).Close())
	must(t, Protect(devDir, d, false))
	first := open(t, devDir, d, true)
	if _, err := Open(devDir, d, false); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a disk that is open already: %v", err)
	}
	must(t, first.Close())
}

// A disk of which a partition is mounted is in use, and the error says where.
func TestOpenMounted(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mkfs.ext4", "sfdisk")
	devDir, _, node, d := partitioned(t)
	run(t, "mkfs.ext4", "-q", node+"p1")
	dir := filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(dir, 0o755))
	run(t, "mount", node+"p1", dir)
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	_, err := Open(devDir, d, false)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "by a mount on "+dir) {
		t.Errorf("%v", err)
	}
	must(t, unix.Unmount(dir, 0))
	must(t, open(t, devDir, d, false).Close())
}

// partitioned is a disk with two partitions that the kernel knows.
func partitioned(t testing.TB) (devDir, file, node string, d Disk) {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "sfdisk", "partx", "losetup")
	devDir, file, node, d = loopDisk(t, 64<<20, 512, "--partscan")
	cmd := exec.Command("sfdisk", "-q", node)
	cmd.Stdin = strings.NewReader("label: gpt\nsize=20M\nsize=20M\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	run(t, "partx", "--update", node) // some kernels cannot read the table themselves
	waitFor(t, node+"p2")
	return devDir, file, node, d
}

// waitFor waits for a device node, which the kernel makes in its own time.
func waitFor(t testing.TB, node string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if exists(node) {
			return
		}
	}
	t.Fatalf("%s does not come", node)
}

// tryWrite writes to a device without our code; the error is the kernel's.
func tryWrite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	return errors.Join(err, f.Sync())
}

func sum(t testing.TB, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return sha256.Sum256(b)
}

func TestProtect(t *testing.T) {
	devDir, file, node, d := partitioned(t)
	extra, _, extraNode, _ := loopDisk(t, 1<<20, 512) // stands for a partition of the tree alone
	must(t, os.Symlink(extraNode, filepath.Join(devDir, "sda9")))
	_ = extra
	d.Parts = []string{"sda8", "sda9"}
	must(t, Protect(devDir, d, true))
	before := sum(t, file)
	for _, n := range []string{node, node + "p1", node + "p2", extraNode} {
		if err := tryWrite(n); err == nil {
			t.Errorf("%s was written", n)
		}
	}
	if sum(t, file) != before {
		t.Error("a protected disk was changed")
	}
	if ro, err := ReadOnly(devDir, d); err != nil || !ro {
		t.Errorf("a protected disk: read-only %v, %v", ro, err)
	}
	must(t, Protect(devDir, d, false))
	if ro, err := ReadOnly(devDir, d); err != nil || ro {
		t.Errorf("a disk that is not protected: read-only %v, %v", ro, err)
	}
	for _, n := range []string{node, node + "p1", node + "p2", extraNode} {
		must(t, tryWrite(n))
	}
	d.Name = "sdq"
	if err := Protect(devDir, d, true); err == nil || !strings.Contains(err.Error(), "sdq") {
		t.Errorf("a disk without node: %v", err)
	}
	if _, err := ReadOnly(devDir, d); err == nil || !strings.Contains(err.Error(), "sdq") {
		t.Errorf("a disk without node: %v", err)
	}
}

func TestRereadPartitions(t *testing.T) {
	devDir, _, node, d := partitioned(t)
	dev := open(t, devDir, d, true)
	must(t, dev.ZeroAt(0, 1<<20), dev.ZeroAt(d.Size-1<<20, 1<<20), dev.Sync())
	if !exists(node + "p1") {
		t.Fatal("the partitions are gone before the table was read anew")
	}
	must(t, dev.RereadPartitions())
	if parts := partitionsOf(node); len(parts) != 0 {
		t.Errorf("the kernel still has the partitions %q", parts)
	}
	must(t, dev.Close())

	plainDir, _, _, plain := loopDisk(t, 1<<20, 512) // a device that has no partitions
	must(t, open(t, plainDir, plain, true).RereadPartitions())
}

// Sectors that the disk cannot give: the file below is cut.
func TestReadUnreadable(t *testing.T) {
	devDir, file, _, d := loopDisk(t, 1<<20, 512)
	dev := open(t, devDir, d, false)
	must(t, os.Truncate(file, 512<<10))
	for _, off := range []int64{512 << 10, 512<<10 + 1} {
		n, err := dev.ReadAt(AlignedBuffer(4096), off)
		if !errors.Is(err, ErrMedium) || n != 0 {
			t.Errorf("read at %d: %d, %v", off, n, err)
		}
	}
	if n, err := dev.ReadAt(AlignedBuffer(4096), 0); n != 4096 || err != nil && err != io.EOF {
		t.Errorf("the readable part: %d, %v", n, err)
	}
}

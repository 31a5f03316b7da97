package proc

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// testDisk is a disk of a test's box. It is a file behind a loop device; what
// it is known by stands in the box's fake sysfs.
type testDisk struct {
	name      string // the kernel's
	size      int64  // bytes
	sector    int    // logical, bytes
	serial    string // "" is unknown
	wwn       string // NAA, 16 hexadecimal digits; "" is unknown
	model     string
	port      int // of the controller, from 1
	removable bool
	faulty    bool // behind a FUSE server that can do faults
	parts     []testPart
	fill      content // nil: zeros

	file   string // the backing file
	dev    string // the loop device
	server *server
}

// testPart is a partition that the kernel is said to have seen.
type testPart struct {
	number    int
	off, size int64  // bytes
	dev       string // a loop device over that part of the disk
}

// disk is an 8 MiB disk that is like no other of the box.
func disk(name string, fill content) *testDisk {
	n := name[len(name)-1] - 'a' + 1
	return &testDisk{name: name, size: 8 * mib, sector: 512, fill: fill, port: int(n), model: "TESTDISK 8", serial: "SERIAL-" + name,
		wwn: hex.EncodeToString([]byte{0x50, 0, 0xc5, 0, 0xa1, 0xb2, 0xc3, n})}
}

// ofSize makes the disk n bytes large.
func (d *testDisk) ofSize(n int64) *testDisk { d.size = n; return d }

// attach makes the disk's file and its loop devices.
func (d *testDisk) attach(t testing.TB) {
	t.Helper()
	dir := tempDir(t)
	d.file = filepath.Join(dir, "disk")
	must(t, os.WriteFile(d.file, nil, 0o644))
	must(t, os.Truncate(d.file, d.size))
	if d.fill != nil {
		d.fill(t, d.file)
	}
	backing := d.file
	if d.faulty {
		d.server = serveFolder(t, dir, false)
		backing = filepath.Join(d.server.dir, "disk")
	}
	d.dev = loop(t, backing, d.sector, d.faulty, 0, 0)
	for i := range d.parts {
		d.parts[i].dev = loop(t, backing, d.sector, d.faulty, d.parts[i].off, d.parts[i].size)
	}
}

// hash is of the disk's bytes, which must be on the disk and not in a cache.
func (d *testDisk) hash(t testing.TB) string {
	t.Helper()
	dev, err := os.Open(d.dev)
	must(t, err)
	must(t, unix.Fsync(int(dev.Fd())))
	must(t, dev.Close())
	return hashFile(t, d.file)
}

// hashFile is the BLAKE3 of a file, in hexadecimal.
func hashFile(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := blake3.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

// wreckSeed makes the noise of a wrecked disk.
const wreckSeed = 9999

// wreck overwrites all of the disk with bytes that are nobody's image.
func (d *testDisk) wreck(t testing.TB) { t.Helper(); d.put(t, noise(wreckSeed, int(d.size))) }

// put overwrites the disk, also if the agent has set it read-only.
func (d *testDisk) put(t testing.TB, data []byte) {
	t.Helper()
	f, err := os.OpenFile(d.dev, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, setReadOnly(f, false))
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
}

// noMixture reports whether a wrecked disk on which a restore was broken off is
// no mixture that could start: its first MiB is clear, or nothing but the last
// MiB was written.
func (d *testDisk) noMixture(t testing.TB) bool {
	t.Helper()
	d.hash(t) // flushes
	got, err := os.ReadFile(d.file)
	must(t, err)
	end := d.size - mib
	return bytes.Count(got[:mib], []byte{0}) == mib || bytes.Equal(got[mib:end], noise(wreckSeed, int(d.size))[mib:end])
}

package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/image"
)

// ErrMedium is matched by the error of a read that failed because the disk
// cannot read some sectors. A disk that is gone gives another error.
var ErrMedium = errors.New("unreadable sectors")

// fileAlign is the alignment for O_DIRECT on regular files. In practice no file
// system is on a device with larger sectors. If one is, probe notices it, and
// the file is read without O_DIRECT.
const fileAlign = 4096

// Device is an open disk. It is a block device, or a regular file that stands
// for one. Its methods may be called from several goroutines at once, as long
// as no two of them write the same bytes.
//
// ReadAt never returns bytes from the page cache. Block devices are always
// opened with O_DIRECT. A regular file on a file system without O_DIRECT is
// synced and dropped from the cache before each read.
type Device struct {
	f        *os.File
	behind   *os.File // file behind a loop device, open to hold its lock; else nil
	name     string   // for errors
	size     int64
	sector   int
	align    int  // alignment of offsets, lengths and buffers in O_DIRECT transfers
	block    bool // this is a block device
	direct   bool
	dirty    atomic.Bool // written since the last sync, used only for files without direct
	askHoles sync.Once   // guards hasHoles
	hasHoles bool        // the file system can be asked for the file's holes
	edge     sync.Mutex  // serializes unaligned writes, which read their first and last block before
	pool     sync.Pool   // *[]byte of bounceSize for transfers that are not aligned
}

// bounceSize is the length in bytes of the buffers for unaligned transfers.
const bounceSize = 1 << 20

// Path is the device node of a kernel name below devDir, usually /dev.
func Path(devDir, kernel string) string {
	return filepath.Join(devDir, strings.ReplaceAll(kernel, "!", "/"))
}

// Open opens a disk below devDir, for reading or for both. It follows symbolic
// links. A block device is opened exclusively. If that fails, the error says
// who holds it, if the kernel tells. d was read from sysfs. If its size or its
// sector size is not the device's, the node belongs to another device, and Open
// fails.
func Open(devDir string, d Disk, write bool) (*Device, error) {
	return OpenPath(Path(devDir, d.Name), d, write)
}

// OpenPath is Open for any path. It uses the name in d for errors only.
func OpenPath(path string, d Disk, write bool) (*Device, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", d.Name, err)
	}
	dev := &Device{name: d.Name, sector: d.SectorSize, align: fileAlign}
	switch {
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		err = dev.openBlock(path, write)
	case st.Mode().IsRegular():
		if err = dev.openFile(path, st.Size(), write); err == nil {
			err = dev.lockFile(st, write)
		}
	default:
		err = fmt.Errorf("%s is neither a block device nor a file", path)
	}
	if err == nil {
		err = dev.checkSize(d)
	}
	if err != nil {
		dev.Close()
		return nil, fmt.Errorf("open disk %s: %w", d.Name, err)
	}
	dev.pool.New = func() any { b := AlignedBuffer(bounceSize); return &b }
	return dev, nil
}

func openMode(write bool) int {
	if write {
		return os.O_RDWR
	}
	return os.O_RDONLY
}

func (dev *Device) openBlock(path string, write bool) error {
	f, err := os.OpenFile(path, openMode(write)|unix.O_EXCL|unix.O_DIRECT, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", inUse(claimed(path)), err)
	case err != nil:
		return err
	}
	dev.f, dev.block, dev.direct = f, true, true
	fd := int(f.Fd())
	if dev.size, err = blockSize64(fd); err != nil {
		return fmt.Errorf("ask for its size: %w", err)
	}
	if dev.sector, err = unix.IoctlGetInt(fd, unix.BLKSSZGET); err != nil {
		return fmt.Errorf("ask for its sector size: %w", err)
	}
	dev.align = dev.sector
	if ro, err := readOnly(fd); write && err == nil && ro {
		return fmt.Errorf("it is read-only; its protection was not lifted, or the disk has a write-protect switch: %w", unix.EROFS)
	}
	if dev.behind = behindLoop(f); dev.behind != nil {
		return lock(dev.behind, write)
	}
	return nil
}

func (dev *Device) openFile(path string, size int64, write bool) error {
	dev.size = size
	if size%fileAlign == 0 {
		f, err := os.OpenFile(path, openMode(write)|unix.O_DIRECT, 0)
		if err == nil {
			dev.f, dev.direct = f, true
			return dev.probe()
		}
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return dev.openBuffered(path, write)
}

// lockFile locks the file that was opened. It fails if that is not the file
// that st was read from, or if the size has changed since.
func (dev *Device) lockFile(st os.FileInfo, write bool) error {
	if err := lock(dev.f, write); err != nil {
		return err
	}
	now, err := dev.f.Stat()
	if err == nil && (!os.SameFile(st, now) || st.Size() != now.Size()) {
		err = errors.New("it was changed while it was opened")
	}
	return err
}

// probe reads once. Some file systems open a file with O_DIRECT but then refuse
// to read it, or want more than fileAlign.
func (dev *Device) probe() error {
	if dev.size == 0 {
		return nil
	}
	_, err := dev.f.ReadAt(AlignedBuffer(fileAlign), 0)
	if !errors.Is(err, unix.EINVAL) {
		return nil
	}
	path, write := dev.f.Name(), dev.writable()
	dev.f.Close()
	return dev.openBuffered(path, write)
}

func (dev *Device) writable() bool {
	flags, err := unix.FcntlInt(dev.f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR
}

func (dev *Device) openBuffered(path string, write bool) (err error) {
	dev.direct, dev.align = false, 1
	dev.f, err = os.OpenFile(path, openMode(write), 0)
	return err
}

// checkSize compares the device's sizes with those that sysfs said.
func (dev *Device) checkSize(d Disk) error {
	switch {
	case dev.size != d.Size:
		return fmt.Errorf("the device has %d bytes, but sysfs says %d; it was changed, or %s is not its device", dev.size, d.Size, dev.f.Name())
	case dev.sector != d.SectorSize:
		return fmt.Errorf("the device has sectors of %d bytes, but sysfs says %d; %s is not its device", dev.sector, d.SectorSize, dev.f.Name())
	case !image.ValidSectorSize(dev.sector):
		return fmt.Errorf("a disk cannot have sectors of %d bytes", dev.sector)
	case dev.size%int64(dev.sector) != 0:
		return fmt.Errorf("its %d bytes are not whole sectors of %d", dev.size, dev.sector)
	}
	return nil
}

// NextData returns the next range of bytes, at off or behind it, that may be
// other than zeros. Holes of a file are left out. Where holes are not known, as
// on a block device and on some file systems, the range is everything from off
// on.
func (dev *Device) NextData(off int64) (from, to int64) {
	if dev.block {
		return off, dev.size
	}
	// OpenZFS 2.1 and 2.2 can report bytes as a hole while they are written but
	// not yet placed on the disk. So sync before the first question.
	dev.askHoles.Do(func() { dev.hasHoles = dev.f.Sync() == nil })
	if !dev.hasHoles {
		return off, dev.size
	}
	from, err := unix.Seek(int(dev.f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return dev.size, dev.size
	case err != nil:
		return off, dev.size
	}
	if to, err = unix.Seek(int(dev.f.Fd()), from, unix.SEEK_HOLE); err != nil {
		to = dev.size
	}
	return min(from, dev.size), min(to, dev.size)
}

// Cached reports whether a read waits until everything that was written is on the
// disk. That is so for a file on a file system that has no O_DIRECT.
func (dev *Device) Cached() bool { return !dev.direct }

// Rotational reports whether the kernel knows that this is a disk that turns. Of
// loop devices and virtio disks it says so too, without knowing it, and so they
// do not count.
func (dev *Device) Rotational() bool {
	if !dev.block {
		return false
	}
	number, err := devNumber(dev.f.Name())
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(sysDir(number))
	name := filepath.Base(real) // the kernel's, whatever the node is called
	if err != nil || strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "vd") {
		return false
	}
	return queueAttr(dev.f.Name(), "rotational") == "1"
}

// Size returns the size in bytes.
func (dev *Device) Size() int64 { return dev.size }

// SectorSize returns the size of a logical sector in bytes.
func (dev *Device) SectorSize() int { return dev.sector }

// Close closes the device. It does not sync.
func (dev *Device) Close() error {
	if dev.behind != nil {
		defer dev.behind.Close()
	}
	if dev.f == nil {
		return nil
	}
	return dev.f.Close()
}

// Sync makes written bytes durable, through the disk's own cache too. After an
// error, no earlier write may be trusted, and a second Sync proves nothing.
func (dev *Device) Sync() error {
	dev.dirty.Store(false)
	if err := dev.f.Sync(); err != nil {
		dev.dirty.Store(true)
		return dev.wrap("sync", 0, err)
	}
	return nil
}

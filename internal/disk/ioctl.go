package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// blockSize64 is a block device's size in bytes.
func blockSize64(fd int) (int64, error) {
	var n uint64
	err := ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&n))
	return int64(n), err
}

func readOnly(fd int) (bool, error) {
	n, err := unix.IoctlGetInt(fd, unix.BLKROGET)
	return n != 0, err
}

// ZeroAt makes n bytes read as zeros. Zeros are written, by the kernel
// (BLKZEROOUT) or as data. Discarding alone would not do, because discarded
// sectors need not read as zeros.
func (dev *Device) ZeroAt(off, n int64) error {
	if err := dev.checkRange("zero", off, n); err != nil {
		return err
	}
	defer dev.dirty.Store(true)
	a := int64(max(dev.align, dev.sector))
	head := min((a-off%a)%a, n)
	body := (n - head) / a * a
	if err := dev.writeZeros(off, head); err != nil {
		return err
	}
	if body > 0 {
		if err := dev.zeroBlocks(off+head, body); err != nil {
			return err
		}
	}
	return dev.writeZeros(off+head+body, n-head-body)
}

// zeroBlocks zeros whole blocks by the kernel, or by writing zeros where the
// kernel cannot.
func (dev *Device) zeroBlocks(off, n int64) error {
	var err error
	if dev.block {
		span := [2]uint64{uint64(off), uint64(n)}
		err = ioctl(int(dev.f.Fd()), unix.BLKZEROOUT, unsafe.Pointer(&span))
	} else {
		err = unix.Fallocate(int(dev.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTTY),
		errors.Is(err, unix.EINTR):
		return dev.writeZeros(off, n)
	case err != nil:
		return dev.wrap("zero", off, err)
	}
	return nil
}

// zeros is the buffer that writeZeros writes. It must stay all zeros.
var zeros = AlignedBuffer(bounceSize)

func (dev *Device) writeZeros(off, n int64) error {
	for n > 0 {
		m, err := dev.WriteAt(zeros[:min(n, bounceSize)], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

// Reading the partition table anew fails with EBUSY while something has a
// partition open. udev does so for a moment after a write.
const (
	rereadTries = 20
	rereadPause = 100 * time.Millisecond
)

// RereadPartitions makes the kernel read the partition table anew. It does
// nothing for files and for devices that cannot have partitions.
func (dev *Device) RereadPartitions() error {
	if !dev.block {
		return nil
	}
	var err error
	for range rereadTries {
		err = ioctl(int(dev.f.Fd()), unix.BLKRRPART, nil)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(rereadPause)
	}
	switch {
	case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
		return nil
	}
	return fmt.Errorf("disk %s: read its partition table anew: %w", dev.name, err)
}

// Protect makes the kernel refuse all writes to a disk and its partitions, or
// allow them again. The partitions are those in d and those that the kernel
// knows now. Partitions that the kernel finds later, such as after
// RereadPartitions, are not protected. On a regular file that stands for a
// disk, Protect does nothing.
func Protect(devDir string, d Disk, ro bool) error {
	path, err := filepath.EvalSymlinks(Path(devDir, d.Name))
	if err != nil {
		return fmt.Errorf("protect disk %s: %w", d.Name, err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("protect disk %s: %w", d.Name, err)
	}
	if st.Mode().IsRegular() {
		return nil
	}
	nodes := []string{path}
	for _, part := range partitionsOf(path) {
		nodes = append(nodes, Path(filepath.Dir(path), part))
	}
	for _, part := range d.Parts {
		if node := Path(devDir, part); !slices.Contains(nodes, node) && exists(node) {
			nodes = append(nodes, node)
		}
	}
	var errs []error
	for _, node := range nodes {
		if err := setReadOnly(node, ro); err != nil {
			errs = append(errs, fmt.Errorf("protect disk %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// ReadOnly reports whether the kernel refuses writes to a disk. It is false for
// a regular file that stands for a disk, since a file is never protected.
func ReadOnly(devDir string, d Disk) (bool, error) {
	path := Path(devDir, d.Name)
	st, err := os.Stat(path)
	if err != nil || st.Mode().IsRegular() {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ro, err := readOnly(int(f.Fd()))
	if err != nil {
		return false, fmt.Errorf("disk %s: ask whether it is read-only: %w", d.Name, err)
	}
	return ro, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func setReadOnly(path string, ro bool) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var v int32
	if ro {
		v = 1
	}
	if err := ioctl(int(f.Fd()), unix.BLKROSET, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("set %s read-only=%v: %w", path, ro, err)
	}
	return nil
}

package disk

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CanDiscard reports whether Discard does anything: the disk takes the command,
// or the file can have holes.
func (dev *Device) CanDiscard() bool {
	if !dev.block {
		// Beyond the end it changes nothing and says whether it could.
		return unix.Fallocate(int(dev.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, (dev.size/fileAlign+1)*fileAlign,
			fileAlign) == nil
	}
	number, err := devNumber(dev.f.Name())
	if err != nil {
		return false
	}
	for _, queue := range []string{"/queue", "/../queue"} { // of a disk; of the disk of a partition
		if b, err := os.ReadFile(sysDir(number) + queue + "/discard_max_bytes"); err == nil {
			return strings.TrimSpace(string(b)) != "0"
		}
	}
	return false
}

// Discard lets the disk forget n bytes, as far as they are whole blocks: they
// may read as anything afterwards.
func (dev *Device) Discard(off, n int64) error {
	if err := dev.checkRange("discard", off, n); err != nil {
		return err
	}
	defer dev.dirty.Store(true)
	a := int64(max(dev.align, dev.sector))
	from := (off + a - 1) / a * a
	to := (off + n) / a * a
	if from >= to {
		return nil
	}
	var err error
	if dev.block {
		span := [2]uint64{uint64(from), uint64(to - from)}
		err = ioctl(int(dev.f.Fd()), unix.BLKDISCARD, unsafe.Pointer(&span))
	} else {
		err = unix.Fallocate(int(dev.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
	if err != nil {
		return dev.wrap("discard", from, err)
	}
	return nil
}

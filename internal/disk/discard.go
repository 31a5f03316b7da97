package disk

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CanDiscard reports whether Discard has an effect. A disk must support the
// command, and a file must be able to have holes.
func (dev *Device) CanDiscard() bool {
	if !dev.block {
		// Beyond the end of the file, this changes nothing but says whether the
		// file system can do it.
		return unix.Fallocate(int(dev.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, (dev.size/fileAlign+1)*fileAlign,
			fileAlign) == nil
	}
	most := queueAttr(dev.f.Name(), "discard_max_bytes")
	return most != "" && most != "0"
}

// queueAttr returns what sysfs says of the queue of a block device, "" if it says
// nothing.
func queueAttr(path, name string) string {
	number, err := devNumber(path)
	if err != nil {
		return ""
	}
	for _, queue := range []string{"/queue/", "/../queue/"} { // a disk has the first, a partition has the second at its disk
		if b, err := os.ReadFile(sysDir(number) + queue + name); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

// Discard tells the disk that n bytes are not needed any more. Only whole
// blocks of them are discarded. They may read as anything afterwards.
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

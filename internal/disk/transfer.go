package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wrap adds the disk's name and the place to an error. Errors of the medium
// match ErrMedium.
func (dev *Device) wrap(verb string, off int64, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if IsMedium(err) {
		return fmt.Errorf("disk %s: %s at byte %d: %w: %w", dev.name, verb, off, ErrMedium, err)
	}
	return fmt.Errorf("disk %s: %s at byte %d: %w", dev.name, verb, off, err)
}

// IsMedium reports whether err is one by which the kernel says that sectors
// cannot be read.
func IsMedium(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EILSEQ)
}

// hugePage is the size in bytes of what the kernel can map as one large page.
const hugePage = 2 << 20

// AlignedBuffer returns n zero bytes that start at a multiple of 4096, as
// O_DIRECT needs. Transfers also take other buffers, but copy them. For a large
// buffer the kernel is asked to use huge pages. Then it has fewer pages to hold
// and to pass to the disk, which saves a tenth of the time on a fast disk.
func AlignedBuffer(n int) []byte {
	align := fileAlign
	if n >= hugePage {
		align = hugePage
	}
	b := make([]byte, n+align)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(align))
	b = b[off : off+n : off+n]
	if n >= hugePage {
		_ = unix.Madvise(b[:n-n%hugePage], unix.MADV_HUGEPAGE) // only a hint
	}
	return b
}

// aligned reports whether the kernel can transfer b at off without a copy.
func (dev *Device) aligned(b []byte, off int64) bool {
	a := int64(dev.align)
	return off%a == 0 && int64(len(b))%a == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(a) == 0
}

// checkRange refuses a range that is not inside the device.
func (dev *Device) checkRange(verb string, off, n int64) error {
	if off < 0 || n < 0 || off > dev.size || n > dev.size-off {
		return fmt.Errorf("disk %s: %s of %d bytes at byte %d is outside its %d bytes", dev.name, verb, n, off, dev.size)
	}
	return nil
}

// ReadAt implements io.ReaderAt. A read beyond the end returns the bytes up to
// the end and io.EOF. Errors of the medium match ErrMedium.
func (dev *Device) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, dev.checkRange("read", off, int64(len(b)))
	}
	var end error
	if left := max(dev.size-off, 0); int64(len(b)) > left {
		b, end = b[:left], io.EOF
	}
	if len(b) == 0 {
		return 0, end
	}
	if err := dev.uncache(off, len(b)); err != nil {
		return 0, err
	}
	var n int
	var err error
	if dev.aligned(b, off) {
		n, err = dev.read(b, off)
	} else {
		n, err = dev.readBounced(b, off)
	}
	if err == nil {
		err = end
	}
	return n, err
}

// read fills b, which must be aligned and inside the device.
func (dev *Device) read(b []byte, off int64) (int, error) {
	n, err := dev.f.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF // inside the size it had when it was opened
	}
	return n, dev.wrap("read", off+int64(n), err)
}

// readBounced makes an unaligned read through an aligned buffer.
func (dev *Device) readBounced(b []byte, off int64) (int, error) {
	buf := dev.pool.Get().(*[]byte)
	defer dev.pool.Put(buf)
	a, done := int64(dev.align), 0
	for done < len(b) {
		at := off + int64(done)
		skip := at % a
		want := min((skip+int64(len(b)-done)+a-1)/a*a, bounceSize)
		n, err := dev.read((*buf)[:want], at-skip)
		if int64(n) > skip {
			done += copy(b[done:], (*buf)[skip:n])
		}
		if err != nil && done < len(b) {
			return done, err
		}
	}
	return done, nil
}

// uncache makes the next read of a regular file without O_DIRECT come from the
// disk and not from the page cache.
func (dev *Device) uncache(off int64, n int) error {
	if dev.direct {
		return nil
	}
	if dev.dirty.Load() {
		if err := dev.Sync(); err != nil {
			return err
		}
	}
	if err := unix.Fadvise(int(dev.f.Fd()), off, int64(n), unix.FADV_DONTNEED); err != nil {
		return dev.wrap("drop the cache", off, err)
	}
	return nil
}

// WriteAt implements io.WriterAt. It never writes beyond the end. A block that
// is written only in part is read first.
func (dev *Device) WriteAt(b []byte, off int64) (int, error) {
	if err := dev.checkRange("write", off, int64(len(b))); err != nil {
		return 0, err
	}
	defer dev.dirty.Store(true) // after the write, so that a Sync at the same time does not count for it
	if len(b) == 0 || dev.aligned(b, off) {
		return dev.write(b, off)
	}
	return dev.writeBounced(b, off)
}

func (dev *Device) write(b []byte, off int64) (int, error) {
	n, err := dev.f.WriteAt(b, off)
	if err != nil {
		return n, dev.wrap("write", off+int64(n), err)
	}
	return n, nil
}

// writeBounced writes through an aligned buffer. It reads the first and the
// last block before, if they are written only in part.
func (dev *Device) writeBounced(b []byte, off int64) (int, error) {
	dev.edge.Lock()
	defer dev.edge.Unlock()
	buf := dev.pool.Get().(*[]byte)
	defer dev.pool.Put(buf)
	a, done := int64(dev.align), 0
	for done < len(b) {
		at := off + int64(done)
		skip := at % a
		take := min(int64(len(b)-done), bounceSize-skip)
		blocks := (*buf)[:(skip+take+a-1)/a*a]
		if skip != 0 {
			if _, err := dev.read(blocks[:a], at-skip); err != nil {
				return done, err
			}
		}
		if last := int64(len(blocks)) - a; (skip+take)%a != 0 && (last > 0 || skip == 0) {
			if _, err := dev.read(blocks[last:], at-skip+last); err != nil {
				return done, err
			}
		}
		copy(blocks[skip:], b[done:done+int(take)])
		if _, err := dev.write(blocks, at-skip); err != nil {
			return done, err
		}
		done += int(take)
	}
	return done, nil
}

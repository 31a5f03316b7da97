package proc

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// loopFlags: the device frees itself when its last user has closed it, so that
// none is left behind, however the tests end.
const loopFlags = unix.LO_FLAGS_AUTOCLEAR

// loop attaches a file to a free loop device with that logical sector size and
// gives the device's path. direct keeps the backing file out of the page cache.
// off and size choose a part of the file; size 0 is all of it.
func loop(t testing.TB, backing string, sector int, direct bool, off, size int64) string {
	t.Helper()
	f, err := os.OpenFile(backing, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	config := &unix.LoopConfig{Fd: uint32(f.Fd()), Size: uint32(sector)}
	config.Info.Flags, config.Info.Offset, config.Info.Sizelimit = loopFlags, uint64(off), uint64(size)
	if direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	for range 100 { // another process can be quicker
		dev, err := configure(config)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		must(t, err)
		t.Cleanup(func() {
			setReadOnly(dev, false)
			dev.Close()
		})
		must(t, setReadOnly(dev, false))
		return dev.Name()
	}
	t.Fatal("no free loop device")
	return ""
}

// configure takes the first free loop device. It stays attached while the
// returned file is open.
func configure(config *unix.LoopConfig) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free loop device: %w", err)
	}
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), config); err != nil {
		dev.Close()
		return nil, fmt.Errorf("attach %s: %w", dev.Name(), err)
	}
	return dev, nil
}

// setReadOnly is BLKROSET. A loop device keeps the flag when it is detached,
// and the agent sets it: the next user must not find it.
func setReadOnly(dev *os.File, ro bool) error {
	v := 0
	if ro {
		v = 1
	}
	return unix.IoctlSetPointerInt(int(dev.Fd()), unix.BLKROSET, v)
}

// readOnly is BLKROGET.
func readOnly(t testing.TB, path string) bool {
	t.Helper()
	dev, err := os.Open(path)
	must(t, err)
	defer dev.Close()
	v, err := unix.IoctlGetInt(int(dev.Fd()), unix.BLKROGET)
	must(t, err)
	return v != 0
}

// Package loop attaches files to loop devices of Linux.
package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Part says which part of a file a loop device has.
type Part struct {
	Off, Len   int64 // in bytes; a Len of 0 is all that is behind Off
	SectorSize int   // in bytes; 0 is the kernel's choice
	Write      bool  // the device can be written
}

// Attach makes a loop device for a part of a file or disk. The device keeps the file, and is freed when nobody has it open or mounted any
// more. Another program may take the free device in between, so it is tried again.
func Attach(file *os.File, p Part) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: uint32(p.SectorSize),
		Info: unix.LoopInfo64{Offset: uint64(p.Off), Sizelimit: uint64(p.Len), Flags: unix.LO_FLAGS_AUTOCLEAR}}
	mode := os.O_RDWR
	if !p.Write {
		mode = os.O_RDONLY
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	const tries = 100
	for try := 1; ; try++ {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		if err == nil {
			if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
				return device, nil
			}
			device.Close()
		}
		if try == tries || !errors.Is(err, unix.EBUSY) && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond) // devtmpfs makes the node a moment later
	}
}

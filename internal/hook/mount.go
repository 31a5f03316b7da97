package hook

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/loop"
)

// with mounts a file system, calls do with its root, and ends the mount. quiet mounts it as
// it is, without its journal. When with returns nil, all that was written is durable.
func (a *applying) with(p place, write, quiet bool, do func(tree) error) (err error) {
	a.Alive()
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	disk, err := os.OpenFile(p.disk.Path, mode, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := unix.IoctlSetInt(int(disk.Fd()), unix.BLKFLSBUF, 0); err != nil { // else the cache could answer for the disk
		return fmt.Errorf("drop the cache of %s: %w", p.disk.Path, err)
	}
	// A part is found in the same way whatever nodes of partitions there are, and a logical volume is found too.
	device, err := loop.Attach(disk, loop.Part{Off: p.at.Off, Len: p.at.Len, SectorSize: p.disk.SectorSize, Write: write})
	if err != nil {
		return fmt.Errorf("make a loop device: %w", err)
	}
	defer func() {
		if e := detach(device); err == nil {
			err = e
		}
		if !write {
			return
		}
		if e := disk.Sync(); err == nil && e != nil {
			err = fmt.Errorf("write %s: %w", p.disk.Path, e)
		}
	}()
	a.load(kinds[p.fs].driver)
	root, err := mount(device.Name(), p, write, quiet)
	if err != nil {
		return fmt.Errorf("mount %s: %w", p, err)
	}
	defer func() {
		if write {
			if e := flush(root); err == nil && e != nil {
				err = fmt.Errorf("write %s: %w", p, e)
			}
		}
		unix.Close(root)
	}()
	t, err := tree{fd: root}.folder(p.root)
	if err != nil {
		return err
	}
	if t.fd != root {
		defer t.close()
	}
	return do(t)
}

// flush writes what a file system has in memory. The descriptor of a mount cannot be asked
// for that itself.
func flush(root int) error {
	fd, err := tree{root}.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// mount mounts a device without a place, and returns the descriptor of its root. With the
// last descriptor the mount ends.
func mount(device string, p place, write, quiet bool) (root int, err error) {
	fs, err := unix.Fsopen(kinds[p.fs].driver, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	set := func(option string) {
		if err != nil {
			return
		}
		if key, value, has := strings.Cut(option, "="); has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
	}
	set("source=" + device)
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME
	if !write {
		set("ro")
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if quiet {
		for _, o := range kinds[p.fs].quiet {
			set(o)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err == nil {
		root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	}
	if err != nil {
		return -1, fmt.Errorf("%w%s", err, said(fs))
	}
	return root, nil
}

// said is why the kernel did not mount, in its own words.
func said(fs int) string {
	b := make([]byte, 1024)
	n, err := unix.Read(fs, b)
	if err != nil || n < 3 {
		return ""
	}
	return fmt.Sprintf(" (%.200s)", strings.TrimSpace(string(b[2:n]))) // after a letter for the kind of message, and a blank
}

// detach takes a loop device away from its disk. A file system that is still mounted keeps
// it, which is an error: not all may be on the disk.
func detach(device *os.File) error {
	defer device.Close()
	fd := int(device.Fd())
	if err := device.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", device.Name(), err)
	}
	// Whoever has a file system mounted has its device exclusively.
	held, err := os.OpenFile(device.Name(), os.O_RDONLY|unix.O_EXCL, 0)
	for end := time.Now().Add(time.Minute); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		held, err = os.OpenFile(device.Name(), os.O_RDONLY|unix.O_EXCL, 0)
	}
	if err != nil {
		return fmt.Errorf("the file system on %s is still mounted: %w", device.Name(), err)
	}
	held.Close()
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detach %s: %w", device.Name(), err)
	}
	return nil
}

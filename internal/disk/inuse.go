package disk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse is matched by the error of opening a disk that something else uses.
var ErrInUse = errors.New("it is in use")

// inUse returns an ErrInUse that says who uses the disk, such as "by a mount on
// /srv".
func inUse(by string) error {
	return fmt.Errorf("%w %s; whatever uses it must let go of it first", ErrInUse, by)
}

// User says who uses a block device or a file that stands for a disk, such as
// "by a mount on /srv". It is "" if nobody does as far as the kernel tells. A
// reader of the disk (write is false) is disturbed only by those who may change
// it. A writer is disturbed by all.
func User(path string, write bool) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	by := ""
	if st.Mode().IsRegular() {
		by = fileUser(path)
	} else if alone, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0); err == nil {
		alone.Close()
	} else if errors.Is(err, unix.EBUSY) {
		by = claimed(path)
	}
	if by == "" && machineHas(f) {
		by = "by a running virtual machine"
	}
	if by == "" && st.Mode().IsRegular() {
		by = locked(f, write)
	}
	if by == "" {
		by = loopUser(f, "", write)
	}
	if file := behindLoop(f); by == "" && file != nil {
		defer file.Close()
		if by = locked(file, write); by == "" {
			by = loopUser(file, filepath.Base(realPath(path)), write)
		}
	}
	if by == "" && st.Mode().IsRegular() && openForWriting(f) {
		by = "by a program that has it open for writing" + processes(path)
	}
	return by
}

// claimed says who has opened a block device exclusively.
func claimed(path string) string {
	if by := strings.TrimSpace(holders(path)); by != "" {
		return by
	}
	return "by something that has it for itself, such as a mount, a RAID, LVM, or another testbox" + processes(path)
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if real, err := filepath.Abs(path); err == nil {
		path = real
	}
	return path
}

// fileUser says whether the kernel itself uses a file, either as swap space or
// as a file system that is mounted without a loop device.
func fileUser(path string) string {
	path = realPath(path)
	for _, f := range fieldsOf("/proc/swaps") {
		if len(f) > 1 && f[1] == "file" && unescape(f[0]) == path {
			return "as swap space"
		}
	}
	for _, f := range fieldsOf("/proc/self/mountinfo") {
		for i := 6; i+2 < len(f); i++ {
			if f[i] == "-" && unescape(f[i+2]) == path {
				return "by a mount on " + unescape(f[4])
			}
		}
	}
	return ""
}

func fieldsOf(path string) (lines [][]string) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, strings.Fields(s.Text()))
	}
	return lines
}

// unescape decodes a word of a kernel table such as /proc/swaps. Blanks
// separate the words there, so a blank in a word is written as an octal number.
func unescape(s string) string {
	for _, c := range []byte(" \t\n\\") {
		s = strings.ReplaceAll(s, fmt.Sprintf(`\%03o`, c), string(c))
	}
	return s
}

// loopUser says which loop device stands on a file or a block device. For a
// reader, read-only loop devices do not count, since they change nothing. The
// loop device named except does not count either.
func loopUser(f *os.File, except string, write bool) string {
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		dir := filepath.Dir(filepath.Dir(l))
		name := filepath.Base(dir)
		ro, _ := os.ReadFile(filepath.Join(dir, "ro"))
		if name == except || !write && strings.TrimSpace(string(ro)) == "1" || !standsOn(name, l, f) {
			continue
		}
		by := "by the loop device " + name
		if users := holders(filepath.Join("/dev", name)); users != "" {
			by += ", which is in use" + users
		}
		return by + " (`losetup --detach /dev/" + name + "` ends that)"
	}
	return ""
}

// standsOn reports whether a loop device stands on f. It compares the inode
// that the device itself knows. By now the path in sysfs may lead to another
// file, so it is only used if the device cannot be asked.
func standsOn(loop, backing string, f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	if dev, err := os.Open(filepath.Join("/dev", loop)); err == nil {
		defer dev.Close()
		if info, err := unix.IoctlLoopGetStatus64(int(dev.Fd())); err == nil {
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				return info.Rdevice == uint64(st.Rdev)
			}
			return info.Rdevice == 0 && info.Device == uint64(st.Dev) && info.Inode == st.Ino
		}
	}
	path, err := os.ReadFile(backing)
	if err != nil {
		return false
	}
	var other unix.Stat_t
	return unix.Stat(strings.TrimSuffix(string(path), "\n"), &other) == nil && other.Dev == st.Dev && other.Ino == st.Ino
}

// behindLoop opens the file on which the loop device f stands. It is nil if f
// is not a loop device, or if the file cannot be found.
func behindLoop(f *os.File) *os.File {
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return nil
	}
	path, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(realPath(f.Name())), "loop/backing_file"))
	if err != nil {
		return nil
	}
	file, err := os.OpenFile(strings.TrimSuffix(string(path), "\n"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil || uint64(st.Dev) != info.Device || st.Ino != info.Inode {
		file.Close()
		return nil
	}
	return file
}

// qemuWrites is the byte of a file that QEMU locks while a virtual machine may
// write to it (RAW_PERM_LOCK_BASE and BLK_PERM_WRITE in its block/file-posix.c).
const qemuWrites = 100 + 1

// machineHas reports whether a virtual machine uses a file as its disk. Where
// files cannot be locked, this cannot be known, and the answer is no.
func machineHas(f *os.File) bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: qemuWrites, Len: 1}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// openForWriting reports whether anybody has a regular file open for writing.
// The kernel then refuses a read lease on it. f must be open for reading.
func openForWriting(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // closing f would release it too
	return false
}

// lock keeps other testboxes away from a file for as long as f is open. Many
// may read, or one may write. Where files cannot be locked, it does nothing.
func lock(f *os.File, write bool) error {
	how := unix.LOCK_SH
	if write {
		how = unix.LOCK_EX
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return inUse(byLock(f))
	}
	return nil
}

// locked says who keeps a file from being locked, or "" if it could be locked.
// The file is not locked afterwards.
func locked(f *os.File, write bool) string {
	if lock(f, write) != nil {
		return byLock(f)
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // fails where files cannot be locked, and nothing is locked then
	return ""
}

func byLock(f *os.File) string {
	return "by another program that has locked it, most likely another testbox" + processes(f.Name())
}

// maxProcesses is how many processes a message names.
const maxProcesses = 3

// processes says which other processes have a path open, such as ` (process 12,
// "dd")`. It is "" if that is not known.
func processes(path string) string {
	path = realPath(path)
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var found []string
	self, last := strconv.Itoa(os.Getpid()), ""
	for _, fd := range fds {
		pid := strings.Split(fd, "/")[2]
		if pid == self || pid == last || len(found) == maxProcesses {
			continue
		}
		if to, err := os.Readlink(fd); err == nil && to == path {
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			found, last = append(found, fmt.Sprintf("process %s, %q", pid, strings.TrimSpace(string(name)))), pid
		}
	}
	if len(found) == 0 {
		return ""
	}
	return " (" + strings.Join(found, "; ") + ")"
}

package boottest

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readable is what QEMU needs of the file system: its program, its libraries and its firmware.
var readable = []string{"/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/alternatives",
	"/dev/urandom", "/dev/null", "/dev/zero", "/sys/devices/system"}

// writable are the devices that it needs.
var writable = []string{"/dev/null", "/dev/kvm"}

// What Landlock of the first version knows (linux/landlock.h).
const (
	llExecute, llWrite, llReadFile, llReadDir = 1 << 0, 1 << 1, 1 << 2, 1 << 3
	llAll                                     = 1<<13 - 1
	llTruncate                                = 1 << 14     // from the third on, and a right of its own
	llIoctl                                   = 1 << 15     // from the fifth on
	llNetwork                                 = 1<<0 | 1<<1 // bind and connect by TCP, from the fourth on
	llScopes                                  = 1<<0 | 1<<1 // abstract Unix sockets and signals, from the sixth on
	llRefer                                   = 1 << 13     // from the second on
)

// confine takes from this thread, and from what it starts, all files but those that QEMU needs, connections by TCP, and
// signals to others, as far as the kernel can do that. It cannot be taken back, so the thread must end with its goroutine.
func confine() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	if errno != 0 {
		return errno
	}
	var attr struct{ files, network, scopes uint64 }
	attr.files = llAll
	size := uintptr(8)
	for from, add := range map[uintptr]uint64{2: llRefer, 3: llTruncate, 5: llIoctl} {
		if version >= from {
			attr.files |= add
		}
	}
	if version >= 4 {
		attr.network, size = llNetwork, 16
	}
	if version >= 6 {
		attr.scopes, size = llScopes, 24
	}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(rules))
	for _, may := range []struct {
		paths  []string
		rights uint64
	}{{readable, llExecute | llReadFile | llReadDir}, {writable, llReadFile | llWrite | llIoctl}} {
		for _, path := range may.paths {
			if err := allow(int(rules), path, may.rights&attr.files); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// allow gives rights to a file, or to all below a folder.
func allow(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &^= llReadDir
	}
	attr := struct { // it is packed
		rights uint64
		fd     int32
		_      int32
	}{rights: rights, fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), 1, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

package boottest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are system calls that QEMU does not need, since it has its connections from its start. By them it could reach
// the socket of the server for admins, whose user it may be, or the network by UDP. Landlock does not keep it from these.
var refused = []uint32{unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_IO_URING_SETUP}

// noSockets has these system calls fail in this thread, and in what it starts. It cannot be taken back either.
func noSockets() error {
	const (
		number, arch = 0, 4       // where they are in struct seccomp_data (linux/seccomp.h)
		x32          = 0x40000000 // numbers of another form of the same system calls begin here
		load         = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal        = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least        = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer       = unix.BPF_RET | unix.BPF_K
	)
	fail := unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	filter := []unix.SockFilter{
		{Code: load, K: arch}, {Code: equal, K: unix.AUDIT_ARCH_X86_64, Jt: 1}, fail,
		{Code: load, K: number}, {Code: least, K: x32, Jf: 1}, fail,
	}
	for _, call := range refused {
		filter = append(filter, unix.SockFilter{Code: equal, K: call, Jf: 1}, fail)
	}
	filter = append(filter, unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

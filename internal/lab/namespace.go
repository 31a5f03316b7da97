package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespace is a thread of this process. The thread is in network and mount
// namespaces of its own, and its children are in a process namespace. These
// namespaces have no names. However this process ends, the kernel kills the
// first of those children, and by that all others. Then it removes the
// namespaces with all bridges, taps and mounts in them.
type namespace struct {
	jobs  chan func()
	first *exec.Cmd // process 1 in the process namespace, which only sleeps
}

// newNamespace makes the namespaces. Private folders cover those in which
// services have sockets and state, so that they do not meet the host's.
func newNamespace() (*namespace, error) {
	n := &namespace{jobs: make(chan func())}
	ready := make(chan error, 1)
	go n.serve(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make the lab's namespaces: %w", err)
	}
	return n, nil
}

// serve runs jobs until jobs is closed. It never unlocks its thread, so the
// runtime ends the thread with it. The main thread cannot end, so if serve is
// on it, a goroutine on another thread does the work.
func (n *namespace) serve(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		other := make(chan error)
		go n.serve(other)
		ready <- <-other
		runtime.UnlockOSThread()
		return
	}
	err := enterNamespaces()
	if err == nil {
		err = n.startFirst()
	}
	ready <- err
	if err != nil {
		return
	}
	for job := range n.jobs {
		job()
	}
	n.endFirst()
}

// startFirst starts process 1 of a process namespace, into which all later
// children go. A death signal from their parent would not suffice, because a
// child that changes its user id, as rpcbind does, loses it.
func (n *namespace) startFirst() error {
	n.first = exec.Command("sleep", "infinity")
	n.first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := n.first.Start(); err != nil {
		return err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", n.first.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWPID)
		unix.Close(fd)
	}
	if err != nil {
		n.endFirst()
	}
	return err
}

// endFirst kills process 1, and by that all other processes in the namespace.
func (n *namespace) endFirst() {
	n.first.Process.Kill()
	n.first.Wait()
}

func enterNamespaces() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w (a lab needs root)", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib/nfs"} {
		if err := unix.Mount("lab", dir, "tmpfs", 0, "mode=755"); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount over %s: %w", dir, err)
		}
	}
	return nil
}

// do runs f in the namespaces and returns its error.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	n.jobs <- func() { done <- f() }
	return <-done
}

// close ends the thread and all processes in the namespaces.
func (n *namespace) close() { close(n.jobs) }

// ip runs commands of iproute2 in the namespaces.
func (n *namespace) ip(commands ...string) error {
	return n.do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip in the lab's namespace: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A mount in the background is a second process, in a session of its own. The
// first process starts it and waits for it. Until the mount is there, the
// second process uses the first one's outputs. Then it closes them and writes a
// byte to a pipe.
const (
	tellFlag = "tell-when-mounted"
	tellFD   = 3 // of the pipe in the second process
)

// mountInBackground starts the second process. It returns when the mount is
// there, or when the process has failed.
func mountInBackground(ctx context.Context, p printer, storeDir, arg, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if storeDir, err = filepath.Abs(storeDir); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	// The second process must not inherit what the caller has open, such as a lock.
	// Kernels before 5.11 do not support this call.
	_ = unix.CloseRange(tellFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close()
	child := exec.Command(self, "image", "mount", "--foreground", "--"+tellFlag, "--store", storeDir, "--", arg, dir)
	child.Args[0] = os.Args[0]
	child.Dir = "/"
	child.Stdout, child.Stderr, child.ExtraFiles = p.out, p.err, []*os.File{tell}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(child.Start(), tell.Close()); err != nil {
		return err
	}
	mounted := make(chan bool, 1)
	go func() {
		n, _ := told.Read(make([]byte, 1))
		mounted <- n == 1
	}()
	select {
	case ok := <-mounted:
		if ok {
			return nil
		}
	case <-ctx.Done():
		child.Process.Signal(syscall.SIGTERM)
	}
	return saidBy(child.Wait())
}

// saidBy is the error of a process that has printed its own error.
func saidBy(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return &exitError{exit.ExitCode(), errSaid}
	}
	if err == nil { // it ended without an error before it wrote the byte
		err = errors.New("interrupted")
	}
	return fmt.Errorf("the mount's process ended: %w", err)
}

// mountLog is the file for messages of a mount in the background.
type mountLog struct {
	path string
	file *os.File
}

func newMountLog() (*mountLog, error) {
	f, err := os.CreateTemp("", "testbox-mount-*.log")
	if err != nil {
		return nil, fmt.Errorf("a log for the mount: %w", err)
	}
	return &mountLog{f.Name(), f}, nil
}

// goToBackground closes the terminal, or whatever the caller reads from, and
// tells the first process that it can end.
func (l *mountLog) goToBackground() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd, to := range []*os.File{null, null, l.file} {
		if err := unix.Dup3(int(to.Fd()), fd, 0); err != nil {
			return err
		}
	}
	tell := os.NewFile(tellFD, "pipe")
	_, err = tell.Write([]byte{1})
	return errors.Join(err, tell.Close())
}

// end closes the log, and removes it if it is empty.
func (l *mountLog) end() {
	if n, err := l.file.Seek(0, io.SeekEnd); err == nil && n == 0 {
		os.Remove(l.path)
	}
	l.file.Close()
}

package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The agent writes a byte to its heartbeat pipe at each sign of progress. The
// environment variable has the number of the descriptor.
const (
	heartbeatEnv = "TESTBOX_HEARTBEAT_FD"
	heartbeatFD  = 3
)

// Heartbeat is for the agent. It is called once, and returns a function to call
// at each sign of progress, however often. If no process 1 or service listens,
// that function does nothing.
func Heartbeat() func() {
	fd, err := strconv.Atoi(os.Getenv(heartbeatEnv))
	if err != nil || fd < heartbeatFD {
		return func() {}
	}
	os.Unsetenv(heartbeatEnv)
	unix.CloseOnExec(fd)
	unix.SetNonblock(fd, true)
	return func() { unix.Write(fd, []byte{'.'}) } // a full pipe has enough signs, so a failed write is no loss
}

// tailSize is how many of the last bytes on the agent's stderr are kept. It is
// a large number, because a panic prints its reason before the stacks of its
// goroutines.
const tailSize = 64 << 10

// runChild runs a program to its end, and writes its output on the console. It
// calls beat at each heartbeat. Meanwhile it reaps the orphans that the kernel
// hands to process 1. So nothing else in this process may wait for children.
func runChild(path string, args []string, con io.Writer, beat func()) (*ended, error) {
	var pipes pipeSet
	defer pipes.close()
	tail := &tail{}
	pipes.read(func(b []byte) { con.Write(b) })
	pipes.read(func(b []byte) { con.Write(b); tail.Write(b) })
	pipes.read(func([]byte) { beat() })
	if pipes.err != nil {
		return nil, pipes.err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, append([]string{"testbox-maintenance"}, args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", heartbeatEnv, heartbeatFD)),
		Files: append([]uintptr{null.Fd()}, pipes.writers()...),
	})
	if err != nil {
		return nil, err
	}
	pipes.closeWriters()
	status, err := reapUntil(pid)
	if err != nil {
		return nil, err
	}
	pipes.wait(time.Second) // processes that the agent left behind may hold the pipes open
	return &ended{status: status, stderr: tail.String()}, nil
}

// reapUntil reaps every child that ends, until the process pid has ended.
func reapUntil(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		case got == pid:
			return status, nil
		}
	}
}

// pipeSet is the pipes from a child to us. Their order is that of the child's
// descriptors from 1 on.
type pipeSet struct {
	r, w []*os.File
	busy sync.WaitGroup
	err  error
}

// read adds a pipe. Its bytes go to take until its last writer is gone.
func (p *pipeSet) read(take func([]byte)) {
	if p.err != nil {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.err = err
		return
	}
	p.r, p.w = append(p.r, r), append(p.w, w)
	p.busy.Go(func() {
		buf := make([]byte, 8192)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				take(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
}

func (p *pipeSet) writers() []uintptr {
	fds := make([]uintptr, len(p.w))
	for i, w := range p.w {
		fds[i] = w.Fd()
	}
	return fds
}

func (p *pipeSet) closeWriters() {
	for _, w := range p.w {
		w.Close()
	}
}

func (p *pipeSet) close() {
	p.closeWriters()
	for _, r := range p.r {
		r.Close()
	}
}

// wait waits for the ends of the pipes, but no longer than limit.
func (p *pipeSet) wait(limit time.Duration) {
	done := make(chan struct{})
	go func() { p.busy.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// tail holds the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

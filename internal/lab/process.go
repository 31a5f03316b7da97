package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a child that runs in the lab's namespaces and ends with them at
// the latest. It gets no signals of the terminal.
type process struct {
	name string
	log  string // file with its output
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
}

// start runs a program in the lab's namespaces. Its output goes to the file
// log. The files in extra are its descriptors from 3 on.
func (n *namespace) start(name, log string, extra []*os.File, argv ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// alive returns nil while the process runs. After that, the error says how it
// ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended (%v): %s", p.name, p.cmd.ProcessState, tail(p.log, 0, 5))
	default:
		return nil
	}
}

// stop asks the process to end, and kills it after grace.
func (p *process) stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.kill()
	}
}

// kill kills the process and waits until it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.cmd.Process.Kill()
	}
}

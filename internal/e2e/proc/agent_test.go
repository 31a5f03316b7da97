package proc

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// agent is the agent's process.
type agent struct {
	t     testing.TB
	cmd   *exec.Cmd
	out   bytes.Buffer
	lines chan string // what it prints, until it ends
	ended chan struct{}
}

// start starts the agent.
func (b *testBox) start() *agent {
	b.t.Helper()
	a := &agent{t: b.t, lines: make(chan string, 1000), ended: make(chan struct{})}
	area := func(name string) string { return filepath.Join(b.areas.dir, name) }
	a.cmd = exec.Command(b.prog.agent, "run", "--cmdline", b.path("cmdline"), "--sys", b.path("sys"), "--proc", b.path("proc"), "--dev", b.path("dev"),
		"--tftp", area("testbox-tftp"), "--backup", area("testbox-backup"), "--address", b.addr, "--host", boxHost)
	a.cmd.Stderr = &lineWriter{emit: a.line}
	a.cmd.Stdout = a.cmd.Stderr // the same writer: one goroutine copies both
	must(b.t, a.cmd.Start())
	go func() {
		a.cmd.Wait()
		close(a.lines)
		close(a.ended)
	}()
	return a
}

func (a *agent) line(s string) {
	a.out.WriteString(s + "\n")
	select {
	case a.lines <- s:
	default: // nobody listens
	}
}

// lineWriter calls emit with each line that is written.
type lineWriter struct {
	emit func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.emit(string(line))
		w.rest = rest
	}
}

// result is how a process of the agent ended.
type result struct {
	code int // -1: by a signal
	out  string
}

// runLimit ends an agent that hangs: far more than any action here needs.
const runLimit = 3 * time.Minute

// wait waits for the agent's end.
func (a *agent) wait() result {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(runLimit):
		a.kill()
		<-a.ended
		a.t.Fatalf("the agent did not end within %s:\n%s", runLimit, a.out.String())
	}
	return result{a.cmd.ProcessState.ExitCode(), a.out.String()}
}

// kill ends the agent as a power cut does.
func (a *agent) kill() { a.cmd.Process.Kill() }

// run runs the agent to its end.
func (b *testBox) run() result { b.t.Helper(); return b.start().wait() }

// Exit codes of the agent.
const (
	done    = 0
	failed  = 1
	refused = 3
	badOnes = 4
	expired = 5
	differ  = 6 // verify
)

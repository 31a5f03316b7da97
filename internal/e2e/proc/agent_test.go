package proc

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
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
func (b *testBox) start() *agent { b.t.Helper(); return b.verb("run", "--ssh", b.path("ssh")) }

// verb starts the agent's program to do something else than an action. It must
// not be able to reboot this machine, so it has not the right to.
func (b *testBox) verb(name string, args ...string) *agent {
	b.t.Helper()
	a := &agent{t: b.t, lines: make(chan string, 1000), ended: make(chan struct{})}
	area := func(name string) string { return filepath.Join(b.areas.dir, name) }
	a.cmd = exec.Command("setpriv", append([]string{"--bounding-set=-sys_boot", b.prog.agent, name, "--cmdline", b.path("cmdline"),
		"--sys", b.path("sys"), "--proc", b.path("proc"), "--dev", b.path("dev"),
		"--tftp", area("testbox-tftp"), "--backup", area("testbox-backup"), "--address", b.addr, "--host", b.host}, args...)...)
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

// ends waits for the end, which must be with the code and after each of says.
func (a *agent) ends(code int, says ...string) string {
	a.t.Helper()
	r := a.wait()
	if r.code != code {
		a.t.Fatalf("the agent ended with %d instead of %d:\n%s", r.code, code, r.out)
	}
	for _, s := range says {
		if !strings.Contains(r.out, s) {
			a.t.Errorf("the agent does not say %q:\n%s", s, r.out)
		}
	}
	return r.out
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
	rescued = 7 // up for rescue
)

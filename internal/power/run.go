package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Reason says how a command has ended.
type Reason string

// The reasons.
const (
	Done       Reason = "done"
	Failed     Reason = "failed"      // it ended with another exit code than 0, or by a signal
	TimedOut   Reason = "timed out"   // it was killed
	Stopped    Reason = "stopped"     // the context has ended; if the command ran, it was killed
	NotStarted Reason = "not started" // the system could not start it
	Refused    Reason = "refused"     // nothing was begun, since a fact, a file or the program is not as it must be
)

// Result is what became of a command.
type Result struct {
	Reason  Reason
	Code    int // exit code; -1 if it has none
	Output  string
	LeftOut int64 // bytes of the output
	Took    time.Duration
}

// Again reports whether the same may succeed when it is tried once more.
func (r Result) Again() bool {
	return r.Reason == Failed || r.Reason == TimedOut || r.Reason == NotStarted
}

const (
	// MaxOutput is how many bytes of output are kept: the beginning, and the end.
	MaxOutput = 64 << 10
	keptHead  = 48 << 10

	// grace is how long a command may take to end when it is asked to.
	grace = 2 * time.Second
	// stuck is how long is waited for a command that was killed. One that hangs in the kernel does not end.
	stuck = 5 * time.Second
	// drain is how long is waited for output after the end of a command.
	drain = 200 * time.Millisecond
	// pace is the pause between two reads of output that is not kept, so that a flood costs little.
	pace = 5 * time.Millisecond
)

// Runner runs commands, and bounds how many run at once. Its methods may be called by several goroutines.
type Runner struct {
	slots        chan struct{}
	await        func(pid int) error // returns when a process has ended, and leaves it to be waited for
	grace, stuck time.Duration
	off          time.Duration // how long a box stays off
}

// New makes a Runner for at most so many commands at once.
func New(most int) *Runner {
	return &Runner{slots: make(chan struct{}, max(most, 1)), await: await, grace: grace, stuck: stuck, off: offTime}
}

// await waits for the end of a process. Its number is still its own then, and its group's.
func await(pid int) error {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return err
		}
	}
}

// binaries are where programs are looked for.
var binaries = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// find returns the path of a program.
func find(name string) (string, error) {
	paths := []string{name}
	if !filepath.IsAbs(name) {
		paths = nil
		for _, dir := range binaries {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	for _, p := range paths {
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	if filepath.IsAbs(name) {
		return "", fmt.Errorf("there is no program %s that can be run", name)
	}
	return "", fmt.Errorf("there is no program %s in %s; install it, or write its whole path", name, strings.Join(binaries, ":"))
}

// env is the environment of a command.
func (p *Power) env() ([]string, error) {
	env := map[string]string{"PATH": strings.Join(binaries, ":"), "LC_ALL": "C"}
	maps.Copy(env, p.spec.Env)
	for name, file := range p.spec.EnvFiles {
		v, err := readSecret(file)
		if err != nil {
			return nil, fmt.Errorf("the variable %s of the power command has no value: %w", name, err)
		}
		env[name] = v
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out, nil
}

// readSecret reads a file of one line that not everybody may read.
func readSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // no waiting for the writer of a pipe
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !fi.Mode().IsRegular():
		return "", fmt.Errorf("%s is no file", path)
	case fi.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("everybody may read or write %s; do chmod o= %s", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLine+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" || len(text) > maxLine || strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("%s has not one line of text", path)
	}
	return text, nil
}

// run runs a command to its end, and to that of all its processes.
func (r *Runner) run(ctx context.Context, args, env []string, timeout time.Duration, may func() error) (res Result, err error) {
	res.Code = -1
	free := func() {}
	select {
	case <-ctx.Done():
	case r.slots <- struct{}{}:
		free = func() { <-r.slots }
	}
	if ctx.Err() != nil { // also if there was a slot
		free()
		res.Reason = Stopped
		return res, fmt.Errorf("was not started: %w", context.Cause(ctx))
	}
	if may != nil {
		if err := may(); err != nil {
			free()
			res.Reason = Refused
			return res, err
		}
	}
	begun := time.Now()
	cmd, pipe, err := start(args, env)
	if err != nil {
		free()
		res.Reason = NotStarted
		return res, fmt.Errorf("could not be started: %w", err)
	}
	out := make(chan *output, 1)
	go func() { out <- collect(pipe) }()
	ended := make(chan error, 1)
	go func() { ended <- r.await(cmd.Process.Pid) }()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	gone := false
	var awaitErr error
	select {
	case awaitErr = <-ended:
		gone, res.Reason = true, Done
	case <-timer.C:
		res.Reason = TimedOut
	case <-ctx.Done():
		res.Reason = Stopped
	}
	for _, s := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, r.grace}, {syscall.SIGKILL, r.stuck}} {
		if !gone {
			syscall.Kill(-cmd.Process.Pid, s.signal)
			select {
			case awaitErr = <-ended:
				gone = true
			case <-time.After(s.wait):
			}
		}
	}
	reap := func() error {
		defer free()
		killSession(cmd.Process.Pid)
		return cmd.Wait()
	}
	if gone {
		err = reap()
	} else {
		go func() { // it counts as one that runs until it has ended
			<-ended
			reap()
		}()
	}
	pipe.SetReadDeadline(time.Now().Add(drain)) // others may have the pipe, and never close it
	o := <-out
	pipe.Close()
	res.Output, res.LeftOut, res.Took = o.text(), o.left, time.Since(begun)
	if awaitErr != nil {
		err = errors.Join(err, awaitErr)
	}
	return res, res.judge(ctx, err, gone, timeout)
}

// killSession kills all processes of a session. Its first process has ended, and was not waited for, so that the
// number of the session is not another's yet. A process can leave its group, as timeout(1) does, and so the
// others are looked for too.
func killSession(session int) {
	syscall.Kill(-session, syscall.SIGKILL)
	for range 10 { // one that is found may have started another one
		found := false
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			if pid == session || !livesIn(session, pid) {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if livesIn(session, pid) { // the number had not become another's when it was opened
				found = true
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// livesIn reports whether a process is of a session, and has not ended.
func livesIn(session, pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // state, parent, group, session
	return len(f) > 3 && f[0] != "Z" && f[0] != "X" && f[3] == strconv.Itoa(session)
}

// start starts a command with a pipe for its output.
func start(args, env []string) (*exec.Cmd, *os.File, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer to.Close()
	cmd := &exec.Cmd{Path: args[0], Args: args, Env: env, Dir: "/", Stdout: to, Stderr: to}
	// A session of its own has no terminal, at which somebody could be asked for a password.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		from.Close()
		return nil, nil, err
	}
	return cmd, from, nil
}

// judge makes a sentence of how a command has ended. Its beginning is "the power command X".
func (r *Result) judge(ctx context.Context, err error, gone bool, timeout time.Duration) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.Code = exit.ExitCode()
	} else if err == nil && gone {
		r.Code = 0
	}
	said := ""
	if line := lastLine(r.Output); line != "" {
		said = "; it said: " + line
	}
	if !gone {
		said = ", and hangs in the kernel although it was killed" + said
	}
	switch {
	case r.Reason == Stopped:
		return fmt.Errorf("was stopped: %w%s", context.Cause(ctx), said)
	case r.Reason == TimedOut:
		return fmt.Errorf("did not end within %v%s", timeout, said)
	case exit != nil && exit.Exited():
		r.Reason = Failed
		return fmt.Errorf("failed with exit code %d%s", r.Code, said)
	case err != nil:
		r.Reason = Failed
		return fmt.Errorf("failed: %w%s", err, said)
	}
	return nil
}

// output is what is kept of what a command writes.
type output struct {
	head []byte
	tail []byte // a ring, if it is full
	at   int    // where the next byte of the ring belongs
	left int64
}

// collect reads until the end, an error or the pipe's deadline.
func collect(from io.Reader) *output {
	o, buf := &output{}, make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		o.add(buf[:n])
		if err != nil {
			return o
		}
		if o.left > 0 {
			time.Sleep(pace)
		}
	}
}

func (o *output) add(b []byte) {
	n := min(len(b), keptHead-len(o.head))
	o.head = append(o.head, b[:n]...)
	for _, c := range b[n:] {
		if len(o.tail) < MaxOutput-keptHead {
			o.tail = append(o.tail, c)
			continue
		}
		o.tail[o.at] = c
		o.at = (o.at + 1) % len(o.tail)
		o.left++
	}
}

// text is what is kept, made fit for a log.
func (o *output) text() string {
	tail := printable(append(slices.Clone(o.tail[o.at:]), o.tail[:o.at]...))
	if o.left == 0 {
		return strings.TrimSpace(printable(append(slices.Clone(o.head), o.tail...)))
	}
	return strings.TrimSpace(fmt.Sprintf("%s\n[%d bytes are left out]\n%s", printable(o.head), o.left, tail))
}

// printable replaces what a terminal or a log would obey. Lines stay lines.
func printable(b []byte) string {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\t", " ").Replace(string(b))
	return strings.Map(func(r rune) rune {
		if r != '\n' && (!unicode.IsPrint(r) || r == utf8.RuneError) {
			return '?'
		}
		return r
	}, text)
}

// lastLine is the last line of an output, cut off.
func lastLine(text string) string {
	line := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
	if r := []rune(line); len(r) > 200 {
		line = string(r[:200]) + "..."
	}
	return line
}

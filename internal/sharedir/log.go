package sharedir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// Append adds data to the end of a file with one write, and makes the file if
// it is missing. It returns how many bytes it wrote.
type Append func(path string, data []byte) (int, error)

// LogOptions say where a Log writes besides the area. The zero value can be
// used.
type LogOptions struct {
	Append  Append           // nil means AppendFile
	Console io.Writer        // gets every line too; may be nil
	Now     func() time.Time // the storage server's time (Folder.Clock); nil means time.Now
}

// Log writes the logs of one box and the box's part of the global log. Events
// go to maintenance.log. Everything goes to maintenance-output.log and the
// console. What all boxes share goes to the area's maintenance.log. If a line
// cannot be written, the console says so, and the Log keeps the line and tries
// it again before the next one. No call but Flush fails. A Log is safe for
// concurrent use.
type Log struct {
	addr box.Addr
	host string
	fsys durable.FS
	opt  LogOptions

	mu                  sync.Mutex // guards the files below, and the order of lines
	events, output, all logFile
}

// Log makes the box's log. The host is "unknown" if the name is not known.
func (f *Folder) Log(host string, opt LogOptions) *Log {
	l := ConsoleLog(f.addr, host, opt)
	l.fsys = f.fsys
	l.events, l.output = logFile{path: f.Path(box.LogFile)}, logFile{path: f.Path(outputName)}
	l.all = logFile{path: f.area.GlobalLog(), shared: true}
	return l
}

// ConsoleLog makes the log of a box whose area cannot be used. It writes only
// to the console.
func ConsoleLog(addr box.Addr, host string, opt LogOptions) *Log {
	if opt.Append == nil {
		opt.Append = AppendFile
	}
	if opt.Console == nil {
		opt.Console = io.Discard
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Log{addr: addr, host: visible(host), opt: opt}
}

// sessionRule is at both ends of the line that begins a session.
const sessionRule = "===================="

// Hello begins the log of a session. It writes a line with equals signs to the
// box's logs, and a line to the global log.
func (l *Log) Hello() {
	l.mu.Lock()
	defer l.mu.Unlock()
	session := fmt.Sprintf("%s %s: %s: %s %s", sessionRule, l.stamp(), l.addr, l.host, sessionRule)
	l.write([]string{session}, &l.events, &l.output)
	l.append(&l.all, []string{l.line("info", "hello from "+l.host)})
}

// Info logs an event of the box.
func (l *Log) Info(format string, args ...any) { l.log("info", false, format, args) }

// Announce logs an event also in the global log, such as the action or the
// outcome.
func (l *Log) Announce(format string, args ...any) { l.log("info", true, format, args) }

// Error logs an error, also in the global log.
func (l *Log) Error(format string, args ...any) { l.log("error", true, format, args) }

func (l *Log) log(kind string, global bool, format string, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := visibleLines(fmt.Sprintf(format, args...))
	for i, text := range lines {
		lines[i] = l.line(kind, text)
	}
	l.write(lines, &l.events, &l.output)
	if global {
		l.append(&l.all, lines)
	}
}

// Output logs what a tool printed, without time stamps.
func (l *Log) Output(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(visibleLines(text), &l.output)
}

// Flush tries to write what could not be written before. The error says what is
// still missing, and is only useful for a last line on the console.
func (l *Log) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, f := range []*logFile{&l.events, &l.output, &l.all} {
		l.append(f, nil)
		if len(f.kept) > 0 {
			errs = append(errs, fmt.Errorf("%d bytes of %s are not written", len(f.kept), f.path))
		}
	}
	return errors.Join(errs...)
}

func (l *Log) stamp() string {
	return l.opt.Now().UTC().Format("2006-01-02T15:04:05+00:00")
}

func (l *Log) line(kind, text string) string {
	return fmt.Sprintf("%s: %s: %s: %s", l.stamp(), l.addr, kind, text)
}

// write writes lines to the console and to files.
func (l *Log) write(lines []string, files ...*logFile) {
	io.WriteString(l.opt.Console, strings.Join(lines, "\n")+"\n")
	for _, f := range files {
		l.append(f, lines)
	}
}

// append adds lines to a file, after the kept lines that could not be written
// before.
func (l *Log) append(f *logFile, lines []string) {
	if f.path == "" {
		return
	}
	for _, line := range lines {
		f.keep(line)
	}
	if len(f.kept) == 0 {
		return
	}
	err := l.flush(f)
	for try := 1; try < 3 && err == nil && len(f.kept) > 0; try++ {
		err = l.flush(f)
	}
	switch {
	case err != nil && !f.failing:
		fmt.Fprintf(l.opt.Console, "%s\n", visible(fmt.Sprintf("cannot write to %s: %v; its lines are kept and tried again", f.path, err)))
	case err == nil && f.failing:
		fmt.Fprintf(l.opt.Console, "writing to %s again\n", visible(f.path))
	}
	f.failing = err != nil
}

// flush writes the kept lines of a file. For a shared file it reads the end of
// the file afterwards, and keeps lines that are not there although there was no
// error. NFS has no append. The client asks for the length and then writes at
// that place, so if two boxes append at the same moment, one can overwrite the
// other.
func (l *Log) flush(f *logFile) error {
	n, err := l.opt.Append(f.path, f.kept)
	n = min(max(n, 0), len(f.kept))
	if err == nil && f.shared {
		tail, readErr := readTail(l.fsys, f.path, n+confirmTail)
		if readErr == nil && !bytes.Contains(tail, f.kept[:n]) {
			return nil
		}
	}
	f.kept = f.kept[n:]
	return err
}

// confirmTail is how many bytes other boxes may have written after our lines.
const confirmTail = 64 << 10

// readTail reads the last n bytes of a file, or the complete file if it is
// shorter.
func readTail(fsys durable.FS, path string, n int) ([]byte, error) {
	r, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	off := max(0, r.Size()-int64(n))
	tail := make([]byte, r.Size()-off)
	_, err = io.ReadFull(io.NewSectionReader(r, off, int64(len(tail))), tail)
	return tail, err
}

// maxKept is how many bytes are kept of a log that cannot be written. That is
// enough for hours of a restore's progress lines, and little of a box's memory.
const maxKept = 4 << 20

// logFile is a log, and the lines that could not be written to it yet.
type logFile struct {
	path    string // "" if there is no file, and then no lines are kept
	shared  bool   // other boxes write to it too
	kept    []byte
	failing bool // the last write failed, and the console said so
}

// keep adds a line to those to be written. If there is no room, it drops the
// oldest half.
func (f *logFile) keep(line string) {
	if len(f.kept)+len(line) > maxKept {
		half := f.kept[len(f.kept)/2:]
		f.kept = append([]byte("[lines are missing here]\n"), half[bytes.IndexByte(half, '\n')+1:]...)
	}
	f.kept = append(append(f.kept, line...), '\n')
}

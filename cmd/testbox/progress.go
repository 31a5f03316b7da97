package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/progress"
)

// progressLine shows progress on stderr. On a terminal it rewrites one line
// again and again. Elsewhere it writes a new line now and then.
type progressLine struct {
	w     io.Writer
	width int // characters of the terminal's line; 0 if w is no terminal

	mu    sync.Mutex // guards the fields below
	meter *progress.Meter
	disk  string // name for stages that name no disk
	last  time.Time
	shown int // characters on the terminal's line
}

// newProgress makes a line for planned work. Without a plan it only shows the
// current pass, and not what comes after it.
func newProgress(w io.Writer, plan ...progress.Work) *progressLine {
	p := &progressLine{w: w, meter: progress.New(nil, plan...)}
	if f, ok := w.(*os.File); ok && progress.IsTerminal(f) {
		p.width = 79
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 1 {
			p.width = int(size.Col) - 1
		}
	}
	return p
}

// How often progress is written.
const (
	terminalEvery = 200 * time.Millisecond
	plainEvery    = 10 * time.Second
)

// of sets the disk for stages that name none.
func (p *progressLine) of(disk string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk = disk
}

// tell is a copier.Progress.
func (p *progressLine) tell(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pass, disk, _ := strings.Cut(stage, " ")
	if disk == "" {
		disk = p.disk
	}
	p.told(p.meter.Tell(disk, pass, done, total))
}

// tellOther is tell for work that belongs to no disk.
func (p *progressLine) tellOther(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told(p.meter.Tell("", stage, done, total))
}

// told writes a line if it is time to do so. After a pass begins it waits
// first.
func (p *progressLine) told(begins bool) {
	now := time.Now()
	if begins {
		p.last = now
	}
	every := plainEvery
	if p.width > 0 {
		every = terminalEvery
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	p.show(p.meter.Line(bytesText))
}

func (p *progressLine) show(line string) {
	if p.width == 0 {
		fmt.Fprintln(p.w, line)
		return
	}
	// A longer line would continue in the next one, where a part of it would stay.
	// So the end is left out.
	for len(line) > p.width {
		if i := strings.LastIndex(line, ", "); i > 0 {
			line = line[:i]
		} else {
			line = line[:p.width]
		}
	}
	onTerminal.Store(p)
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, p.shown-len(line))))
	p.shown = len(line)
}

// end clears the line.
func (p *progressLine) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.shown))
		p.shown = 0
		onTerminal.CompareAndSwap(p, nil)
	}
}

// onTerminal is the line that the terminal shows now, or nil.
var onTerminal atomic.Pointer[progressLine]

// clearLine clears the progress line, so that something else can be printed. It
// is for callers that do not know whether a line is shown.
func clearLine() {
	if p := onTerminal.Load(); p != nil {
		p.end()
	}
}

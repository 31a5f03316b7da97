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

// progressLine tells on stderr how far something is: on a terminal in one line
// that is written again and again, elsewhere in a line now and then.
type progressLine struct {
	w     io.Writer
	width int // characters of the terminal's line; 0: it is none

	mu    sync.Mutex // guards those below
	meter *progress.Meter
	disk  string // of stages that name none
	last  time.Time
	shown int // characters on the terminal's line
}

// newProgress is a line for work that is planned; without a plan it does not
// tell what comes after what it is told of.
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

// How often a line is written.
const (
	terminalEvery = 200 * time.Millisecond
	plainEvery    = 10 * time.Second
)

// of says of which disk the stages are that name none.
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

// tellOther is tell for what goes over no disk.
func (p *progressLine) tellOther(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told(p.meter.Tell("", stage, done, total))
}

// told shows a line if it is time to; a pass that begins waits first.
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
	// A longer line would go on in the next one, and leave rests there: what
	// stands at its end is left out.
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

// onTerminal is the line that the terminal shows now; nil: none.
var onTerminal atomic.Pointer[progressLine]

// clearLine makes room on the terminal for something that is said while a
// progress line is shown, by whoever does not know of that.
func clearLine() {
	if p := onTerminal.Load(); p != nil {
		p.end()
	}
}

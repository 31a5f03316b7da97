package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progressLine tells on stderr how far something is: on a terminal in one line
// that is written again and again, elsewhere in a line now and then.
type progressLine struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards those below
	stage string
	begun time.Time
	last  time.Time
	shown int // characters on the terminal's line
}

func newProgress(w io.Writer) *progressLine {
	p := &progressLine{w: w}
	if f, ok := w.(*os.File); ok {
		p.terminal = isTerminal(f)
	}
	return p
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// How often a line is written.
const (
	terminalEvery = 200 * time.Millisecond
	plainEvery    = 10 * time.Second
)

// tell is a copier.Progress.
func (p *progressLine) tell(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if stage != p.stage {
		p.stage, p.begun, p.last = stage, now, now
	}
	every := plainEvery
	if p.terminal {
		every = terminalEvery
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	line := fmt.Sprintf("%s: %s", stage, bytesText(done))
	if total > 0 {
		line += fmt.Sprintf(" of %s, %d %%", bytesText(total), done*100/total)
	}
	if s := now.Sub(p.begun).Seconds(); s > 0.1 {
		line += fmt.Sprintf(", %s/s", bytesText(int64(float64(done)/s)))
		if left := total - done; done > 0 && left > 0 {
			line += fmt.Sprintf(", %s left", (time.Duration(s * float64(left) / float64(done) * float64(time.Second))).Round(time.Second))
		}
	}
	p.show(line)
}

func (p *progressLine) show(line string) {
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
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
	}
	p.stage = ""
}

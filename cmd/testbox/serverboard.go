package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/progress"
)

// board shows how jobs go on. At a terminal each job that has not ended has a line
// that is rewritten, and those that have ended stay above. Elsewhere a line is written
// when a job's state changes, and now and then while it is at work.
type board struct {
	out           func(format string, args ...any) // lines that stay
	term          *os.File                         // nil if there is no terminal
	width, height int

	room     string          // what was written last of the boxes together
	roomAt   time.Time       // when
	troubles map[string]bool // that were written

	order []string // ids of the jobs
	state map[string]*shownJob
	drawn int       // lines that are on the terminal and will be rewritten
	last  time.Time // when it was drawn
}

type shownJob struct {
	job  api.Job
	line string    // the last one that was written
	at   time.Time // when
	done bool
}

// newBoard makes a board. With quiet, all goes to stderr, since stdout is for programs.
func newBoard(p printer, quiet bool, jobs []api.Job) *board {
	b := &board{out: p.printf, state: map[string]*shownJob{}, troubles: map[string]bool{}}
	if quiet {
		b.out = func(format string, args ...any) { fmt.Fprintf(p.err, format, args...) }
	}
	if f, ok := p.err.(*os.File); ok && progress.IsTerminal(f) {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 20 && size.Row > 3 {
			b.term, b.width, b.height = f, int(size.Col)-1, int(size.Row)-1
		}
	}
	for _, j := range jobs {
		b.order = append(b.order, j.ID)
		b.state[j.ID] = &shownJob{job: j}
	}
	return b
}

// jobs are the jobs as they were told last.
func (b *board) jobs() []api.Job {
	all := []api.Job{}
	for _, id := range b.order {
		all = append(all, b.state[id].job)
	}
	return all
}

// tell takes a job as it is now.
func (b *board) tell(j api.Job) {
	s := b.state[j.ID]
	if s == nil {
		return
	}
	was, now := s.job, time.Now()
	s.job = j
	line := fmt.Sprintf("%s: %s", nameOf(j), jobText(j))
	settled := j.Resting() && !s.done
	changed := was.State != j.State || was.Attempt != j.Attempt || was.Cancel != j.Cancel || s.line == ""
	if b.term == nil {
		if line != s.line && (changed || settled || now.Sub(s.at) >= plainEvery) {
			s.line, s.at = line, now
			b.out("%s\n", line)
		}
		s.done = s.done || settled
		b.writeRooms(now, false)
		return
	}
	if settled {
		s.done = true
		b.clear()
		b.out("%s\n", line)
	}
	if settled || changed || now.Sub(b.last) >= terminalEvery {
		s.line = line
		b.draw(now)
	}
}

// draw writes the lines of the jobs that have not ended.
func (b *board) draw(now time.Time) {
	b.last = now
	var lines, together []string
	for _, r := range api.Rooms(b.jobs()) {
		together = append(together, slices.Concat(r.Lines, r.Troubles)...)
	}
	together = together[:min(len(together), b.height/2)] // the first lines say the most
	more := 0
	for _, id := range b.order {
		switch s := b.state[id]; {
		case s.done:
		case len(lines) >= b.height-1-len(together):
			more++
		default:
			lines = append(lines, fmt.Sprintf("%s: %s", nameOf(s.job), jobText(s.job)))
		}
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	for _, l := range together {
		lines = append(lines, printable(l))
	}
	var text strings.Builder
	b.back(&text)
	for _, l := range lines {
		text.WriteString(shorten(l, b.width) + "\x1b[K\n")
	}
	text.WriteString("\x1b[J")
	fmt.Fprint(b.term, text.String())
	b.drawn = len(lines)
}

// writeRooms writes now and then how the boxes together go on, and each trouble once.
func (b *board) writeRooms(now time.Time, last bool) {
	if !last && now.Sub(b.roomAt) < plainEvery {
		return
	}
	b.roomAt = now
	var lines []string
	for _, r := range api.Rooms(b.jobs()) {
		lines = append(lines, strings.Join(r.Lines, " "))
		for _, t := range r.Troubles {
			if !b.troubles[t] {
				b.troubles[t] = true
				b.out("%s\n", printable(t))
			}
		}
	}
	if text := strings.Join(lines, "\n"); text != "" && text != b.room {
		b.room = text
		for _, l := range lines {
			b.out("%s\n", printable(l))
		}
	}
}

// back goes back to the first line that was drawn.
func (b *board) back(text *strings.Builder) {
	if b.drawn > 0 {
		fmt.Fprintf(text, "\x1b[%dA\r", b.drawn)
	}
}

// clear takes the lines away that would be rewritten.
func (b *board) clear() {
	var text strings.Builder
	b.back(&text)
	text.WriteString("\x1b[J")
	if b.drawn > 0 {
		fmt.Fprint(b.term, text.String())
	}
	b.drawn = 0
}

// end leaves only lines that stay.
func (b *board) end() {
	if b.term != nil {
		b.clear()
	}
	b.writeRooms(time.Now(), true)
}

// shorten cuts a line off that is longer than a line of the terminal.
func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width])
}

package agent

import (
	"fmt"
	"time"
)

// How often progress is told: on a console that scrolls, on a terminal, and in
// the box's log.
const (
	plainEvery    = 10 * time.Second
	terminalEvery = 500 * time.Millisecond
	logEvery      = 30 * time.Second
)

// progress tells how far a stage is. Its tell is a copier.Progress: called from
// one goroutine at a time, and often, so it only looks at the clock mostly.
type progress struct {
	s    *session
	what string // the disks, "sda" or "sda, sdb"
	now  func() time.Time

	stage         string
	begun         time.Time // of the stage
	shown, logged time.Time
	base          int64 // bytes that were done when the stage was first told
	midLine       bool  // the terminal's line is not ended
}

func (s *session) progress(what string) *progress {
	return &progress{s: s, what: what, now: time.Now}
}

func (p *progress) tell(stage string, done, total int64) {
	p.s.cfg.Alive()
	now := p.now()
	if stage != p.stage {
		p.end()
		p.stage, p.begun, p.base = stage, now, done
		p.shown, p.logged = now, now
		return
	}
	every := plainEvery
	if p.s.cfg.Terminal {
		every = terminalEvery
	}
	if now.Sub(p.shown) < every && now.Sub(p.logged) < logEvery {
		return
	}
	line := p.line(done, total, now.Sub(p.begun))
	switch {
	case now.Sub(p.logged) >= logEvery:
		p.end()
		p.s.log.Info("%s", line)
		p.logged = now
	case p.s.cfg.Terminal:
		fmt.Fprintf(p.s.cfg.Console, "\r%-70s", line)
		p.midLine = true
	default:
		fmt.Fprintf(p.s.cfg.Console, "%s\n", line)
	}
	p.shown = now
}

// end ends the terminal's line, before something else is printed.
func (p *progress) end() {
	if p.midLine {
		fmt.Fprintln(p.s.cfg.Console)
		p.midLine = false
	}
}

// line is "sda: read 34 %, 210 MB/s, 0:41 left".
func (p *progress) line(done, total int64, elapsed time.Duration) string {
	if total <= 0 {
		return fmt.Sprintf("%s: %s %d MB", p.what, p.stage, done/1e6)
	}
	rate := float64(done-p.base) / elapsed.Seconds()
	line := fmt.Sprintf("%s: %s %d %%, %.0f MB/s", p.what, p.stage, done*100/total, rate/1e6)
	if rate <= 0 {
		return line
	}
	left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
	return line + fmt.Sprintf(", %d:%02d left", int(left.Minutes()), int(left.Seconds())%60)
}

package agent

import (
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/progress"
)

// How often progress is shown on a console that scrolls, on a terminal, and in
// the box's log.
const (
	plainEvery    = 10 * time.Second
	terminalEvery = 500 * time.Millisecond
	logEvery      = 30 * time.Second
	homeEvery     = time.Second
)

// teller shows the progress of a stage. Its method tell is a copier.Progress,
// which one goroutine calls often. So most calls only look at the clock.
type teller struct {
	s     *session
	what  string // name of the disk for stages that name none
	now   func() time.Time
	meter *progress.Meter

	shown, logged time.Time
	told          time.Time // when the other side was told
	midLine       bool      // the line on the terminal has no end yet
}

// planned sets the work of an action. The tellers that s.progress makes
// afterwards show the progress of all of it.
func (s *session) planned(plan []progress.Work) { s.meter = progress.New(nil, plan...) }

func (s *session) progress(what string) *teller {
	p := &teller{s: s, what: what, now: time.Now, meter: s.meter}
	if p.meter == nil {
		p.meter = progress.New(func() time.Time { return p.now() })
	}
	s.telling = p
	return p
}

func (p *teller) tell(stage string, done, total int64) {
	p.s.cfg.Alive()
	now := p.now()
	pass, name, _ := strings.Cut(stage, " ")
	if name == "" {
		name = p.what
	}
	if p.meter.Tell(name, pass, done, total) {
		p.end()
		p.shown, p.logged = now, now
		p.tellHome(now, pass, done, total)
		return
	}
	if now.Sub(p.told) >= homeEvery {
		p.tellHome(now, pass, done, total)
	}
	every := plainEvery
	if p.s.cfg.Terminal {
		every = terminalEvery
	}
	if now.Sub(p.shown) < every && now.Sub(p.logged) < logEvery {
		return
	}
	line := p.meter.Line(megabytes)
	switch {
	case now.Sub(p.logged) >= logEvery:
		p.end()
		p.s.log.Info("%s", line)
		p.logged = now
	case p.s.cfg.Terminal:
		// A longer line would continue in the next one, where a part of it would stay.
		fmt.Fprintf(p.s.cfg.Console, "\r%-79.79s", line)
		p.midLine = true
	default:
		fmt.Fprintf(p.s.cfg.Console, "%s\n", line)
	}
	p.shown = now
}

// tellHome tells the other side how far the stage is.
func (p *teller) tellHome(now time.Time, pass string, done, total int64) {
	p.told = now
	if p.s.home != nil {
		p.s.home.Progress(pass, p.meter.Line(megabytes), done, total, p.meter.Left())
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// end ends the terminal's line before something else is printed. p may be nil.
func (p *teller) end() {
	if p != nil && p.midLine {
		fmt.Fprintln(p.s.cfg.Console)
		p.midLine = false
	}
}

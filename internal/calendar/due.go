package calendar

import (
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/words"
)

const (
	// SmallStep is how far a clock may be put back without a start being made twice. A clock that
	// is put back further was wrong before, and its hours are lived through once more.
	SmallStep = time.Hour
	// MaxMissed is up to how many missed starts are counted.
	MaxMissed = 100
)

// Due says what is to be done at a moment.
type Due struct {
	// Start is the start that is to be made now, by the time at which it should have been. The zero time is none.
	Start time.Time
	// Until is when Start must not be made any more: it would be too late, or its window is closed.
	Until  time.Time
	Missed Missed
	// Next is the first start to come. Nothing else is due before it.
	Next time.Time
	// Last is to be stored, and given as the time of the last look when Due is called again.
	Last time.Time
	// SetBack says that the clock was put back by more than SmallStep. Starts that it comes to once
	// more are made once more.
	SetBack bool
}

// Missed are the starts that were not made, and will not be made.
type Missed struct {
	Count       int  // at most MaxMissed
	More        bool // than Count
	First, Last time.Time
}

// Due says which start is to be made at the time now, if the last look was at last. Of several
// starts since then, only the newest one can be made, once, if it is not too late and
// its window is still open. All others are missed. last is the zero time if there was none; then
// nothing is due yet.
func (s *Schedule) Due(last, now time.Time) Due {
	last, now = last.Round(0), now.Round(0) // by the clock that people see
	switch {
	case !sane(now):
		return Due{Last: last}
	case last.IsZero():
		return Due{Last: now, Next: s.Next(now)}
	case last.Sub(now) > SmallStep:
		return Due{Last: now, Next: s.Next(now), SetBack: true}
	case now.Before(last):
		return Due{Last: last, Next: s.Next(last)}
	}
	due := Due{Last: now, Next: s.Next(now)}
	newest, closes := s.newest(now.Unix())
	if newest <= last.Unix() {
		return due
	}
	to := newest // missed is what is before
	if until := min(newest+s.late, closes); now.Unix() < until {
		due.Start, due.Until = s.time(newest), s.time(until)
	} else {
		to++
	}
	due.Missed = s.missed(last.Unix(), to)
	return due
}

// missed returns the starts after last and before to.
func (s *Schedule) missed(last, to int64) (m Missed) {
	for t := s.next(last); t < to; t = s.next(t) {
		if m.Count == MaxMissed {
			m.More = true
			break
		}
		if m.Count++; m.Count == 1 {
			m.First = s.time(t)
		}
	}
	if m.Count > 0 {
		t, _ := s.newest(to - 1)
		m.Last = s.time(t)
	}
	return m
}

// String is a sentence about what was missed, or "".
func (m Missed) String() string {
	switch {
	case m.Count == 0:
		return ""
	case m.Count == 1:
		return "The start of " + moment(m.First) + " was missed."
	}
	count := words.Count(m.Count, "start")
	if m.More {
		count = "More than " + count
	}
	return fmt.Sprintf("%s were missed, from %s to %s.", count, moment(m.First), moment(m.Last))
}

// moment is a time as people write it.
func moment(t time.Time) string { return t.Format("Mon 2 Jan 2006 15:04 MST") }

// String is the schedule as it was written.
func (s *Schedule) String() string {
	text := s.spec.Cron
	if s.spec.Zone != "" {
		text += " " + s.spec.Zone
	}
	return text
}

// Describe says in words when the next n starts come after a moment, and what else a person must
// know of a schedule.
func (s *Schedule) Describe(after time.Time, n int) string {
	var times []string
	for t := s.Next(after); len(times) < min(n, MaxMissed) && !t.IsZero(); t = s.Next(t) {
		times = append(times, moment(t))
	}
	var b strings.Builder
	switch len(times) {
	case 0:
	case 1:
		fmt.Fprintf(&b, "The next start is %s.", times[0])
	default:
		fmt.Fprintf(&b, "The next starts are %s and %s.", strings.Join(times[:len(times)-1], ", "), times[len(times)-1])
	}
	if s.spec.Spread > 0 && s.share == 0 {
		fmt.Fprintf(&b, " The boxes start one by one within %s from then on.", words.Duration(s.spec.Spread))
	}
	if len(s.windows) > 0 {
		fmt.Fprintf(&b, " Jobs start only within %s.", strings.Join(s.spec.Windows, " and "))
	}
	fmt.Fprintf(&b, " A start may be late by %s.", words.Duration(time.Duration(s.late)*time.Second))
	return strings.TrimSpace(b.String())
}

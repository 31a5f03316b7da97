// Package calendar says when something is to be done again and again, such as the
// backups of a group of boxes each night. It is pure: it has no clock, no goroutines
// and no memory. The caller gives the time, and keeps what must be remembered.
//
// # Times
//
// A schedule names readings of the local clock, such as 02:30 of each day. A reading
// becomes a moment by one rule: it is the first moment at which the clock shows it, or
// a later reading. So a time that does not exist, because the clock is put forward over
// it, comes once, in the moment of the change. A time that exists twice, because the clock
// is put back, comes once, at the first of both. That also holds for days that a zone
// has skipped, and for changes of half an hour.
//
// # Windows and spread
//
// A window says when jobs may start. A time outside of all windows waits for the next
// opening. Several times that wait for one opening are one start. A window is one
// stretch of time from its first to its last reading. If all of it falls into hours that
// the clock skips, it opens in the moment of the change, for its usual length.
//
// The boxes of a group do not start at once: For gives a schedule for one box, whose starts
// come later by a part of the spread. That part is made of the key alone, so it is
// always the same for a box. It is cut to what is left of the window.
//
// # What the caller must do
//
// Store the time of the last look for each schedule, durably, and in the same transaction
// as the jobs that this look has made. It is Due.Last. With it, and with the time now, Due says which
// start is to be made, and which starts were missed. Missed starts must be told to somebody,
// since nothing else will say that they did not happen.
//
// Store the time now as the last look when a schedule is made, changed or switched
// on. What would have been its starts before that is not missed then.
//
// A job that is made may have to wait for something else. When Due.Until has come, it must
// not start any more, and counts as missed.
package calendar

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"time"
	_ "time/tzdata" // a zone that is known today is known on every machine

	"testbox-imaging/internal/problem"
)

const (
	// DefaultLate is how late a start may be made if a Spec does not say it. A box that is
	// restarted long after its time may be in use by somebody.
	DefaultLate = time.Hour
	maxLate     = 7 * 24 * time.Hour
	maxSpread   = 24 * time.Hour
	maxWindows  = 16
)

// Spec is a schedule as people write it.
type Spec struct {
	Cron    string        // "0 2 * * mon-fri" or "@daily"
	Zone    string        // "Europe/Berlin"; "" is the zone of this machine
	Windows []string      // "mon-fri 20:00-06:00", "sat,sun 00:00-24:00"; none is always
	Spread  time.Duration // boxes are spread over so much time
	Late    time.Duration // how late a start may be made; 0 is DefaultLate
}

// Schedule is a Spec that was understood. It does not change, and may be used by several
// goroutines.
type Schedule struct {
	Windows
	spec         Spec
	dates        dates
	spread, late int64  // seconds
	share        uint64 // of the spread, in parts of 2^64
}

// Parse understands a schedule. Errors are of package problem, and say what to write instead.
func Parse(spec Spec) (*Schedule, error) {
	s := &Schedule{spec: spec, spread: int64(spec.Spread / time.Second), late: int64(spec.Late / time.Second)}
	var err error
	if s.dates, err = parseCron(spec.Cron); err != nil {
		return nil, problem.Wrongf("%w", err)
	}
	if s.Windows, err = ParseWindows(spec.Windows, spec.Zone); err != nil {
		return nil, err
	}
	if spec.Spread < 0 || spec.Spread > maxSpread {
		return nil, problem.Wrongf("the spread of a schedule is %v; write one from 0s to 24h", spec.Spread)
	}
	if spec.Late == 0 {
		s.late = int64(DefaultLate / time.Second)
	}
	if s.late < 60 || spec.Late > maxLate {
		return nil, problem.Wrongf("a start may be late by %v; write a time from 1m to 168h", spec.Late)
	}
	return s, nil
}

// parseZone finds a time zone by its name.
func parseZone(name string) (*time.Location, error) {
	const instead = `write a name like "Europe/Berlin" or "UTC"`
	switch {
	case name == "":
		return time.Local, nil
	case name == "Local":
		return nil, fmt.Errorf("the time zone is Local; leave it out for the zone of this machine, or %s", instead)
	case len(name) > 64 || strings.ContainsFunc(name, notOfZone):
		return nil, fmt.Errorf("%.64q is no time zone; %s", name, instead)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %q; %s", name, instead)
	}
	return loc, nil
}

// notOfZone reports whether a character is in no name of a zone.
func notOfZone(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+-", r)
}

// For returns the schedule of one box. The key should have the name of the schedule
// and what the box is known by, so that no box is the last of every schedule.
func (s *Schedule) For(key string) *Schedule {
	box, sum := *s, sha256.Sum256([]byte(key))
	box.share = binary.BigEndian.Uint64(sum[:])
	return &box
}

// Next returns the first start after a moment. There always is one, but for moments
// before the year 1 and after the year 9000, for which it returns the zero time.
func (s *Schedule) Next(after time.Time) time.Time {
	if !sane(after) {
		return time.Time{}
	}
	return s.time(s.next(after.Unix()))
}

// sane reports whether a moment is one to reckon with.
func sane(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9000 }

// In is a moment by the clock of the schedule's zone.
func (w *Windows) In(t time.Time) time.Time { return t.In(w.loc) }

func (w *Windows) time(unix int64) time.Time { return time.Unix(unix, 0).In(w.loc) }

// next returns the first start after t, in seconds since 1970 as all times below.
func (s *Schedule) next(t int64) int64 {
	start, _ := s.begin(s.after(s.latest(t)))
	return start
}

// newest returns the last start that is not after t, and when its window closes.
func (s *Schedule) newest(t int64) (start, closes int64) { return s.begin(s.before(s.latest(t))) }

// after returns the first time of the schedule after t, without windows and spread.
func (s *Schedule) after(t int64) int64 { return reach(s.loc, s.dates.next(shown(s.loc, t)+1)) }

// before returns the last time of the schedule that is not after t.
func (s *Schedule) before(t int64) int64 { return reach(s.loc, s.dates.prev(shown(s.loc, t))) }

// begin returns when a start is made for a time t, and when its window closes.
func (s *Schedule) begin(t int64) (start, closes int64) {
	return s.beginIn(s.openings(t, t+maxWait), t)
}

// beginIn is begin for the openings around t.
func (s *Schedule) beginIn(open []opening, t int64) (start, closes int64) {
	start, closes = enter(open, t)
	late, _ := bits.Mul64(uint64(min(s.spread, closes-start)), s.share)
	return start + int64(late), closes
}

// latest returns the last moment whose start is not after t. A later moment never has an
// earlier start, so it can be searched for by halves.
func (s *Schedule) latest(t int64) int64 {
	if len(s.windows) == 0 && s.share == 0 {
		return t
	}
	low, high := t-s.spread, t // low has a start that is not after t, and high may have
	if len(s.windows) > 0 {
		low -= maxWait
	}
	open := s.openings(low, t+maxWait)
	for low < high {
		mid := low + (high-low+1)/2
		if start, _ := s.beginIn(open, mid); start <= t {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

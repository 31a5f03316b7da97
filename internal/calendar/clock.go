package calendar

import "time"

// A reading is what a local clock shows, as the number of seconds after 1970-01-01 00:00:00
// of a clock that is never changed. So readings of any zone are reckoned with like moments of UTC.

// maxOffset is more than any zone was ever away from UTC, in seconds.
const maxOffset = 26 * 3600

// period returns the offset of a zone from UTC at a moment, and from when to when it holds.
func period(loc *time.Location, t int64) (offset, from, to int64) {
	at := time.Unix(t, 0).In(loc)
	_, o := at.Zone()
	from, to = -never, never
	start, end := at.ZoneBounds()
	if !start.IsZero() {
		from = start.Unix()
	}
	if !end.IsZero() {
		to = end.Unix()
	}
	return int64(o), from, to
}

// maxPeriods is more than how often a zone was ever changed within a few days.
const maxPeriods = 64

// reach returns the first moment at which the clock shows a reading, or a later one.
func reach(loc *time.Location, reading int64) int64 {
	t := reading - maxOffset // the clock shows less
	for range maxPeriods {
		offset, _, to := period(loc, t)
		if at := max(t, reading-offset); at < to {
			return at
		}
		t = to
	}
	return t
}

// shown returns the highest reading that the clock has shown up to a moment. Before the
// moment the clock may have been put back.
func shown(loc *time.Location, t int64) int64 {
	offset, from, _ := period(loc, t)
	high := t + offset
	for i := 0; i < maxPeriods && from > t-2*maxOffset; i++ {
		last := from - 1
		offset, from, _ = period(loc, last)
		high = max(high, last+offset)
	}
	return high
}

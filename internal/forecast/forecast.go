// Package forecast tells from the sizes of the past on which day a store will be full.
package forecast

import (
	"math"
	"slices"
	"time"
)

// Point is what was used of a room at a time, in bytes.
type Point struct {
	At   time.Time
	Used int64
	Room int64 // all that could be used; 0 and less mean that this is not known
}

// State is what is known of the future.
type State string

// The states.
const (
	Unknown    State = "unknown"     // there is too little to tell from
	NotGrowing State = "not-growing" // it becomes no fuller
	Far        State = "far"         // it grows, and is not full within the years of Most
	Full       State = "full"        // it is full on the day
)

// Most is how far a forecast looks ahead.
const Most = 3 * 366 * 24 * time.Hour

// Days is how many of the last days count.
const Days = 35

// Forecast is what can be told.
type Forecast struct {
	State  State
	Day    time.Time // the beginning of a day in UTC, if the state is Full
	PerDay int64     // by how many bytes it grows each day, if that is known; below 0 it becomes emptier
}

const (
	day    = 24 * time.Hour
	window = Days
	week   = 7
	// With so many weeks that begin on different days, one jump is in fewer than half of
	// them. Boxes that are backed up once a week count right in each.
	minWeeks = 2*week + 1
	minDays  = 6 // pairs of neighbouring days, if there are not so many weeks
	stale    = 3 // days; what is older says nothing of now
)

// Of tells on which day the room will be full, from the points of the last weeks in any
// order. It takes the median of what the weeks have added. So what happened once, such as
// the first backup of many boxes or the collection of many deleted ones, counts for
// nothing, and what happens each week counts in full.
func Of(points []Point, now time.Time) Forecast {
	days, last, ok := daily(points, now)
	if !ok || dayOf(now)-dayOf(last.At) > stale {
		return Forecast{State: Unknown}
	}
	left := last.Room - last.Used
	if left <= 0 {
		return Forecast{State: Full, Day: date(dayOf(now))}
	}
	growth, weekly := slope(days, week), true
	if len(growth) < minWeeks {
		growth, weekly = slope(days, 1), false
		if len(growth) < minDays {
			return Forecast{State: Unknown}
		}
	}
	perDay := median(growth)
	f := Forecast{PerDay: int64(perDay)}
	switch ahead := float64(left) / perDay; {
	case perDay < 1 && !weekly && last.Used > days[oldest(days)]:
		// Most days add nothing, and others do. Whether they come each week is not known yet.
		return Forecast{State: Unknown}
	case perDay < 1:
		f.State = NotGrowing
	case ahead > Most.Hours()/24:
		f.State = Far
	default:
		f.State, f.Day = Full, date(max(dayOf(last.At)+int64(ahead), dayOf(now)))
	}
	return f
}

// dayOf is the number of a day in UTC.
func dayOf(t time.Time) int64 {
	s, d := t.Unix(), int64(day/time.Second)
	n := s / d
	if s%d < 0 {
		n--
	}
	return n
}

func date(n int64) time.Time { return time.Unix(n*int64(day/time.Second), 0).UTC() }

// daily is what was used at the end of each day of the last weeks, and the last point.
func daily(points []Point, now time.Time) (days map[int64]int64, last Point, ok bool) {
	points = slices.DeleteFunc(slices.Clone(points), func(p Point) bool {
		return p.Room <= 0 || p.Used < 0 || p.At.After(now) || dayOf(p.At) <= dayOf(now)-window
	})
	slices.SortStableFunc(points, func(a, b Point) int { return a.At.Compare(b.At) })
	days = map[int64]int64{}
	for _, p := range points {
		days[dayOf(p.At)] = p.Used
		last, ok = p, true
	}
	return days, last, ok
}

// slope is by how much it grew each day, for each two days so many days apart.
func slope(days map[int64]int64, apart int64) (all []float64) {
	for d, used := range days {
		if before, ok := days[d-apart]; ok {
			all = append(all, (float64(used)-float64(before))/float64(apart))
		}
	}
	return all
}

func median(all []float64) float64 {
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

func oldest(days map[int64]int64) int64 {
	first := int64(math.MaxInt64)
	for d := range days {
		first = min(first, d)
	}
	return first
}

package calendar

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/netresearch/go-cron"

	"testbox-imaging/internal/problem"
)

// Windows are the times in which something may begin. Without any it may begin at all times. They do not change, and may be
// used by several goroutines.
type Windows struct {
	loc     *time.Location
	windows []window
}

// ParseWindows understands windows as those of a Spec, in a time zone as that of a Spec. Errors are of package problem, and say
// what to write instead.
func ParseWindows(texts []string, zone string) (w Windows, err error) {
	if w.loc, err = parseZone(zone); err != nil {
		return w, problem.Wrongf("%w", err)
	}
	if len(texts) > maxWindows {
		return w, problem.Wrongf("there are %d windows, and there may be at most %d", len(texts), maxWindows)
	}
	for _, text := range texts {
		one, err := parseWindow(text)
		if err != nil {
			return w, problem.Wrongf("%w", err)
		}
		w.windows = append(w.windows, one)
	}
	if always(w.windows) {
		w.windows = nil
	}
	return w, nil
}

// window is a stretch of time that begins on some days of the week.
type window struct {
	weekdays uint64 // from Sunday; those on which it opens
	from     int64  // seconds after midnight
	length   int64  // seconds; at most those of a day
}

// never is when something closes that does not. It is far from where numbers end.
const never = 1 << 60

// maxWait is more than the time between two openings of a window, in seconds.
const maxWait = 10 * day

var (
	windowForm = regexp.MustCompile(`^(?:([a-z0-7,-]+) +)?([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})$`)
	dayElement = regexp.MustCompile(`^([0-7]|[a-z]{3})(-([0-7]|[a-z]{3}))?$`)
)

// parseWindow understands "22:00-06:00" and "mon-fri 22:00-06:00".
func parseWindow(text string) (w window, err error) {
	const instead = `write it like "22:00-06:00" or "mon-fri 22:00-06:00"`
	m := windowForm.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if m == nil || len(text) > 100 {
		return w, fmt.Errorf("%.100q is no window; %s", text, instead)
	}
	w.weekdays = allWeekdays
	if m[1] != "" {
		if w.weekdays, err = parseWeekdays(m[1]); err != nil {
			return w, fmt.Errorf("the days %q of the window %q are not understood; %s", m[1], text, instead)
		}
	}
	from, okFrom := timeOfDay(m[2])
	to, okTo := timeOfDay(m[3])
	switch {
	case !okFrom || !okTo || from == day:
		return w, fmt.Errorf("the window %q has no times from 00:00 to 24:00; %s", text, instead)
	case from == to:
		return w, fmt.Errorf("the window %q has no length; write 00:00-24:00 for a whole day", text)
	case to < from:
		to += day
	}
	w.from, w.length = from, to-from
	return w, nil
}

// parseWeekdays understands the days of a window, which are written as those of a cron text.
func parseWeekdays(text string) (uint64, error) {
	for _, e := range strings.Split(text, ",") {
		if !dayElement.MatchString(e) {
			return 0, errNoDay
		}
	}
	parsed, err := parser.Parse("* * * * " + text)
	if err != nil {
		return 0, err
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok || spec.Dow&allWeekdays == 0 {
		return 0, errNoDay
	}
	return spec.Dow & allWeekdays, nil
}

// timeOfDay returns the seconds after midnight.
func timeOfDay(text string) (int64, bool) {
	if text == "24:00" {
		return day, true
	}
	t, err := time.Parse("15:04", text)
	return int64(t.Hour()*3600 + t.Minute()*60), err == nil
}

// always reports whether windows leave out no minute of a week.
func always(windows []window) bool {
	var open [7 * day / 60]bool
	for _, w := range windows {
		for d := range int64(7) {
			for m := range w.length / 60 {
				if w.weekdays>>d&1 == 1 {
					open[(d*day/60+w.from/60+m)%int64(len(open))] = true
				}
			}
		}
	}
	return !slices.Contains(open[:], false)
}

// opening is a stretch of time in which jobs may start. It ends before to.
type opening struct{ from, to int64 }

// openings returns all openings that have a moment from low to high, and perhaps some
// more, in their order. Those that touch are one. Without windows there are none.
func (w *Windows) openings(low, high int64) (out []opening) {
	first, last := (low-maxOffset)/day-3, (high+maxOffset)/day+1
	var all []opening
	for number := first; number <= last && len(w.windows) > 0; number++ {
		weekday := ((number+4)%7 + 7) % 7 // 1970-01-01 was a Thursday
		for _, one := range w.windows {
			if one.weekdays>>weekday&1 == 0 {
				continue
			}
			o := opening{reach(w.loc, number*day+one.from), reach(w.loc, number*day+one.from+one.length)}
			if o.to <= o.from { // the clock skips all of it
				o.to = o.from + one.length
			}
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b opening) int { return cmp.Compare(a.from, b.from) })
	for _, o := range all {
		if n := len(out); n > 0 && o.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, o.to)
		} else {
			out = append(out, o)
		}
	}
	return out
}

// enter returns the first moment from t on at which one of the openings is open, and when it closes.
func enter(open []opening, t int64) (at, closes int64) {
	i, _ := slices.BinarySearchFunc(open, t, func(o opening, t int64) int { return cmp.Compare(o.to, t+1) })
	if i == len(open) {
		return t, never // there are no windows
	}
	return max(t, open[i].from), open[i].to
}

// Open reports whether jobs may start at a moment. If they may, it returns until when, or the
// zero time if there are no windows. Otherwise it returns when they may start next.
func (w *Windows) Open(t time.Time) (bool, time.Time) {
	if len(w.windows) == 0 || !sane(t) {
		return true, time.Time{}
	}
	at, closes := enter(w.openings(t.Unix(), t.Unix()+maxWait), t.Unix())
	if at > t.Unix() {
		return false, w.time(at)
	}
	return true, w.time(closes)
}

package calendar

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// dates are the readings of the clock that a cron text names. Each is a whole minute.
type dates struct {
	minutes, hours uint64 // a bit for each
	days, months   uint64
	weekdays       uint64 // from Sunday
	lastDay        bool   // of the month
	nth            []cron.DowConstraint
}

const (
	allDays     = 1<<32 - 2
	allWeekdays = 1<<7 - 1
	day         = 24 * 3600
)

// parser is used for one field at a time, and only after the field was looked at. By itself
// it takes "*-5" for "*", and "," for no time at all.
var parser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.DomL | cron.DowNth | cron.DowLast)

// A field of a cron text.
type field struct {
	name, range_ string
	names        bool           // has names, like mon
	special      *regexp.Regexp // what else it may be
}

var fields = [5]field{
	{name: "minute", range_: "0 to 59"},
	{name: "hour", range_: "0 to 23"},
	{name: "day of the month", range_: "1 to 31", special: regexp.MustCompile(`^l$`)},
	{name: "month", range_: "1 to 12 or jan to dec", names: true},
	{name: "day of the week", range_: "0 to 7 or sun to sat", names: true, special: regexp.MustCompile(`^([0-7]|[a-z]{3})#([1-5]|l)$`)},
}

var (
	element = regexp.MustCompile(`^(\*|([0-9]{1,2}|[a-z]{3})(-([0-9]{1,2}|[a-z]{3}))?)(/[0-9]{1,2})?$`)
	number  = regexp.MustCompile(`^[0-9*/-]+$`)
)

var short = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

const fiveFields = "write minute, hour, day of the month, month and day of the week, like \"30 2 * * mon-fri\", or a word like @daily"

// parseCron understands a cron text.
func parseCron(text string) (dates, error) {
	if len(text) > 200 {
		return dates{}, fmt.Errorf("the time of a schedule has %d characters; %s", len(text), fiveFields)
	}
	low := strings.ToLower(strings.Trim(text, " \t"))
	if long, ok := short[low]; ok {
		low = long
	}
	parts := strings.FieldsFunc(low, func(r rune) bool { return r == ' ' || r == '\t' })
	switch {
	case len(parts) == 0:
		return dates{}, fmt.Errorf("the time of a schedule is missing; %s", fiveFields)
	case strings.HasPrefix(low, "@every"):
		return dates{}, fmt.Errorf("%q is not known, since it has no fixed time of day; for every 6 hours write \"0 */6 * * *\"", text)
	case strings.HasPrefix(low, "@"):
		return dates{}, fmt.Errorf("%q is not known; write @hourly, @daily, @weekly, @monthly, @yearly, or five fields like \"30 2 * * *\"", text)
	case strings.HasPrefix(low, "tz=") || strings.HasPrefix(low, "cron_tz="):
		return dates{}, fmt.Errorf("%q begins with a time zone, which is a setting of its own; leave it out here", text)
	case len(parts) == 6:
		return dates{}, fmt.Errorf("%q has six fields, and there are no seconds or years; %s", text, fiveFields)
	case len(parts) != 5:
		return dates{}, fmt.Errorf("%q is no time of a schedule; %s", text, fiveFields)
	}
	var d dates
	for i, part := range parts {
		if err := d.parseField(i, part); err != nil {
			return dates{}, err
		}
	}
	if d.days != allDays && d.weekdays != allWeekdays {
		return dates{}, fmt.Errorf("%q has a day of the month and a day of the week, which cron programs understand in two ways; "+
			"write * for one of them (the first Monday of a month is mon#1, the last one mon#l)", text)
	}
	if d.never() {
		return dates{}, fmt.Errorf("%q never comes, since none of its months has such a day; the last day of a month is l", text)
	}
	return d, nil
}

// parseField understands one field.
func (d *dates) parseField(i int, text string) error {
	f := fields[i]
	wrong := func(why string) error {
		list := "a list like 1,3"
		if i == 2 {
			list += ", l for the last day"
		}
		if i == 4 {
			list += ", sun#1 for the first Sunday of a month"
		}
		return fmt.Errorf("the %s %q is not understood%s; write a number from %s, a range like 1-3, a step like */2, %s, or *",
			f.name, text, why, f.range_, list)
	}
	for _, e := range strings.Split(text, ",") {
		switch {
		case f.special != nil && f.special.MatchString(e):
		case e == "?":
			return wrong(", for ? is not known")
		case !element.MatchString(e), !f.names && !number.MatchString(e):
			return wrong("")
		case i == 4 && wraps(e) && strings.Contains(e, "/"):
			return fmt.Errorf("the %s %q goes over the end of the week in steps; write the days one by one, like fri,sun,tue", f.name, text)
		}
	}
	all := []string{"*", "*", "*", "*", "*"}
	all[i] = text
	parsed, err := parser.Parse(strings.Join(all, " "))
	spec, ok := parsed.(*cron.SpecSchedule)
	if err != nil || !ok {
		return wrong("")
	}
	switch i {
	case 0:
		d.minutes = spec.Minute & (1<<60 - 1)
	case 1:
		d.hours = spec.Hour & (1<<24 - 1)
	case 2:
		d.days = spec.Dom & allDays
		d.lastDay = len(spec.DomConstraints) > 0
	case 3:
		d.months = spec.Month & (1<<13 - 2)
	case 4:
		d.weekdays = spec.Dow & allWeekdays
		d.nth = spec.DowConstraints
	}
	return nil
}

// wraps reports whether a range of days of the week goes over the week's end. There the
// parser counts eight days a week, as Sunday has two numbers.
func wraps(e string) bool {
	r, _, _ := strings.Cut(e, "/")
	from, to, isRange := strings.Cut(r, "-")
	if !isRange {
		return false
	}
	a, errA := weekday(from)
	b, errB := weekday(to)
	return errA == nil && errB == nil && a > b
}

var errNoDay = errors.New("no day of the week")

// weekday returns the number of a day of the week, as it is written in a cron text.
func weekday(s string) (int, error) {
	if len(s) == 1 && s[0] >= '0' && s[0] <= '7' {
		return int(s[0] - '0'), nil
	}
	for d := time.Sunday; d <= time.Saturday; d++ {
		if s == strings.ToLower(d.String()[:3]) {
			return int(d), nil
		}
	}
	return 0, errNoDay
}

// cycle is after how many days the calendar repeats itself, with its days of the week.
const cycle = 146097

// never reports whether no date fits.
func (d *dates) never() bool {
	if d.minutes == 0 || d.hours == 0 {
		return true
	}
	_, ok := d.day(0, 1)
	return !ok
}

// next returns the first reading of the dates that is not before a reading.
func (d *dates) next(reading int64) int64 {
	number, minute := split(reading + 59) // the first whole minute from there on
	if d.fits(number) {
		for h := minute / 60; h < 24; h++ {
			from := max(minute-h*60, 0)
			if m := d.minutes >> from; d.hours>>h&1 == 1 && m != 0 {
				return number*day + int64(h*60+from+bits.TrailingZeros64(m))*60
			}
		}
	}
	number, _ = d.day(number+1, 1)
	return number*day + int64(bits.TrailingZeros64(d.hours)*60+bits.TrailingZeros64(d.minutes))*60
}

// prev returns the last reading of the dates that is not after a reading.
func (d *dates) prev(reading int64) int64 {
	number, minute := split(reading)
	if d.fits(number) {
		for h := minute / 60; h >= 0; h-- {
			to := min(minute-h*60, 59)
			if m := d.minutes << (63 - to); d.hours>>h&1 == 1 && m != 0 {
				return number*day + int64(h*60+to-bits.LeadingZeros64(m))*60
			}
		}
	}
	number, _ = d.day(number-1, -1)
	return number*day + int64((bits.Len64(d.hours)-1)*60+bits.Len64(d.minutes)-1)*60
}

// split returns the day of a reading, counted from 1970-01-01, and the minute of that day.
func split(reading int64) (number int64, minute int) {
	number = reading / day
	if reading%day < 0 {
		number--
	}
	return number, int((reading - number*day) / 60)
}

// day returns the first day from number on that fits, in steps of 1 or -1.
func (d *dates) day(number, step int64) (int64, bool) {
	for range cycle {
		if d.fits(number) {
			return number, true
		}
		number += step
	}
	return number, false
}

// fits reports whether a day fits.
func (d *dates) fits(number int64) bool {
	date := time.Unix(number*day, 0).UTC()
	_, month, mday := date.Date()
	if d.months>>month&1 == 0 {
		return false
	}
	left := time.Date(date.Year(), month+1, 0, 0, 0, 0, 0, time.UTC).Day() - mday // days of the month
	wday := int(date.Weekday())
	if d.days>>mday&1 == 0 && (!d.lastDay || left > 0) {
		return false
	}
	if d.weekdays>>wday&1 == 1 {
		return true
	}
	for _, n := range d.nth {
		if n.Weekday == wday && (n.N == (mday-1)/7+1 || n.N == -1 && left < 7) {
			return true
		}
	}
	return false
}

package calendar

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func parse(t testing.TB, spec Spec) *Schedule {
	t.Helper()
	s, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// local reads a time of a zone, as "2026-03-29 03:00 CEST", where the offset tells times apart that come twice.
func local(t testing.TB, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04 -0700", text, loc)
	if err != nil {
		if at, err = time.ParseInLocation("2006-01-02 15:04", text, loc); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// TestTimes holds the starts against those that testdata/times.py has found in another way.
func TestTimes(t *testing.T) {
	text, err := os.ReadFile("testdata/times.txt")
	if err != nil {
		t.Fatal(err)
	}
	const form = "2006-01-02T15:04Z"
	seen := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(strings.TrimSpace(line), "; ")
		s := parse(t, Spec{Cron: parts[0], Zone: parts[1]})
		at, err := time.Parse(form, parts[2])
		if err != nil {
			t.Fatal(err)
		}
		before := time.Time{}
		for want := range strings.FieldsSeq(parts[3]) {
			at = s.Next(at)
			if got := at.UTC().Format(form); got != want {
				t.Errorf("%s in %s: %s, want %s", parts[0], parts[1], got, want)
			}
			if got := s.time(s.before(at.Unix() - 1)); !before.IsZero() && !got.Equal(before) {
				t.Errorf("%s in %s: before %s comes %s, want %s", parts[0], parts[1], want, got, before)
			}
			before = at
			seen++
		}
	}
	if seen < 150 {
		t.Errorf("only %d starts were looked at", seen)
	}
}

// TestByHand has what was worked out with a calendar and the rules of the zones.
func TestByHand(t *testing.T) {
	for _, c := range []struct{ cron, zone, after, want string }{
		// Germany: on 2026-03-29 02:00 becomes 03:00, on 2026-10-25 03:00 becomes 02:00.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 03:00 +0200"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29 03:00 +0200", "2026-03-30 02:30 +0200"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 02:29 +0200", "2026-10-25 02:30 +0200"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 02:10 +0100", "2026-10-26 02:30 +0100"},
		{"0 3 * * *", "Europe/Berlin", "2026-10-25 02:59 +0200", "2026-10-25 03:00 +0100"},
		{"0 * * * *", "Europe/Berlin", "2026-03-29 01:00 +0100", "2026-03-29 03:00 +0200"},
		{"0 * * * *", "Europe/Berlin", "2026-10-25 02:00 +0200", "2026-10-25 03:00 +0100"},
		// Lord Howe Island: half an hour, 02:00 becomes 02:30 on 2026-10-04 and 01:30 on 2026-04-05.
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-04 01:00", "2026-10-04 02:30 +1100"},
		{"0 2 * * *", "Australia/Lord_Howe", "2026-10-04 01:00", "2026-10-04 02:30 +1100"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-05 01:40 +1030", "2026-04-06 01:45 +1030"},
		// Samoa had no 2011-12-30.
		{"0 2 30 12 *", "Pacific/Apia", "2011-12-29 00:00", "2011-12-31 00:00 +1400"},
		// Years' ends and leap days.
		{"59 23 31 12 *", "UTC", "2026-12-31 23:58", "2026-12-31 23:59"},
		{"59 23 31 12 *", "UTC", "2026-12-31 23:59", "2027-12-31 23:59"},
		{"@yearly", "America/New_York", "2026-12-31 23:59", "2027-01-01 00:00"},
		{"0 3 29 2 *", "UTC", "2024-02-29 03:00", "2028-02-29 03:00"},
		{"0 3 29 2 *", "UTC", "2096-02-29 03:00", "2104-02-29 03:00"}, // 2100 is no leap year
		{"0 3 l 2 *", "UTC", "2027-03-01 00:00", "2028-02-29 03:00"},
		{"0 3 * 2 sun#5", "UTC", "2026-01-01 00:00", "2032-02-29 03:00"},
		{"@weekly", "UTC", "2026-11-29 00:00", "2026-12-06 00:00"},
		{"0 0 * * 7", "UTC", "2026-11-28 00:00", "2026-11-29 00:00"},
		{"0 0 * * 0", "UTC", "2026-11-28 00:00", "2026-11-29 00:00"},
		{"0 0 * * SAT-MON", "UTC", "2026-11-30 00:00", "2026-12-05 00:00"},
		{"0 0 31 * *", "UTC", "2026-08-31 00:00", "2026-10-31 00:00"},
		{" @DAILY ", "UTC", "2026-11-29 22:00", "2026-11-30 00:00"},
		{"5/20 4 * * *", "UTC", "2026-11-29 04:25", "2026-11-29 04:45"},
	} {
		s := parse(t, Spec{Cron: c.cron, Zone: c.zone})
		if got, want := s.Next(local(t, c.zone, c.after)), local(t, c.zone, c.want); !got.Equal(want) {
			t.Errorf("%q after %s in %s: %s, want %s", c.cron, c.after, c.zone, got, want)
		}
	}
	s := parse(t, Spec{Cron: "* * * * *", Zone: "UTC"})
	half := time.Date(2026, 11, 29, 10, 0, 0, 1, time.UTC)
	if got := s.Next(half.Add(-2)); !got.Equal(half.Add(-1)) {
		t.Errorf("a nanosecond before a start it is %s", got)
	}
	if got := s.Next(half); !got.Equal(half.Add(time.Minute - 1)) {
		t.Errorf("a nanosecond after a start the next one is %s", got)
	}
	for _, insane := range []time.Time{time.Unix(1<<62, 0), time.Unix(-1<<62, 0)} {
		if got := s.Next(insane); !got.IsZero() {
			t.Errorf("after the year %d: %s", insane.Year(), got)
		}
	}
}

// TestErrors: what is not understood is said with what to write instead.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Cron: ""}, "write minute, hour"},
		{Spec{Cron: "daily"}, "write minute, hour"},
		{Spec{Cron: "02:00"}, "write minute, hour"},
		{Spec{Cron: strings.Repeat("1,", 200) + "1 * * * *"}, "characters"},
		{Spec{Cron: "@fortnightly"}, "write @hourly"},
		{Spec{Cron: "@reboot"}, "write @hourly"},
		{Spec{Cron: "@every 6h"}, `write "0 */6 * * *"`},
		{Spec{Cron: "@every 1ns"}, `write "0 */6 * * *"`},
		{Spec{Cron: "0 0 2 * * *"}, "no seconds"},
		{Spec{Cron: "TZ=UTC 0 2 * * *"}, "a setting of its own"},
		{Spec{Cron: "CRON_TZ=UTC"}, "a setting of its own"},
		{Spec{Cron: "60 2 * * *"}, "write a number from 0 to 59"},
		{Spec{Cron: "0 24 * * *"}, "hour \"24\""},
		{Spec{Cron: "0 2 0 * *"}, "write a number from 1 to 31"},
		{Spec{Cron: "0 2 32 * *"}, "day of the month \"32\""},
		{Spec{Cron: "0 2 * 13 *"}, "jan to dec"},
		{Spec{Cron: "0 2 * foo *"}, "jan to dec"},
		{Spec{Cron: "0 2 * * 8"}, "sun to sat"},
		{Spec{Cron: "0 2 * * day"}, "sun to sat"},
		{Spec{Cron: "0 2 * * mon#6"}, "sun#1 for the first Sunday"},
		{Spec{Cron: "0 2 * * #"}, "sun#1 for the first Sunday"},
		{Spec{Cron: "0 2 1w * *"}, "day of the month"},
		{Spec{Cron: "0 2 l-3 * *"}, "day of the month"},
		{Spec{Cron: "h 2 * * *"}, "minute \"h\""},
		{Spec{Cron: "? 2 * * *"}, "? is not known"},
		{Spec{Cron: "*-5 2 * * *"}, "minute"}, // the library takes it for *
		{Spec{Cron: ", 2 * * *"}, "minute"},   // and that for no minute
		{Spec{Cron: "1,,2 2 * * *"}, "minute"},
		{Spec{Cron: "+5 2 * * *"}, "minute"},
		{Spec{Cron: "-5 2 * * *"}, "minute"},
		{Spec{Cron: "*/0 2 * * *"}, "minute"},
		{Spec{Cron: "*/99 2 * * *"}, "minute"},
		{Spec{Cron: "1/2/3 2 * * *"}, "minute"},
		{Spec{Cron: "1-2-3 2 * * *"}, "minute"},
		{Spec{Cron: "99999999999999999999 2 * * *"}, "minute"},
		{Spec{Cron: "0 2 * * fri-tue/2"}, "one by one"}, // there the library counts eight days a week
		{Spec{Cron: "0 2 13 * fri"}, "the first Monday of a month is mon#1"},
		{Spec{Cron: "0 2 1-7 * mon"}, "the first Monday of a month is mon#1"},
		{Spec{Cron: "0 2 30 2 *"}, "never comes"},
		{Spec{Cron: "0 2 31 4,6,9,11 *"}, "never comes"},
		{Spec{Cron: "@daily", Zone: "Europe/Bärlin"}, `write a name like "Europe/Berlin"`},
		{Spec{Cron: "@daily", Zone: "Europe/Nowhere"}, "there is no time zone"},
		{Spec{Cron: "@daily", Zone: "Local"}, "leave it out"},
		{Spec{Cron: "@daily", Zone: "../../etc/passwd"}, "is no time zone"},
		{Spec{Cron: "@daily", Zone: "/etc/localtime"}, "no time zone"},
		{Spec{Cron: "@daily", Zone: "Europe"}, "there is no time zone"},
		{Spec{Cron: "@daily", Zone: strings.Repeat("A", 65)}, "is no time zone"},
		{Spec{Cron: "@daily", Windows: []string{"at night"}}, `write it like "22:00-06:00"`},
		{Spec{Cron: "@daily", Windows: []string{"25:00-26:00"}}, "no times from 00:00 to 24:00"},
		{Spec{Cron: "@daily", Windows: []string{"24:00-06:00"}}, "no times from 00:00 to 24:00"},
		{Spec{Cron: "@daily", Windows: []string{"06:00-06:00"}}, "write 00:00-24:00"},
		{Spec{Cron: "@daily", Windows: []string{"mo-fr 06:00-07:00"}}, "the days \"mo-fr\""},
		{Spec{Cron: "@daily", Windows: []string{"mon,,tue 06:00-07:00"}}, "the days"},
		{Spec{Cron: "@daily", Windows: make([]string, 17)}, "at most 16"},
		{Spec{Cron: "@daily", Spread: -1}, "from 0s to 24h"},
		{Spec{Cron: "@daily", Spread: 25 * time.Hour}, "from 0s to 24h"},
		{Spec{Cron: "@daily", Late: time.Second}, "from 1m to 168h"},
		{Spec{Cron: "@daily", Late: -1}, "from 1m to 168h"},
	} {
		_, err := Parse(c.spec)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.spec, err, c.want)
		} else if len(err.Error()) > 500 {
			t.Errorf("%+v: the error has %d characters", c.spec, len(err.Error()))
		}
	}
}

// zones are those of the walks. The times of the walks lie around their changes.
var zones = []struct{ name, around string }{
	{"UTC", "2026-12-31T12:00Z"}, {"Europe/Berlin", "2026-03-29T01:00Z"}, {"Europe/Berlin", "2026-10-25T01:00Z"},
	{"America/New_York", "2026-03-08T07:00Z"}, {"America/New_York", "2026-11-01T06:00Z"},
	{"Australia/Lord_Howe", "2026-10-03T15:30Z"}, {"Australia/Lord_Howe", "2026-04-04T15:00Z"},
	{"Pacific/Apia", "2011-12-30T10:00Z"}, {"America/Sao_Paulo", "2018-11-04T03:00Z"}, {"America/Sao_Paulo", "2018-02-18T02:00Z"},
	{"Pacific/Kwajalein", "1993-08-21T12:00Z"}, {"Asia/Pyongyang", "2018-05-04T15:00Z"}, {"Antarctica/Troll", "2026-03-29T01:00Z"},
	{"Antarctica/Troll", "2026-10-25T01:00Z"}, {"Europe/Dublin", "2026-10-25T01:00Z"}, {"Asia/Kathmandu", "2028-02-29T12:00Z"},
	{"America/Nuuk", "2024-03-31T01:00Z"}, {"Africa/Casablanca", "2026-02-15T02:00Z"}, {"America/Anchorage", "2026-03-08T11:00Z"},
	{"Pacific/Kwajalein", "1969-09-30T13:00Z"}, // a day that came nearly twice
}

// values are the numbers from low to high that a field of a cron text names. They are told apart in a way of their own.
func values(t *rapid.T, text string, low, high int) map[int]bool {
	out := map[int]bool{}
	for _, e := range strings.Split(text, ",") {
		from, to, step := low, high, 1
		var a, b int
		switch {
		case e == "*":
		case scan(e, "*/%d", &step):
		case scan(e, "%d-%d", &a, &b):
			from, to = a, b
		case scan(e, "%d", &a):
			from, to = a, a
		default:
			t.Fatalf("the walk does not understand %q", e)
		}
		for v := from; v <= to; v += step {
			out[v] = true
		}
	}
	return out
}

func scan(text, form string, to ...any) bool {
	n, err := fmt.Sscanf(text+" .", form+" .", to...)
	return err == nil && n == len(to)
}

// TestWalk holds Next, Due and Open against a slow second way to find the starts of a schedule. It goes
// from minute to minute, and keeps what the clock has shown, whether the window is open, and whether a start waits for it.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		number := func(low, high int) string { return fmt.Sprint(rapid.IntRange(low, high).Draw(t, "number")) }
		list := func(low, high int) string { return number(low, high) + "," + number(low, high) }
		parts := []string{
			rapid.SampledFrom([]string{"0", "*/15", "*/7", "*", list(0, 59)}).Draw(t, "minute"),
			rapid.SampledFrom([]string{"*", "2", "*/3", "1-3", list(0, 23), "0,23"}).Draw(t, "hour"), "*", "*", "*",
		}
		switch rapid.IntRange(0, 4).Draw(t, "days") {
		case 0:
			parts[2] = list(1, 28)
		case 1:
			parts[4] = list(0, 6)
		case 2:
			parts[3] = rapid.SampledFrom([]string{"1-6", "7-12", "2,12"}).Draw(t, "month")
		}
		spec := Spec{Cron: strings.Join(parts, " "), Zone: zone.name}
		from, to := -1, -1 // of the window, in minutes
		if rapid.Bool().Draw(t, "window") {
			from, to = rapid.IntRange(0, 47).Draw(t, "from")*30, rapid.IntRange(0, 47).Draw(t, "to")*30
			if from == to {
				to = (from + 90) % 1440
			}
			spec.Windows = []string{fmt.Sprintf("%02d:%02d-%02d:%02d", from/60, from%60, to/60, to%60)}
		}
		s, err := Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		around, err := time.Parse("2006-01-02T15:04Z", zone.around)
		if err != nil {
			t.Fatal(err)
		}
		begin := around.Add(-time.Duration(rapid.IntRange(1, 60*40).Draw(t, "before")) * time.Minute)
		loc := s.loc
		reading := func(at time.Time) int64 {
			_, offset := at.In(loc).Zone()
			return at.Unix() + int64(offset)
		}
		var sets []map[int]bool
		for i, bounds := range [][2]int{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}} {
			sets = append(sets, values(t, parts[i], bounds[0], bounds[1]))
		}
		matches := func(reading int64) bool {
			at := time.Unix(reading, 0).UTC()
			return sets[0][at.Minute()] && sets[1][at.Hour()] && sets[2][at.Day()] && sets[3][int(at.Month())] && sets[4][int(at.Weekday())]
		}
		high, waiting := reading(begin), false // the highest reading so far; whether a start waits for the window
		for at := begin.Add(-60 * time.Hour); !at.After(begin); at = at.Add(time.Minute) {
			high = max(high, reading(at))
		}
		open, _ := s.Open(begin)
		left := int64(0) // how much longer a window is open that the clock skipped
		var starts []time.Time
		for at := begin.Add(time.Minute); at.Before(begin.Add(72 * time.Hour)); at = at.Add(time.Minute) {
			if left > 0 {
				if left--; left == 0 {
					open = false
				}
			}
			opened := false
			for now := reading(at); high < now; {
				high += 60
				switch m := int((high%day + day) % day / 60); {
				case m == from:
					open, opened, left = true, true, 0
				case m == to && opened && high-int64((to-from+1440)%1440*60) > reading(at.Add(-time.Minute)):
					// All of the window was skipped.
					left = int64((to - from + 1440) % 1440)
				case m == to && left == 0:
					open = false
				}
				waiting = waiting || matches(high)
			}
			if at.Minute()%6 == 0 {
				if got, _ := s.Open(at); got != (open || from < 0) {
					t.Fatalf("%+v: at %s Open says %v", spec, at.In(loc), got)
				}
			}
			if waiting && (open || from < 0) {
				waiting = false
				starts = append(starts, at)
			}
		}
		// What waited already when the walk began is not known to it.
		after := begin
		if len(starts) > 0 && from >= 0 {
			after, starts = starts[0], starts[1:]
		}
		for _, want := range starts {
			got := s.Next(after)
			if !got.Equal(want) {
				t.Fatalf("%+v: after %s comes %s, want %s", spec, after.In(loc), got, want.In(loc))
			}
			if due := s.Due(after, got); !due.Start.Equal(want) || due.Missed.Count != 0 {
				t.Fatalf("%+v: at %s this is due: %+v", spec, got, due)
			}
			if due := s.Due(after, got.Add(-time.Second)); !due.Start.IsZero() || due.Missed.Count != 0 || !due.Next.Equal(want) {
				t.Fatalf("%+v: before %s this is due: %+v", spec, got, due)
			}
			after = got
		}
	})
}

func TestWindows(t *testing.T) {
	night := []string{"22:00-06:00"}
	for _, c := range []struct {
		cron        string
		windows     []string
		zone, after string
		want        string
	}{
		{"0 12 * * *", night, "UTC", "2026-11-29 00:00", "2026-11-29 22:00"},
		{"0 23 * * *", night, "UTC", "2026-11-29 00:00", "2026-11-29 23:00"},
		{"0 5 * * *", night, "UTC", "2026-11-29 00:00", "2026-11-29 05:00"},
		{"0 6 * * *", night, "UTC", "2026-11-29 00:00", "2026-11-29 22:00"}, // the end is no part of it
		{"0 22 * * *", night, "UTC", "2026-11-29 00:00", "2026-11-29 22:00"},
		{"0 * * * *", night, "UTC", "2026-11-29 05:00", "2026-11-29 22:00"}, // 16 times are one start
		{"0 * * * *", night, "UTC", "2026-11-29 22:00", "2026-11-29 23:00"},
		// 2026-11-27 is a Friday. Its night ends on Saturday.
		{"0 3 * * *", []string{"mon-fri 22:00-06:00"}, "UTC", "2026-11-27 12:00", "2026-11-28 03:00"},
		{"0 3 * * *", []string{"mon-fri 22:00-06:00"}, "UTC", "2026-11-28 12:00", "2026-11-30 22:00"},
		{"0 12 * * *", []string{"mon-fri 20:00-06:00", "Sat,Sun 00:00-24:00"}, "UTC", "2026-11-27 21:00", "2026-11-28 12:00"},
		{"0 12 * * *", []string{"mon-fri 20:00-06:00", "sat,sun 00:00-24:00"}, "UTC", "2026-11-29 12:00", "2026-11-30 20:00"},
		{"0 12 * * *", []string{"7 10:00-11:00"}, "UTC", "2026-11-22 10:30", "2026-11-29 10:00"},
		{"0 12 * * *", []string{"7 10:00-11:00"}, "UTC", "2026-11-29 10:30", "2026-12-06 10:00"},
		{"0 12 * * *", []string{"12:00-00:00", "00:00-12:00"}, "UTC", "2026-11-29 10:30", "2026-11-29 12:00"}, // always open
		// The clock skips 02:00 to 03:00.
		{"0 1 * * *", []string{"02:00-02:30"}, "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 03:00"},
		{"0 1 * * *", []string{"02:30-04:00"}, "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 03:00"},
		// The clock shows 02:00 to 03:00 twice. The window is open in the first of both.
		{"45 2 * * *", []string{"02:00-02:50"}, "Europe/Berlin", "2026-10-25 02:40 +0200", "2026-10-25 02:45 +0200"},
		{"* * * * *", []string{"02:00-02:30"}, "Europe/Berlin", "2026-10-25 02:29 +0200", "2026-10-26 02:00 +0100"},
		// The Friday that Samoa did not have.
		{"0 9 * * *", []string{"fri 22:00-06:00"}, "Pacific/Apia", "2011-12-28 00:00", "2011-12-31 00:00"},
		{"0 9 * * *", []string{"fri 08:00-10:00"}, "Pacific/Apia", "2011-12-28 00:00", "2011-12-31 00:00"},
	} {
		s := parse(t, Spec{Cron: c.cron, Zone: c.zone, Windows: c.windows})
		if got, want := s.Next(local(t, c.zone, c.after)), local(t, c.zone, c.want); !got.Equal(want) {
			t.Errorf("%q within %q after %s: %s, want %s", c.cron, c.windows, c.after, got, want)
		}
	}
	s := parse(t, Spec{Cron: "@daily", Zone: "UTC", Windows: []string{"mon-fri 20:00-06:00", "sat,sun 00:00-24:00"}})
	for _, c := range []struct {
		at   string
		open bool
		then string
	}{
		{"2026-11-27 19:59", false, "2026-11-27 20:00"},
		{"2026-11-27 20:00", true, "2026-11-30 00:00"}, // from Friday evening to Sunday night they touch
		{"2026-11-29 23:59", true, "2026-11-30 00:00"},
		{"2026-11-30 00:00", false, "2026-11-30 20:00"},
	} {
		if open, then := s.Open(local(t, "UTC", c.at)); open != c.open || !then.Equal(local(t, "UTC", c.then)) {
			t.Errorf("at %s: %v until %s", c.at, open, then)
		}
	}
	if open, then := parse(t, Spec{Cron: "@daily"}).Open(time.Unix(0, 0)); !open || !then.IsZero() {
		t.Errorf("without windows: %v, %s", open, then)
	}
}

// TestSpread: boxes start within the spread and the window, each at its own time, and always at that.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		spec     Spec
		from, to string
	}{
		{Spec{Cron: "0 2 * * *", Spread: 2 * time.Hour}, "2026-11-30 02:00", "2026-11-30 04:00"},
		{Spec{Cron: "0 12 * * *", Spread: 2 * time.Hour, Windows: []string{"22:00-06:00"}}, "2026-11-29 22:00", "2026-11-30 00:00"},
		{Spec{Cron: "30 5 * * *", Spread: 2 * time.Hour, Windows: []string{"22:00-06:00"}}, "2026-11-30 05:30", "2026-11-30 06:00"},
		{Spec{Cron: "0 2 * * *", Spread: 24 * time.Hour, Windows: []string{"00:00-23:59"}}, "2026-11-30 02:00", "2026-11-30 23:59"},
	} {
		c.spec.Zone = "UTC"
		s := parse(t, c.spec)
		from, to := local(t, "UTC", c.from), local(t, "UTC", c.to)
		if got := s.Next(from.Add(-1)); !got.Equal(from) {
			t.Errorf("%+v: the first start is %s", c.spec, got)
		}
		var tenths [10]int
		for i := range 1000 {
			box := s.For(fmt.Sprintf("night/10.0.%d.%d", i/250, i%250))
			got := box.Next(s.Next(from.Add(-1)).Add(-1))
			if got.Before(from) || !got.Before(to) {
				t.Fatalf("%+v: %s is not from %s to %s", c.spec, got, from, to)
			}
			tenths[got.Sub(from)*10/to.Sub(from)]++
			if next := box.Next(got); !next.Equal(got.Add(24 * time.Hour)) {
				t.Fatalf("%+v: after %s comes %s", c.spec, got, next)
			}
			if due := box.Due(got.Add(-time.Hour), got); !due.Start.Equal(got) || !due.Until.After(got) {
				t.Fatalf("%+v: at %s this is due: %+v", c.spec, got, due)
			}
		}
		for _, n := range tenths {
			if n < 50 || n > 160 {
				t.Errorf("%+v: the boxes are not spread evenly: %v", c.spec, tenths)
			}
		}
	}
	// A spread may be longer than the time between two starts.
	s := parse(t, Spec{Cron: "0 * * * *", Zone: "UTC", Spread: 5 * time.Hour}).For("a")
	at := local(t, "UTC", "2026-11-29 00:00")
	for range 50 {
		next := s.Next(at)
		if at.Hour() != 0 && next.Sub(at) != time.Hour {
			t.Errorf("after %s comes %s", at, next)
		}
		at = next
	}
}

func TestDue(t *testing.T) {
	nightly := Spec{Cron: "0 2 * * *", Zone: "Europe/Berlin"}
	windowed := Spec{Cron: "0 2 * * *", Zone: "Europe/Berlin", Windows: []string{"22:00-02:30"}}
	long := Spec{Cron: "0 2 * * *", Zone: "Europe/Berlin", Late: 12 * time.Hour}
	minutely := Spec{Cron: "* * * * *", Zone: "Europe/Berlin"}
	for _, c := range []struct {
		what             string
		spec             Spec
		last, now        string
		start, until     string
		missed           int
		first, lastMiss  string
		next, store      string // store is what Last must be, if it is not now
		more, isBack, no bool
	}{
		{what: "nothing yet", spec: nightly, last: "2026-11-29 01:00", now: "2026-11-29 01:59", next: "2026-11-29 02:00"},
		{what: "in time", spec: nightly, last: "2026-11-29 01:59", now: "2026-11-29 02:00", start: "2026-11-29 02:00",
			until: "2026-11-29 03:00", next: "2026-11-30 02:00"},
		{what: "only once", spec: nightly, last: "2026-11-29 02:00", now: "2026-11-29 02:01", next: "2026-11-30 02:00"},
		{what: "late", spec: nightly, last: "2026-11-29 01:59", now: "2026-11-29 02:59", start: "2026-11-29 02:00",
			until: "2026-11-29 03:00", next: "2026-11-30 02:00"},
		{what: "too late", spec: nightly, last: "2026-11-29 01:59", now: "2026-11-29 03:00", missed: 1,
			first: "2026-11-29 02:00", lastMiss: "2026-11-29 02:00", next: "2026-11-30 02:00"},
		{what: "off for ten days", spec: nightly, last: "2026-11-19 12:00", now: "2026-11-29 12:00", missed: 10,
			first: "2026-11-20 02:00", lastMiss: "2026-11-29 02:00", next: "2026-11-30 02:00"},
		{what: "off for ten days, and caught up once", spec: long, last: "2026-11-19 12:00", now: "2026-11-29 12:00",
			start: "2026-11-29 02:00", until: "2026-11-29 14:00", missed: 9, first: "2026-11-20 02:00", lastMiss: "2026-11-28 02:00",
			next: "2026-11-30 02:00"},
		{what: "the window is closed", spec: windowed, last: "2026-11-29 01:59", now: "2026-11-29 02:30", missed: 1,
			first: "2026-11-29 02:00", lastMiss: "2026-11-29 02:00", next: "2026-11-30 02:00"},
		{what: "the window is open", spec: windowed, last: "2026-11-29 01:59", now: "2026-11-29 02:29", start: "2026-11-29 02:00",
			until: "2026-11-29 02:30", next: "2026-11-30 02:00"},
		{what: "off for two hours, and many starts", spec: minutely, last: "2026-11-29 01:00", now: "2026-11-29 03:00",
			start: "2026-11-29 03:00", until: "2026-11-29 04:00", missed: 100, more: true, first: "2026-11-29 01:01",
			lastMiss: "2026-11-29 02:59", next: "2026-11-29 03:01"},
		{what: "a clock that was put forward by years", spec: nightly, last: "2026-11-29 12:00", now: "2096-11-29 02:30",
			start: "2096-11-29 02:00", until: "2096-11-29 03:00", missed: 100, more: true, first: "2026-11-30 02:00",
			lastMiss: "2096-11-28 02:00", next: "2096-11-30 02:00"},
		{what: "and back", spec: nightly, last: "2096-11-29 02:30", now: "2026-11-29 12:00", isBack: true, next: "2026-11-30 02:00"},
		{what: "a clock that was put back a little", spec: nightly, last: "2026-11-29 02:00", now: "2026-11-29 01:55",
			next: "2026-11-30 02:00", store: "2026-11-29 02:00"},
		{what: "put back by an hour", spec: nightly, last: "2026-11-29 02:00", now: "2026-11-29 01:00",
			next: "2026-11-30 02:00", store: "2026-11-29 02:00"},
		{what: "put back by more", spec: nightly, last: "2026-11-29 02:00", now: "2026-11-29 00:59", isBack: true,
			next: "2026-11-29 02:00"},
		{what: "the first look", spec: nightly, now: "2026-11-29 02:00", next: "2026-11-30 02:00"},
		{what: "a night without 02:00", spec: nightly, last: "2026-03-28 12:00", now: "2026-03-29 03:00", start: "2026-03-29 03:00",
			until: "2026-03-29 04:00", next: "2026-03-30 02:00"},
		{what: "a night with 02:00 twice", spec: nightly, last: "2026-10-25 02:00 +0200", now: "2026-10-25 02:00 +0100",
			next: "2026-10-26 02:00"},
	} {
		at := func(text string) time.Time {
			if text == "" {
				return time.Time{}
			}
			return local(t, c.spec.Zone, text)
		}
		store := at(c.store)
		if c.store == "" {
			store = at(c.now)
		}
		s := parse(t, c.spec)
		got := s.Due(at(c.last), at(c.now))
		if !got.Start.Equal(at(c.start)) || !got.Until.Equal(at(c.until)) || got.Missed.Count != c.missed || got.Missed.More != c.more ||
			!got.Missed.First.Equal(at(c.first)) || !got.Missed.Last.Equal(at(c.lastMiss)) || !got.Next.Equal(at(c.next)) ||
			!got.Last.Equal(store) || got.SetBack != c.isBack {
			t.Errorf("%s: %+v", c.what, got)
		}
		if again := s.Due(got.Last, at(c.now)); !again.Start.IsZero() || again.Missed.Count != 0 || again.SetBack {
			t.Errorf("%s, and once more: %+v", c.what, again)
		}
	}
	// A reading with a monotonic clock counts by what people see.
	now := time.Now()
	if due := parse(t, Spec{Cron: "* * * * *"}).Due(now.Add(-time.Minute), now); due.Start.IsZero() || due.Last != now.Round(0) {
		t.Errorf("%+v", due)
	}
}

// TestLooks: whatever the times of the looks are, each start is made once or said as missed once.
func TestLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		spec := Spec{
			Cron:   rapid.SampledFrom([]string{"0 2 * * *", "*/30 * * * *", "15 1,2,3 * * *", "0 12 * * *"}).Draw(t, "cron"),
			Zone:   zone.name,
			Spread: time.Duration(rapid.IntRange(0, 3).Draw(t, "spread")) * time.Hour,
			Late:   time.Duration(rapid.IntRange(1, 600).Draw(t, "late")) * time.Minute,
		}
		if rapid.Bool().Draw(t, "window") {
			spec.Windows = []string{rapid.SampledFrom([]string{"22:00-02:30", "02:00-02:30", "fri 23:00-03:00"}).Draw(t, "window")}
		}
		s, err := Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		s = s.For(rapid.StringN(1, 5, 20).Draw(t, "key"))
		around, err := time.Parse("2006-01-02T15:04Z", zone.around)
		if err != nil {
			t.Fatal(err)
		}
		begin := around.Add(-24 * time.Hour)
		last, now := begin, begin
		made, missed := 0, 0
		for range 40 {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(4*time.Hour)).Draw(t, "later")))
			due := s.Due(last, now)
			if !due.Start.IsZero() {
				made++
				if due.Start.After(now) || !due.Start.After(last.Truncate(time.Second)) || now.Sub(due.Start) >= spec.Late || !now.Before(due.Until) {
					t.Fatalf("%+v: from %s to %s this is due: %+v", spec, last, now, due)
				}
				if open, _ := s.Open(now); !open {
					t.Fatalf("%+v: a start at %s, when no window is open", spec, now)
				}
			}
			if due.Missed.More {
				t.Fatal("too many are missed for this test")
			}
			missed += due.Missed.Count
			last = due.Last
		}
		want := 0
		for at := s.Next(begin); !at.After(now); at = s.Next(at) {
			want++
		}
		if made+missed != want {
			t.Fatalf("%+v: %d starts were made and %d missed, of %d", spec, made, missed, want)
		}
	})
}

func TestTexts(t *testing.T) {
	windows := []string{"mon-fri 20:00-06:00", "sun 00:00-24:00"}
	s := parse(t, Spec{Cron: "30 2 * * *", Zone: "Europe/Berlin", Spread: 90 * time.Minute, Windows: windows})
	after := local(t, "Europe/Berlin", "2026-03-28 12:00")
	want := "The next starts are Sun 29 Mar 2026 03:00 CEST, Mon 30 Mar 2026 20:00 CEST and Tue 31 Mar 2026 02:30 CEST. " +
		"The boxes start one by one within 1h30m from then on. " +
		"Jobs start only within mon-fri 20:00-06:00 and sun 00:00-24:00. A start may be late by 1h."
	if got := s.Describe(after, 3); got != want {
		t.Errorf("%s", got)
	}
	box := parse(t, Spec{Cron: "@daily", Zone: "UTC", Spread: time.Hour}).For("x")
	if got := box.Describe(after, 1); !strings.HasPrefix(got, "The next start is Sun 29 Mar 2026 00:") || strings.Contains(got, "one by one") {
		t.Errorf("%s", got)
	}
	if got := box.Describe(time.Unix(1<<62, 0), 1); got != "A start may be late by 1h." {
		t.Errorf("%s", got)
	}
	day := local(t, "Europe/Berlin", "2026-11-29 02:00")
	for _, c := range []struct {
		m    Missed
		want string
	}{
		{Missed{}, ""},
		{Missed{1, false, day, day}, "The start of Sun 29 Nov 2026 02:00 CET was missed."},
		{Missed{2, false, day, day.AddDate(0, 0, 1)}, "2 starts were missed, from Sun 29 Nov 2026 02:00 CET to Mon 30 Nov 2026 02:00 CET."},
		{Missed{100, true, day, day}, "More than 100 starts were missed, from Sun 29 Nov 2026 02:00 CET to Sun 29 Nov 2026 02:00 CET."},
	} {
		if got := c.m.String(); got != c.want {
			t.Errorf("%s", got)
		}
	}
	if got := s.String(); got != "30 2 * * * Europe/Berlin" {
		t.Errorf("%s", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 2 * * *", "*/15 1-3 * * fri-mon", "0 3 29 2 *", "0 4 l * *", "0 4 * * sun#5,mon#l", "@daily", "@every 1ns",
		"TZ=../.. 0 2 * * *", "0 0 30 2 *", "*-5 , 1,,2 */0 99999999999999999999", "5/20 22-2/2 30-2 nov-feb *", "0 2 1 * mon"} {
		f.Add(s, "Europe/Berlin", "mon-fri 22:00-06:00", int64(1774746000), int64(3600), "box")
		f.Add(s, "Pacific/Apia", "", int64(1325239200), int64(0), "")
		f.Add(s, "Australia/Lord_Howe", "02:00-02:15", int64(1791041400), int64(86400), "x")
	}
	f.Fuzz(func(t *testing.T, text, zone, window string, after, spread int64, key string) {
		spec := Spec{Cron: text, Zone: zone, Spread: time.Duration(spread) * time.Second}
		if window != "" {
			spec.Windows = []string{window}
		}
		s, err := Parse(spec)
		if err != nil {
			return
		}
		if key != "" {
			s = s.For(key)
		}
		last := time.Unix(after, 0)
		for range 4 {
			next := s.Next(last)
			if next.IsZero() {
				if sane(last) {
					t.Fatalf("%+v: nothing comes after %s", spec, last)
				}
				return
			}
			if !next.After(last) {
				t.Fatalf("%+v: after %s comes %s", spec, last, next)
			}
			if open, _ := s.Open(next); !open {
				t.Fatalf("%+v: a start at %s, when no window is open", spec, next)
			}
			if due := s.Due(last, next); sane(next) && (!due.Start.Equal(next) || due.Missed.Count > 0) {
				t.Fatalf("%+v: after %s, at %s this is due: %+v", spec, last, next, due)
			}
			if due := s.Due(last, next.Add(-1)); sane(next) && !due.Next.Equal(next) {
				t.Fatalf("%+v: after %s, before %s this is due: %+v", spec, last, next, due)
			}
			last = next
		}
		s.Describe(last, 3)
	})
}

// BenchmarkDue is a look at 1000 boxes.
func BenchmarkDue(b *testing.B) {
	for _, spec := range []Spec{
		{Cron: "0 2 * * *", Zone: "Europe/Berlin"},
		{Cron: "0 2 * * *", Zone: "Europe/Berlin", Spread: time.Hour, Windows: []string{"mon-fri 20:00-06:00", "sat,sun 00:00-24:00"}},
		{Cron: "0 2 29 2 *", Zone: "Europe/Berlin", Spread: time.Hour},
	} {
		s := parse(b, spec)
		var boxes []*Schedule
		for i := range 1000 {
			boxes = append(boxes, s.For(fmt.Sprint(i)))
		}
		b.Run(strings.ReplaceAll(spec.Cron, " ", "_")+fmt.Sprint(len(spec.Windows)), func(b *testing.B) {
			last := time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)
			for b.Loop() {
				for _, box := range boxes {
					box.Due(last, last.Add(time.Minute))
				}
			}
		})
	}
}

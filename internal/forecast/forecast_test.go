package forecast

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 30, 17, 0, 0, 0, time.UTC)

const gib = 1 << 30

// past makes a point for each of the last days, of which the last is today. used tells
// what was used on the day with this number.
func past(days int, room int64, used func(day int) int64) (all []Point) {
	for i := range days {
		all = append(all, Point{now.Add(time.Duration(i-days+1) * day), used(i), room})
	}
	return all
}

func TestOf(t *testing.T) {
	steady := func(i int) int64 { return 100*gib + int64(i)*10*gib }
	midnight := now.Truncate(day)
	for _, test := range []struct {
		name   string
		points []Point
		state  State
		in     int // days
		perDay int64
	}{
		{"nothing", nil, Unknown, 0, 0},
		{"a few days", past(6, 1000*gib, steady), Unknown, 0, 0},
		{"a week", past(7, 1000*gib, steady), Full, 84, 10 * gib},
		{"weeks", past(35, 1000*gib, steady), Full, 56, 10 * gib},
		{"months of which the last weeks count", past(90, 2000*gib, func(i int) int64 {
			if i < 50 {
				return 100 * gib
			}
			return 100*gib + int64(i-50)*10*gib
		}), Full, 151, 10 * gib},
		{"one jump", past(35, 1000*gib, func(i int) int64 {
			if i >= 17 {
				return steady(i) + 300*gib
			}
			return steady(i)
		}), Full, 26, 10 * gib},
		{"one collection", past(35, 1000*gib, func(i int) int64 {
			if i >= 20 {
				return steady(i) - 200*gib
			}
			return steady(i)
		}), Full, 76, 10 * gib},
		{"the first backups of a young store", past(10, 1000*gib, func(i int) int64 {
			if i < 3 {
				return gib
			}
			return 200*gib + int64(i)*gib
		}), Full, 791, gib},
		{"once a week", past(35, 1000*gib, func(i int) int64 { return int64(i/7+1) * 70 * gib }), Full, 65, 10 * gib},
		{"once a week, young", past(12, 1000*gib, func(i int) int64 { return int64(i/7+1) * 70 * gib }), Unknown, 0, 0},
		{"a collection each week", past(35, 1000*gib, func(i int) int64 {
			return 100*gib + int64(i%7)*20*gib + int64(i/7)*7*gib
		}), Full, 752, gib},
		{"still", past(35, 1000*gib, func(int) int64 { return 10 * gib }), NotGrowing, 0, 0},
		{"emptier", past(35, 1000*gib, func(i int) int64 { return int64(100-i) * gib }), NotGrowing, 0, -gib},
		{"a jump, and else still", past(35, 1000*gib, func(i int) int64 { return int64(i/18) * gib }), NotGrowing, 0, 0},
		{"slow", past(35, 1000*gib, func(i int) int64 { return int64(i) << 10 }), Far, 0, 1 << 10},
		{"full", past(35, 134*gib, func(i int) int64 { return 100*gib + int64(i)*gib }), Full, 0, 0},
		{"full, known for a moment", past(1, gib, func(int) int64 { return gib }), Full, 0, 0},
		{"room not known", past(35, 0, steady), Unknown, 0, 0},
		{"old", past(35, 1000*gib, steady)[:30], Unknown, 0, 0},
		{"in the future", []Point{{now.Add(time.Hour), 5, 5}}, Unknown, 0, 0},
	} {
		f := Of(test.points, now)
		want := Forecast{State: test.state, PerDay: test.perDay}
		if test.state == Full {
			want.Day = midnight.AddDate(0, 0, test.in)
		}
		if f != want {
			t.Errorf("%s: %+v, wanted %+v", test.name, f, want)
		}
	}
}

// A steady growth is found, whatever happens once, however often each day was measured,
// and in whatever order the points come.
func TestSteady(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perDay := rapid.Int64Range(1<<20, 20*gib).Draw(t, "per day")
		jump := rapid.Int64Range(-900*gib, 900*gib).Draw(t, "jump")
		at := rapid.IntRange(0, window).Draw(t, "day of the jump")
		noise := rapid.SliceOfN(rapid.Int64Range(-perDay/100, perDay/100), window, window).Draw(t, "noise")
		const room = 4000 * gib
		points := past(window, room, func(i int) int64 {
			used := 1000*gib + int64(i)*perDay + noise[i]
			if i >= at {
				used += jump
			}
			return used
		})
		last := points[len(points)-1]
		for i, p := range points { // an hour before, more is used for a while
			if i%3 == 0 {
				points = append(points, Point{p.At.Add(-time.Hour), p.Used + 5*gib, room})
			}
		}
		f := Of(rapid.Permutation(points).Draw(t, "order"), now)
		if f.PerDay < perDay*9/10 || f.PerDay > perDay*11/10 {
			t.Fatalf("%d bytes a day are %+v", perDay, f)
		}
		days := float64(last.Room-last.Used) / float64(perDay)
		switch got := f.Day.Sub(now).Hours() / 24; {
		case f.State == Full && (got < days*0.85-2 || got > days*1.15+2):
			t.Fatalf("%v days instead of %v", got, days)
		case f.State == Far && days < Most.Hours()/24*0.85, f.State != Full && f.State != Far:
			t.Fatalf("%+v, and it is full in %v days", f, days)
		}
	})
}

// Whatever the points are, the day is not in the past and not far ahead.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		figure := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 100))
		points := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Point {
			at := now.Add(time.Duration(rapid.Int64Range(-60*24, 48).Draw(t, "hours")) * time.Hour)
			return Point{at, figure.Draw(t, "used"), figure.Draw(t, "room")}
		})).Draw(t, "points")
		f := Of(points, now)
		if f.State == Full && (f.Day.Before(now.Truncate(day)) || f.Day.After(now.Add(Most))) || (f.State == Full) == f.Day.IsZero() {
			t.Fatalf("%+v", f)
		}
	})
}

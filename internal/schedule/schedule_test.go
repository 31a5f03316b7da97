package schedule

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

func boxes(n int) (all []ledger.Box) {
	for i := range n {
		a, err := box.ParseAddr(fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))
		if err != nil {
			panic(err)
		}
		all = append(all, ledger.Box{Address: a, Health: ledger.Good})
	}
	return all
}

// starts looks at a schedule at some moments, and returns which starts were made and how many boxes missed some. If
// quick, it looks only where Quiet does not say that nothing is due.
func starts(p *Plan, begin time.Time, at []time.Time, all []ledger.Box, quick bool) (made map[string]int, missed int) {
	made = map[string]int{}
	last, looked := begin, begin
	for _, now := range at {
		if _, quiet := p.Quiet(looked, now); quick && quiet {
			looked = now
			continue
		}
		f := p.Look(last, now, all, nil)
		for _, b := range f.Due {
			made[b.Address.String()+" "+p.Key(b.Start)]++
		}
		missed += f.Missing
		if looked = now; f.Settled {
			last = f.Last
		}
	}
	return made, missed
}

// TestQuiet: whatever the times are at which a server looks, it makes the same starts, each of them once, if it asks Quiet
// first. A server that looks each few minutes misses none.
func TestQuiet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{Action: box.Backup, Boxes: []string{"x"}, Zone: rapid.SampledFrom([]string{"UTC", "Europe/Berlin"}).Draw(t, "zone"),
			When:   rapid.SampledFrom([]string{"30 2 * * *", "0 */6 * * *", "15 1 * * sun", "*/40 * * * *"}).Draw(t, "when"),
			Spread: time.Duration(rapid.IntRange(0, 180).Draw(t, "spread")) * time.Minute,
			Late:   time.Duration(rapid.IntRange(30, 600).Draw(t, "late")) * time.Minute,
		}
		if rapid.Bool().Draw(t, "window") {
			c.Window = []string{"01:00-04:30", "12:00-13:00"}
		}
		p, err := New("x", c)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Date(2026, 3, 28, 3, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 24*60).Draw(t, "begin")) * time.Minute)
		most := rapid.SampledFrom([]int{5, 300}).Draw(t, "minutes from look to look at most")
		var at []time.Time
		for now := begin; now.Before(begin.Add(26 * time.Hour)); at = append(at, now) {
			now = now.Add(time.Duration(rapid.IntRange(1, most).Draw(t, "minutes")) * time.Minute)
		}
		all := boxes(2)
		quick, missedQuick := starts(p, begin, at, all, true)
		slow, missed := starts(p, begin, at, all, false)
		if !maps.Equal(quick, slow) || missed != missedQuick {
			t.Fatalf("%+v: %v and %d missed, but %v and %d if it looks each time", c, quick, missedQuick, slow, missed)
		}
		for start, n := range quick {
			if n > 1 {
				t.Fatalf("%+v: %s is made %d times", c, start, n)
			}
		}
		if most == 5 && missed > 0 && c.Window == nil { // a window may close a minute after the start of a box
			t.Fatalf("%+v: %d were missed", c, missed)
		}
	})
}

// BenchmarkLook looks at a schedule of 1000 boxes in the middle of its spread, which is the most work that a look is.
func BenchmarkLook(b *testing.B) {
	p, err := New("nightly", Config{When: "30 2 * * *", Zone: "Europe/Berlin", Window: []string{"mon-fri 20:00-06:00", "sat,sun 00:00-24:00"},
		Spread: 2 * time.Hour, Action: box.Backup, Boxes: []string{"x"}})
	if err != nil {
		b.Fatal(err)
	}
	all := boxes(1000)
	last := time.Date(2026, 11, 30, 2, 0, 0, 0, time.UTC)
	for b.Loop() {
		p.Look(last, last.Add(time.Minute), all, nil)
	}
}

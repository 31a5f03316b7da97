package room

import (
	"fmt"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// lab is a room of boxes with ports of 1 Gbit/s, an image of 10 GB as it is stored, and
// disks that are faster than the network.
func lab(boxes int) round {
	return round{
		boxes: boxes, units: 2500, unit: 4e6, perPage: 46, port: 118e6, server: 118e6, disk: 250e6, cache: 512 << 20,
		linger: 2 * time.Second, seed: 1,
	}
}

// netns is the room of the test with network namespaces: ports of 40 Mbit/s, an image of
// 256 MiB that is half compressible and lies in 16 regions, units of 256 KiB.
func netns(boxes int) round {
	return round{
		boxes: boxes, units: 512, unit: 256e3, perPage: 32, port: 4.8e6, server: 4.8e6, disk: 100e6, cache: 16 << 20,
		linger: time.Second, seed: 1,
	}
}

func (r round) with(change func(*round)) round {
	change(&r)
	return r
}

// over lets boxes begin one after the other.
func over(d time.Duration) func(*round) {
	return func(r *round) {
		r.start = map[int]time.Duration{}
		for i := range r.boxes {
			r.start[i] = d * time.Duration(i) / time.Duration(r.boxes)
		}
	}
}

// twentieth is true for one in 20 units, other ones for each box.
func twentieth(box, unit int) bool { return (unit*7919+box*104729+unit*box*31)%1000 < 50 }

// sameTwentieth is true for the same units for all boxes.
func sameTwentieth(_, unit int) bool { return twentieth(3, unit) }

// bar is a round, and how much it may take beside one box alone.
type bar struct {
	name     string
	one, r   round
	slowest  float64       // of the time of one box alone; 0 means no limit
	mean     float64       // the same for the mean of all boxes
	longer   time.Duration // instead: slowest times the number of boxes and so much longer
	sent     float64       // images
	dropped  []int
	reported map[Fault]int // who must be named, and nobody else may be
}

// bars are the promises about a room, in the network of the test with namespaces. A model
// without TCP, TLS and HTTP must keep them with some room.
var bars = []bar{
	{name: "16 boxes", one: netns(1), r: netns(16), slowest: 1.25, sent: 1.1},
	{name: "4 boxes", one: netns(1), r: netns(4), slowest: 1.15, sent: 1.1},
	{name: "two lose power", one: netns(1), r: netns(16).with(func(r *round) {
		r.die = map[int]time.Duration{3: 10 * time.Second, 7: 15 * time.Second}
	}), slowest: 1.3, sent: 1.1},
	{name: "over 0.7 of the time", one: netns(1), r: netns(16).with(over(19 * time.Second)), mean: 1.2, sent: 1.3},
	{name: "a twentieth, other ones", one: netns(1).with(delta(twentieth)), r: netns(16).with(delta(twentieth)), slowest: 2, sent: 0.1},
	{name: "a twentieth, the same", one: netns(1).with(delta(sameTwentieth)), r: netns(16).with(delta(sameTwentieth)), slowest: 2, sent: 0.1},
	{name: "garbage, stalls, lies", one: netns(1), r: netns(16).with(func(r *round) {
		r.acts = map[int]act{2: garbage, 6: stalls, 9: lies}
	}), slowest: 1.5, sent: 1.2, dropped: []int{2}, reported: map[Fault]int{Garbage: 2, Stalls: 6, Lacks: 9}},
	{name: "one trickles", one: netns(1), r: netns(16).with(func(r *round) {
		r.acts = map[int]act{6: trickles}
	}), slowest: 1.5, sent: 1.3, reported: map[Fault]int{Slow: 6}},
	{name: "two take and do not give", one: netns(1), r: netns(16).with(func(r *round) {
		r.acts = map[int]act{2: takes, 9: takes}
	}), slowest: 1.4, sent: 1.2},
	{name: "all blocked", one: netns(1), r: netns(16).with(func(r *round) {
		r.blocked = func(int, int) bool { return true }
	}), longer: 10 * time.Second, sent: 16.2},
	{name: "4 boxes, all blocked", one: netns(1), r: netns(4).with(func(r *round) {
		r.blocked = func(int, int) bool { return true }
	}), longer: 10 * time.Second, sent: 4.1},
	{name: "one blocked", one: netns(1), r: netns(16).with(func(r *round) {
		r.blocked = func(a, b int) bool { return a == 4 || b == 4 }
	}), mean: 1.35, sent: 2.1},
	{name: "server away for 6 seconds", one: netns(1), r: netns(16).with(func(r *round) {
		r.away = [2]time.Duration{10 * time.Second, 16 * time.Second}
	}), slowest: 1.6, sent: 1.2},
}

// delta is a restore of disks on which most is right already. They are compared first.
func delta(needs func(box, unit int) bool) func(*round) {
	return func(r *round) { r.needs, r.compare = needs, 4*time.Second }
}

// largeBars are rooms of the size of a class, a rack and a hall. Two switches with 1 Gbit/s
// between them cannot do better: half of what each box gets comes through that line.
var largeBars = []bar{
	{name: "2 boxes", one: lab(1), r: lab(2), slowest: 1.1, sent: 1.1},
	{name: "8 boxes", one: lab(1), r: lab(8), slowest: 1.1, sent: 1.1},
	{name: "32 boxes", one: lab(1), r: lab(32), slowest: 1.15, sent: 1.1},
	{name: "32, one in ten loses power", one: lab(1), r: lab(32).with(func(r *round) {
		r.die = map[int]time.Duration{0: 20 * time.Second, 10: 40 * time.Second, 20: 60 * time.Second}
	}), slowest: 1.2, sent: 1.1},
	{name: "32, a cache of 128 MiB", one: lab(1), r: lab(32).with(func(r *round) { r.cache = 128 << 20 }), slowest: 1.4, sent: 1.1},
	{name: "32, rotating disks", one: lab(1).with(slowDisk), r: lab(32).with(slowDisk), slowest: 1.1, sent: 1.1},
	{name: "32, one has 100 Mbit/s", one: lab(1), r: lab(32).with(func(r *round) { r.slow = map[int]float64{5: 11.8e6} }), mean: 1.4, sent: 2},
	{name: "32 over a minute", one: lab(1), r: lab(32).with(over(time.Minute)), mean: 1.15, sent: 1.4},
	{name: "32 over 10 minutes", one: lab(1), r: lab(32).with(over(10 * time.Minute)), mean: 1.3, sent: 7},
	{name: "32, 1 Gbit/s between two switches", one: lab(1), r: lab(32).with(func(r *round) {
		r.zone, r.trunk = func(box int) string { return fmt.Sprint(box % 2) }, 118e6
	}), slowest: 2.1, sent: 1.6},
	{name: "32, 10 Gbit/s between two switches", one: lab(1), r: lab(32).with(func(r *round) {
		r.zone, r.trunk = func(box int) string { return fmt.Sprint(box % 2) }, 1180e6
	}), slowest: 1.25, sent: 1.1},
	{name: "256 boxes", one: lab(1), r: lab(256), slowest: 1.25, sent: 1.1},
	{name: "256, rotating disks", one: lab(1).with(slowDisk), r: lab(256).with(slowDisk), slowest: 1.1, sent: 1.1},
}

func slowDisk(r *round) { r.disk = 65e6 }

// TestRoom: a room of 16 boxes takes little longer than one box, whatever happens to some
// of them, and who is hostile is named.
func TestRoom(t *testing.T) { holds(t, bars) }

// TestLarge is TestRoom for rooms that take longer to simulate.
func TestLarge(t *testing.T) {
	testenv.Long(t, "a quarter of a minute")
	holds(t, largeBars)
}

func holds(t *testing.T, bars []bar) {
	ones := map[string]time.Duration{}
	for _, b := range bars {
		t.Run(b.name, func(t *testing.T) {
			key := fmt.Sprint(b.one.unit, b.one.disk, b.one.needs != nil)
			if b.one.needs != nil {
				key = b.name
			}
			if ones[key] == 0 {
				ones[key] = b.one.run().slowest()
			}
			b.check(t, ones[key])
		})
	}
}

func (b bar) check(t *testing.T, one time.Duration) {
	o := b.r.run()
	slowest, mean := float64(o.slowest())/float64(one), float64(o.mean())/float64(one)
	t.Logf("one box %.1fs; slowest %.2f, mean %.2f times that; the server sent %.2f images; %.1f %% came twice",
		one.Seconds(), slowest, mean, o.sent, 100*o.wasted/float64(b.r.boxes))
	for i, took := range o.took {
		if took == 0 && b.r.die[i] == 0 && b.r.acts[i] == "" {
			t.Errorf("box %d did not end", i)
		}
	}
	most := time.Duration(b.slowest * float64(one))
	if b.longer > 0 {
		most = time.Duration(b.r.boxes)*one + b.longer
	}
	if most > 0 && o.slowest() > most {
		t.Errorf("the slowest box took %.1fs, and may take %.1fs", o.slowest().Seconds(), most.Seconds())
	}
	if b.mean > 0 && mean > b.mean {
		t.Errorf("boxes took %.2f times as long as one on average, and may take %.2f", mean, b.mean)
	}
	if o.sent > b.sent {
		t.Errorf("the server sent %.2f images, and may send %.2f", o.sent, b.sent)
	}
	if fmt.Sprint(o.dropped) != fmt.Sprint(b.dropped) {
		t.Errorf("the server dropped %v, and should have dropped %v", o.dropped, b.dropped)
	}
	for f, who := range b.reported {
		if !o.reported[f][who] {
			t.Errorf("nobody says of box %d: %s", who, f)
		}
	}
	for f, boxes := range o.reported {
		if f == Slow {
			continue // an honest one can be, for a while
		}
		for n := range boxes {
			if who, ok := b.reported[f]; !ok || who != n {
				t.Errorf("some say of box %d: %s, which is not true", n, f)
			}
		}
	}
}

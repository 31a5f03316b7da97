package proc

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bench/measure"
)

// roomsFlag makes a benchmark of TestRooms, as `scripts/bench room` does.
var roomsFlag = flag.String("rooms", "", "run the rounds of rooms whose names match this `PATTERN`, with an image of 256 MiB")

// roomRound is some boxes that restore the same image at the same time. Rounds that the simulator of package
// room runs too have the same names there.
type roomRound struct {
	name  string
	boxes int
	delta bool // most is on the disks already
	// slowest and mean are promises in times of the one box, images is one about what the server sends. 0 is none.
	slowest, mean, images float64
	// during is called when all boxes have begun. one is the time of one box.
	during func(r *roomRun, one time.Duration)
}

// testRounds are what `make test` has, with an image of 32 MiB.
var testRounds = []roomRound{
	{name: "1 box", boxes: 1},
	{name: "3 boxes, rooms off", boxes: 3, images: 3.3},
}

// benchRounds are what `scripts/bench room` has.
var benchRounds = []roomRound{
	{name: "1 box", boxes: 1},
	{name: "4 boxes, rooms off", boxes: 4, slowest: 4.2, images: 4.2},
}

// roomRun is a round that runs.
type roomRun struct {
	*roomSite
	round *roomRound
	runs  []*ran
}

// roomResult is what came of a round.
type roomResult struct {
	name   string
	took   []time.Duration // of the boxes that ended
	cpu    []time.Duration
	rss    []int64
	sent   int64
	server measure.Used
	busy   float64 // of this machine's processors
}

func (o *roomResult) slowest() time.Duration { return slices.Max(o.took) }
func (o *roomResult) mean() time.Duration    { return mean(o.took) }

func mean(of []time.Duration) (m time.Duration) {
	for _, d := range of {
		m += d
	}
	return m / time.Duration(max(len(of), 1))
}

// runRound runs a round to its end, and looks at the disks.
func (r *roomSite) runRound(round *roomRound, one *roomResult) *roomResult {
	r.t.Helper()
	run := &roomRun{roomSite: r, round: round}
	boxes := r.boxes[:round.boxes]
	args := []string{"restore", "--json", "--from", r.addrOf(sourceBox)}
	for i, b := range boxes {
		if round.delta {
			r.nearly(b, i)
		} else {
			b.disks[0].wipe(r.t)
		}
		args = append(args, b.addr)
	}
	ids := map[string]string{}
	for _, j := range r.jobs(r.does(done, args)) {
		ids[j.Box] = j.ID
	}
	for _, b := range boxes {
		b.boot()
	}
	sent := r.sent()
	before, err := measure.Process(r.proc.Process.Pid)
	must(r.t, err)
	busy, all := processors(r.t)
	var watch sync.WaitGroup
	for _, b := range boxes {
		a := &ran{begin: time.Now(), agent: b.start(), id: ids[b.addr]}
		a.watch(&watch)
		run.runs = append(run.runs, a)
	}
	if round.during != nil {
		round.during(run, one.slowest())
	}
	watch.Wait()
	o := &roomResult{name: round.name, sent: r.sent() - sent}
	busyNow, allNow := processors(r.t)
	o.busy = float64(busyNow-busy) / float64(allNow-all)
	after, err := measure.Process(r.proc.Process.Pid)
	must(r.t, err)
	o.server = measure.Used{User: after.User - before.User, System: after.System - before.System, RSS: after.RSS}
	for i, b := range boxes {
		a := run.runs[i]
		a.ends(done)
		if j := b.job(a.id); j.State != "ended" || j.Outcome != "done" || b.armed() {
			r.t.Errorf("%s: the job of box %s is %+v, it is armed: %v", round.name, b.addr, j, b.armed())
		}
		if !r.same(b) {
			r.t.Errorf("%s: the disk of box %s is not the image; the agent said\n%s", round.name, b.addr, a.out.String())
		}
		o.took, o.cpu, o.rss = append(o.took, a.took()), append(o.cpu, a.cpu), append(o.rss, a.rss)
	}
	return o
}

// processors is how long the processors of this machine have worked and existed, in hundredths of a second.
func processors(t testing.TB) (busy, all int64) {
	t.Helper()
	const idle, wait = 3, 4
	text, err := os.ReadFile("/proc/stat")
	must(t, err)
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line)[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		must(t, err)
		if all += n; i != idle && i != wait {
			busy += n
		}
	}
	return busy, all
}

func (o *roomResult) String() string {
	return fmt.Sprintf("%-24s slowest %5.1fs, mean %5.1fs; server sent %d MB, processors %.2fs and kernel %.2fs for it (%.2fs a GB), %d MiB; "+
		"agents %.2fs of processors, at most %d MiB; processors busy %.0f %%",
		o.name, o.slowest().Seconds(), o.mean().Seconds(), o.sent/1e6, o.server.User.Seconds(), o.server.System.Seconds(),
		o.server.CPU().Seconds()/(float64(o.sent)/1e9), o.server.RSS>>20, mean(o.cpu).Seconds(), slices.Max(o.rss)>>20, 100*o.busy)
}

// TestRooms runs rooms of real agents. Without -rooms, this machine may have much else to do, so nothing is said
// about times.
func TestRooms(t *testing.T) {
	rounds, used := testRounds, int64(32*mib)
	if *roomsFlag != "" {
		rounds, used = nil, 256*mib
		for _, round := range benchRounds {
			if round.boxes == 1 || regexp.MustCompile(*roomsFlag).MatchString(round.name) {
				rounds = append(rounds, round)
			}
		}
	}
	most := 0
	for _, round := range rounds {
		most = max(most, round.boxes)
	}
	r := newRoomSite(t, "", most, used/roomRegions)
	ones := map[bool]*roomResult{} // by whether most is on the disk already
	for i := range rounds {
		round := &rounds[i]
		one := ones[round.delta]
		o := r.runRound(round, one)
		t.Log(o)
		if one == nil {
			ones[round.delta] = o
			continue
		}
		o.check(t, round, one, ones[false], *roomsFlag != "")
	}
}

// check holds a result to the promises of its round. full is a box that restored all of the image.
func (o *roomResult) check(t *testing.T, round *roomRound, one, full *roomResult, times bool) {
	t.Helper()
	slowest, mean := float64(o.slowest())/float64(one.slowest()), float64(o.mean())/float64(one.slowest())
	images := float64(o.sent) / float64(full.sent)
	t.Logf("%s: slowest %.2f, mean %.2f times one box; the server sent %.2f images", o.name, slowest, mean, images)
	for _, p := range []struct {
		what    string
		is, may float64
		noisy   bool
	}{
		{"times as long as one box, the slowest", slowest, round.slowest, true},
		{"times as long as one box, on average", mean, round.mean, true},
		{"images sent by the server", images, round.images, false},
	} {
		if p.may > 0 && p.is > p.may && (times || !p.noisy) {
			t.Errorf("%s: %.2f %s; it may be %.2f", o.name, p.is, p.what, p.may)
		}
	}
}

package proc

import (
	"cmp"
	"flag"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/testenv"
)

// roomsFlag makes a benchmark of TestRooms, as `scripts/bench room` does.
var (
	roomsFlag = flag.String("rooms", "", "run the rounds of rooms whose names match this `PATTERN`")
	roomsMiB  = flag.Int64("rooms-mib", 256, "MiB of the image of these rounds")
	roomsMbit = flag.Int("rooms-mbit", 40, "Mbit/s of the ports in all rounds")
	roomsKiB  = flag.Int64("rooms-unit", 512, "KiB of a unit before compression; half of that is stored, and a box has memory for 64 of them")
)

// roomRound is some boxes that restore the same image at the same time. Times in it are parts of the time of one
// box alone. Rounds that the simulator of package room runs too have the same names there.
type roomRound struct {
	name    string
	boxes   int
	off     bool            // the server lets nobody join a room
	mbit    int             // what each port lets through, in Mbit/s, if it is not what it is in other rounds
	delta   bool            // most is on the disks already
	over    float64         // boxes begin one after the other, in so much time
	kill    map[int]float64 // when boxes lose power
	acts    map[int]act     // boxes that are hostile
	blocked bool            // boxes do not reach each other
	away    [2]float64      // when the server is killed, and when it is started again
	during  func(*roomSite) // when the first boxes begin

	// These are promises: how long the slowest box takes and how long boxes take on average, and how many images
	// the server sends. 0 is none.
	slowest, mean, images float64
	than                  string        // the round with which the slowest box is compared; "" is one box alone
	longer                time.Duration // and how much longer than that it may take
}

// oneBox is the round of one box alone, which is always the first.
const oneBox = "1 box, rooms off"

// testRounds are what `make test` has, with an image of 32 MiB.
var testRounds = []roomRound{
	{name: oneBox, boxes: 1, off: true},
	{name: "garbage, stalls, lies", boxes: 16, acts: map[int]act{2: garbage, 6: stalls, 9: lies, 11: takes}, images: 3,
		during: (*roomSite).strangers},
	{name: "two lose power, and so does the server", boxes: 16, kill: map[int]float64{3: 0.35, 7: 0.55}, away: [2]float64{0.7, 1},
		images: 4},
	{name: "2 boxes, all blocked", boxes: 2, blocked: true, images: 3},
}

// benchRounds are what `scripts/bench room` has, with an image of 256 MiB.
var benchRounds = []roomRound{
	{name: oneBox, boxes: 1, off: true},
	{name: "1 box", boxes: 1, slowest: 1.03, images: 1.03},
	{name: "4 boxes, rooms off", boxes: 4, off: true, slowest: 4.2, images: 4.2},
	{name: "4 boxes, all blocked", boxes: 4, blocked: true, than: "4 boxes, rooms off", slowest: 1, longer: 10 * time.Second, images: 4.3},
	{name: "4 boxes", boxes: 4, slowest: 1.25, images: 1.3},
	{name: "16 boxes", boxes: 16, slowest: 1.25, images: 1.3},
	{name: "two lose power", boxes: 16, kill: map[int]float64{3: 0.35, 7: 0.55}, slowest: 1.4},
	{name: "over 0.7 of the time", boxes: 16, over: 0.7, mean: 1.25},
	{name: "1 box, 1 Gbit/s", boxes: 1, off: true, mbit: 1000},
	{name: "16 boxes, 1 Gbit/s", boxes: 16, mbit: 1000, than: "1 box, 1 Gbit/s", images: 1.3},
	{name: "1 box, a twentieth", boxes: 1, off: true, delta: true},
	{name: "a twentieth, other ones", boxes: 16, delta: true, than: "1 box, a twentieth", slowest: 2, images: 0.3},
	{name: "garbage, stalls, lies", boxes: 16, acts: map[int]act{2: garbage, 6: stalls, 9: lies}, slowest: 1.5},
	{name: "two take and do not give", boxes: 16, acts: map[int]act{2: takes, 9: takes}, slowest: 1.5},
	{name: "server away for 6 seconds", boxes: 16, away: [2]float64{0.35, 0.56}, slowest: 1.6},
}

// roomResult is what came of a round.
type roomResult struct {
	name   string
	took   []time.Duration // of the boxes that ended
	cpu    []time.Duration
	rss    []int64
	server measure.Used // without processor time if it was started again
	sent   int64
	chunks int64   // bytes of chunks that boxes got from the server
	deaf   int     // boxes that reached no other one for a while
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

// runRound runs a round to its end, and looks at the disks. one is how long one box takes.
func (r *roomSite) runRound(round *roomRound, one time.Duration) *roomResult {
	r.t.Helper()
	r.rooms(!round.off)
	r.isolate(round.blocked)
	r.limit(cmp.Or(round.mbit, *roomsMbit))
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
	before := r.used()
	runs := make([]*ran, len(boxes))
	r.evil = nil
	var watch sync.WaitGroup
	plan := roomPlan{}
	for i, b := range boxes {
		if a := round.acts[i]; a != "" {
			h := r.misbehave(b, ids[b.addr], a)
			defer h.end()
			r.evil = append(r.evil, h)
			continue
		}
		plan.at(round.over*float64(i)/float64(len(boxes)), func() {
			runs[i] = &ran{begin: time.Now(), agent: b.start(), id: ids[b.addr]}
			runs[i].watch(&watch)
		})
		if at, dies := round.kill[i]; dies {
			plan.at(at, func() { runs[i].kill() })
		}
	}
	if round.away[1] > 0 {
		plan.at(round.away[0], r.serverSite.kill)
		plan.at(round.away[1], r.start)
	}
	if round.during != nil {
		plan.at(0, func() { round.during(r) })
	}
	plan.run(one)
	watch.Wait()
	after := r.used()
	o := &roomResult{name: round.name, sent: after.sent - before.sent, server: measure.Used{RSS: after.cpu.RSS},
		busy: float64(after.working-before.working) / float64(after.passed-before.passed)}
	if after.server == before.server {
		o.server.User, o.server.System = after.cpu.User-before.cpu.User, after.cpu.System-before.cpu.System
	}
	for i, a := range runs {
		if a == nil {
			continue
		}
		b := boxes[i]
		if _, dies := round.kill[i]; dies {
			b.boot() // somebody switches it on again
			a = &ran{agent: b.start(), id: a.id}
			a.ends(done)
		} else {
			o.took, o.cpu, o.rss = append(o.took, a.took()), append(o.cpu, a.cpu), append(o.rss, a.rss)
			o.chunks += r.sound(round, b, a)
			o.deaf += strings.Count(a.out.String(), deafText)
		}
		if !r.same(b) {
			r.t.Errorf("%s: the disk of box %s is not the image; the agent said\n%s", round.name, b.addr, a.out.String())
		}
	}
	for _, h := range r.evil {
		h.named(round.name)
	}
	return o
}

// deafText is what a box says when it reaches no other one.
const deafText = "other boxes do not answer"

// sound looks at how a box ended. It returns how many bytes of chunks the box has got from the server.
func (r *roomSite) sound(round *roomRound, b *servedBox, a *ran) (chunks int64) {
	r.t.Helper()
	out := a.ends(done)
	j := b.job(a.id)
	if j.State != "ended" || j.Outcome != "done" || j.Attempt != 1 || b.armed() {
		r.t.Errorf("%s: the job of box %s is %+v, it is armed: %v", round.name, b.addr, j, b.armed())
	}
	if said := strings.Count(out, deafText); round.blocked && said != 1 {
		r.t.Errorf("%s: box %s says %d times that it reaches no other one:\n%s", round.name, b.addr, said, out)
	}
	for _, receipt := range j.Receipts {
		chunks += receipt.FromServer
	}
	return chunks
}

// roomPlan is what happens in a round, and when, as a part of the time of one box.
type roomPlan []roomEvent

type roomEvent struct {
	at float64
	do func()
}

func (p *roomPlan) at(at float64, do func()) { *p = append(*p, roomEvent{at, do}) }

func (p roomPlan) run(one time.Duration) {
	slices.SortStableFunc(p, func(a, b roomEvent) int { return cmp.Compare(a.at, b.at) })
	begin := time.Now()
	for _, e := range p {
		time.Sleep(time.Until(begin.Add(time.Duration(e.at * float64(one)))))
		e.do()
	}
}

func (o *roomResult) String() string {
	return fmt.Sprintf("%s: slowest %.1fs, mean %.1fs; agents %.2fs of processors, at most %d MiB; "+
		"server sent %d MB, %d of them chunks, by %.2fs of processors and %.2fs of the kernel, %d MiB; "+
		"%d boxes had too little from others for a while; this machine was busy for %.0f %%",
		o.name, o.slowest().Seconds(), o.mean().Seconds(), mean(o.cpu).Seconds(), slices.Max(o.rss)>>20, o.sent/1e6, o.chunks/1e6,
		o.server.User.Seconds(), o.server.System.Seconds(), o.server.RSS>>20, o.deaf, 100*o.busy)
}

// TestRooms runs rooms of real agents. Without -rooms, this machine may have much else to do, so nothing is said
// about times.
func TestRooms(t *testing.T) {
	rounds, used, inMemory := testRounds, int64(32*mib), int64(fewInMemory)
	if *roomsFlag != "" {
		rounds, used, inMemory = wantedRounds(*roomsFlag), *roomsMiB*mib, unitsInMemory
	} else {
		t.Parallel() // they wait for the network most of the time
	}
	most := 0
	for _, round := range rounds {
		most = max(most, round.boxes)
	}
	sim := map[string]roomRatios{}
	if *roomsFlag != "" {
		sim = simulated(t)
	}
	r := newRoomSite(t, most, used/roomRegions, inMemory)
	table := "\n| round | slowest box | times the one box (simulated) | on average | images sent | agent | its memory | server |\n" +
		"|---|---|---|---|---|---|---|---|\n"
	results := map[string]*roomResult{}
	for i := range rounds {
		round := &rounds[i]
		var one time.Duration
		if first := results[oneBox]; first != nil {
			one = first.slowest()
		}
		o := r.runRound(round, one)
		t.Log(o)
		results[round.name] = o
		is := o.check(t, round, results, *roomsFlag != "")
		table += o.row(is, sim[round.name], round)
	}
	t.Log(table)
}

// wantedRounds are the rounds of the benchmark that match a pattern, and those that they are compared with.
func wantedRounds(pattern string) (rounds []roomRound) {
	want := map[string]bool{oneBox: true}
	for _, round := range benchRounds {
		if regexp.MustCompile(pattern).MatchString(round.name) {
			want[round.name], want[round.than] = true, true
		}
	}
	for _, round := range benchRounds {
		if want[round.name] {
			rounds = append(rounds, round)
		}
	}
	return rounds
}

// roomRatios is how a round went beside the round with which it is compared: how long the slowest box took, how long
// boxes took on average, and how many images the server sent.
type roomRatios struct{ slowest, mean, images float64 }

// check holds a result to the promises of its round. times is false if nothing is promised about times.
func (o *roomResult) check(t *testing.T, round *roomRound, results map[string]*roomResult, times bool) (is roomRatios) {
	t.Helper()
	than := results[cmp.Or(round.than, oneBox)]
	one := than.slowest().Seconds()
	is = roomRatios{o.slowest().Seconds() / one, o.mean().Seconds() / one, float64(o.sent) / float64(results[oneBox].sent)}
	for _, p := range []struct {
		what    string
		is, may float64
		noisy   bool
	}{
		{"times as long as in the round " + than.name + " the slowest box took", is.slowest, round.slowest + round.longer.Seconds()/one, true},
		{"times as long as in the round " + than.name + " boxes took on average", is.mean, round.mean, true},
		{"images were sent by the server", is.images, round.images, false},
	} {
		if p.may > 0 && p.is > p.may && (times || !p.noisy) {
			t.Errorf("%s: %.2f %s; it may be %.2f", o.name, p.is, p.what, p.may)
		}
	}
	return is
}

var (
	simulatedName   = regexp.MustCompile(`^=== RUN +TestRoom/(.*)\n`)
	simulatedRatios = regexp.MustCompile(`slowest (\S+), mean (\S+) times that; the server sent (\S+) images`)
)

// simulated has what the simulator of package room finds for its rounds.
func simulated(t *testing.T) map[string]roomRatios {
	t.Helper()
	cmd := exec.Command("go", "test", "-count=1", "-v", "-run", "^TestRoom$", "./internal/room")
	cmd.Dir = testenv.Top()
	out, err := cmd.Output()
	must(t, err)
	all, name := map[string]roomRatios{}, ""
	for line := range strings.Lines(string(out)) {
		if m := simulatedName.FindStringSubmatch(line); m != nil {
			name = strings.ReplaceAll(m[1], "_", " ")
		}
		if m := simulatedRatios.FindStringSubmatch(line); m != nil {
			var r roomRatios
			_, err := fmt.Sscan(strings.Join(m[1:], " "), &r.slowest, &r.mean, &r.images)
			must(t, err)
			all[name] = r
		}
	}
	return all
}

// row is a line of the table for docs/performance.md.
func (o *roomResult) row(is, sim roomRatios, round *roomRound) string {
	cell := func(is, sim, bar float64) string {
		text := fmt.Sprintf("%.2f", is)
		if sim > 0 {
			text += fmt.Sprintf(" (%.2f)", sim)
		}
		if bar > 0 {
			text += fmt.Sprintf(", bar %.2f", bar)
		}
		return text
	}
	bar := round.slowest + round.longer.Seconds()*is.slowest/o.slowest().Seconds()
	return fmt.Sprintf("| %s | %.1f s | %s | %s | %s | %.2f s | %d MiB | %.2f s, %.1f s a GB |\n", o.name, o.slowest().Seconds(),
		cell(is.slowest, sim.slowest, bar), cell(is.mean, sim.mean, round.mean), cell(is.images, sim.images, round.images),
		mean(o.cpu).Seconds(), slices.Max(o.rss)>>20, o.server.CPU().Seconds(), o.server.CPU().Seconds()/(float64(o.sent)/1e9))
}

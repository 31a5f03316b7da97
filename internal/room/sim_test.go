package room

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// round is a room of boxes that restore one image at the same time. run runs it with the
// code of this package, over a network in which bytes flow like water: each flow has its
// share of the ports that it goes through, and nothing is lost. So it takes seconds for what
// takes boxes minutes. TCP, TLS and HTTP cost nothing here, so that real boxes take longer.
type round struct {
	boxes   int
	units   int     // of the image
	unit    float64 // bytes of a unit, as it is stored
	perPage int     // units of a page
	port    float64 // bytes a second of a box, in each direction
	server  float64 // bytes a second that the server sends
	disk    float64 // bytes of stored units that a disk writes in a second
	cache   float64 // bytes that a box keeps in memory
	linger  time.Duration
	noDisk  bool // peers serve from memory alone
	seed    uint64

	slow    map[int]float64       // ports of boxes that are slower
	start   map[int]time.Duration // when boxes begin
	die     map[int]time.Duration // when boxes lose power
	acts    map[int]act           // boxes that are hostile
	blocked func(from, to int) bool
	away    [2]time.Duration // when the server is killed, and when it is back
	needs   func(box, unit int) bool
	compare time.Duration // before it is known what a box needs
	zone    func(box int) string
	trunk   float64 // bytes a second between zones, in each direction
	most    time.Duration
}

// act is what a hostile box does.
type act string

const (
	garbage  act = "garbage"  // sends wrong bytes
	stalls   act = "stalls"   // sends nothing, for ever
	trickles act = "trickles" // sends next to nothing, for ever
	lies     act = "lies"     // says that it has everything
	takes    act = "takes"    // fetches, and gives nothing to anybody
)

// outcome is what came of a round.
type outcome struct {
	took     []time.Duration // of each box, from its start; 0 if it did not end
	sent     float64         // images that the server sent
	dropped  []int           // boxes of which the server tells nobody any more
	reported map[Fault]map[int]bool
	wasted   float64 // images that came twice
	end      time.Duration
}

func (o *outcome) slowest() time.Duration { return slices.Max(o.took) }

func (o *outcome) mean() time.Duration {
	var sum time.Duration
	n := 0
	for _, t := range o.took {
		if t > 0 {
			sum += t
			n++
		}
	}
	return sum / time.Duration(max(n, 1))
}

type simBox struct {
	n        int
	id       Member
	pick     *Picker
	order    []Unit // that it needs
	added    int
	next     int // first of order that is not written
	begun    bool
	alive    bool
	done     bool
	started  time.Duration
	ended    time.Duration
	ready    map[Unit]bool // came, and not written
	oldest   []Unit        // of what was written and is still in memory
	disk     map[Unit]bool
	settling []int // of order: what is in memory no more, and not on the disk for certain
	uploads  int
	credit   float64 // bytes that the disk can write now
	joined   bool
	has      map[uint32][]byte
}

type flow struct {
	f        Fetch
	from, to int // 0 is the server
	left     float64
	rate     float64
	stalled  bool
	given    bool
	at       time.Duration // when it fails with fault, if that is not ""
	fault    Fault
}

const tick = 10 * time.Millisecond

type sim struct {
	round
	now   time.Duration
	swarm *Swarm
	box   []*simBox
	flows []*flow
	by    map[Member]int
	rand  *rand.Rand
	out   outcome
	share sharing
}

func (s *sim) time() time.Time { return time.Unix(1e9, 0).Add(s.now) }

func (r round) unitAt(i int) Unit { return Unit{uint32(i / r.perPage), uint32(i % r.perPage)} }

func (r round) pages() int { return (r.units + r.perPage - 1) / r.perPage }

// run runs the round to its end.
func (r round) run() *outcome {
	s := &sim{round: r, by: map[Member]int{}, rand: rand.New(rand.NewPCG(r.seed, 2)), swarm: NewSwarm(r.pages(), r.seed)}
	s.out.reported = map[Fault]map[int]bool{}
	if s.most == 0 {
		s.most = time.Hour
	}
	s.out.took = make([]time.Duration, r.boxes)
	for i := range r.boxes {
		s.box = append(s.box, &simBox{n: i, started: r.start[i] + time.Duration(s.rand.IntN(300))*time.Millisecond, alive: true})
	}
	for !s.over() && s.now < s.most {
		s.now += tick
		s.step()
	}
	s.out.end = s.now
	return &s.out
}

func (s *sim) over() bool {
	for _, b := range s.box {
		if b.alive && !b.done && s.acts[b.n] == "" {
			return false
		}
	}
	return true
}

func (s *sim) serverUp() bool { return s.now < s.away[0] || s.now >= s.away[1] }

func (s *sim) step() {
	if s.away[1] > 0 && s.now >= s.away[0] && s.now < s.away[0]+tick {
		s.swarm = NewSwarm(s.pages(), s.seed+1)
		for _, b := range s.box {
			b.joined = false
		}
		for _, f := range s.flows {
			if f.from == 0 {
				f.fault, f.at = Away, s.now
			}
		}
	}
	for _, b := range s.box {
		if at, dies := s.die[b.n]; b.alive && (dies && s.now >= at || b.done && s.now >= b.ended+s.linger) {
			b.alive = false
			s.cut(b)
			if b.done && s.serverUp() {
				s.swarm.Leave(b.id)
			}
		}
	}
	s.move()
	for _, b := range s.box {
		if b.alive && s.now >= b.started {
			s.work(b)
		}
	}
}

// cut ends the flows of a box that is gone.
func (s *sim) cut(b *simBox) {
	for _, f := range s.flows {
		if f.from == b.n+1 || f.to == b.n+1 {
			f.fault, f.at = Away, s.now
		}
	}
}

// begin begins a box, which is told where.
func (s *sim) begin(b *simBox) {
	var start int
	b.id, start = s.swarm.Join(s.time(), fmt.Sprint(b.n), s.zoneOf(b.n))
	s.by[b.id] = b.n
	b.joined = true
	if b.begun {
		return
	}
	b.begun = true
	b.ready, b.disk, b.has = map[Unit]bool{}, map[Unit]bool{}, map[uint32][]byte{}
	for i := range s.units {
		u := s.unitAt((i + start*s.perPage) % s.units)
		if s.needs == nil || s.needs(b.n, int(u.Page)*s.perPage+int(u.At)) {
			b.order = append(b.order, u)
		} else {
			b.disk[u] = true
			s.hold(b, u, true)
		}
	}
	b.pick = NewPicker(s.time(), Window(int64(s.cache)), s.seed*1000+uint64(b.n))
}

func (s *sim) zoneOf(n int) string {
	if s.zone == nil {
		return ""
	}
	return s.zone(n)
}

// work lets a box do what it can at this moment.
func (s *sim) work(b *simBox) {
	if !b.joined && s.serverUp() {
		s.begin(b)
	}
	if !b.begun {
		return
	}
	now := s.time()
	k := b.pick
	s.write(b)
	for b.added < len(b.order) && k.Room(int(s.unit)) {
		k.Add(now, b.order[b.added], int(s.unit))
		b.added++
	}
	if b.added == len(b.order) {
		k.End()
	}
	if !b.done && b.next == len(b.order) {
		b.done, b.ended = true, s.now
		s.out.took[b.n] = s.now - b.started + s.compare
	}
	for _, late := range k.Overdue(now) {
		s.cancel(b, late)
	}
	if s.serverUp() && b.joined {
		if q, ok := k.Ask(now, Uploads-b.uploads); ok {
			for _, r := range q.Bad {
				if s.out.reported[r.Fault] == nil {
					s.out.reported[r.Fault] = map[int]bool{}
				}
				s.out.reported[r.Fault][s.by[r.Member]] = true
			}
			a, in := s.swarm.Ask(now, b.id, q)
			if b.joined = in; in {
				k.Told(now, q, a)
			}
			for _, d := range s.swarm.Dropped() {
				s.out.dropped = append(s.out.dropped, s.by[d.Member])
			}
		}
	}
	for _, m := range k.Poll(now) {
		s.poll(b, m)
	}
	for {
		f, ok := k.Next(now)
		if !ok {
			break
		}
		s.fetch(b, f)
	}
}

// hold keeps the bitmaps of what a box can send.
func (s *sim) hold(b *simBox, u Unit, has bool) {
	m := b.has[u.Page]
	if m == nil {
		m = make([]byte, (s.perPage+7)/8)
		b.has[u.Page] = m
	}
	if has {
		m[u.At/8] |= 1 << (u.At % 8)
	} else {
		m[u.At/8] &^= 1 << (u.At % 8)
	}
}

func (s *sim) canSend(b *simBox, u Unit) bool {
	m := b.has[u.Page]
	return m != nil && m[u.At/8]>>(u.At%8)&1 == 1
}

// unpacked is how many times as long a unit is before compression. settled is how much the
// copier takes until what it took before is on the disk for certain.
const (
	unpacked = 2
	settled  = 34 << 20
)

// write writes what came to the disk of a box.
func (s *sim) write(b *simBox) {
	b.credit = min(b.credit+s.disk*tick.Seconds(), 2*s.unit+s.disk*tick.Seconds())
	for b.next < len(b.order) && b.credit >= s.unit && b.ready[b.order[b.next]] {
		u := b.order[b.next]
		b.next++
		b.credit -= s.unit
		delete(b.ready, u)
		b.disk[u] = true
		b.oldest = append(b.oldest, u)
		b.pick.Written(s.time(), u)
		for float64(len(b.oldest)+len(b.ready))*s.unit > s.cache {
			old := b.oldest[0]
			b.oldest = b.oldest[1:]
			if s.hold(b, old, false); !s.noDisk {
				b.settling = append(b.settling, b.next-len(b.oldest)-1)
			}
		}
		for len(b.settling) > 0 && float64(b.next-b.settling[0]-1)*unpacked*s.unit >= settled {
			s.hold(b, b.order[b.settling[0]], true)
			b.settling = b.settling[1:]
		}
	}
}

// reach reports whether a box can open a connection to a peer.
func (s *sim) reach(b *simBox, p *simBox) bool {
	return p.alive && p.begun && (s.blocked == nil || !s.blocked(b.n, p.n))
}

func (s *sim) poll(b *simBox, m Member) {
	p := s.box[s.by[m]]
	switch {
	case !s.reach(b, p):
		b.pick.HasNot(s.time(), m, Away)
		return
	case s.acts[p.n] == takes:
		b.pick.HasNot(s.time(), m, Away)
		return
	}
	has := map[uint32][]byte{}
	for _, page := range b.pick.Pages() {
		have := make([]byte, (s.perPage+7)/8)
		copy(have, p.has[page])
		if s.acts[p.n] == lies {
			for i := range have {
				have[i] = 255
			}
		}
		has[page] = have
	}
	b.pick.Has(s.time(), m, Uploads-p.uploads, has)
}

// fetch begins a flow.
func (s *sim) fetch(b *simBox, f Fetch) {
	fl := &flow{f: f, to: b.n + 1, left: s.unit}
	if f.From != Server {
		p := s.box[s.by[f.From]]
		fl.from = p.n + 1
		switch {
		case !s.reach(b, p):
			fl.fault, fl.at = Away, s.now+DialWait
		case s.acts[p.n] == stalls:
			fl.stalled, fl.fault, fl.at = true, Stalls, s.now+QuietWait
		case s.acts[p.n] == trickles:
			fl.stalled = true
		case p.uploads >= Uploads:
			fl.fault, fl.at = Busy, s.now+tick
		case !s.canSend(p, f.Unit) && s.acts[p.n] != garbage:
			fl.fault, fl.at = Lacks, s.now+tick
		}
		if fl.fault == "" || fl.stalled {
			fl.given = true
			p.uploads++
		}
	} else if !s.serverUp() {
		fl.fault, fl.at = Away, s.now+time.Second
	}
	s.flows = append(s.flows, fl)
}

func (s *sim) cancel(b *simBox, f Fetch) {
	for _, fl := range s.flows {
		if fl.to == b.n+1 && fl.f.Number == f.Number {
			fl.fault, fl.at = "cancelled", s.now
		}
	}
}

// move moves all bytes for one tick, and ends flows.
func (s *sim) move() {
	s.share.rates(s)
	dt := tick.Seconds()
	flows := s.flows
	for _, fl := range flows {
		if fl.fault != "" || fl.stalled {
			continue
		}
		fl.left -= fl.rate * dt
		if fl.from == 0 {
			s.out.sent += fl.rate * dt / s.unit / float64(s.units)
		}
	}
	var came []*flow
	s.flows = slices.DeleteFunc(slices.Clone(flows), func(fl *flow) bool {
		over := fl.fault != "" && s.now >= fl.at || fl.fault == "" && fl.left <= 0
		if over {
			came = append(came, fl)
		}
		return over
	})
	for _, fl := range came {
		b := s.box[fl.to-1]
		if fl.given {
			s.box[fl.from-1].uploads--
		}
		switch {
		case fl.fault == "cancelled" || !b.alive:
		case fl.fault != "":
			b.pick.Failed(s.time(), fl.f, fl.fault)
		case fl.from > 0 && s.acts[fl.from-1] == garbage:
			b.pick.Failed(s.time(), fl.f, Garbage)
		default:
			for _, other := range b.pick.Came(s.time(), fl.f) {
				s.cancel(b, other)
			}
			if !b.disk[fl.f.Unit] && !b.ready[fl.f.Unit] {
				b.ready[fl.f.Unit] = true
				s.hold(b, fl.f.Unit, true)
			} else {
				s.out.wasted += 1 / float64(s.units)
			}
		}
	}
}

// sharing gives each flow its share of the ports that it goes through.
type sharing struct{ up, down, upN, downN []float64 }

func (h *sharing) rates(s *sim) {
	n := len(s.box) + 1
	zones := map[string]int{}
	zoneOf := make([]int, n)
	if s.trunk > 0 {
		for i := range s.box {
			z := s.zoneOf(i)
			if _, ok := zones[z]; !ok {
				zones[z] = len(zones)
			}
			zoneOf[i+1] = zones[z]
		}
	}
	size := n + len(zones) // a port for each zone behind those of the boxes
	if len(h.up) != size {
		h.up, h.down, h.upN, h.downN = make([]float64, size), make([]float64, size), make([]float64, size), make([]float64, size)
	}
	for i := range size {
		switch {
		case i == 0:
			h.up[i], h.down[i] = s.server, s.server
		case i < n:
			p := s.port
			if slow, ok := s.slow[i-1]; ok {
				p = slow
			}
			h.up[i], h.down[i] = p, p
		default:
			h.up[i], h.down[i] = s.trunk, s.trunk
		}
	}
	moving := make([]*flow, 0, len(s.flows))
	for _, f := range s.flows {
		if f.rate = 0; f.fault == "" && !f.stalled {
			moving = append(moving, f)
		}
	}
	crosses := func(f *flow) bool { return s.trunk > 0 && zoneOf[f.from] != zoneOf[f.to] }
	for range 4 {
		clear(h.upN)
		clear(h.downN)
		for _, f := range moving {
			h.upN[f.from]++
			h.downN[f.to]++
			if crosses(f) {
				h.upN[n+zoneOf[f.from]]++
				h.downN[n+zoneOf[f.to]]++
			}
		}
		up, down := slices.Clone(h.up), slices.Clone(h.down)
		left := moving[:0]
		for _, f := range moving {
			more := min(up[f.from]/h.upN[f.from], down[f.to]/h.downN[f.to])
			if crosses(f) {
				more = min(more, up[n+zoneOf[f.from]]/h.upN[n+zoneOf[f.from]], down[n+zoneOf[f.to]]/h.downN[n+zoneOf[f.to]])
				h.up[n+zoneOf[f.from]] -= more
				h.down[n+zoneOf[f.to]] -= more
			}
			f.rate += more
			h.up[f.from] -= more
			h.down[f.to] -= more
			if more > 1 {
				left = append(left, f)
			}
		}
		moving = left
	}
}

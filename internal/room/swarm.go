package room

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// Swarm is what a server knows of the boxes that restore one image at the same time. It
// is in memory alone: after a restart of the server boxes join again, and some units are
// given out twice. Its methods must not be called at the same time.
type Swarm struct {
	rand    *rand.Rand
	pages   uint32
	next    Member
	members map[Member]*member
	order   []*member // by their numbers, so that a run can be repeated
	boxes   map[string]*standing
	handed  map[Unit]handed
	swept   time.Time
	front   uint32 // page of the unit that was given out last
	dropped []Report
}

// handed is when a unit was given out last, and to whom.
type handed struct {
	to Member
	at time.Time
}

// standing is what is said of a box, and what it says of others. It belongs to the box and
// not to its place in the swarm. Otherwise a box that joins twice would be two accusers, and
// one that was dropped would only have to join again.
type standing struct {
	accusers map[*standing]bool
	accused  map[*standing]bool
	dropped  bool
}

type member struct {
	*standing
	id     Member
	zone   string
	seen   time.Time
	at     Unit
	serves bool
	free   int
	deaf   bool
	listed time.Time // when it was told of peers
	peers  []Member  // of which it was told
	taking map[Unit]bool
	// fresh is how many units it got first of all. served is how many units others had
	// from it.
	fresh, served int
	recent        float64 // of fresh, less as time passes
}

// NewSwarm makes a Swarm for an image of so many pages. seed makes what is chosen by chance.
func NewSwarm(pages int, seed uint64) *Swarm {
	return &Swarm{
		rand: rand.New(rand.NewPCG(seed, 1)), pages: uint32(max(pages, 1)),
		members: map[Member]*member{}, boxes: map[string]*standing{}, handed: map[Unit]handed{},
	}
}

// Join adds a box, which may be a member already, as for another disk. box is by what it is
// known. zone names the part of the network where it is, "" if nobody knows. The box begins
// with the page that it is told: where most boxes are. So what is on the way there serves
// it as well, and what it has missed comes last.
func (s *Swarm) Join(now time.Time, box, zone string) (Member, int) {
	s.sweep(now)
	start := s.live()
	s.next++
	if s.boxes[box] == nil {
		s.boxes[box] = &standing{}
	}
	m := &member{standing: s.boxes[box], id: s.next, zone: zone, seen: now, at: Unit{Page: start}, taking: map[Unit]bool{}}
	s.members[m.id] = m
	s.order = append(s.order, m)
	return m.id, int(start)
}

// live is the page where most boxes are. Of several it is the one that was given out of last,
// or else the first.
func (s *Swarm) live() uint32 {
	at := map[uint32]int{}
	for _, m := range s.order {
		at[m.at.Page]++
	}
	best, most := uint32(0), 0
	for page, n := range at {
		if n > most || n == most && (page == s.front || best != s.front && page < best) {
			best, most = page, n
		}
	}
	return best
}

// Leave removes a box. What it was given is free for others: perhaps nobody has had it yet.
func (s *Swarm) Leave(id Member) {
	m := s.members[id]
	if m == nil {
		return
	}
	delete(s.members, id)
	s.order = slices.DeleteFunc(s.order, func(o *member) bool { return o == m })
	for u, h := range s.handed {
		if h.to == id {
			delete(s.handed, u)
		}
	}
	s.unlist(id)
}

// announce sees to it that boxes with few peers are told soon of one that has just come. A room in
// which boxes begin one after the other would take seconds longer else, since each of them
// knows only those that were there when it began.
func (s *Swarm) announce(of *member) {
	for _, m := range s.order {
		if m != of && len(m.peers) < MaxPeers {
			m.listed = time.Time{}
		}
	}
}

// unlist sees to it that boxes that were told of a peer get another one soon.
func (s *Swarm) unlist(id Member) {
	for _, m := range s.order {
		if slices.Contains(m.peers, id) {
			m.listed = time.Time{}
		}
	}
}

// Has reports whether a box is in the swarm.
func (s *Swarm) Has(id Member) bool { return s.members[id] != nil }

// Members is how many boxes there are.
func (s *Swarm) Members() int { return len(s.order) }

// Dropped returns which peers were dropped since the last call. No box is told of them any
// more.
func (s *Swarm) Dropped() []Report {
	d := s.dropped
	s.dropped = nil
	return d
}

// sweep removes boxes that are silent, and forgets what was given out long ago.
func (s *Swarm) sweep(now time.Time) {
	if now.Sub(s.swept) < AskEvery {
		return
	}
	s.swept = now
	for _, m := range slices.Clone(s.order) {
		if now.Sub(m.seen) > Silent {
			s.Leave(m.id)
		}
	}
	for _, m := range s.order {
		m.recent *= recentFor
	}
	for u, h := range s.handed {
		if now.Sub(h.at) > HandedFor {
			delete(s.handed, u)
		}
	}
}

// Ask answers a question of a box. ok is false if the box is not in the swarm, because it
// was silent for too long: it joins again.
func (s *Swarm) Ask(now time.Time, id Member, q Ask) (a Answer, ok bool) {
	s.sweep(now)
	m := s.members[id]
	if m == nil {
		return a, false
	}
	if q.Serves && !m.serves {
		s.announce(m)
	}
	m.seen, m.serves, m.free, m.deaf = now, q.Serves, q.Free, q.Deaf
	if q.At.Page < s.pages {
		m.at = q.At
	}
	s.hear(m, q)
	a.Take = s.give(now, m, q)
	if m.listed.IsZero() || now.Sub(m.listed) >= PeersEvery {
		a.Peers, a.Fresh = s.peers(m), true
		m.peers = m.peers[:0]
		for _, p := range a.Peers { // who is alone hears of the next one soon
			m.listed, m.peers = now, append(m.peers, p.Member)
		}
	}
	a.Again = max(AskSoon, time.Duration(len(s.order))*AsksEach)
	return a, true
}

// hear notes what a box says of others.
func (s *Swarm) hear(m *member, q Ask) {
	for _, c := range q.From[:min(len(q.From), MaxReports)] {
		if p := s.members[c.Member]; p != nil && p.standing != m.standing && c.Units > 0 {
			p.served = min(p.served+min(c.Units, MaxWant), p.fresh) // or it could save them for later
		}
	}
	for _, r := range q.Bad[:min(len(q.Bad), MaxReports)] {
		if r.Fault == Garbage {
			s.accuse(m, s.members[r.Member])
		}
	}
}

// accuse notes that m had wrong bytes from p.
func (s *Swarm) accuse(m, p *member) {
	if p == nil || p.standing == m.standing || m.accused[p.standing] || len(m.accused) >= MaxAccused {
		return
	}
	if m.accused == nil {
		m.accused = map[*standing]bool{}
	}
	m.accused[p.standing] = true
	if p.accusers == nil {
		p.accusers = map[*standing]bool{}
	}
	p.accusers[m.standing] = true
	if len(p.accusers) >= MaxAccusers && !p.dropped {
		p.dropped = true
		s.dropped = append(s.dropped, Report{p.id, Garbage})
		for _, o := range s.order {
			if o.standing == p.standing {
				s.unlist(o.id)
			}
		}
	}
}

// give decides which units a box fetches from the server.
func (s *Swarm) give(now time.Time, m *member, q Ask) (take []Unit) {
	taking := map[Unit]bool{}
	for _, u := range q.Taking {
		if m.taking[u] {
			taking[u] = true
		}
	}
	m.taking = taking
	spreads, slots := s.spreads(m), s.slots(m)
	for _, u := range q.Want[:min(len(q.Want), MaxWant)] {
		if len(m.taking) >= slots {
			break
		}
		if u.Page >= s.pages || m.taking[u] || !s.free(now, m, q, u, spreads) {
			continue
		}
		m.taking[u] = true
		take = append(take, u)
		if !spreads {
			continue // nobody waits for what comes from this box
		}
		if h, was := s.handed[u]; !was || h.to != m.id {
			m.fresh++
			m.recent++
		}
		s.handed[u] = handed{m.id, now}
		s.front = u.Page
	}
	return take
}

// slots is how many units a box may fetch from the server at once.
func (s *Swarm) slots(m *member) int {
	if len(s.order) == 1 {
		return AloneSlots
	}
	if m.deaf { // what the others get comes to many
		return min(max(SwarmSlots/len(s.order), DeafSlots), AloneSlots)
	}
	others := 0
	for _, o := range s.order {
		if o != m && !o.deaf {
			others += len(o.taking)
		}
	}
	fair := min(max(SwarmSlots/len(s.order), 1), MostSlots)
	return min(fair, max(SwarmSlots-others, 0))
}

// gives reports whether others can have something from a box. One that gets too little from others may
// be behind a firewall, unless others had something from it already.
func (m *member) gives() bool { return m.serves && !m.dropped && (!m.deaf || m.served > 0) }

// spreads reports whether others will have from a box what it gets from the server. So far
// others had from it what it got, or it has just come.
func (s *Swarm) spreads(m *member) bool {
	return m.gives() && m.fresh < m.served+max(Trust/len(s.order), MinTrust)
}

// free reports whether a box may have a unit from the server.
func (s *Swarm) free(now time.Time, m *member, q Ask, u Unit, spreads bool) bool {
	if m.deaf || len(s.order) == 1 {
		return true
	}
	h, was := s.handed[u]
	if was && h.to != m.id {
		wait := HandedFor
		if q.Urgent {
			wait = HandedSoon
		}
		return now.Sub(h.at) >= wait
	}
	return q.Urgent || spreads && s.fair(m) // nobody has it on the way
}

// fair reports whether a box got no more units first of all than its part.
func (s *Swarm) fair(m *member) bool {
	sum, n := 0.0, 0.0
	for _, o := range s.order {
		if o.gives() {
			sum += o.recent
			n++
		}
	}
	return m.recent <= sum/n+FairMore
}

// peers chooses peers for a box: near ones that are where it is or before it, and some
// strangers.
func (s *Swarm) peers(m *member) []Peer {
	var all []*member
	for _, p := range s.order {
		if p.standing != m.standing && p.gives() {
			all = append(all, p)
		}
	}
	s.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	near := func(p *member) bool { return p.zone == m.zone }
	ahead := func(p *member) uint32 { return (p.at.Page + s.pages - m.at.Page) % s.pages }
	if len(all) > MaxPeers {
		strangers := slices.Clone(all[:Strangers])
		rest := all[Strangers:]
		slices.SortStableFunc(rest, func(a, b *member) int {
			return cmp.Or(first(near(a), near(b)), cmp.Compare(min(ahead(a), farAhead), min(ahead(b), farAhead)),
				first(a.free > 0, b.free > 0))
		})
		all = append(rest[:MaxPeers-Strangers:MaxPeers-Strangers], strangers...)
	}
	peers := make([]Peer, 0, len(all))
	for _, p := range all {
		peers = append(peers, Peer{p.id, near(p)})
	}
	return peers
}

// recentFor is how much of recent is left after a second.
const recentFor = 0.9

// farAhead is how many pages before a box another one is too far ahead to have in memory
// what the box needs next.
const farAhead = 4

// first orders what has a property before what has not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

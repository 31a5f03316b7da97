package room

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"
)

// Picker decides for one box which unit is fetched next, and from where. The caller adds the
// units that the box needs in the order in which it writes them, does the fetches, and says
// how they ended. Its methods must not be called at the same time.
type Picker struct {
	rand   *rand.Rand
	window int64 // bytes of units that may be added and not written
	held   int64 // bytes of units in win

	win   []entry // the units of the window, in their order
	last  Unit    // the first of win, or what that was last
	base  int     // number of the first of win, counted from the first unit that was added
	at    map[Unit]int
	ended bool // no units come after those of win

	peers   []*peer // at the places that holders has bits for; nil where there is none
	numbers uint64  // given to fetches
	out     []*fetch
	granted []Unit // by the server, and not asked for yet

	headSince time.Time // since when the first of win is the first
	asked     time.Time // when the server was asked last
	again     time.Duration
	got       bool          // a unit came from the server since it was asked
	usual     time.Duration // how long a fetch from a peer takes on average
	firstList time.Time     // when peers were told of for the first time
	answered  time.Time     // when a peer answered last
	deafTo    time.Time
	starved   time.Duration
	gave      int // how many more units came from peers than from the server since the box starves
	looked    time.Time

	from map[Member]int
	bad  []Report
}

// entry is a unit of the window.
type entry struct {
	unit    Unit
	bytes   int
	had     bool
	written bool
	holders uint32 // peers that have it, by their places in peers
	refused uint32 // peers that said that they have it, and did not send it
	asked   uint32 // peers that it is being fetched from
	server  bool   // it is being fetched from the server, or will be, as the server gave it
	flights int
	twice   bool
}

// peer is a box that units can be fetched from.
type peer struct {
	Peer
	listed   bool // the server still tells of it
	has      map[uint32][]byte
	polled   time.Time
	polling  bool
	out      int // fetches under way
	free     int // how many more units it would send, as far as this box knows
	failures int
	notUntil time.Time
	banned   bool
}

// Fetch is a unit that is to be fetched from somewhere.
type Fetch struct {
	Unit   Unit
	From   Member
	Number uint64 // tells fetches of one Picker apart
}

type fetch struct {
	Fetch
	bytes int
	begun time.Time
	peer  *peer // nil for the server
}

// NewPicker makes a Picker. So many bytes may be fetched before they are written. seed makes
// what is chosen by chance.
func NewPicker(now time.Time, window int64, seed uint64) *Picker {
	return &Picker{
		rand: rand.New(rand.NewPCG(seed, 3)), window: window, at: map[Unit]int{}, from: map[Member]int{},
		again: AskSoon, headSince: now, looked: now,
	}
}

// Begin says with which unit the box begins. The server is told so before one is added.
func (k *Picker) Begin(u Unit) { k.last = u }

// Room reports whether there is room for another unit of so many bytes. There always is
// for one.
func (k *Picker) Room(bytes int) bool { return len(k.win) == 0 || k.held+int64(bytes) <= k.window }

// Add adds the next unit that the box needs. bytes is about how many must be fetched.
func (k *Picker) Add(now time.Time, u Unit, bytes int) {
	if _, has := k.at[u]; has {
		return
	}
	e := entry{unit: u, bytes: bytes}
	for i, p := range k.peers {
		if p != nil && p.hasUnit(u) {
			e.holders |= 1 << i
		}
	}
	if len(k.win) == 0 {
		k.headSince = now
	}
	k.at[u] = k.base + len(k.win)
	k.win = append(k.win, e)
	k.held += int64(bytes)
}

// End says that no further unit will be added.
func (k *Picker) End() { k.ended = true }

func (k *Picker) entry(u Unit) *entry {
	if i, ok := k.at[u]; ok {
		return &k.win[i-k.base]
	}
	return nil
}

// Written says that a unit is on the disk, or not needed any more.
func (k *Picker) Written(now time.Time, u Unit) {
	e := k.entry(u)
	if e == nil {
		return
	}
	e.written, e.had = true, true
	n := 0
	for n < len(k.win) && k.win[n].written {
		delete(k.at, k.win[n].unit)
		k.held -= int64(k.win[n].bytes)
		n++
	}
	if n > 0 {
		k.win, k.base, k.headSince = k.win[n:], k.base+n, now
	}
}

// Done reports whether all units were written.
func (k *Picker) Done() bool { return k.ended && len(k.win) == 0 }

// hasUnit reports whether a peer has said that it has a unit.
func (p *peer) hasUnit(u Unit) bool {
	b := p.has[u.Page]
	return int(u.At/8) < len(b) && b[u.At/8]>>(u.At%8)&1 == 1
}

func (k *Picker) peer(m Member) (int, *peer) {
	for i, p := range k.peers {
		if p != nil && p.Member == m {
			return i, p
		}
	}
	return -1, nil
}

// Listed takes the peers that the server tells of, in place of those of before. What is
// under way from the others goes on.
func (k *Picker) Listed(now time.Time, peers []Peer) {
	for i, p := range k.peers {
		if p == nil || slices.ContainsFunc(peers, func(n Peer) bool { return n.Member == p.Member }) {
			continue
		}
		p.listed, p.has = false, nil
		k.unhold(i)
		k.forget(i)
	}
	for _, n := range peers[:min(len(peers), MaxPeers)] {
		if n.Member == Server {
			continue
		}
		if k.firstList.IsZero() {
			k.firstList = now
		}
		if _, p := k.peer(n.Member); p != nil {
			p.Peer, p.listed = n, true
			continue
		}
		if i := k.place(); i >= 0 {
			k.peers[i] = &peer{Peer: n, listed: true}
		}
	}
}

// maxPlaces is how many peers are remembered: as many as holders has bits.
const maxPlaces = 32

// place finds a place for another peer. Of those that are not told of any more, one is
// forgotten that failed.
func (k *Picker) place() int {
	for i, p := range k.peers {
		if p == nil {
			return i
		}
	}
	if len(k.peers) < maxPlaces {
		k.peers = append(k.peers, nil)
		return len(k.peers) - 1
	}
	for i, p := range k.peers {
		if !p.listed && p.out == 0 && !p.banned {
			k.free(i)
			return i
		}
	}
	return -1
}

// forget frees the place of a peer that is not told of any more, unless something is known
// of it that must stay known.
func (k *Picker) forget(i int) {
	if p := k.peers[i]; !p.listed && p.out == 0 && !p.banned && p.failures == 0 {
		k.free(i)
	}
}

// free frees a place for another peer.
func (k *Picker) free(i int) {
	k.peers[i] = nil
	for j := range k.win {
		k.win[j].holders &^= 1 << i
		k.win[j].refused &^= 1 << i
	}
}

// unhold notes that a peer has nothing.
func (k *Picker) unhold(i int) {
	for j := range k.win {
		k.win[j].holders &^= 1 << i
	}
}

// Pages are the pages of the units that the box needs next. Peers are asked for these.
func (k *Picker) Pages() (pages []uint32) {
	for i := range k.win {
		if e := &k.win[i]; !e.had && (len(pages) == 0 || pages[len(pages)-1] != e.unit.Page) {
			pages = append(pages, e.unit.Page)
		}
	}
	return pages
}

// Poll returns the peers that are to be asked now what they have. Each counts as being asked
// until Has or HasNot.
func (k *Picker) Poll(now time.Time) (ask []Member) {
	every := HaveEvery
	switch {
	case len(k.out) < Downloads/2:
		every = HaveNow
	case k.idle():
		every = HaveSoon
	}
	for _, p := range k.peers {
		if p != nil && p.usable(now) && !p.polling && now.Sub(p.polled) >= every {
			p.polling, p.polled = true, now
			ask = append(ask, p.Member)
		}
	}
	return ask
}

// idle reports whether the box could fetch more than it does.
func (k *Picker) idle() bool { return len(k.out) < Downloads }

func (p *peer) usable(now time.Time) bool {
	return p.listed && !p.banned && !now.Before(p.notUntil)
}

// Has takes how many more uploads a peer has room for, and what it says it has: for each page a bitmap of its
// units. What it said before does not hold any more.
func (k *Picker) Has(now time.Time, m Member, free int, has map[uint32][]byte) {
	i, p := k.peer(m)
	if p == nil {
		return
	}
	p.polling, p.free, k.answered = false, free, now
	if p.listed && !p.banned && !now.Before(p.notUntil) {
		p.has = has
	}
	for j := range k.win {
		e := &k.win[j]
		if e.holders &^= 1 << i; p.hasUnit(e.unit) && e.refused>>i&1 == 0 {
			e.holders |= 1 << i
		}
	}
}

// HasNot says that a peer did not answer what it has.
func (k *Picker) HasNot(now time.Time, m Member, f Fault) {
	i, p := k.peer(m)
	if p == nil {
		return
	}
	p.polling = false
	k.failed(now, i, p, f)
}

// failed notes a failure of a peer.
func (k *Picker) failed(now time.Time, i int, p *peer, f Fault) {
	if f != Away {
		k.answered = now
	}
	switch f {
	case Busy:
		p.notUntil = now.Add(BusyWait)
		return
	case Garbage:
		p.banned = true
	}
	if p.failures += FailureWeight; p.banned || p.failures >= MaxFailures {
		if f != Away { // the box may have ended
			k.report(p.Member, f)
		}
		p.failures = MaxFailures - FailureWeight
		p.notUntil, p.has = now.Add(BanFor), nil
		k.unhold(i)
	}
}

// report notes what the server is to be told of a peer.
func (k *Picker) report(m Member, f Fault) {
	if len(k.bad) < MaxReports {
		k.bad = append(k.bad, Report{m, f})
	}
}

// Next returns what is to be fetched now. The caller begins it at once. ok is false if there
// is nothing to fetch at the moment.
func (k *Picker) Next(now time.Time) (f Fetch, ok bool) {
	k.look(now)
	if len(k.out) >= Downloads {
		return f, false
	}
	for len(k.granted) > 0 {
		u := k.granted[0]
		k.granted = k.granted[1:]
		if e := k.entry(u); e != nil && !e.had {
			return k.begin(now, e, -1), true
		}
	}
	usable := k.usable(now)
	if usable == 0 {
		return f, false
	}
	if e := k.first(usable); e != nil {
		return k.begin(now, e, k.best(e.holders&usable)), true
	}
	if e := k.second(now); e != nil {
		if from := e.holders & usable &^ e.asked; from != 0 {
			e.twice = true
			return k.begin(now, e, k.best(from)), true
		}
	}
	return f, false
}

// first chooses the unit that is fetched next from one of some peers.
func (k *Picker) first(usable uint32) (chosen *entry) {
	n := 0
	for j := range k.win {
		e := &k.win[j]
		if e.had || e.flights > 0 || e.server || e.holders&usable == 0 {
			continue
		}
		if j < HeadFirst {
			return e
		}
		if n++; k.rand.IntN(n) == 0 {
			chosen = e
		}
	}
	return chosen
}

// usable are the peers that can be asked for a unit now, by their places.
func (k *Picker) usable(now time.Time) (u uint32) {
	for i, p := range k.peers {
		if p != nil && p.usable(now) && p.out < PerPeer {
			u |= 1 << i
		}
	}
	return u
}

// best chooses among peers: a near one, of these the one from which the least is under way, and of these the
// one with the most room for uploads. Else some would have to send to many while the ports of others are
// idle. The room for uploads does not come first, since all boxes would ask the same peer then: that takes
// a twelfth longer in the simulator.
func (k *Picker) best(among uint32) int {
	best := -1
	for ; among != 0; among &= among - 1 {
		i := bits.TrailingZeros32(among)
		p, b := k.peers[i], (*peer)(nil)
		if best >= 0 {
			b = k.peers[best]
		}
		less := b == nil ||
			cmp.Or(cmp.Compare(p.out, b.out), cmp.Compare(b.free, p.free), cmp.Compare(k.from[p.Member], k.from[b.Member])) < 0
		if b == nil || p.Near && !b.Near || p.Near == b.Near && less {
			best = i
		}
	}
	return best
}

// second returns the first unit that should be asked of a second source, or nil.
func (k *Picker) second(now time.Time) *entry {
	for j := range k.win {
		e := &k.win[j]
		if e.had || e.twice || e.flights != 1 {
			continue
		}
		if k.ended && len(k.win)-j <= LastUnits || now.Sub(k.begun(e)) >= k.twiceAfter() {
			return e
		}
	}
	return nil
}

func (k *Picker) begun(e *entry) (t time.Time) {
	for _, f := range k.out {
		if f.Unit == e.unit {
			return f.begun
		}
	}
	return t
}

func (k *Picker) twiceAfter() time.Duration { return max(TwiceAfter, TwiceTimes*k.usual) }

// headWait is how long the writing waits for a unit before that is more than a slow network.
func (k *Picker) headWait() time.Duration { return max(HeadWait, TwiceTimes*k.usual) }

// begin notes a fetch from the peer at place i, or from the server if that is -1.
func (k *Picker) begin(now time.Time, e *entry, i int) Fetch {
	k.numbers++
	f := &fetch{Fetch: Fetch{e.unit, Server, k.numbers}, bytes: e.bytes, begun: now}
	if i >= 0 {
		f.peer, f.From = k.peers[i], k.peers[i].Member
		f.peer.out++
		f.peer.free--
		e.asked |= 1 << i
	}
	e.flights++
	k.out = append(k.out, f)
	return f.Fetch
}

// end removes a fetch. It returns nil if that has ended before.
func (k *Picker) end(f Fetch) (*fetch, *entry) {
	j := slices.IndexFunc(k.out, func(o *fetch) bool { return o.Number == f.Number })
	if j < 0 {
		return nil, nil
	}
	o := k.out[j]
	k.out = slices.Delete(k.out, j, j+1)
	e := k.entry(o.Unit)
	if e != nil {
		e.flights--
	}
	if o.peer == nil {
		if e != nil {
			e.server = false
		}
		return o, e
	}
	o.peer.out--
	o.peer.free++
	if i, p := k.peer(o.peer.Member); p == o.peer {
		if e != nil {
			e.asked &^= 1 << i
		}
		k.forget(i)
	}
	return o, e
}

// Came says that a unit came, and that each of its chunks has its name. It returns the other
// fetches of this unit. The caller gives them up, and need not say how they end.
func (k *Picker) Came(now time.Time, f Fetch) (others []Fetch) {
	o, e := k.end(f)
	if o == nil {
		return nil
	}
	if o.peer == nil {
		k.got = true
		k.gave--
	}
	if p := o.peer; p != nil {
		k.gave++
		p.failures = max(0, p.failures-1)
		k.answered = now
		if e == nil || !e.had {
			k.from[p.Member]++
		}
		took := now.Sub(o.begun)
		if k.usual == 0 {
			k.usual = took
		}
		k.usual += (took - k.usual) / 16
	}
	if e == nil || e.had {
		return nil
	}
	e.had = true
	for _, other := range slices.Clone(k.out) {
		if other.Unit != f.Unit {
			continue
		}
		if others = append(others, other.Fetch); now.Sub(other.begun) >= k.twiceAfter() {
			k.Failed(now, other.Fetch, Slow)
		} else {
			k.end(other.Fetch)
		}
	}
	return others
}

// Failed says that a fetch has failed.
func (k *Picker) Failed(now time.Time, f Fetch, why Fault) {
	o, e := k.end(f)
	if e != nil {
		e.twice = false
	}
	if o == nil || o.peer == nil {
		return
	}
	i, p := k.peer(o.peer.Member)
	if p == nil {
		return
	}
	if e != nil && why != Busy {
		e.holders &^= 1 << i
		e.refused |= 1 << i
	}
	k.failed(now, i, p, why)
}

// Overdue returns fetches from peers that take too long. They count as failed, and the
// caller gives them up.
func (k *Picker) Overdue(now time.Time) (late []Fetch) {
	for _, f := range slices.Clone(k.out) {
		if f.peer != nil && now.Sub(f.begun) > UnitWait+time.Duration(f.bytes)*MBWait/1e6 {
			k.Failed(now, f.Fetch, Stalls)
			late = append(late, f.Fetch)
		}
	}
	return late
}

// want are the units that the box lacks, and that no peer is known to have. urgent says that
// the writing waits for the first.
func (k *Picker) want(now time.Time) (want []Unit, urgent bool) {
	for j := range k.win {
		e := &k.win[j]
		if e.had || e.server || len(want) == MaxWant {
			continue
		}
		slow := e.flights == 0 || now.Sub(k.begun(e)) >= k.twiceAfter()
		stuck := j == 0 && slow && now.Sub(k.headSince) >= HeadWait
		urgent = urgent || stuck
		if stuck || e.flights == 0 && e.holders == 0 {
			want = append(want, e.unit)
		}
	}
	return want, urgent
}

// taking are the units that the server gave, and that have not come.
func (k *Picker) taking() (units []Unit) {
	for j := range k.win {
		if e := &k.win[j]; e.server && !e.had {
			units = append(units, e.unit)
		}
	}
	return units
}

// Ask returns what the box asks the server now. ok is false if it is not time to ask. free is
// how many uploads it has room for.
func (k *Picker) Ask(now time.Time, free int) (q Ask, ok bool) {
	k.look(now)
	since := now.Sub(k.asked)
	if more := k.got && since >= AskNext || k.idle() && since >= k.again; !k.asked.IsZero() && since < AskEvery && !more {
		return q, false
	}
	q = Ask{Taking: k.taking(), Deaf: k.Deaf(now), Serves: true, Free: free, Bad: k.bad}
	if len(k.win) > 0 {
		k.last = k.win[0].unit
	}
	q.At = k.last
	q.Want, q.Urgent = k.want(now)
	for m, n := range k.from {
		if n > 0 && len(q.From) < MaxReports {
			q.From = append(q.From, Count{m, n})
		}
	}
	slices.SortFunc(q.From, func(a, b Count) int { return int(a.Member) - int(b.Member) })
	k.asked, k.got = now, false
	return q, true
}

// Told takes the answer to a question.
func (k *Picker) Told(now time.Time, q Ask, a Answer) {
	for _, c := range q.From {
		if k.from[c.Member] -= c.Units; k.from[c.Member] <= 0 {
			delete(k.from, c.Member)
		}
	}
	k.bad = k.bad[min(len(q.Bad), len(k.bad)):]
	k.again = max(a.Again, AskSoon)
	if a.Fresh {
		k.Listed(now, a.Peers)
	}
	for _, u := range a.Take {
		if e := k.entry(u); e != nil && !e.had && !e.server {
			e.server = true
			k.granted = append(k.granted, u)
		}
	}
}

// Deaf reports whether the box fetches all from the server, because no peer answers, or
// because what peers give is too little.
func (k *Picker) Deaf(now time.Time) bool { return now.Before(k.deafTo) }

// look notes how long the box had nothing to fetch although it lacks units.
func (k *Picker) look(now time.Time) {
	d := now.Sub(k.looked)
	if d <= 0 {
		return
	}
	k.looked = now
	if len(k.win) > 0 && !k.win[0].had && now.Sub(k.headSince) >= k.headWait() {
		k.starved += d
	} else if k.starved = max(0, k.starved-d/2); k.starved == 0 {
		k.gave = 0
	}
	silent := !k.firstList.IsZero() && now.Sub(k.firstList) >= DeafAfter && now.Sub(k.answered) >= DeafAfter
	// If peers give more than the server does, the room is slow and not broken. Were all its boxes to
	// read from the server then, it would be slower still, and stay so.
	starves := k.starved >= DeafAfter && k.gave <= 0
	if k.starved >= DeafAfter || silent {
		k.starved, k.gave = 0, 0
	}
	if starves || silent {
		k.deafTo = now.Add(DeafFor)
		k.firstList = now
	}
}

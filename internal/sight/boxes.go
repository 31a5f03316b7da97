package sight

import (
	"net/netip"
	"slices"
	"time"
)

// Kind says what is told of a machine.
type Kind string

// The kinds of events.
const (
	New    Kind = "new"    // a machine that nobody knows asked for the first time
	Moved  Kind = "moved"  // the machine of a box asks from another address
	Shared Kind = "shared" // two machines asked from one address
	Silent Kind = "silent" // a box was not seen for longer than is usual for it
	Back   Kind = "back"   // a silent box was seen again
)

// Event is what somebody may want to know at once.
type Event struct {
	Kind    Kind
	Time    time.Time
	Box     netip.Addr // the one that it is about; not valid if it is about no box
	Machine Machine    // that asked; of Shared the one that has come to the address; empty if Silent
	Lost    bool       // of Silent: the box was to start anew
}

const (
	maxEvents    = 256
	maxStrangers = 20 // events about no box in a minute, since anybody can cause them
	// again is how long after an event of a box the next one of the same kind is told.
	again = 10 * time.Minute

	// One start of a box is many requests. Those within oneStart are no pause.
	oneStart = 30 * time.Minute
	maxGaps  = 16
	minGaps  = 6 // with less, it is not known what is usual
	// shortest is how long a box must not have been seen to be called silent.
	shortest = 24 * time.Hour
	// startTime is how long a machine may take from the end of an action until its loader asks. Large servers test their memory for a
	// quarter of an hour.
	startTime = 30 * time.Minute
)

// Box is what was seen of a box. It is saved with the box.
type Box struct {
	Last time.Time       `json:"-"`
	Gaps []time.Duration `json:"gaps,omitempty"` // the newest pauses between its starts; the oldest first
	// Moved is another address from which its machine asked last, and MovedAt when. It is
	// not valid if the machine asks from the box's own address.
	Moved   netip.Addr `json:"moved,omitzero"`
	MovedAt time.Time  `json:"movedAt,omitzero"`
	// Other is the hardware address of another machine that asked from the box's address,
	// and OtherAt when it did so last.
	Other   string    `json:"other,omitempty"`
	OtherAt time.Time `json:"otherAt,omitzero"`
	// Silent is when it was found that the box is silent. Zero means that it is not.
	Silent time.Time `json:"silent,omitzero"`
	// Lost says that it is silent since it was to start anew after an action, and its loader has not asked.
	Lost bool `json:"lost,omitempty"`
}

// Shared reports whether another machine asked from the box's address not long ago, or
// later than the box.
func (b *Box) Shared(now time.Time) bool {
	return b.Other != "" && (now.Sub(b.OtherAt) < Lasts || b.OtherAt.After(b.Last))
}

// Usual is how long a box is not seen at most in the usual course of things. It is the
// longest of its latest pauses. Of many it is the second longest, so that one holiday
// does not count. known is false if there were not enough of them.
func (b *Box) Usual() (d time.Duration, known bool) {
	if len(b.Gaps) < minGaps {
		return 0, false
	}
	gaps := slices.Clone(b.Gaps)
	slices.Sort(gaps)
	if len(gaps) < maxGaps { // too few for a second weekend
		return gaps[len(gaps)-1], true
	}
	return gaps[len(gaps)-2], true
}

// boxSight is a box in the list.
type boxSight struct {
	Box
	dirty bool
	told  map[Kind]time.Time // when an event was told last
	asked time.Time          // when its loader asked last, as far as this start of the server knows
	due   time.Time          // by then its loader must ask; zero if it need not
}

func (l *List) box(addr netip.Addr) *boxSight {
	b := l.boxes[addr]
	if b == nil {
		b = &boxSight{told: map[Kind]time.Time{}}
		l.boxes[addr] = b
	}
	return b
}

// boxAsked notes that the machine of a box asked: its loader, or only its system. l.mu is held.
func (l *List) boxAsked(m *entry, k Known, now time.Time, loader bool) {
	b := l.box(k.Box)
	l.seen(k.Box, b, now, m.clone(), loader)
	if loader {
		b.asked, b.due = now, time.Time{}
	}
	switch {
	case !k.Sure || !m.Addr.IsValid():
	case m.Addr == k.Box:
		b.Moved, b.MovedAt = netip.Addr{}, time.Time{}
	default:
		if b.Moved != m.Addr {
			b.Moved, b.MovedAt = m.Addr, now
			l.tellBox(b, Event{Kind: Moved, Time: now, Box: k.Box, Machine: m.clone()})
		}
	}
}

// seen notes a sign of life of a box. It shows that the box starts from the network if it
// is of its loader, or of what its loader has started. l.mu is held.
func (l *List) seen(addr netip.Addr, b *boxSight, now time.Time, by Machine, network bool) {
	if !b.Last.IsZero() {
		if gap := l.quiet(b, now); gap >= oneStart {
			b.Gaps = append(b.Gaps, gap.Round(time.Second))
			b.Gaps = b.Gaps[max(0, len(b.Gaps)-maxGaps):]
		}
	}
	b.dirty = true
	if now.After(b.Last) {
		b.Last = now
	}
	if !b.Silent.IsZero() && (network || !b.Lost) {
		b.Silent, b.Lost = time.Time{}, false
		l.tellBox(b, Event{Kind: Back, Time: now, Box: addr, Machine: by})
	}
}

// quiet is how long a box was not seen while somebody could have seen it. The time in
// which there was no server does not count: it began at the last sight of any machine, or
// after it. l.mu is held.
func (l *List) quiet(b *boxSight, now time.Time) time.Duration {
	if l.start.IsZero() || !b.Last.Before(l.start) {
		return now.Sub(b.Last)
	}
	return max(0, l.before.Sub(b.Last)) + now.Sub(l.start)
}

// shared finds two machines with one address. l.mu is held.
func (l *List) shared(m *entry, k Known, now time.Time) {
	switch {
	case m.MAC == "" || !m.Addr.IsValid():
	case k.Here.IsValid() && k.Box != k.Here:
		b := l.box(k.Here)
		if b.Other != m.MAC || !b.Shared(now) {
			l.tellBox(b, Event{Kind: Shared, Time: now, Box: k.Here, Machine: m.clone()})
		}
		b.Other, b.OtherAt, b.dirty = m.MAC, now, true
	case !k.Here.IsValid() && m.TwinAt.Equal(now) && m.Twin != "":
		if m.twinTold.IsZero() || now.Sub(m.twinTold) >= again {
			m.twinTold = now
			l.tell(Event{Kind: Shared, Time: now, Machine: m.clone()})
		}
	}
}

// tellBox tells of an event, unless the same was told of the box not long ago. l.mu is
// held.
func (l *List) tellBox(b *boxSight, e Event) {
	if at := b.told[e.Kind]; at.IsZero() || e.Time.Sub(at) >= again {
		b.told[e.Kind] = e.Time
		l.tell(e)
	}
}

func (l *List) tell(e Event) {
	if !e.Box.IsValid() {
		if e.Time.Sub(l.minute) >= time.Minute || e.Time.Before(l.minute) {
			l.minute, l.strangers = e.Time, 0
		}
		l.strangers++
	}
	if len(l.events) >= maxEvents || !e.Box.IsValid() && l.strangers > maxStrangers {
		l.lost++
		return
	}
	l.events = append(l.events, e)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Told has a value when there are events.
func (l *List) Told() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	return l.kick
}

// Events returns the events since the last call, and how many others found no room.
func (l *List) Events() (all []Event, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, lost, l.events, l.lost = l.events, l.lost, nil, 0
	return all, lost
}

// LoadBox notes what was saved of a box. For those that there are at the start, it is
// called before Load.
func (l *List) LoadBox(addr netip.Addr, b Box) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	l.box(addr).Box = b
	if l.start.IsZero() && b.Last.After(l.before) {
		l.before = b.Last
	}
}

// SawBox notes a sign of life of a box that is none of its loader, such as its agent's.
func (l *List) SawBox(addr netip.Addr, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	b := l.box(addr)
	if at.After(b.Last) {
		l.seen(addr, b, at, Machine{Identity: Identity{Addr: addr}}, true)
	}
}

// Restarted notes that a box starts anew, since its agent has ended after a moment. If its
// loader does not ask within half an hour, Quiet finds that the box is lost. A box whose loader was
// never seen is not expected, as it gets its boot files elsewhere.
func (l *List) Restarted(addr netip.Addr, after, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.boxes[addr]; b != nil && !b.asked.IsZero() && !b.asked.After(after) {
		b.due = now.Add(startTime)
	}
}

// OfBox returns what was seen of a box.
func (l *List) OfBox(addr netip.Addr) (Box, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.boxes[addr]
	if b == nil {
		return Box{}, false
	}
	return l.shown(addr, b), true
}

// shown is a box without a machine at its address that has become the box since, as when
// an admin has accepted it. l.mu is held.
func (l *List) shown(addr netip.Addr, b *boxSight) Box {
	out := b.clone()
	if out.Other != "" && l.know(Identity{Addr: addr, MAC: out.Other}).Box == addr {
		out.Other, out.OtherAt = "", time.Time{}
	}
	return out
}

// Count counts the machines that nobody knows, and the boxes that are silent, that have
// moved, and whose address another machine has too.
func (l *List) Count() (unknown, silent, moved, shared int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range l.of {
		if !l.know(m.Identity).Box.IsValid() {
			unknown++
		}
	}
	for addr, b := range l.boxes {
		if !b.Silent.IsZero() {
			silent++
		}
		if b.Moved.IsValid() {
			moved++
		}
		if out := l.shown(addr, b); out.Shared(now) {
			shared++
		}
	}
	return unknown, silent, moved, shared
}

func (b *boxSight) clone() Box {
	out := b.Box
	out.Gaps = slices.Clone(b.Gaps)
	return out
}

// Forget forgets what was seen of a box that there is no more.
func (l *List) Forget(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.boxes, addr)
}

// Quiet finds boxes that have become silent or are lost. Those that busy names are not silent,
// since somebody hears of them in another way. Boxes that want does not name are
// forgotten.
func (l *List) Quiet(now time.Time, want, busy func(netip.Addr) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr, b := range l.boxes {
		if !want(addr) {
			delete(l.boxes, addr)
			continue
		}
		if busy(addr) {
			b.due = time.Time{}
		}
		if !b.due.IsZero() && now.After(b.due) {
			b.due = time.Time{}
			b.Silent, b.Lost, b.dirty = now, true, true
			l.tellBox(b, Event{Kind: Silent, Time: now, Box: addr, Lost: true})
			continue
		}
		usual, known := b.Usual()
		if !known || b.Last.IsZero() || !b.Silent.IsZero() || busy(addr) || l.quiet(b, now) <= max(2*usual, shortest) {
			continue
		}
		b.Silent, b.dirty = now, true
		l.tellBox(b, Event{Kind: Silent, Time: now, Box: addr})
	}
	for m := range l.of {
		if m.in == nil { // its box may have gone
			l.rank(m, l.know(m.Identity), false)
		}
	}
}

// UnsavedBoxes returns the boxes of which something else was saved. They count as saved
// then. If they could not be saved, UnsaveBoxes takes that back.
func (l *List) UnsavedBoxes() map[netip.Addr]Box {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[netip.Addr]Box{}
	for addr, b := range l.boxes {
		if b.dirty {
			b.dirty = false
			out[addr] = b.clone()
		}
	}
	return out
}

// UnsaveBoxes takes back that boxes count as saved.
func (l *List) UnsaveBoxes(all map[netip.Addr]Box) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr := range all {
		if b := l.boxes[addr]; b != nil {
			b.dirty = true
		}
	}
}

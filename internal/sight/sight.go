// Package sight remembers which machines asked for something at their start:
// when, what, and what they were given. Each request of a loader is a sign of
// life. It is kept in memory, and it never waits for a disk. Whoever saves it
// takes what has changed now and then (Unsaved).
//
// Whoever can send a packet can make up machines. So those that nobody knows
// have a number and a size that cannot grow, and boxes are kept apart from them.
package sight

import (
	"bytes"
	"cmp"
	"container/list"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/words"
)

const (
	// MaxMachines is how many machines there are at most that nobody knows. Those go
	// first that have only claimed something by one packet, and of them the one that
	// was silent for the longest time.
	MaxMachines = 1024
	maxAsks     = 16  // the newest ones of a machine
	maxText     = 100 // bytes of a text from outside
	maxOver     = 8
	maxHere     = 8 // machines of one address

	// Together is how long after each other two hardware addresses must ask from
	// one address to count as two machines with the same address. A machine with
	// a new network card is not that.
	Together = 10 * time.Minute

	// Lasts is for how long it is said that two machines had one address.
	Lasts = 24 * time.Hour
)

// Identity is what a request tells of a machine. Each field may be empty, but
// not both of Addr and MAC.
type Identity struct {
	Addr netip.Addr `json:"address,omitzero"`
	MAC  string     `json:"mac,omitempty"`  // "52:54:00:12:34:56"
	UUID string     `json:"uuid,omitempty"` // of the firmware, lower case
	Arch string     `json:"arch,omitempty"` // as DHCP option 93 has it, in words
}

// Ask is one request, and the answer.
type Ask struct {
	Time  time.Time `json:"time"`
	Over  string    `json:"over"` // "dhcp", "tftp" or "http"
	Asked string    `json:"asked"`
	Given string    `json:"given,omitempty"` // "" if nothing was given
}

// Machine is what is known of one machine.
type Machine struct {
	Identity
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Asks  []Ask     `json:"asks,omitempty"` // of several that are alike, the newest; the oldest first
	// Default is when the machine asked for the default boot file last, which
	// starts its own disk. Zero means never.
	Default time.Time `json:"default,omitzero"`
	// Before is the address from which the machine asked before it had this one.
	Before netip.Addr `json:"before,omitzero"`
	// Twin is the hardware address of another machine that asked from the same
	// address within Together, and TwinAt is when.
	Twin   string    `json:"twin,omitempty"`
	TwinAt time.Time `json:"twinAt,omitzero"`
}

// MaxDocument is how many bytes Document gives at most.
const MaxDocument = 12 << 10

// Document is a machine as JSON, to be saved. It has no escapes for HTML, which would make
// it six times as large for some who ask.
func (m *Machine) Document() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(m)
	return bytes.TrimSpace(b.Bytes()), err
}

// Shared reports whether another machine asked from the same address not long ago.
func (m *Machine) Shared(now time.Time) bool { return m.Twin != "" && now.Sub(m.TwinAt) < Lasts }

// Known says which boxes a request has to do with. Addresses are those of boxes.
type Known struct {
	Box  netip.Addr // the one that the machine is; it is not valid if nobody knows the machine
	Sure bool       // by a hardware address or a UUID, and not by the address alone
	Here netip.Addr // the one that has the address from which the machine asked
}

// List has the machines. Its methods may be called by several goroutines. The
// zero List is empty.
type List struct {
	// Know says which boxes a machine has to do with. It must not wait. nil means
	// that nobody knows any machine. It is set before the List is used.
	Know func(Identity) Known

	mu     sync.Mutex
	byMAC  map[string]*entry
	byAddr map[netip.Addr][]*entry // the one that asked from it last is the last
	// claims have what only one packet tells of, which anybody can forge. proven have
	// machines to which a file was sent, and which took it. In both, the one that asked
	// last is in front. Machines with the hardware address of a box are in neither, and
	// stay: boxes do not come from the network.
	claims, proven list.List
	of             map[*entry]bool
	dropped        []string // keys of machines that were saved and are gone
	boxes          map[netip.Addr]*boxSight
	events         []Event
	lost           int // events that found no room
	strangers      int // events about no box since minute
	minute         time.Time
	kick           chan struct{}
	start, before  time.Time // of this list, and the last sight before that
}

// entry is a machine in the list.
type entry struct {
	Machine
	in    *list.List // claims, proven, or nil
	at    *list.Element
	saved string // the key under which it was saved; "" is not at all
	dirty bool   // it differs from what was saved
	told  bool   // it was told that it is new
	// twinTold is when it was told last that the machine shares its address.
	twinTold time.Time
}

// key is under what a machine is saved.
func (e *entry) key() string { return cmp.Or(e.MAC, e.Addr.String()) }

func (l *List) init() {
	if l.of == nil {
		l.byMAC, l.byAddr, l.of = map[string]*entry{}, map[netip.Addr][]*entry{}, map[*entry]bool{}
		l.boxes = map[netip.Addr]*boxSight{}
		l.kick = make(chan struct{}, 1)
	}
}

// Saw notes a request.
func (l *List) Saw(id Identity, ask Ask) {
	id.Addr = id.Addr.Unmap()
	for _, text := range []*string{&id.MAC, &id.UUID, &id.Arch, &ask.Asked, &ask.Given} {
		*text = words.ASCII(*text, maxText)
	}
	ask.Over = words.ASCII(ask.Over, maxOver)
	id.MAC, id.UUID = strings.ToLower(id.MAC), strings.ToLower(id.UUID)
	if !id.Addr.IsValid() && id.MAC == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	m := l.find(id, ask.Time)
	if id.UUID != "" {
		m.UUID = id.UUID
	}
	if id.Arch != "" {
		m.Arch = id.Arch
	}
	if ask.Time.After(m.Last) {
		m.Last = ask.Time
	}
	m.add(ask)
	m.dirty = true
	known := l.know(m.Identity)
	l.rank(m, known, ask.Over != "dhcp" && ask.Given != "")
	switch {
	case known.Box.IsValid():
		l.boxAsked(m, known, ask.Time, ask.Over != "dhcp" || id.Arch != "")
	case m.MAC != "":
		l.tellNew(m, ask.Time)
	}
	l.shared(m, known, ask.Time)
}

func (l *List) know(id Identity) Known {
	if l.Know == nil {
		return Known{}
	}
	return l.Know(id)
}

// add notes a request of a machine. One as before takes its place.
func (e *entry) add(ask Ask) {
	e.Asks = slices.DeleteFunc(e.Asks, func(a Ask) bool { return a.Over == ask.Over && a.Asked == ask.Asked && a.Given == ask.Given })
	e.Asks = append(e.Asks, ask)
	e.Asks = e.Asks[max(0, len(e.Asks)-maxAsks):]
}

// AskedDefault notes that the machine at an address was given the default boot
// file.
func (l *List) AskedDefault(addr netip.Addr, when time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.here(addr.Unmap()); m != nil {
		m.Default, m.dirty = when, true
		if !l.know(m.Identity).Box.IsValid() {
			l.tellNew(m, when) // some loaders never say their hardware address
		}
	}
}

// here is the machine that asked from an address last. l.mu is held.
func (l *List) here(addr netip.Addr) *entry {
	all := l.byAddr[addr]
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// find returns the machine of a request, which may be a new one. l.mu is held.
func (l *List) find(id Identity, now time.Time) *entry {
	here := l.here(id.Addr)
	m := here
	if id.MAC != "" {
		m = l.byMAC[id.MAC]
		switch {
		case m == nil && here != nil && here.MAC == "":
			m = here // its loader told only its address until now
			m.MAC = id.MAC
			l.byMAC[id.MAC] = m
		case m != nil && here != nil && here != m && here.MAC == "":
			l.join(m, here)
		}
	}
	if m == nil {
		m = &entry{Machine: Machine{Identity: Identity{MAC: id.MAC}, First: now, Last: now}}
		l.of[m] = true
		if id.MAC != "" {
			l.byMAC[id.MAC] = m
		}
	}
	if id.Addr.IsValid() {
		l.place(m, id.Addr, now)
	}
	return m
}

// place notes that a machine asks from an address. l.mu is held.
func (l *List) place(m *entry, addr netip.Addr, now time.Time) {
	if here := l.here(addr); here != nil && here != m && now.Sub(here.Last) < Together {
		m.Twin, here.Twin, m.TwinAt, here.TwinAt, here.dirty = here.MAC, m.MAC, now, now, true
	}
	if m.Addr != addr {
		if m.Addr.IsValid() {
			m.Before = m.Addr
		}
		l.leave(m)
		m.Addr = addr
	}
	// The other one may have been given another address. If it is there still, it says
	// so by its next request.
	all := slices.DeleteFunc(l.byAddr[addr], func(e *entry) bool { return e == m })
	l.byAddr[addr] = append(all, m)
	for _, old := range slices.Clone(all) {
		if len(l.byAddr[addr]) > maxHere && old.in != nil {
			l.remove(old)
		}
	}
}

// tellNew tells once of a machine that nobody knows. l.mu is held.
func (l *List) tellNew(m *entry, now time.Time) {
	if !m.told {
		m.told = true
		l.tell(Event{Kind: New, Time: now, Machine: m.clone()})
	}
}

// leave takes a machine from its address. l.mu is held.
func (l *List) leave(m *entry) {
	rest := slices.DeleteFunc(l.byAddr[m.Addr], func(e *entry) bool { return e == m })
	if l.byAddr[m.Addr] = rest; len(rest) == 0 {
		delete(l.byAddr, m.Addr)
	}
}

// join adds what was known of an address to the machine that has it. l.mu is
// held.
func (l *List) join(m, part *entry) {
	asks := slices.Concat(m.Asks, part.Asks)
	slices.SortStableFunc(asks, func(a, b Ask) int { return a.Time.Compare(b.Time) })
	for _, a := range asks {
		m.add(a)
	}
	if part.First.Before(m.First) {
		m.First = part.First
	}
	if part.Last.After(m.Last) {
		m.Last = part.Last
	}
	if part.Default.After(m.Default) {
		m.Default = part.Default
	}
	l.remove(part)
}

func (l *List) remove(m *entry) {
	delete(l.of, m)
	l.leave(m)
	if l.byMAC[m.MAC] == m {
		delete(l.byMAC, m.MAC)
	}
	if m.in != nil {
		m.in.Remove(m.at)
		m.in = nil
	}
	if m.saved != "" {
		l.dropped = append(l.dropped, m.saved)
	}
}

// rank puts a machine in front of those of its kind, and makes room if there are too
// many. proof says that it has taken a file. l.mu is held.
func (l *List) rank(m *entry, k Known, proof bool) {
	to := &l.claims
	switch {
	case k.Sure && m.MAC != "" && k.Box.IsValid() && l.know(Identity{MAC: m.MAC}).Sure, m.MAC == "" && m.Addr == k.Box:
		to = nil // a UUID alone does not count, since it could come with any number of hardware addresses
	case proof || m.in == &l.proven:
		to = &l.proven
	}
	if m.in != nil {
		m.in.Remove(m.at)
	}
	if m.in = to; to == nil {
		return
	}
	m.at = to.PushFront(m)
	for l.claims.Len()+l.proven.Len() > MaxMachines {
		last := l.claims.Back()
		if last == nil || last.Value == m {
			last = l.proven.Back()
		}
		l.remove(last.Value.(*entry))
	}
}

// Machines returns all machines, the one that asked last first.
func (l *List) Machines() []Machine { return l.machines(func(*entry) bool { return true }) }

// Unknown returns the machines that are no boxes, the one that asked last first.
func (l *List) Unknown() []Machine {
	return l.machines(func(e *entry) bool { return !l.know(e.Identity).Box.IsValid() })
}

// MachinesOf returns the machines that a box is, the one that asked last first.
func (l *List) MachinesOf(box netip.Addr) []Machine {
	return l.machines(func(e *entry) bool { return l.know(e.Identity).Box == box })
}

func (l *List) machines(want func(*entry) bool) []Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Machine, 0, len(l.of))
	for m := range l.of {
		if want(m) {
			out = append(out, m.clone())
		}
	}
	slices.SortFunc(out, func(a, b Machine) int {
		return cmp.Or(b.Last.Compare(a.Last), a.Addr.Compare(b.Addr), cmp.Compare(a.MAC, b.MAC))
	})
	return out
}

// At returns the machine that asked from an address last.
func (l *List) At(addr netip.Addr) (Machine, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.here(addr.Unmap())
	if m == nil {
		return Machine{}, false
	}
	return m.clone(), true
}

func (e *entry) clone() Machine {
	out := e.Machine
	out.Asks = slices.Clone(e.Asks)
	return out
}

// maxUnsaved bounds how many machines are to be saved at once, so that made up ones do
// not keep a disk busy.
const maxUnsaved = 256

// Saved is a machine under the key by which it is saved.
type Saved struct {
	Key string
	Machine
}

// Unsaved returns what differs from what was saved of the machines that nobody knows:
// those to save, and the keys of those that are gone. Of very many it returns some, and
// first those that have taken a file. They count as saved then. If they could not be
// saved, Unsave takes that back.
func (l *List) Unsaved() (put []Saved, drop []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	drop, l.dropped = l.dropped, nil
	for m := range l.of {
		if m.saved != "" && (m.saved != m.key() || l.know(m.Identity).Box.IsValid()) {
			drop = append(drop, m.saved)
			m.saved = ""
		}
	}
	for _, in := range []*list.List{&l.proven, &l.claims} {
		for at := in.Front(); at != nil && len(put) < maxUnsaved; at = at.Next() {
			m := at.Value.(*entry)
			if m.dirty && !l.know(m.Identity).Box.IsValid() {
				m.dirty, m.saved = false, m.key()
				put = append(put, Saved{m.saved, m.clone()})
			}
		}
	}
	// A key that went with one machine can have come back with another one.
	drop = slices.DeleteFunc(drop, func(k string) bool { return slices.ContainsFunc(put, func(s Saved) bool { return s.Key == k }) })
	return put, drop
}

// Unsave takes back that machines count as saved.
func (l *List) Unsave(put []Saved, drop []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, drop...)
	for m := range l.of {
		if slices.ContainsFunc(put, func(s Saved) bool { return s.Key == m.saved }) {
			m.dirty = true
		}
	}
}

// Load puts machines into an empty List that were saved before. now is when this list
// begins.
func (l *List) Load(all []Saved, now time.Time) {
	slices.SortFunc(all, func(a, b Saved) int { return a.Last.Compare(b.Last) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	l.start = now
	for _, s := range all {
		m := &entry{Machine: s.Machine, saved: s.Key, told: true}
		if !m.Addr.IsValid() && m.MAC == "" || l.byMAC[m.MAC] != nil {
			l.dropped = append(l.dropped, s.Key) // it came twice, or tells nothing
			continue
		}
		l.of[m] = true
		if m.MAC != "" {
			l.byMAC[m.MAC] = m
		}
		if m.Addr.IsValid() {
			l.byAddr[m.Addr] = append(l.byAddr[m.Addr], m)
		}
		proof := slices.ContainsFunc(m.Asks, func(a Ask) bool { return a.Over != "dhcp" && a.Given != "" })
		l.rank(m, l.know(m.Identity), proof)
		if m.Last.After(l.before) {
			l.before = m.Last
		}
	}
}

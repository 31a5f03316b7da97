// Package sight remembers which machines asked for something at their start:
// when, what, and what they were given. Each request of a loader is a sign of
// life. It is kept in memory, and it never waits for a disk.
package sight

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/words"
)

const (
	// MaxMachines bounds the memory. The machine that was silent for the longest
	// time makes room for a new one.
	MaxMachines = 4096
	maxAsks     = 16  // the newest ones of a machine
	maxText     = 200 // bytes of a text from outside

	// Together is how long after each other two hardware addresses must ask from
	// one address to count as two machines with the same address. A machine with
	// a new network card is not that.
	Together = 10 * time.Minute
)

// Identity is what a request tells of a machine. Each field may be empty, but
// not both of Addr and MAC.
type Identity struct {
	Addr netip.Addr
	MAC  string // "52:54:00:12:34:56"
	UUID string // of the firmware, lower case
	Arch string // as DHCP option 93 has it, in words
}

// Ask is one request, and the answer.
type Ask struct {
	Time  time.Time
	Over  string // "dhcp", "tftp" or "http"
	Asked string
	Given string // "" if nothing was given
}

// Machine is what is known of one machine.
type Machine struct {
	Identity
	First, Last time.Time
	Asks        []Ask // the oldest first
	// Default is when the machine asked for the default boot file last, which
	// starts its own disk. Zero means never.
	Default time.Time
	// Before is the address from which the machine asked before it had this one.
	Before netip.Addr
	// Twin is the hardware address of another machine that asked from the same
	// address within Together.
	Twin string
}

// List has the machines. Its methods may be called by several goroutines. The
// zero List is empty.
type List struct {
	mu     sync.Mutex
	byMAC  map[string]*Machine
	byAddr map[netip.Addr]*Machine // the one that asked from it last
	all    map[*Machine]bool
}

// Saw notes a request.
func (l *List) Saw(id Identity, ask Ask) {
	id.Addr = id.Addr.Unmap()
	for _, text := range []*string{&id.MAC, &id.UUID, &id.Arch, &ask.Asked, &ask.Given} {
		*text = words.ASCII(*text, maxText)
	}
	id.MAC, id.UUID = strings.ToLower(id.MAC), strings.ToLower(id.UUID)
	if !id.Addr.IsValid() && id.MAC == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.byMAC, l.byAddr, l.all = map[string]*Machine{}, map[netip.Addr]*Machine{}, map[*Machine]bool{}
	}
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
	if len(m.Asks) == maxAsks {
		m.Asks = slices.Delete(m.Asks, 0, 1)
	}
	m.Asks = append(m.Asks, ask)
}

// AskedDefault notes that the machine at an address was given the default boot
// file.
func (l *List) AskedDefault(addr netip.Addr, when time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.byAddr[addr.Unmap()]; m != nil {
		m.Default = when
	}
}

// find returns the machine of a request, which may be a new one. l.mu is held.
func (l *List) find(id Identity, now time.Time) *Machine {
	here := l.byAddr[id.Addr]
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
			here = nil
		}
	}
	if m == nil {
		m = &Machine{Identity: Identity{MAC: id.MAC}, First: now, Last: now}
		l.makeRoom()
		l.all[m] = true
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
func (l *List) place(m *Machine, addr netip.Addr, now time.Time) {
	here := l.byAddr[addr]
	if here != nil && here != m {
		if now.Sub(here.Last) < Together {
			m.Twin, here.Twin = here.MAC, m.MAC
		}
		// The other one may have been given another address. If it is there
		// still, it says so by its next request.
	}
	if m.Addr.IsValid() && m.Addr != addr {
		m.Before = m.Addr
		if l.byAddr[m.Addr] == m {
			delete(l.byAddr, m.Addr)
		}
	}
	m.Addr = addr
	l.byAddr[addr] = m
}

// join adds what was known of an address to the machine that has it. l.mu is
// held.
func (l *List) join(m, part *Machine) {
	m.Asks = append(m.Asks, part.Asks...)
	slices.SortStableFunc(m.Asks, func(a, b Ask) int { return a.Time.Compare(b.Time) })
	m.Asks = m.Asks[max(0, len(m.Asks)-maxAsks):]
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

func (l *List) remove(m *Machine) {
	delete(l.all, m)
	if l.byAddr[m.Addr] == m {
		delete(l.byAddr, m.Addr)
	}
	if l.byMAC[m.MAC] == m {
		delete(l.byMAC, m.MAC)
	}
}

// makeRoom removes the machine that was silent for the longest time, if there
// are too many. l.mu is held.
func (l *List) makeRoom() {
	if len(l.all) < MaxMachines {
		return
	}
	var oldest *Machine
	for m := range l.all {
		if oldest == nil || m.Last.Before(oldest.Last) {
			oldest = m
		}
	}
	l.remove(oldest)
}

// Machines returns all machines, the one that asked last first.
func (l *List) Machines() []Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Machine, 0, len(l.all))
	for m := range l.all {
		out = append(out, m.clone())
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
	m := l.byAddr[addr.Unmap()]
	if m == nil {
		return Machine{}, false
	}
	return m.clone(), true
}

func (m *Machine) clone() Machine {
	out := *m
	out.Asks = slices.Clone(m.Asks)
	return out
}

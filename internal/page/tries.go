package page

import (
	"net/netip"
	"sync"
	"time"
)

// tries counts the wrong tokens that come from each address. Nobody guesses a token of this server, so
// this keeps a program that has lost its way from costing much, and the log readable.
type tries struct {
	mu sync.Mutex
	by map[netip.Prefix]tried
}

type tried struct {
	wrong int
	until time.Time // the count begins anew then
}

// What is allowed, and how many addresses are known. Who has more addresses makes all counts begin anew.
const (
	maxTries  = 10 // wrong tokens of an address in tryWindow
	tryWindow = time.Minute
	maxTried  = 4096 // addresses
)

// addressOf is where a request comes from: an IPv4 address, or the network that one customer of IPv6 has.
func addressOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 64
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	return p
}

// begin counts a try as wrong until it is said to be right. It returns for how long nobody at the address
// may try, and 0 if one may.
func (t *tries) begin(from netip.Prefix, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	is, known := t.by[from]
	if left := is.until.Sub(now); left <= 0 || left > tryWindow { // more is left if the clock was set back
		is = tried{until: now.Add(tryWindow)}
	}
	if is.wrong >= maxTries {
		return is.until.Sub(now)
	}
	is.wrong++
	if !known && len(t.by) >= maxTried {
		for p, old := range t.by {
			if !old.until.After(now) {
				delete(t.by, p)
			}
		}
		if len(t.by) >= maxTried {
			clear(t.by)
		}
	}
	if t.by == nil {
		t.by = map[netip.Prefix]tried{}
	}
	t.by[from] = is
	return 0
}

// right takes a try back.
func (t *tries) right(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if is := t.by[from]; is.wrong > 0 {
		is.wrong--
		t.by[from] = is
	}
}

package server

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
)

// roster is what answers to starting boxes need to know of the boxes in the ledger. It is
// in memory, and nobody who asks it waits for the ledger. It follows each change.
type roster struct {
	mu     sync.RWMutex
	byAddr map[netip.Addr]*known
	byMAC  map[string][]*known // network cards are moved between boxes, so there may be several
	byUUID map[string][]*known // only of UUIDs that can tell machines apart
	// also is told of each change after the roster. It is set before the first change, and
	// must not wait.
	also func(put []ledger.Box, gone []box.Addr)
}

// known is a box of the ledger. It does not change.
type known struct {
	Addr    netip.Addr
	Name    string // "" is none
	MACs    []string
	UUID    string // lower case
	Retired bool
	Off     bool // its health says that it may be off
}

func newRoster() *roster {
	return &roster{byAddr: map[netip.Addr]*known{}, byMAC: map[string][]*known{}, byUUID: map[string][]*known{}}
}

// follow reads all boxes, and has the ledger tell of each change from now on. It is
// called before the first change.
func (r *roster) follow(ctx context.Context, l *ledger.Ledger) error {
	l.OnBoxes(r.change)
	return l.View(ctx, func(tx *ledger.Tx) error {
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Boxes(ledger.BoxFilter{}, p)
			if err != nil {
				return err
			}
			r.change(some, nil)
			if p.After = next; next == "" {
				return nil
			}
		}
	})
}

// change is told by the ledger.
func (r *roster) change(put []ledger.Box, gone []box.Addr) {
	r.take(put, gone)
	if r.also != nil {
		r.also(put, gone)
	}
}

func (r *roster) take(put []ledger.Box, gone []box.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range gone {
		r.remove(a.IP())
	}
	for _, b := range put {
		k := &known{Addr: b.Address.IP(), Name: b.Name, MACs: b.MACs, UUID: b.UUID, Retired: b.Health == ledger.Retired,
			Off: b.Health == ledger.Retired || b.Health == ledger.Bad || b.Health == ledger.Maintenance}
		r.remove(k.Addr)
		r.byAddr[k.Addr] = k
		for _, m := range k.MACs {
			r.byMAC[m] = append(r.byMAC[m], k)
		}
		if inventory.RealUUID(k.UUID) {
			r.byUUID[k.UUID] = append(r.byUUID[k.UUID], k)
		}
	}
}

// remove is called with r.mu held.
func (r *roster) remove(a netip.Addr) {
	old := r.byAddr[a]
	if old == nil {
		return
	}
	delete(r.byAddr, a)
	for _, m := range old.MACs {
		drop(r.byMAC, m, old)
	}
	drop(r.byUUID, old.UUID, old)
}

func drop(m map[string][]*known, key string, old *known) {
	// Those who asked earlier have the old list, which must not change.
	rest := slices.DeleteFunc(slices.Clone(m[key]), func(k *known) bool { return k == old })
	if m[key] = rest; len(rest) == 0 {
		delete(m, key)
	}
}

// at returns the box of an address. It is nil if there is none.
func (r *roster) at(a netip.Addr) *known {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byAddr[a.Unmap()]
}

// withMAC returns the boxes that have a network card.
func (r *roster) withMAC(mac string) []*known {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byMAC[mac]
}

// withUUID returns the boxes that have a UUID, also if its bytes have the other order.
func (r *roster) withUUID(uuid string) []*known {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if all := r.byUUID[uuid]; len(all) > 0 {
		return all
	}
	return r.byUUID[bootcfg.OtherOrder(uuid)]
}

// cardless are the boxes of which no network card is known, sorted. Retired ones do not count.
func (r *roster) cardless() (all []netip.Addr) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for a, k := range r.byAddr {
		if len(k.MACs) == 0 && !k.Retired {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// named are all boxes with their names.
func (r *roster) named() (all []named) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for a, k := range r.byAddr {
		all = append(all, named{a.String(), k.Name})
	}
	return all
}

// count is how many boxes there are.
func (r *roster) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byAddr)
}

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
)

// mover gives boxes other addresses. The ledger comes first, and notes that the box's folder and
// its backups are still to follow. What is left of that after an error or the end of the server
// is done at the next start, or when an admin asks once more. Until then neither address gets a
// job.
type mover struct {
	*server
	area *sharedir.Area
	turn sync.Mutex // one change at a time

	mu    sync.Mutex
	under []ledger.Move // under way
}

// resume ends what an earlier process has begun.
func (m *mover) resume(ctx context.Context) error {
	err := m.ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		m.under, err = tx.Moves()
		return err
	})
	for _, v := range slices.Clone(m.under) {
		if err := m.finish(ctx, v); err != nil {
			m.Log.Error("The address of a box was changed, but not all of its files and backups have followed. It gets no jobs until "+
				"`testbox box readdress` is called again.", "old", v.Old, "new", v.Address, "error", err)
		}
	}
	return err
}

// check refuses jobs for boxes whose address is being changed.
func (m *mover) check(all []box.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.under {
		if slices.Contains(all, v.Old) || slices.Contains(all, v.Address) {
			return problem.Refusef("the address of the box %s is being changed to %s; if that does not end, say `testbox box readdress %s %s` again",
				v.Old, v.Address, v.Old, v.Address)
		}
	}
	return nil
}

// readdress gives a box another address.
func (m *mover) readdress(ctx context.Context, from, to box.Addr, by string) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.mu.Lock()
	i := slices.IndexFunc(m.under, func(v ledger.Move) bool { return v.Old == from && v.Address == to })
	m.mu.Unlock()
	if i >= 0 {
		return m.finish(ctx, ledger.Move{Address: to, Old: from})
	}
	if err := m.ledger.View(ctx, func(tx *ledger.Tx) error { _, err := tx.Box(from); return err }); err != nil {
		return err
	}
	if err := m.Place.CheckBoxes([]box.Addr{to}); err != nil {
		return err
	}
	if err := m.check([]box.Addr{from, to}); err != nil {
		return err
	}
	if err := m.Store.CheckReaddress(ctx, from.String(), to.String()); err != nil {
		return err
	}
	if err := m.area.CheckReaddress(to); err != nil {
		return err
	}
	v := ledger.Move{Address: to, Old: from}
	m.mu.Lock()
	m.under = append(m.under, v)
	m.mu.Unlock()
	if err := m.dispatch.Readdress(ctx, from, to, by, func(b *ledger.Box) { m.takeSight(b, from.IP()) }); err != nil {
		m.forget(v)
		return err
	}
	return m.finish(ctx, v)
}

// takeSight takes along what was seen of the box, which is newer than what the ledger has.
func (m *mover) takeSight(b *ledger.Box, from netip.Addr) {
	v, has := m.sights.OfBox(from)
	if !has {
		return
	}
	if v.Last.After(b.LastSeen) {
		b.LastSeen = v.Last
	}
	if v.Moved == b.Address.IP() {
		v.Moved, v.MovedAt = netip.Addr{}, time.Time{}
	}
	if doc, err := json.Marshal(v); err == nil {
		b.Sight = doc
	}
}

// finish lets the folder and the backups of a box follow. It can be repeated.
func (m *mover) finish(ctx context.Context, v ledger.Move) error {
	err := m.area.Readdress(v.Old, v.Address)
	if err == nil {
		err = m.Store.Readdress(ctx, v.Old.String(), v.Address.String())
	}
	if err == nil {
		err = m.Place.Boot.MoveLoaders(v.Old, v.Address)
	}
	if err == nil {
		err = m.ledger.Update(ctx, func(tx *ledger.Tx) error { return tx.DropMove(v.Address) })
	}
	if err != nil {
		return fmt.Errorf("the box has the address %s now, but not all of its files and backups have followed; say "+
			"`testbox box readdress %s %s` again: %w", v.Address, v.Old, v.Address, err)
	}
	m.forget(v)
	return nil
}

// forgotten removes what boot loaders read of a box. If that fails, a machine that gets
// the address later tries loaders that it does not have, and then finds its own.
func (m *mover) forgotten(a box.Addr) {
	if err := m.Place.Boot.RemoveLoaders(a); err != nil {
		m.Log.Warn("The list of loaders of a box that was forgotten is not removed.", "box", a.String(), "error", err)
	}
}

func (m *mover) forget(v ledger.Move) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.under = slices.DeleteFunc(m.under, func(o ledger.Move) bool { return o.Old == v.Old && o.Address == v.Address })
}

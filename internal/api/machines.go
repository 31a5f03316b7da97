package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sight"
)

// Sights have what was seen of machines at their start. They are a sight.List.
type Sights interface {
	Unknown() []sight.Machine
	At(netip.Addr) (sight.Machine, bool)
	OfBox(netip.Addr) (sight.Box, bool)
	MachinesOf(netip.Addr) []sight.Machine
	Count() (unknown, silent, moved, shared int)
}

var _ Sights = (*sight.List)(nil)

// Machine is a machine that asked for something at its start.
type Machine struct {
	MAC       string    `json:"mac,omitempty" example:"52:54:00:12:34:56"`
	UUID      string    `json:"uuid,omitempty" doc:"as its loader tells it; some loaders swap the bytes of the first three numbers"`
	Address   string    `json:"address,omitempty" doc:"from which it asked last"`
	Before    string    `json:"before,omitempty" doc:"the address from which it asked before that"`
	Arch      string    `json:"arch,omitempty" example:"BIOS" doc:"as its network boot tells by DHCP"`
	FirstSeen time.Time `json:"firstSeen"`
	LastSeen  time.Time `json:"lastSeen"`
	OwnDisk   time.Time `json:"ownDisk,omitzero" doc:"when it was given the default boot file last, which starts its own disk"`
	Shares    string    `json:"shares,omitempty" doc:"MAC of another machine that asked from the same address within ten minutes"`
	Asked     []Ask     `json:"asked" doc:"what it asked for and was given; of several that are alike, the latest; the oldest first"`
}

// Ask is what a machine asked for, and was given.
type Ask struct {
	Time  time.Time `json:"time"`
	Over  string    `json:"over" doc:"dhcp, tftp or http"`
	Asked string    `json:"asked"`
	Given string    `json:"given,omitempty" doc:"nothing was given if it is left out"`
}

// MachineList has machines.
type MachineList struct {
	Machines []Machine `json:"machines" doc:"the one that asked last first"`
}

// Moved says from where the machine of a box asks, if not from the box's address.
type Moved struct {
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
}

// SharedAddress names another machine that asks from the address of a box.
type SharedAddress struct {
	MAC  string    `json:"mac,omitempty" doc:"left out for tokens that are limited to a group"`
	Last time.Time `json:"last" doc:"when it asked last"`
}

func (s *Server) machineOf(m sight.Machine) Machine {
	v := Machine{MAC: m.MAC, UUID: m.UUID, Address: addrText(m.Addr), Before: addrText(m.Before), Arch: m.Arch, FirstSeen: m.First.UTC(),
		LastSeen: m.Last.UTC(), OwnDisk: m.Default.UTC(), Asked: []Ask{}}
	if m.Default.IsZero() {
		v.OwnDisk = time.Time{}
	}
	if m.Shared(s.cfg.Now()) {
		v.Shares = m.Twin
	}
	for _, a := range m.Asks {
		v.Asked = append(v.Asked, Ask{a.Time.UTC(), a.Over, a.Asked, a.Given})
	}
	return v
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (s *Server) listMachines(context.Context, *struct{}) (*body[MachineList], error) {
	out := MachineList{[]Machine{}}
	if s.cfg.Sights != nil {
		for _, m := range s.cfg.Sights.Unknown() {
			out.Machines = append(out.Machines, s.machineOf(m))
		}
	}
	return answer(out, nil)
}

// addSight adds to a box what was seen of it.
func (s *Server) addSight(v *Box, addr box.Addr) {
	if s.cfg.Sights == nil {
		return
	}
	b, has := s.cfg.Sights.OfBox(addr.IP())
	if !has {
		return
	}
	if b.Last.After(v.LastSeen) {
		v.LastSeen = b.Last.UTC()
	}
	if usual, known := b.Usual(); known {
		v.UsualPause = int64(usual / time.Second)
	}
	if !b.Silent.IsZero() {
		v.SilentSince, v.Lost = b.Silent.UTC(), b.Lost
	}
	if b.Moved.IsValid() {
		v.Moved = &Moved{b.Moved.String(), b.MovedAt.UTC()}
	}
	if b.Shared(s.cfg.Now()) {
		v.Shared = &SharedAddress{b.Other, b.OtherAt.UTC()}
	}
}

// hide leaves out of a box what is about other machines, if the caller may see those of a
// group alone.
func (c *caller) hide(v *Box) {
	if c.group == "" {
		return
	}
	if v.Shared != nil {
		v.Shared = &SharedAddress{Last: v.Shared.Last}
	}
	for i := range v.Machines {
		v.Machines[i].Shares = ""
	}
}

// seenMachine finds a machine that nobody knows by its MAC, UUID or address.
func (s *Server) seenMachine(tx *ledger.Tx, c *caller, word string) (sight.Machine, error) {
	var found []sight.Machine
	mac := ""
	if hw, err := net.ParseMAC(word); err == nil {
		mac = hw.String()
	}
	addr, _ := netip.ParseAddr(word)
	if s.cfg.Sights != nil {
		for _, m := range s.cfg.Sights.Unknown() {
			uuid := strings.ToLower(word)
			if mac != "" && m.MAC == mac || addr.IsValid() && m.Addr == addr ||
				m.UUID != "" && (m.UUID == uuid || bootcfg.OtherOrder(m.UUID) == uuid) {
				found = append(found, m)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if b, err := findBox(tx, c, word); err == nil {
			return sight.Machine{}, problem.Refusef("it is the box %s already; if that has another address now, use `testbox box readdress`",
				b.Address)
		}
		return sight.Machine{}, notFound("no new machine %.80q has asked for boot files; `testbox boxes --new` lists those that have", word)
	}
	return sight.Machine{}, problem.Wrongf("%s and %s are both found by %.80q; give a MAC", machineText(found[0]), machineText(found[1]), word)
}

func machineText(m sight.Machine) string {
	if m.MAC == "" {
		return "one at " + addrText(m.Addr)
	}
	return m.MAC
}

// newBox makes a box of what was asked for, and of what was seen of the machine.
func (s *Server) newBox(tx *ledger.Tx, c *caller, q NewBox) (ledger.Box, error) {
	b := ledger.Box{Name: q.Name, MACs: q.MACs, UUID: q.UUID, Labels: q.Labels, Groups: q.Groups, Health: ledger.Good, FirstSeen: s.cfg.Now()}
	var m sight.Machine
	var err error
	if q.Machine != "" {
		if m, err = s.seenMachine(tx, c, q.Machine); err != nil {
			return b, err
		}
		if q.Address == "" {
			if q.Address = addrText(m.Addr); q.Address == "" {
				return b, problem.Wrongf("the machine %s has not told its address yet; give the one that the box is to have, and this MAC "+
					"(`testbox box add ADDRESS --mac MAC`)", machineText(m))
			}
		}
	}
	if b.Address, err = box.ParseAddr(q.Address); err != nil {
		return b, problem.Wrongf("%w", err)
	}
	if q.Machine == "" && len(q.MACs) == 1 {
		if found, err := s.seenMachine(tx, c, q.MACs[0]); err == nil {
			m = found
		}
	}
	if q.Machine == "" && s.cfg.Sights != nil && len(q.MACs) == 0 && q.UUID == "" {
		// Only a machine that nobody else is, and that has the address alone, is surely meant.
		at := slices.DeleteFunc(s.cfg.Sights.Unknown(), func(m sight.Machine) bool { return m.Addr != b.Address.IP() })
		if len(at) == 1 && !at[0].Shared(s.cfg.Now()) {
			m = at[0]
		}
	}
	if m.First.IsZero() {
		return b, nil
	}
	b.FirstSeen, b.LastSeen = m.First, m.Last
	if len(b.MACs) == 0 && m.MAC != "" {
		b.MACs = []string{m.MAC}
	}
	if b.UUID == "" && inventory.RealUUID(m.UUID) {
		b.UUID = m.UUID
	}
	return b, nil
}

// readdressBox gives a box another address.
func (s *Server) readdressBox(ctx context.Context, in *struct {
	BoxPath
	Body NewAddress
}) (*body[Box], error) {
	if s.cfg.Readdress == nil {
		return nil, problem.Refusef("this server cannot change addresses")
	}
	to, err := box.ParseAddr(in.Body.Address)
	if err != nil {
		return nil, problem.Wrongf("%w", err)
	}
	c := callerOf(ctx)
	from, err := box.ParseAddr(in.Box) // one that is being changed is not in the list of boxes any more
	if err != nil {
		err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
			b, err := findBox(tx, c, in.Box)
			from = b.Address
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if from == to {
		return nil, problem.Wrongf("the box has the address %s already", to)
	}
	err = s.cfg.Readdress(dispatch.WithWhy(ctx, c.from, in.Body.Why), from, to, c.name)
	if errors.Is(err, ledger.ErrNotFound) && s.wasReaddressed(ctx, from, to) {
		err = nil // the answer to an earlier request was lost
	}
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, to.String()))
}

// wasReaddressed reports whether the latest change of the address of a box was this one.
func (s *Server) wasReaddressed(ctx context.Context, from, to box.Addr) (was bool) {
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		if _, err := tx.Box(to); err != nil {
			return err
		}
		last, _, err := tx.Audit(ledger.AuditFilter{What: "readdress box", On: to.String()}, ledger.Page{Limit: 1})
		was = len(last) == 1 && strings.HasPrefix(last[0].Why+":", "it was "+from.String()+":")
		return err
	})
	return was && err == nil
}

// SightEvent says that something was found of a machine at its start.
type SightEvent struct {
	Kind    sight.Kind `json:"kind" doc:"new, moved, shared, silent or back"`
	Time    time.Time  `json:"time"`
	Box     string     `json:"box,omitempty" doc:"address of the box that it is about"`
	Name    string     `json:"name,omitempty" doc:"name of the box"`
	Lost    bool       `json:"lost,omitempty" doc:"of silent: the box was to start anew after an action, and has not asked for its boot files"`
	Machine *Machine   `json:"machine,omitempty" doc:"the machine that asked"`
}

// Sighted passes on what was found of a machine to all who follow the events.
func (s *Server) Sighted(e sight.Event) {
	v := SightEvent{Kind: e.Kind, Time: e.Time.UTC(), Box: addrText(e.Box), Lost: e.Lost}
	if !e.Machine.First.IsZero() {
		m := s.machineOf(e.Machine)
		v.Machine = &m
	}
	addr, err := box.ParseAddr(v.Box)
	if err == nil {
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		defer cancel()
		err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
			b, err := tx.Box(addr)
			v.Name = b.Name
			return err
		})
		if err != nil {
			return // the box is gone, or the server ends
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		s.cfg.Log.Error("an event of a machine cannot be passed on", "error", err)
		return
	}
	ch := change{event: "sight", box: addr, data: data}
	if v.Machine != nil {
		// Another machine is the one that it shares its address with, and the one of Shared.
		if v.Machine.Shares = ""; e.Kind == sight.Shared {
			v.Machine = nil
		}
		if ch.little, err = json.Marshal(v); err != nil {
			return
		}
	}
	s.hub.push(ch)
}

package api_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
)

const (
	macKnown = "52:54:00:00:00:01"
	macNew   = "52:54:00:00:00:09"
	uuidNew  = "564d4a2c-11f5-8e2b-9ead-beef00112233"
)

// sightRig is a rig whose server has one box in the group rack, and what was seen.
func sightRig(t *testing.T) (*rig, *sight.List) {
	t.Helper()
	l := &sight.List{Know: func(id sight.Identity) (k sight.Known) {
		one := netip.MustParseAddr("10.0.0.1")
		if id.Addr == one {
			k.Here = one
		}
		if id.MAC == macKnown {
			k.Box, k.Sure = one, true
		}
		return k
	}}
	r := newRigWith(t, func(c *api.Config) { c.Sights = l })
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web", MACs: []string{macKnown}, Groups: []string{"rack"}})
	return r, l
}

// sees notes that a machine asked for a file that it was given.
func (r *rig) sees(l *sight.List, address, mac, uuid, asked string) {
	id := sight.Identity{MAC: mac, UUID: uuid, Arch: "BIOS"}
	if address != "" {
		id.Addr = netip.MustParseAddr(address)
	}
	l.Saw(id, sight.Ask{Time: r.clock(), Over: "tftp", Asked: asked, Given: asked})
}

func TestMachines(t *testing.T) {
	r, l := sightRig(t)
	var list api.MachineList
	r.root().want(200, "GET", "/api/v1/machines", nil, &list)
	if list.Machines == nil || len(list.Machines) != 0 {
		t.Errorf("%+v", list)
	}
	r.sees(l, "10.0.0.9", macNew, uuidNew, "pxelinux.cfg/01\x1b")
	l.AskedDefault(netip.MustParseAddr("10.0.0.9"), r.clock())
	r.sees(l, "10.0.0.1", macKnown, "", "x")
	r.root().want(200, "GET", "/api/v1/machines", nil, &list)
	if len(list.Machines) != 1 {
		t.Fatalf("%+v", list)
	}
	m := list.Machines[0]
	if m.MAC != macNew || m.UUID != uuidNew || m.Address != "10.0.0.9" || m.Arch != "BIOS" || !m.OwnDisk.Equal(r.clock()) ||
		!m.LastSeen.Equal(r.clock()) || len(m.Asked) != 1 || m.Asked[0].Asked != "pxelinux.cfg/01?" || m.Asked[0].Over != "tftp" {
		t.Errorf("%+v", m)
	}
	_, text := r.root().do("GET", "/metrics", nil)
	if !strings.Contains(string(text), `testbox_sights{what="new"} 1`) {
		t.Error("the metrics do not have it")
	}
}

// What was seen of a box is said of it, and whoever may see a group alone learns nothing
// of machines that are not in it.
func TestSightOfBox(t *testing.T) {
	r, l := sightRig(t)
	token := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack"}))
	r.sees(l, "10.0.0.1", macKnown, "", "x")
	seen := r.clock()
	r.pass(time.Minute)
	r.sees(l, "10.0.0.1", macNew, "", "y")
	r.pass(time.Minute)
	r.sees(l, "10.0.0.7", macKnown, "", "x")
	var boxes api.BoxList
	r.root().want(200, "GET", "/api/v1/boxes", nil, &boxes)
	b := boxes.Boxes[0]
	if b.Moved == nil || b.Moved.Address != "10.0.0.7" || b.Shared == nil || b.Shared.MAC != macNew || !b.LastSeen.Equal(r.clock()) ||
		b.Machines != nil || !b.SilentSince.IsZero() {
		t.Errorf("%+v", b)
	}
	var one api.Box
	r.root().want(200, "GET", "/api/v1/boxes/web", nil, &one)
	if len(one.Machines) != 1 || one.Machines[0].Shares != macNew || !one.Machines[0].FirstSeen.Equal(seen) {
		t.Errorf("%+v", one.Machines)
	}
	for _, path := range []string{"/api/v1/boxes", "/api/v1/boxes/web"} {
		_, text := token.do("GET", path, nil)
		if !strings.Contains(string(text), `"shared":{"last"`) || strings.Contains(string(text), macNew) {
			t.Errorf("%s", text)
		}
	}
	token.refused(api.CodeForbidden, "GET", "/api/v1/machines", nil)
}

func TestAddSeen(t *testing.T) {
	r, l := sightRig(t)
	add := func(q api.NewBox) (b api.Box) {
		t.Helper()
		r.root().want(201, "POST", "/api/v1/boxes", q, &b)
		return b
	}
	r.sees(l, "10.0.0.9", macNew, uuidNew, "x")
	first := r.clock()
	r.pass(time.Hour)
	b := add(api.NewBox{Machine: "52-54-00-00-00-09", Name: "new", Groups: []string{"rack"}})
	if b.Address != "10.0.0.9" || b.UUID != uuidNew || len(b.MACs) != 1 || b.MACs[0] != macNew || !b.FirstSeen.Equal(first) ||
		!b.LastSeen.Equal(first) || b.Name != "new" || b.Health != "good" {
		t.Errorf("%+v", b)
	}
	r.sees(l, "", "52:54:00:00:00:0a", "", "x") // only by DHCP
	p := r.root().refused(api.CodeWrong, "POST", "/api/v1/boxes", api.NewBox{Machine: "52:54:00:00:00:0a"})
	if !strings.Contains(p.Detail, "has not told its address") {
		t.Error(p.Detail)
	}
	b = add(api.NewBox{MACs: []string{"52:54:00:00:00:0a"}, Address: "10.0.0.10"})
	if !b.FirstSeen.Equal(r.clock()) || b.Address != "10.0.0.10" || len(b.MACs) != 1 {
		t.Errorf("%+v", b)
	}
	r.sees(l, "10.0.0.11", "52:54:00:00:00:0b", "ffffffff-ffff-ffff-ffff-ffffffffffff", "x")
	if b := add(api.NewBox{Address: "10.0.0.11"}); len(b.MACs) != 1 || b.UUID != "" {
		t.Errorf("%+v", b)
	}
	r.sees(l, "10.0.0.12", "52:54:00:00:00:0c", "", "x")
	r.sees(l, "10.0.0.12", "52:54:00:00:00:0d", "", "x")
	p = r.root().refused(api.CodeWrong, "POST", "/api/v1/boxes", api.NewBox{Machine: "10.0.0.12"})
	if !strings.Contains(p.Detail, "give a MAC") {
		t.Error(p.Detail)
	}
	if b := add(api.NewBox{Address: "10.0.0.12"}); len(b.MACs) != 0 {
		t.Errorf("nobody can say which of two machines is meant: %+v", b)
	}
	r.sees(l, "10.0.0.1", macKnown, "", "x")
	for machine, want := range map[string]api.Code{macKnown: api.CodeRefused, "52:54:00:00:00:0f": api.CodeNotFound,
		"nonsense": api.CodeNotFound, "10.0.0.77": api.CodeNotFound} {
		r.root().refused(want, "POST", "/api/v1/boxes", api.NewBox{Machine: machine})
	}
	r.root().refused(api.CodeWrong, "POST", "/api/v1/boxes", api.NewBox{Name: "nowhere"})
	r.root().refused(api.CodeWrong, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.299"})
}

func TestSightEvents(t *testing.T) {
	r, l := sightRig(t)
	all, stop := r.root().follow("")
	defer stop()
	some, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack"})).follow("")
	defer stop()
	for _, c := range []<-chan event{all, some} {
		if e := next(t, c); e.name != "reset" {
			t.Fatalf("%+v", e)
		}
	}
	r.sees(l, "10.0.0.9", macNew, "", "x")
	r.sees(l, "10.0.0.1", macNew, "", "y")
	r.sees(l, "10.0.0.7", macKnown, "", "x")
	told, _ := l.Events()
	for _, e := range told {
		r.api.Sighted(e)
	}
	r.api.Sighted(sight.Event{Kind: sight.Silent, Time: r.clock(), Box: netip.MustParseAddr("10.0.0.99")}) // which is gone
	read := func(c <-chan event) (v api.SightEvent) {
		t.Helper()
		e := next(t, c)
		if e.name != "sight" {
			t.Fatalf("%+v", e)
		}
		must(t, json.Unmarshal([]byte(e.data), &v))
		return v
	}
	for _, want := range []sight.Kind{sight.New, sight.Shared, sight.Moved} {
		v := read(all)
		if v.Kind != want || v.Machine == nil || (v.Name == "web") != (want != sight.New) {
			t.Errorf("%+v, not %s", v, want)
		}
	}
	if v := read(some); v.Kind != sight.Shared || v.Box != "10.0.0.1" || v.Machine != nil {
		t.Errorf("%+v", v)
	}
	if v := read(some); v.Kind != sight.Moved || v.Machine == nil || v.Machine.Address != "10.0.0.7" {
		t.Errorf("%+v", v)
	}
	r.api.Sighted(sight.Event{Kind: sight.Back, Time: r.clock(), Box: netip.MustParseAddr("10.0.0.1"),
		Machine: sight.Machine{Identity: sight.Identity{MAC: macKnown}, First: r.clock(), Twin: macNew, TwinAt: r.clock()}})
	if v := read(all); v.Machine == nil || v.Machine.Shares != macNew {
		t.Errorf("%+v", v)
	}
	if v := read(some); v.Machine == nil || v.Machine.MAC != macKnown || v.Machine.Shares != "" {
		t.Errorf("whoever sees a group alone is told of another machine: %+v", v)
	}
}

// TestBoxEvents: who sees a box is told that somebody has changed, reserved or forgotten it.
func TestBoxEvents(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	c := r.root()
	all, stop := c.follow("")
	defer stop()
	some, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack"})).follow("")
	defer stop()
	for _, f := range []<-chan event{all, some} {
		if e := next(t, f); e.name != "reset" {
			t.Fatalf("%+v", e)
		}
	}
	told := func(f <-chan event, address string) {
		t.Helper()
		if e := next(t, f); e.name != "box" || e.data != `{"box":"`+address+`"}` {
			t.Errorf("%+v, and not of %s", e, address)
		}
	}
	name, bad := "web", "mad"
	c.refused(api.CodeWrong, "PATCH", "/api/v1/boxes/10.0.0.1", api.SetBox{Health: &bad}) // of which nobody is told
	c.want(200, "PATCH", "/api/v1/boxes/10.0.0.2", api.SetBox{Name: &name}, nil)
	told(all, "10.0.0.2")
	c.want(200, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{Reason: "a test"}, nil)
	told(all, "10.0.0.1")
	told(some, "10.0.0.1")
	c.want(201, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.3"}, nil)
	told(all, "10.0.0.3")
	c.want(204, "DELETE", "/api/v1/boxes/10.0.0.3", nil, nil)
	told(all, "10.0.0.3")
}

// A server that gives the addresses gives them by network card. A box without a card would
// get another address and no boot file, and so would two boxes with the same card.
func TestCardsDecideAddresses(t *testing.T) {
	r := newRigWith(t, func(c *api.Config) { c.Addresses = true })
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web", MACs: []string{macKnown}, UUID: uuidNew, Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.3"), MACs: []string{"52:54:00:00:00:33"}})
	c := r.root()
	retired, old := "retired", "old"
	c.want(200, "PATCH", "/api/v1/boxes/10.0.0.3", api.SetBox{Health: &retired, HealthReason: &old}, nil)
	p := c.refused(api.CodeWrong, "POST", "/api/v1/boxes/web/accept", api.AcceptBox{})
	if !strings.Contains(p.Error(), "--mac MAC") {
		t.Errorf("%v", p)
	}
	p = c.refused(api.CodeRefused, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.2", MACs: []string{strings.ToUpper(macKnown)}})
	if !strings.Contains(p.Error(), "10.0.0.1") {
		t.Errorf("%v", p)
	}
	c.refused(api.CodeWrong, "POST", "/api/v1/boxes/web/accept", api.AcceptBox{MACs: []string{"foo"}})
	var b api.Box
	c.want(200, "GET", "/api/v1/boxes/web", nil, &b)
	if !slices.Equal(b.MACs, []string{macKnown}) || b.UUID != uuidNew {
		t.Errorf("what was refused has changed the box: %+v", b)
	}
	b = api.Box{}
	c.want(200, "POST", "/api/v1/boxes/web/accept", api.AcceptBox{MACs: []string{"52:54:00:00:00:33"}}, &b)
	if !slices.Equal(b.MACs, []string{"52:54:00:00:00:33"}) || b.UUID != "" {
		t.Errorf("%+v", b)
	}
	c.want(201, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.2", MACs: []string{macKnown}}, &b)

	limited := r.with(r.token(ledger.Token{Name: "rack-admin", Role: ledger.Admin, Group: "rack"}))
	p = limited.refused(api.CodeRefused, "POST", "/api/v1/boxes/web/accept", api.AcceptBox{MACs: []string{macKnown}})
	if strings.Contains(p.Error(), "10.0.0.2") {
		t.Errorf("a token that is limited to a group is told of another box: %v", p)
	}
}

package sight

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// known is a List of a lab with two boxes: the one at address one has the card A and the
// UUID aaaa, and the one at address two the card B.
func known() *List {
	return &List{Know: func(id Identity) Known {
		k := Known{}
		if id.Addr == one || id.Addr == two {
			k.Here = id.Addr
		}
		switch {
		case id.MAC == macA, id.UUID == "aaaa":
			k.Box, k.Sure = one, true
		case id.MAC == macB:
			k.Box, k.Sure = two, true
		case id.MAC == "":
			k.Box = k.Here
		}
		return k
	}}
}

// kinds are the events since the last call.
func (l *List) kinds() (out []Kind) {
	all, _ := l.Events()
	for _, e := range all {
		out = append(out, e.Kind)
	}
	return out
}

func TestNew(t *testing.T) {
	l := known()
	other := netip.MustParseAddr("10.40.41.9")
	l.saw(0, Identity{Addr: other}, "pxelinux.0")
	if got := l.kinds(); len(got) != 0 {
		t.Errorf("%v before the hardware address is known", got)
	}
	l.saw(0, Identity{Addr: other, MAC: "52:54:00:00:00:09"}, "x")
	l.saw(1, Identity{Addr: other, MAC: "52:54:00:00:00:09"}, "y")
	l.saw(1, Identity{Addr: one, MAC: macA}, "x")
	l.saw(1, Identity{Addr: one}, "pxelinux.0")
	l.Saw(Identity{Addr: netip.MustParseAddr("10.40.41.8")}, Ask{Time: at(1), Over: "tftp", Asked: "pxelinux.0"})
	l.AskedDefault(netip.MustParseAddr("10.40.41.8"), at(1))
	select {
	case <-l.Told():
	default:
		t.Error("nobody is told that there are events")
	}
	all, lost := l.Events()
	if len(all) != 2 || all[0].Kind != New || all[0].Machine.MAC != "52:54:00:00:00:09" || all[1].Kind != New || lost != 0 {
		t.Errorf("%+v", all)
	}
	if u := l.Unknown(); len(u) != 2 || len(l.Machines()) != 3 {
		t.Errorf("%+v", u)
	}
}

func TestMoved(t *testing.T) {
	l := known()
	other := netip.MustParseAddr("10.40.41.9")
	l.saw(0, Identity{Addr: one, MAC: macA}, "x")
	l.saw(1, Identity{Addr: other, MAC: macA}, "x")
	b, _ := l.OfBox(one)
	if b.Moved != other || !b.MovedAt.Equal(at(1)) || !slices.Equal(l.kinds(), []Kind{Moved}) {
		t.Errorf("%+v", b)
	}
	l.saw(2, Identity{Addr: one}, "pxelinux.0") // from its address, but nobody says that it is the box
	if b, _ := l.OfBox(one); b.Moved != other {
		t.Errorf("%+v", b)
	}
	l.saw(3, Identity{Addr: one, UUID: "AAAA"}, "x")
	if b, _ := l.OfBox(one); b.Moved.IsValid() || !b.Last.Equal(at(3)) {
		t.Errorf("%+v", b)
	}
	for i := range 5 { // it is told once in a while, however often it goes to and fro
		l.saw(4+i, Identity{Addr: []netip.Addr{other, one}[i%2], MAC: macA}, "x")
	}
	if got := l.kinds(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	l.saw(30, Identity{Addr: other, MAC: macA}, "x")
	l.saw(31, Identity{Addr: one, MAC: macA}, "x")
	l.saw(32, Identity{Addr: other, MAC: macA}, "x")
	if got := l.kinds(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestSharedWithBox(t *testing.T) {
	l := known()
	l.saw(0, Identity{Addr: one, MAC: macA}, "x")
	l.saw(60, Identity{Addr: one, MAC: "52:54:00:00:00:09"}, "x")
	b, _ := l.OfBox(one)
	if b.Other != "52:54:00:00:00:09" || !b.Shared(at(61)) || !slices.Contains(l.kinds(), Shared) {
		t.Errorf("%+v", b)
	}
	if len(l.Unknown()) != 1 {
		t.Error("the other machine is not listed")
	}
	l.saw(60+36*60, Identity{Addr: one, MAC: macA}, "x")
	if b, _ := l.OfBox(one); b.Shared(at(60 + 36*60)) {
		t.Error("the box has been alone for a day")
	}
	l.saw(60+37*60, Identity{Addr: one, MAC: macB}, "x") // another box comes to the address
	if got := l.kinds(); !slices.Contains(got, Shared) || !slices.Contains(got, Moved) {
		t.Errorf("%v", got)
	}
}

// A machine that an admin accepts as the box is no other one any more.
func TestAccepted(t *testing.T) {
	l := known()
	l.saw(0, Identity{Addr: one, MAC: "52:54:00:00:00:09"}, "x")
	if b, _ := l.OfBox(one); !b.Shared(at(1)) {
		t.Errorf("%+v", b)
	}
	l.Know = func(id Identity) Known { return Known{Box: one, Here: one} }
	if b, _ := l.OfBox(one); b.Shared(at(1)) {
		t.Errorf("%+v", b)
	}
	if _, _, _, shared := l.Count(); shared != 0 {
		t.Error("it is counted")
	}
}

const day = 24 * 60

// none is for Quiet.
func none(netip.Addr) bool { return false }
func all(netip.Addr) bool  { return true }

// A box that starts each night on working days is silent when it misses some, but not at
// a weekend or after one holiday.
func TestSilent(t *testing.T) {
	l := known()
	last := 0
	for d := range 28 {
		if d%7 < 5 {
			for i := range 4 { // one start is many requests
				l.saw(d*day+i, Identity{Addr: one, MAC: macA}, fmt.Sprint(i))
			}
			last = d
		}
		l.Quiet(at(d*day+600), all, none)
	}
	if got := l.kinds(); len(got) != 0 {
		t.Fatalf("%v within the usual", got)
	}
	b, _ := l.OfBox(one)
	if u, ok := b.Usual(); !ok || len(b.Gaps) != maxGaps || u < 71*time.Hour || u > 72*time.Hour {
		t.Errorf("usual is %v of %v", u, b.Gaps)
	}
	quiet := last*day + 6*day + 30
	l.Quiet(at(quiet), all, all)
	l.Quiet(at(quiet-day), all, none)
	if got := l.kinds(); len(got) != 0 {
		t.Errorf("%v, but it is busy or not away for long", got)
	}
	l.Quiet(at(quiet), all, none)
	l.Quiet(at(quiet+1), all, none)
	if b, _ := l.OfBox(one); !b.Silent.Equal(at(quiet)) || !slices.Equal(l.kinds(), []Kind{Silent}) {
		t.Errorf("%+v", b)
	}
	l.SawBox(one, at(quiet+5))
	l.SawBox(one, at(quiet+4))
	if b, _ := l.OfBox(one); !b.Silent.IsZero() || !b.Last.Equal(at(quiet+5)) || !slices.Equal(l.kinds(), []Kind{Back}) {
		t.Errorf("%+v", b)
	}
	if u, _ := b.Usual(); u > 72*time.Hour {
		t.Errorf("one long pause makes %v the usual", u)
	}
	l.Quiet(at(quiet+5), none, none)
	if _, ok := l.OfBox(one); ok {
		t.Error("a box that is gone is remembered")
	}
}

// A box whose agent has ended is lost if its loader does not ask within half an hour. What its system asks of a DHCP server shows only that
// it is on.
func TestLost(t *testing.T) {
	l := known()
	id := Identity{Addr: one, MAC: macA}
	is := func(minute int, lost bool, kinds ...Kind) {
		t.Helper()
		l.Quiet(at(minute), all, none)
		if b, _ := l.OfBox(one); b.Lost != lost || b.Silent.IsZero() == lost {
			t.Errorf("in minute %d: %+v", minute, b)
		}
		if got := l.kinds(); !slices.Equal(got, kinds) {
			t.Errorf("in minute %d: %v", minute, got)
		}
	}
	l.SawBox(one, at(0))
	l.Restarted(one, at(0), at(1))
	is(60, false) // its loader was never seen
	l.saw(61, id, "pxelinux.0")
	l.Restarted(one, at(60), at(62))
	is(100, false) // it has asked already
	l.Restarted(one, at(100), at(101))
	is(130, false) // it has time
	l.Quiet(at(132), all, all)
	is(133, false) // it came back to work meanwhile
	l.Restarted(one, at(140), at(141))
	is(172, true, Silent)
	l.Saw(id, Ask{Time: at(173), Over: "dhcp", Asked: "REQUEST"})
	is(174, true) // its system asks
	l.Saw(Identity{Addr: one, MAC: macA, Arch: "BIOS"}, Ask{Time: at(175), Over: "dhcp", Asked: "DISCOVER"})
	is(176, false, Back)
	l.Restarted(one, at(180), at(181))
	is(212, true, Silent)
	l.SawBox(one, at(213)) // its agent
	is(214, false, Back)
}

// Time in which there was no server is no silence.
func TestServerWasOff(t *testing.T) {
	b := Box{Last: at(0)}
	for range 6 {
		b.Gaps = append(b.Gaps, 24*time.Hour)
	}
	b.Moved = two
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var again Box
	if err := json.Unmarshal(text, &again); err != nil || len(again.Gaps) != 6 || again.Moved != two {
		t.Fatalf("%s, %v", text, err)
	}
	again.Last = b.Last
	l := known()
	l.LoadBox(one, again)
	l.LoadBox(two, Box{Last: at(day)})
	l.Load(nil, at(20*day))
	l.LoadBox(netip.MustParseAddr("10.40.41.9"), Box{Last: at(20*day + 5)}) // one that is new
	l.Quiet(at(20*day+10), all, none)
	l.Quiet(at(20*day+day-10), all, none)
	if got := l.kinds(); len(got) != 0 {
		t.Errorf("%v right after the start", got)
	}
	l.Quiet(at(20*day+day+10), all, none)
	if got := l.kinds(); !slices.Equal(got, []Kind{Silent}) {
		t.Errorf("%v a day after the start", got)
	}
}

// Machines that nobody knows outlive a restart, and those that have become boxes go.
func TestSave(t *testing.T) {
	l := known()
	c, d := netip.MustParseAddr("10.40.41.8"), netip.MustParseAddr("10.40.41.9")
	const macC, macD = "52:54:00:00:00:0c", "52:54:00:00:00:0d"
	l.saw(0, Identity{Addr: c}, "x")
	l.saw(0, Identity{Addr: d, MAC: macD}, "x")
	l.saw(0, Identity{Addr: one, MAC: macA}, "x")
	ledger := map[string]Machine{}
	save := func() {
		put, drop := l.Unsaved()
		for _, k := range drop {
			if _, has := ledger[k]; !has {
				t.Errorf("%s is dropped and was not saved", k)
			}
			delete(ledger, k)
		}
		for _, s := range put {
			ledger[s.Key] = s.Machine
		}
	}
	save()
	if len(ledger) != 2 || ledger[c.String()].Addr != c || ledger[macD].Addr != d {
		t.Errorf("%v", ledger)
	}
	if put, drop := l.Unsaved(); len(put)+len(drop) != 0 {
		t.Errorf("%v, %v are saved again", put, drop)
	}
	l.saw(1, Identity{Addr: c, MAC: macC}, "y") // its key changes
	put, drop := l.Unsaved()
	if len(put) != 1 || put[0].Key != macC || len(drop) != 1 || drop[0] != c.String() {
		t.Errorf("%v, %v", put, drop)
	}
	l.Unsave(put, drop)
	save()
	if len(ledger) != 2 || ledger[macC].MAC != macC {
		t.Errorf("%v", ledger)
	}
	var saved []Saved
	for k, m := range ledger {
		saved = append(saved, Saved{k, m})
	}
	l.kinds()
	next := known()
	next.Load(append(saved, Saved{"nothing", Machine{}}), at(5))
	next.saw(6, Identity{Addr: d, MAC: macD}, "z")
	if got := next.kinds(); len(got) != 0 {
		t.Errorf("%v of machines that are known to be new", got)
	}
	if all := next.Unknown(); len(all) != 2 || all[0].MAC != macD || !all[0].First.Equal(at(0)) || len(all[0].Asks) != 2 {
		t.Errorf("%+v", all)
	}
	if _, drop := next.Unsaved(); !slices.Equal(drop, []string{"nothing"}) {
		t.Errorf("%v", drop)
	}
	is := next.Know
	next.Know = func(id Identity) Known { // an admin adds one
		if id.MAC == macC {
			return Known{Box: c, Sure: true, Here: c}
		}
		return is(id)
	}
	if _, drop := next.Unsaved(); !slices.Equal(drop, []string{macC}) || len(next.Unknown()) != 1 {
		t.Errorf("%v", drop)
	}
}

// A flood of made up machines pushes out neither boxes nor machines that have taken a
// file, and what is to be saved and told stays little.
func TestFlood(t *testing.T) {
	l := known()
	real := netip.MustParseAddr("10.40.41.9")
	l.saw(0, Identity{Addr: one, MAC: macA}, "x")
	l.Saw(Identity{Addr: real, MAC: "52:54:00:00:00:09"}, Ask{Time: at(0), Over: "tftp", Asked: "default", Given: "default"})
	l.kinds()
	for i := range 20_000 {
		mac := fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)
		now := at(1).Add(time.Duration(i) * time.Millisecond)
		l.Saw(Identity{MAC: mac}, Ask{Time: now, Over: "dhcp", Asked: "discover", Given: "x"})
		l.Saw(Identity{MAC: "06" + mac[2:], UUID: "aaaa"}, Ask{Time: now, Over: "dhcp", Asked: "discover", Given: "x"}) // a box's UUID
		l.Saw(Identity{Addr: real, MAC: "0a" + mac[2:]}, Ask{Time: now, Over: "tftp", Asked: mac})
		l.Saw(Identity{Addr: netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})}, Ask{Time: now, Over: "tftp", Asked: mac})
		l.Saw(Identity{Addr: one, MAC: "0e" + mac[2:]}, Ask{Time: now, Over: "tftp", Asked: mac})
	}
	if n := len(l.of); n > MaxMachines+1 || len(l.byMAC) > n || len(l.byAddr) > n || len(l.boxes) > 2 {
		t.Errorf("%d machines, %d, %d, %d", n, len(l.byMAC), len(l.byAddr), len(l.boxes))
	}
	if l.byMAC[macA] == nil {
		t.Error("the machine of a box is gone")
	}
	put, drop := l.Unsaved()
	if len(put) > maxUnsaved || len(drop) > MaxMachines {
		t.Errorf("%d to save, %d to drop", len(put), len(drop))
	}
	if events, lost := l.Events(); len(events) > 3*maxStrangers || lost == 0 {
		t.Errorf("%d events, %d lost", len(events), lost)
	}
	other := known() // from many addresses
	other.Saw(Identity{Addr: real, MAC: "52:54:00:00:00:09"}, Ask{Time: at(0), Over: "tftp", Asked: "default", Given: "default"})
	for i := range 20_000 {
		other.Saw(Identity{Addr: netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})}, Ask{Time: at(1), Over: "tftp", Asked: "x"})
	}
	if other.byMAC["52:54:00:00:00:09"] == nil {
		t.Error("a machine that has taken a file went before those that have not")
	}
}

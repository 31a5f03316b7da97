package sight

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	begin = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	one   = netip.MustParseAddr("10.40.41.1")
	two   = netip.MustParseAddr("10.40.41.2")
)

const (
	macA = "52:54:00:00:00:0a"
	macB = "52:54:00:00:00:0b"
)

func at(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }

// saw notes a request in a minute.
func (l *List) saw(minute int, id Identity, asked string) {
	l.Saw(id, Ask{Time: at(minute), Over: "tftp", Asked: asked})
}

// One start of a box: DHCP tells the hardware address, TFTP the address, and the
// names of boot files join the two.
func TestOneStart(t *testing.T) {
	var l List
	l.saw(0, Identity{MAC: macA, Arch: "BIOS"}, "discover")
	l.saw(1, Identity{Addr: one}, "pxelinux.0")
	if n := len(l.Machines()); n != 2 {
		t.Errorf("%d machines before it is known that they are one", n)
	}
	l.AskedDefault(one, at(2))
	l.saw(2, Identity{Addr: one, MAC: strings.ToUpper(macA)}, "pxelinux.cfg/01-52-54-00-00-00-0a")
	l.saw(3, Identity{Addr: one, UUID: "AAAA"}, "pxelinux.cfg/default")
	all := l.Machines()
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	m := all[0]
	if m.MAC != macA || m.Addr != one || m.UUID != "aaaa" || m.Arch != "BIOS" || !m.First.Equal(at(0)) || !m.Last.Equal(at(3)) ||
		!m.Default.Equal(at(2)) || m.Twin != "" || m.Before.IsValid() {
		t.Errorf("%+v", m)
	}
	var asked []string
	for _, a := range m.Asks {
		asked = append(asked, a.Asked)
	}
	if got := strings.Join(asked, " "); got != "discover pxelinux.0 pxelinux.cfg/01-52-54-00-00-00-0a pxelinux.cfg/default" {
		t.Error(got)
	}
	if got, ok := l.At(netip.MustParseAddr("::ffff:10.40.41.1")); !ok || got.MAC != macA {
		t.Errorf("%+v", got)
	}
	if _, ok := l.At(two); ok {
		t.Error("nobody asked from there")
	}
}

func TestAddressChanged(t *testing.T) {
	var l List
	l.saw(0, Identity{Addr: one, MAC: macA}, "a")
	l.saw(60, Identity{Addr: two, MAC: macA}, "a")
	m, _ := l.At(two)
	if _, still := l.At(one); still || m.Before != one || len(l.Machines()) != 1 || m.Twin != "" {
		t.Errorf("%+v", m)
	}
	l.saw(61, Identity{Addr: one, MAC: macB}, "b") // another machine gets the address
	if b, _ := l.At(one); b.MAC != macB || b.Twin != "" || b.Before.IsValid() {
		t.Errorf("%+v", b)
	}
}

func TestTwoWithOneAddress(t *testing.T) {
	var l List
	l.saw(0, Identity{Addr: one, MAC: macA}, "a")
	l.saw(1, Identity{Addr: one, MAC: macB}, "b")
	for _, m := range l.Machines() {
		if want := map[string]string{macA: macB, macB: macA}[m.MAC]; m.Twin != want {
			t.Errorf("%s has the twin %q", m.MAC, m.Twin)
		}
	}
	var other List
	other.saw(0, Identity{Addr: one, MAC: macA}, "a")
	other.saw(60, Identity{Addr: one, MAC: macB}, "b") // a new card, or a new machine
	if m, _ := other.At(one); m.MAC != macB || m.Twin != "" {
		t.Errorf("%+v", m)
	}
}

// The memory is bounded, and texts from outside do no harm.
func TestBounds(t *testing.T) {
	var l List
	for i := range MaxMachines + 100 {
		l.saw(i, Identity{MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)}, "a")
	}
	all := l.Machines()
	if len(all) != MaxMachines || len(l.of) != MaxMachines || len(l.byMAC) != MaxMachines || !all[len(all)-1].Last.Equal(at(100)) {
		t.Errorf("%d machines", len(all))
	}
	for i := range 40 {
		l.saw(10_000+i, Identity{Addr: one}, fmt.Sprint(i, "\x1b[2J<b>\xff", strings.Repeat("x", 1000)))
	}
	m, _ := l.At(one)
	if len(m.Asks) != maxAsks || !strings.HasPrefix(m.Asks[0].Asked, "24?[2J<b>?x") || len(m.Asks[0].Asked) > maxText {
		t.Errorf("%d asks, the oldest %.40q", len(m.Asks), m.Asks[0].Asked)
	}
	l.Saw(Identity{}, Ask{Time: at(0)})
	if n := len(l.Machines()); n != MaxMachines {
		t.Errorf("%d machines", n)
	}
}

func TestAtOnce(t *testing.T) {
	var l List
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				l.saw(n, Identity{Addr: one, MAC: []string{macA, macB, ""}[(i+n)%3]}, "a")
				l.AskedDefault(one, at(n))
				l.Machines()
			}
		})
	}
	wg.Wait()
	if n := len(l.Machines()); n != 2 {
		t.Errorf("%d machines", n)
	}
}

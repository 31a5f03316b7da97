package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

// A conversation is a row of messages and what comes back, as "ACK 10.77.0.11",
// "NAK" or "".
type line struct {
	m    *dhcpv4.DHCPv4
	want string
	wait time.Duration // before it
}

func requests(hw net.HardwareAddr, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	return packet(dhcpv4.MessageTypeRequest, hw, mods...)
}

func TestLabConversations(t *testing.T) {
	fix, first := ip("10.77.0.11"), ip("10.77.0.100")
	relay := dhcpv4.WithGatewayIP(net.IP{10, 99, 0, 1})
	for name, talk := range map[string][]line{
		"fixed": {
			{m: discover(box1), want: "OFFER 10.77.0.11"},
			{m: requests(box1, server(here), want(fix)), want: "ACK 10.77.0.11"},
			{m: requests(box1, has(fix)), want: "ACK 10.77.0.11"},
		},
		"fixed, after its restart": {
			{m: requests(box1, want(fix)), want: "ACK 10.77.0.11"},
			{m: requests(box1, want(first)), want: "NAK"},
			{m: requests(box1, want(ip("192.168.1.7"))), want: "NAK"},
		},
		"fixed, an address that is not its own": {
			{m: requests(box1, server(here), want(first)), want: "NAK"},
			{m: requests(box1, has(first)), want: "NAK"},
		},
		"a fixed address of another": {
			{m: discover(box2, want(fix)), want: "OFFER 10.77.0.10x"},
			{m: requests(box2, server(here), want(fix)), want: "NAK"},
			{m: requests(box2, want(fix)), want: "NAK"},
			{m: requests(box2, has(fix)), want: "NAK"},
		},
		"unknown machine": {
			{m: discover(box2, want(first)), want: "OFFER 10.77.0.100"},
			{m: requests(box2, server(here), want(first)), want: "ACK 10.77.0.100"},
			{m: requests(box2, has(first)), want: "ACK 10.77.0.100", wait: 30 * time.Minute},
			{m: requests(box2, has(first)), want: "ACK 10.77.0.100", wait: 50 * time.Minute},
			{m: requests(box2, want(first)), want: "ACK 10.77.0.100"},
			{m: requests(box2, want(ip("10.77.0.101"))), want: "NAK"},
			{m: requests(box3, want(first)), want: "NAK"},
			{m: requests(box3, has(first)), want: "NAK"},
			{m: requests(box3, server(here), want(first)), want: "NAK"},
			{m: requests(box3, want(first)), want: "ACK 10.77.0.100", wait: 61 * time.Minute},
			{m: requests(box2, has(first)), want: "NAK"},
		},
		"a lease that we lost": {
			{m: requests(box2, has(first)), want: "ACK 10.77.0.100"},
			{m: requests(box3, want(ip("10.77.0.102"))), want: "ACK 10.77.0.102"},
		},
		"chooses another server": {
			{m: discover(box2, want(first)), want: "OFFER 10.77.0.100"},
			{m: requests(box2, server(ip("10.77.0.2")), want(ip("10.77.0.7"))), want: ""},
			{m: discover(box3, want(first)), want: "OFFER 10.77.0.100"},
		},
		"declines": {
			{m: discover(box2, want(first)), want: "OFFER 10.77.0.100"},
			{m: requests(box2, server(here), want(first)), want: "ACK 10.77.0.100"},
			{m: packet(dhcpv4.MessageTypeDecline, box3, server(here), want(first)), want: ""},
			{m: requests(box2, has(first)), want: "ACK 10.77.0.100"},
			{m: packet(dhcpv4.MessageTypeDecline, box2, server(here), want(first)), want: ""},
			{m: requests(box2, want(first)), want: "NAK"},
			{m: discover(box3, want(first)), want: "OFFER 10.77.0.10y"},
			{m: requests(box2, want(first)), want: "ACK 10.77.0.100", wait: 11 * time.Minute},
		},
		"declines its fixed address": {
			{m: requests(box1, want(fix)), want: "ACK 10.77.0.11"},
			{m: packet(dhcpv4.MessageTypeDecline, box1, server(here), want(fix)), want: ""},
			{m: discover(box1), want: ""},
			{m: discover(box1), want: "OFFER 10.77.0.11", wait: 11 * time.Minute},
		},
		"releases": {
			{m: requests(box2, want(first)), want: "ACK 10.77.0.100"},
			{m: packet(dhcpv4.MessageTypeRelease, box3, server(here), has(first)), want: ""},
			{m: requests(box3, want(first)), want: "NAK"},
			{m: packet(dhcpv4.MessageTypeRelease, box2, server(here), has(first)), want: ""},
			{m: requests(box3, want(first)), want: "ACK 10.77.0.100"},
		},
		"informs": {
			{m: packet(dhcpv4.MessageTypeInform, box2, has(ip("10.77.0.200"))), want: "ACK"},
			{m: packet(dhcpv4.MessageTypeInform, box2, has(ip("10.66.0.200"))), want: ""},
			{m: packet(dhcpv4.MessageTypeInform, box2), want: ""},
			{m: packet(dhcpv4.MessageTypeInform, box2, has(ip("10.77.0.255"))), want: ""},
		},
		"behind a relay": {
			{m: discover(box2, relay, want(ip("10.99.0.101"))), want: "OFFER 10.99.0.101"},
			{m: requests(box2, relay, server(here), want(ip("10.99.0.101"))), want: "ACK 10.99.0.101"},
			{m: requests(box2, has(ip("10.99.0.101")), relay), want: "ACK 10.99.0.101"},
			{m: requests(box2, relay, want(first)), want: "NAK"},
			{m: discover(box1, relay, want(ip("10.99.0.102"))), want: "OFFER 10.99.0.102"}, // away from its fixed address
			{m: discover(box3, dhcpv4.WithGatewayIP(net.IP{10, 98, 0, 1})), want: ""},
			// The relay names another link.
			{m: discover(box3, dhcpv4.WithGatewayIP(net.IP{10, 98, 0, 1}), option(82, 5, 4, 10, 99, 0, 0), want(ip("10.99.0.100"))),
				want: "OFFER 10.99.0.100"},
		},
		"nonsense": {
			{m: requests(box2), want: ""},
			{m: requests(box2, server(here)), want: ""},
			{m: requests(box2, want(here)), want: "NAK"},
			{m: requests(box2, want(ip("10.77.0.255"))), want: "NAK"},
			{m: packet(dhcpv4.MessageTypeAck, box2), want: ""},
			{m: packet(dhcpv4.MessageTypeNone, box2), want: ""},
			{m: packet(77, box2), want: ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, testLab())
				for i, l := range talk {
					time.Sleep(l.wait)
					out := r.ask(l.m)
					if len(out) == 0 {
						time.Sleep(2 * probeWait) // it looks first whether the address is used
						synctest.Wait()
						r.keeper.write()
						out, _ = r.heard()
					}
					got := ""
					if len(out) > 0 {
						s := one(t, out)
						invariants(t, l.m, s, false)
						if got = name2(s); strings.HasSuffix(l.want, "x") || strings.HasSuffix(l.want, "y") && !strings.HasSuffix(got, "0") {
							got = got[:len(got)-1] + l.want[len(l.want)-1:] // any address of the range, or any but the first
						}
					}
					if got != l.want {
						t.Errorf("message %d, %v: %q, want %q", i, l.m, got, l.want)
					}
				}
			})
		})
	}
}

func name2(s sent) string {
	n := name(s.MessageType())
	if a := addr(s.YourIPAddr); a.IsValid() {
		n += " " + a.String()
	}
	return n
}

func TestLabTells(t *testing.T) {
	r := newRig(t, testLab())
	s := one(t, r.ask(discover(box1)))
	for code, want := range map[uint8][]byte{
		1: {255, 255, 255, 0}, 3: here.AsSlice(), 6: {10, 77, 0, 53}, 15: []byte("lab.example"), 51: {0, 0, 14, 16}, 54: here.AsSlice(),
		58: {0, 0, 7, 8}, 59: {0, 0, 12, 78},
	} {
		if !bytes.Equal(s.Options[code], want) {
			t.Errorf("option %d is %x, want %x", code, s.Options[code], want)
		}
	}
	// A machine that renews is told at its address, and needs no broadcast.
	s = one(t, r.from(requests(box1, has(ip("10.77.0.11"))), 2, netip.AddrPortFrom(ip("10.77.0.11"), 68), here, false))
	if s.to != netip.AddrPortFrom(ip("10.77.0.11"), 68) || s.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("%v went to %v", s.MessageType(), s.to)
	}
	s = one(t, r.ask(requests(box1, want(ip("10.77.0.99")))))
	if s.MessageType() != dhcpv4.MessageTypeNak || !s.IsBroadcast() || s.to.Addr() != broadcast || len(s.Options[51]) != 0 {
		t.Errorf("NAK to %v: %v", s.to, s.Summary())
	}
	s = one(t, r.ask(packet(dhcpv4.MessageTypeInform, box2, has(ip("10.77.0.200")))))
	if len(s.Options[51]) != 0 || s.to != netip.AddrPortFrom(ip("10.77.0.200"), 68) {
		t.Errorf("INFORM: %v to %v", s.Summary(), s.to)
	}
}

// Who decides what a box starts may know it by its address.
func TestDecideKnowsTheAddress(t *testing.T) {
	r := newRig(t, testLab())
	r.Decide = func(m Machine) (Boot, bool) { return Boot{File: m.Address.String()}, true }
	for _, m := range []*dhcpv4.DHCPv4{discover(box1, pxe(BIOS), want(ip("10.77.0.50"))), requests(box1, pxe(BIOS), want(ip("10.77.0.11")))} {
		if s := one(t, r.ask(m)); s.BootFileName != "10.77.0.11" {
			t.Errorf("it was decided for %q", s.BootFileName)
		}
	}
}

// A machine whose firmware told its UUID is the same machine when its system
// asks, which tells none.
func TestFixedByUUID(t *testing.T) {
	id := bytes.Repeat([]byte{9}, 16)
	lab := testLab()
	lab.Fixed = func(m Machine) (netip.Addr, bool) { return ip("10.77.0.12"), bytes.Equal(m.UUID[:], id) }
	lab.Reserved = func(a netip.Addr) bool { return a == ip("10.77.0.12") }
	r := newRig(t, lab)
	if a := r.lease(box2, option(97, append([]byte{0}, id...)...)); a != ip("10.77.0.12") {
		t.Fatalf("the firmware got %v", a)
	}
	r.start()
	if a := r.lease(box2); a != ip("10.77.0.12") {
		t.Errorf("the system got %v", a)
	}
}

// The UUID is kept with an address of the range, also over a lease that ended.
func TestUUIDIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testLab())
		id := bytes.Repeat([]byte{9}, 16)
		r.lease(box2, option(97, append([]byte{0}, id...)...))
		time.Sleep(2 * time.Hour)
		a := r.lease(box2)
		if l := r.Leases(); len(l) != 1 || l[0].Address != a || !bytes.Equal(l[0].UUID[:], id) {
			t.Errorf("leases %+v", l)
		}
	})
}

// The list changed: the address of a box is now another's. The old one may
// still use it, so the new one waits.
func TestFixedAddressMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := testLab()
		owner := box1
		lab.Fixed = func(m Machine) (netip.Addr, bool) { return ip("10.77.0.11"), m.MAC.String() == owner.String() }
		r := newRig(t, lab)
		if r.lease(box1) != ip("10.77.0.11") {
			t.Fatal("no address")
		}
		owner = box2
		if out := r.ask(discover(box2)); len(out) != 0 {
			t.Errorf("two machines were given one address: %v", out[0].Summary())
		}
		r.packet(discover(box2).ToBytes(), 2, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
		if _, events := r.heard(); len(events) != 1 || events[0].Err == nil || !strings.Contains(events[0].Err.Error(), box1.String()) {
			t.Errorf("told %+v", events)
		}
		if s := one(t, r.ask(requests(box1, has(ip("10.77.0.11"))))); s.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("the old owner is answered %v", s.MessageType())
		}
		time.Sleep(61 * time.Minute)
		if a := r.lease(box2); a != ip("10.77.0.11") {
			t.Errorf("the new owner got %v after the lease of the old one", a)
		}
	})
}

// A box has two cards on one network, and one fixed address. The card that boots gets it,
// whatever the box's system had done with the other one before.
func TestTwoCards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := testLab()
		lab.Fixed = func(m Machine) (netip.Addr, bool) {
			return ip("10.77.0.11"), m.MAC.String() == box1.String() || m.MAC.String() == box2.String()
		}
		r := newRig(t, lab)
		if a := r.lease(box2); a != ip("10.77.0.11") {
			t.Fatalf("the card that asks first got %v", a)
		}
		if a := r.lease(box1); !lab.Subnets[0].inRange(a) {
			t.Errorf("the other card of a system got %v", a)
		}
		if a := r.lease(box1, pxe(BIOS)); a != ip("10.77.0.11") {
			t.Errorf("the card that boots got %v", a)
		}
		if s := one(t, r.ask(requests(box2, has(ip("10.77.0.11"))))); s.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("the other card is answered %v", s.MessageType())
		}
		if a := r.lease(box1); a != ip("10.77.0.11") {
			t.Errorf("the system of the box got %v for the card that booted", a)
		}
		if a := r.lease(box3, pxe(BIOS)); a == ip("10.77.0.11") {
			t.Error("another machine got the address")
		}
	})
}

func TestRangeIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testLab())
		got := map[netip.Addr]bool{}
		for i := range 3 {
			got[r.lease(net.HardwareAddr{2, 0, 0, 0, 0, byte(i)})] = true
		}
		if len(got) != 3 || got[netip.Addr{}] {
			t.Fatalf("three machines got %v", got)
		}
		if a := r.lease(box3); a.IsValid() {
			t.Errorf("a fourth one got %v", a)
		}
		if a := r.lease(box1); a != ip("10.77.0.11") {
			t.Errorf("a box with a fixed address got %v", a)
		}
		time.Sleep(2 * time.Hour)
		if a := r.lease(box3); !got[a] {
			t.Errorf("after the leases have ended it got %v", a)
		}
	})
}

// A flood of machines that never take what they are offered keeps nobody out.
func TestOffersBindNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testLab())
		for i := range 5000 {
			r.ask(discover(net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}))
			if i%100 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			r.Server.mu.Lock()
			if n, p := len(r.book.byAddr), len(r.probing); n > 20 || p > maxProbes {
				t.Fatalf("%d addresses and %d probes", n, p)
			}
			r.Server.mu.Unlock()
		}
		time.Sleep(time.Second)
		r.heard()
		if a := r.lease(box2); !a.IsValid() {
			t.Error("a machine that takes its offer gets none")
		}
		if a := r.lease(box1); a != ip("10.77.0.11") {
			t.Errorf("a box with a fixed address got %v", a)
		}
	})
}

// An address that somebody uses is not given.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testLab())
		r.inUse[ip("10.77.0.100")], r.inUse[ip("10.77.0.101")] = "aa:bb", "aa:cc"
		if a := r.lease(box2, want(ip("10.77.0.100"))); a != ip("10.77.0.102") {
			t.Errorf("it got %v", a)
		}
		if r.prods == 0 || len(r.trouble) == 0 || !strings.Contains(r.trouble[0].Error(), "aa:") {
			t.Errorf("%d prods, trouble %v", r.prods, r.trouble)
		}
		// Nobody is asked about what is known.
		before := r.prods
		if a := r.lease(box2); a != ip("10.77.0.102") || r.prods != before {
			t.Errorf("it got %v, prods %d", a, r.prods-before)
		}
		// Neither is an address looked at that is not here.
		r.ask(discover(box3, dhcpv4.WithGatewayIP(net.IP{10, 99, 0, 1})))
		if r.prods != before {
			t.Error("ARP was tried through a router")
		}
	})
}

// A machine without a fixed address gets no answer before its lease is durable,
// and none at all if it cannot be. One with a fixed address is answered.
func TestDurableFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := testLab()
		k := &faults.Kth{FS: faults.NewVolatile()}
		lab.FS = k
		r := newRig(t, lab)
		r.packet(requests(box2, want(ip("10.77.0.100"))).ToBytes(), 2, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
		time.Sleep(2 * probeWait)
		synctest.Wait()
		if out, _ := r.heard(); len(out) != 0 {
			t.Fatal("answered before the lease is durable")
		}
		r.keeper.write()
		if out, _ := r.heard(); name2(one(t, out)) != "ACK 10.77.0.100" {
			t.Fatal("no ACK")
		}
		k.K, k.Manner = k.Count()+1, faults.Dies
		if a := r.lease(box3); a.IsValid() {
			t.Errorf("%v was given, and its lease is not durable", a)
		}
		if len(r.trouble) != 1 || !strings.Contains(r.trouble[0].Error(), "machines without a fixed address get none") {
			t.Errorf("trouble %v", r.trouble)
		}
		if a := r.lease(box1); a != ip("10.77.0.11") {
			t.Errorf("a box with a fixed address got %v", a)
		}
		if len(r.trouble) != 1 {
			t.Errorf("the same trouble is told again: %v", r.trouble)
		}
		k.K = 0
		if a := r.lease(box3); !a.IsValid() {
			t.Error("it gets no address when the disk is well again")
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testLab())
		time.Sleep(300 * time.Millisecond) // the file has whole seconds
		a := r.lease(box2)
		before := r.Leases()
		r.start()
		now := r.Leases()
		if len(now) != 1 || now[0].Address != a || now[0].MAC.String() != box2.String() || now[0].Until.Before(before[0].Until) {
			t.Errorf("after the restart: %v, before: %v", now, before)
		}
		if s := one(t, r.ask(requests(box3, want(a)))); s.MessageType() != dhcpv4.MessageTypeNak {
			t.Error("the address was given to another machine")
		}
		if s := one(t, r.ask(requests(box2, has(a)))); name2(s) != "ACK "+a.String() {
			t.Errorf("its machine is answered %v", name2(s))
		}
	})
}

func TestDamagedFile(t *testing.T) {
	good := fileHead + "10.77.0.100 52:54:00:00:00:02 2026-01-02T03:04:05Z 00000000000000000000000000000000\n"
	for name, text := range map[string]string{
		"empty": "", "no end": good, "rubbish": "\x00\x01\x02",
		"a wrong sum": good + "end 1 00000000\n", "a wrong head": "leases 2\nend 0 00000000\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			lab := testLab()
			lab.FS = faults.NewVolatile()
			if err := durable.WriteFile(lab.FS, "/leases", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, lab)
			if len(r.trouble) != 1 || !strings.Contains(r.trouble[0].Error(), "/leases.damaged") {
				t.Errorf("%s: trouble %v", name, r.trouble)
			}
			if p, err := durable.ReadFile(lab.FS, "/leases.damaged", maxFile); err != nil || string(p) != text {
				t.Errorf("%s: set aside %q, %v", name, p, err)
			}
			if r.lease(box1) != ip("10.77.0.11") || !r.lease(box2).IsValid() {
				t.Errorf("%s: no addresses are given", name)
			}
		})
	}
}

// The damaged file cannot be set aside: it is not written over, and fixed
// addresses are given.
func TestDamagedFileStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := testLab()
		v := faults.NewVolatile()
		if err := durable.WriteFile(v, "/leases", []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		lab.FS = noRename{FS: v}
		r := newRig(t, lab)
		if r.lease(box2).IsValid() {
			t.Error("an address was given whose lease cannot be kept")
		}
		if r.lease(box1) != ip("10.77.0.11") {
			t.Error("no fixed address is given")
		}
		if p, err := durable.ReadFile(v, "/leases", maxFile); err != nil || string(p) != "x" {
			t.Errorf("the file is %q, %v", p, err)
		}
	})
}

type noRename struct{ durable.FS }

func (n noRename) Rename(from, to string) error {
	if strings.HasSuffix(to, ".damaged") {
		return faults.ErrInjected
	}
	return n.FS.Rename(from, to)
}

// Beside another server, machines with its addresses are left alone.
func TestBeside(t *testing.T) {
	lab := testLab()
	lab.Beside = true
	r := newRig(t, lab)
	for _, m := range []*dhcpv4.DHCPv4{requests(box2, want(ip("10.77.0.50"))), requests(box2, has(ip("10.77.0.101"))),
		requests(box2, want(ip("10.77.0.101"))), requests(box1, has(ip("10.77.0.50")))} {
		if out := r.ask(m); len(out) != 0 {
			t.Errorf("%v is answered %v", m, out[0].MessageType())
		}
	}
	if r.lease(box1) != ip("10.77.0.11") {
		t.Error("its own boxes get no address")
	}
}

func TestLabCheck(t *testing.T) {
	for name, change := range map[string]func(*Lab){
		"no subnet":   func(l *Lab) { l.Subnets = nil },
		"overlap":     func(l *Lab) { l.Subnets[1].Prefix = netip.MustParsePrefix("10.77.0.128/25") },
		"range":       func(l *Lab) { l.Subnets[0].Last = ip("10.78.0.1") },
		"turned":      func(l *Lab) { l.Subnets[0].First, l.Subnets[0].Last = l.Subnets[0].Last, l.Subnets[0].First },
		"half":        func(l *Lab) { l.Subnets[0].Last = netip.Addr{} },
		"IPv6":        func(l *Lab) { l.Subnets[0].Prefix = netip.MustParsePrefix("fd00::/64") },
		"short lease": func(l *Lab) { l.Subnets[0].Lease = time.Second },
		"IPv6 router": func(l *Lab) { l.Subnets[0].Router = []netip.Addr{ip("fd00::1")} },
		"large": func(l *Lab) {
			l.Subnets = []Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), First: ip("10.0.0.1"), Last: ip("10.1.0.1")}}
		},
	} {
		l := testLab()
		if err := l.Check(); err != nil {
			t.Fatal(err)
		}
		if change(l); l.Check() == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

// The most that is kept fits into the file.
func TestLargestFile(t *testing.T) {
	b := newBook()
	for i := range maxLeases {
		var id [16]byte
		a := netip.AddrFrom4([4]byte{10, 255, byte(i >> 8), byte(i)})
		if err := b.bind(netip.PrefixFrom(a, 32), a, mac{2, 0, 0, 0, byte(i >> 8), byte(i)}, id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if b.bind(netip.MustParsePrefix("10.254.0.0/16"), ip("10.254.0.1"), mac{4}, [16]byte{}, time.Now().Add(time.Hour)) == nil {
		t.Error("one more lease is kept")
	}
	text := b.text(time.Now())
	if len(text) > maxFile {
		t.Errorf("the file has %d bytes", len(text))
	}
	if c, err := parseLeases(text); err != nil || len(c.byAddr) != maxLeases || !slices.Equal(c.text(time.Now()), text) {
		t.Errorf("it is not read again: %v", err)
	}
}

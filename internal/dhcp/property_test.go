package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"

	"testbox-imaging/internal/faults"
)

// believer is a machine that keeps to its leases: it uses an address from the
// ACK until the lease ends, a NAK comes, or it releases the address.
type believer struct {
	hw    net.HardwareAddr
	addr  netip.Addr
	until time.Time

	asked time.Time // the lease counts from here (RFC 2131 section 4.4.1)
	xid   dhcpv4.TransactionID
}

func (b *believer) uses(now time.Time) netip.Addr {
	if now.Before(b.until) {
		return b.addr
	}
	return netip.Addr{}
}

// Whatever machines ask, whatever is lost on the way, whenever the power of the
// server is cut and whenever its disk fails: no two machines use one address.
// One thing is left out, because a box with a fixed address is not to depend on
// the disk: its lease could not be written, then the power was cut, and the list
// gives its address to another box.
func TestNoAddressTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// rapid ends a run by a panic, which has to leave the bubble.
		var end any
		synctest.Test(t, func(t *testing.T) {
			defer func() { end = recover() }()
			noAddressTwice(t, rt)
		})
		if end != nil {
			panic(end)
		}
	})
}

var steps = []string{"discover", "select", "select", "reboot", "renew", "release", "decline", "cut", "sick", "well", "time", "list"}

func noAddressTwice(t *testing.T, rt *rapid.T) {
	lab := testLab()
	fixed := map[string]netip.Addr{string(box1): ip("10.77.0.11")}
	lab.Fixed = func(m Machine) (netip.Addr, bool) { a, ok := fixed[string(m.MAC)]; return a, ok }
	lab.Reserved = func(a netip.Addr) bool {
		for _, f := range fixed {
			if f == a {
				return true
			}
		}
		return false
	}
	disk := faults.NewVolatile()
	kth := &faults.Kth{FS: disk}
	lab.FS = kth
	r := newRig(t, lab)
	var all []*believer
	for i := range 5 {
		all = append(all, &believer{hw: net.HardwareAddr{0x52, 0x54, 0, 0, 0, byte(i + 1)}})
	}
	addresses := []netip.Addr{ip("10.77.0.11"), ip("10.77.0.100"), ip("10.77.0.101"), ip("10.77.0.102")}
	moves := rapid.Bool().Draw(rt, "addresses move")
	anAddress := rapid.SampledFrom(addresses)
	say := func(b *believer, m *dhcpv4.DHCPv4) {
		b.asked, b.xid = time.Now(), m.TransactionID
		r.packet(m.ToBytes(), 2, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
		if rapid.Bool().Draw(rt, "wait") {
			time.Sleep(2 * probeWait)
			synctest.Wait()
		}
		if rapid.Bool().Draw(rt, "write") {
			r.keeper.write()
		}
	}
	// Answers reach the machine that they are for, unless they are lost.
	deliver := func() {
		out, _ := r.heard()
		for _, s := range out {
			for _, b := range all {
				if b.xid != s.TransactionID || rapid.IntRange(0, 9).Draw(rt, "lost") == 0 {
					continue
				}
				switch s.MessageType() {
				case dhcpv4.MessageTypeAck:
					if a := addr(s.YourIPAddr); a.IsValid() {
						b.addr, b.until = a, b.asked.Add(s.IPAddressLeaseTime(0))
					}
				case dhcpv4.MessageTypeNak:
					b.until = time.Time{}
				}
			}
		}
	}
	for range rapid.IntRange(1, 40).Draw(rt, "steps") {
		b := rapid.SampledFrom(all).Draw(rt, "machine")
		now := time.Now()
		switch rapid.SampledFrom(steps).Draw(rt, "step") {
		case "discover":
			say(b, discover(b.hw, want(anAddress.Draw(rt, "wish"))))
		case "select":
			b.until = time.Time{} // it starts anew
			say(b, requests(b.hw, server(here), want(anAddress.Draw(rt, "offered"))))
		case "reboot":
			b.until = time.Time{}
			say(b, requests(b.hw, want(anAddress.Draw(rt, "had"))))
		case "renew":
			if a := b.uses(now); a.IsValid() {
				say(b, requests(b.hw, has(a)))
			}
		case "release":
			if a := b.uses(now); a.IsValid() {
				b.until = time.Time{}
				say(b, packet(dhcpv4.MessageTypeRelease, b.hw, server(here), has(a)))
			}
		case "decline":
			if a := b.uses(now); a.IsValid() {
				b.until = time.Time{}
				say(b, packet(dhcpv4.MessageTypeDecline, b.hw, server(here), want(a)))
			}
		case "cut": // the power of the server; its machines go on
			if moves && r.keeper.failing {
				continue
			}
			r.heard()
			disk = disk.Crash(func() bool { return rapid.Bool().Draw(rt, "kept") })
			kth = &faults.Kth{FS: disk}
			lab.FS = kth
			r.start()
			if len(r.trouble) != 0 {
				t.Fatalf("after a power cut: %v", r.trouble)
			}
		case "sick":
			kth.K = kth.Count() + rapid.IntRange(1, 6).Draw(rt, "k")
			kth.Manner = rapid.SampledFrom([]faults.Manner{faults.Fails, faults.Lies}).Draw(rt, "manner")
		case "well":
			kth.K = 0
		case "time":
			time.Sleep(time.Duration(rapid.IntRange(1, 50).Draw(rt, "minutes")) * time.Minute)
		case "list":
			if !moves {
				continue
			}
			hw := rapid.SampledFrom(all).Draw(rt, "owner").hw
			a := anAddress.Draw(rt, "fixed")
			r.Server.mu.Lock() // a timer may be looking
			fixed = map[string]netip.Addr{string(hw): a}
			r.Server.mu.Unlock()
		}
		deliver()
		r.mu.Lock()
		r.trouble = nil
		r.mu.Unlock()
		used := map[netip.Addr]string{}
		for _, b := range all {
			a := b.uses(time.Now())
			if other, ok := used[a]; ok && a.IsValid() {
				rt.Fatalf("%v and %v use %v", other, b.hw, a)
			}
			used[a] = fmt.Sprint(b.hw)
		}
	}
}

package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Whatever comes gets one answer at most, which is for it and within the
// limits. A proxy gives no address.
func FuzzPacket(f *testing.F) {
	for _, c := range specimens {
		f.Add(specimen(f, c.name), uint8(0), c.boot)
	}
	relay := discover(box2, pxe(X64), option(82, 1, 2, 3, 4), option(97, make([]byte, 17)...))
	relay.GatewayIPAddr = []byte{10, 99, 0, 1}
	f.Add(relay.ToBytes(), uint8(1), false)
	f.Add(requests(box2, server(here), want(ip("10.77.0.100"))).ToBytes(), uint8(1), false)
	f.Add(packet(dhcpv4.MessageTypeDecline, box1, server(here), want(ip("10.77.0.11"))).ToBytes(), uint8(1), false)
	f.Fuzz(func(t *testing.T, p []byte, mode uint8, boot bool) {
		var lab *Lab
		if mode%2 == 1 {
			lab = testLab()
		}
		r := newRig(t, lab)
		from, to := netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast
		if mode&2 != 0 {
			from, to = netip.AddrPortFrom(ip("10.77.0.44"), 4011), here
		}
		r.packet(p, 2, from, to, boot)
		if lab != nil {
			r.keeper.write()
		}
		out, events := r.heard()
		if len(out) > 1 || len(events) > 1 {
			t.Fatalf("%d answers, %d events", len(out), len(events))
		}
		if len(out) == 0 {
			return
		}
		m, err := dhcpv4.FromBytes(p)
		if err != nil {
			t.Fatal("rubbish was answered")
		}
		invariants(t, m, out[0], lab == nil || boot)
		if kind := out[0].MessageType(); kind == dhcpv4.MessageTypeAck && lab == nil && !boot {
			t.Error("a proxy sent an ACK")
		}
		if a := addr(out[0].YourIPAddr); a.IsValid() {
			if a == here || a == ip("10.77.0.53") || a == ip("10.77.0.11") && out[0].ClientHWAddr.String() != box1.String() {
				t.Errorf("%v was given to %v", a, out[0].ClientHWAddr)
			}
			if n := netOf([]*Subnet{&lab.Subnets[0], &lab.Subnets[1]}, a); n == nil {
				t.Errorf("%v is in no subnet", a)
			}
		}
	})
}

// What the file of leases has is read in full or not at all.
func FuzzLeases(f *testing.F) {
	b := newBook()
	f.Add(b.text(testTime))
	b.put(&lease{addr: ip("10.77.0.100"), mac: mac(box2), until: testTime})
	f.Add(b.text(testTime))
	f.Fuzz(func(t *testing.T, p []byte) {
		if b, err := parseLeases(p); err == nil && len(p) != len(b.textOfAll()) {
			t.Errorf("%q is read as %q", p, b.textOfAll())
		}
	})
}

// answers to Look are not trusted either.
func FuzzFound(f *testing.F) {
	offer := reply(discover(box1, pxe(BIOS)), dhcpv4.MessageTypeOffer, ip("10.77.0.2"))
	f.Add(offer.ToBytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		r := newRig(t, nil)
		m, err := dhcpv4.FromBytes(p)
		if err == nil {
			r.looking.asked = map[dhcpv4.TransactionID]string{m.TransactionID: "BIOS"}
		}
		for range maxFound + 5 {
			r.packet(p, 2, netip.AddrPortFrom(ip("10.77.0.2"), 67), here, false)
		}
		if len(r.looking.found) > 1 {
			t.Errorf("one server was found %d times", len(r.looking.found))
		}
	})
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// textOfAll has also leases that ended long ago.
func (b *book) textOfAll() []byte {
	first := testTime.AddDate(-3000, 0, 0)
	return b.text(first)
}

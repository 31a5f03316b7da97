package dhcp

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// The server's end of each link, and a machine.
var (
	here  = ip("10.77.0.1")
	there = ip("10.88.0.1")
	box1  = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	box2  = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	box3  = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 3}
)

// sent is a packet that the server sent.
type sent struct {
	*dhcpv4.DHCPv4
	to   netip.AddrPort
	card int
	from netip.Addr
	boot bool
	size int
}

// rig is a server without sockets: what it would send is in sent.
type rig struct {
	*Server
	t testing.TB

	mu      sync.Mutex
	out     []sent
	events  []Event
	trouble []error
	inUse   map[netip.Addr]string // what ARP finds
	prods   int
}

// bootAll gives every machine boot facts.
func bootAll(m Machine) (Boot, bool) {
	return Boot{File: "pxelinux.0", URI: "http://" + m.Server.String() + "/boot.efi"}, true
}

func newRig(t testing.TB, lab *Lab) *rig {
	r := &rig{t: t, inUse: map[netip.Addr]string{}}
	r.Server = &Server{Decide: bootAll, Lab: lab}
	r.Seen = func(e Event) { r.mu.Lock(); r.events = append(r.events, e); r.mu.Unlock() }
	r.Trouble = func(err error) { r.mu.Lock(); r.trouble = append(r.trouble, err); r.mu.Unlock() }
	r.cards.list = func() []card {
		return []card{
			{index: 1, name: "lo", addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{index: 2, name: "eth0", addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}},
			{index: 3, name: "eth1", addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/24")}},
			{index: 4, name: "eth2"},
		}
	}
	r.Server.out = r.take
	r.Server.neighbour = func(_ int, a netip.Addr, me mac) (string, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		by := r.inUse[a]
		return by, by != ""
	}
	if lab != nil {
		if lab.FS == nil {
			lab.FS = faults.NewVolatile()
		}
		r.start()
	}
	return r
}

// start starts the server with what the file of leases has.
func (r *rig) start() {
	r.t.Helper()
	if err := r.startLab(); err != nil {
		r.t.Fatal(err)
	}
	r.quiet = false
}

func (r *rig) take(b []byte, to netip.AddrPort, index int, from netip.Addr, boot bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to.Port() == 9 {
		r.prods++
		return nil
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		r.t.Errorf("an answer that is none: %v", err)
		return nil
	}
	r.out = append(r.out, sent{m, to, index, from, boot, len(b)})
	return nil
}

// heard returns what was sent and told since the last call.
func (r *rig) heard() ([]sent, []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, events := r.out, r.events
	r.out, r.events = nil, nil
	return out, events
}

// ask has a packet come from a machine without an address, by broadcast, and
// returns what is sent at once and after the disk.
func (r *rig) ask(m *dhcpv4.DHCPv4) []sent {
	r.t.Helper()
	return r.from(m, 2, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
}

func (r *rig) from(m *dhcpv4.DHCPv4, index int, from netip.AddrPort, to netip.Addr, boot bool) []sent {
	r.t.Helper()
	r.packet(m.ToBytes(), index, from, to, boot)
	if r.keeper != nil {
		r.keeper.write()
	}
	out, _ := r.heard()
	return out
}

// one is for requests that get one answer.
func one(t testing.TB, out []sent) sent {
	t.Helper()
	if len(out) != 1 {
		t.Fatalf("%d answers: %v", len(out), out)
	}
	return out[0]
}

func packet(kind dhcpv4.MessageType, hw net.HardwareAddr, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(hw)}, mods...)...)
	if err != nil {
		panic(err)
	}
	return m
}

func discover(hw net.HardwareAddr, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	return packet(dhcpv4.MessageTypeDiscover, hw, mods...)
}

// pxe makes a request one of a PXE ROM.
func pxe(arch Arch) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) {
		m.Options[60] = []byte("PXEClient:Arch:00000:UNDI:002001")
		m.Options[93] = []byte{byte(arch >> 8), byte(arch)}
	}
}

func option(code uint8, value ...byte) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) { m.Options[code] = value }
}

func server(a netip.Addr) dhcpv4.Modifier { return option(54, a.AsSlice()...) }
func want(a netip.Addr) dhcpv4.Modifier   { return option(50, a.AsSlice()...) }
func has(a netip.Addr) dhcpv4.Modifier    { return dhcpv4.WithClientIP(a.AsSlice()) }

// lease lets a machine get an address in the usual way, and returns it. There
// is none if the server does not give one.
func (r *rig) lease(hw net.HardwareAddr, mods ...dhcpv4.Modifier) netip.Addr {
	r.t.Helper()
	out := r.ask(discover(hw, mods...))
	if len(out) == 0 { // it looks first whether the address is used
		time.Sleep((maxTries + 1) * probeWait)
		out, _ = r.heard()
	}
	if len(out) == 0 {
		return netip.Addr{}
	}
	offer := one(r.t, out)
	a := addr(offer.YourIPAddr)
	return r.choose(hw, a, mods...)
}

// choose takes an offer.
func (r *rig) choose(hw net.HardwareAddr, a netip.Addr, mods ...dhcpv4.Modifier) netip.Addr {
	r.t.Helper()
	out := r.ask(packet(dhcpv4.MessageTypeRequest, hw, append(mods, server(here), want(a))...))
	if len(out) == 0 || out[0].MessageType() != dhcpv4.MessageTypeAck {
		return netip.Addr{}
	}
	return addr(one(r.t, out).YourIPAddr)
}

// testLab has a fixed address for box1, by MAC address, and a range of three.
func testLab() *Lab {
	fixed := map[string]netip.Addr{string(box1): ip("10.77.0.11")}
	return &Lab{
		Subnets: []Subnet{
			{Prefix: netip.MustParsePrefix("10.77.0.0/24"), First: ip("10.77.0.100"), Last: ip("10.77.0.102"), Router: []netip.Addr{here},
				DNS: []netip.Addr{ip("10.77.0.53")}, Domain: "lab.example", Lease: time.Hour},
			{Prefix: netip.MustParsePrefix("10.99.0.0/24"), First: ip("10.99.0.100"), Last: ip("10.99.0.102")},
		},
		Fixed:    func(m Machine) (netip.Addr, bool) { a, ok := fixed[string(m.MAC)]; return a, ok },
		Reserved: func(a netip.Addr) bool { return a == ip("10.77.0.11") },
		Leases:   "/leases",
	}
}

var _ durable.FS = (*faults.Volatile)(nil)

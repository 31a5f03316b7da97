package dhcp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// specimen reads a packet. The file says where it comes from.
func specimen(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
	}
	p, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A packet of each kind of machine, and what it is told beside a DHCP server
// and by the DHCP server.
var specimens = []struct {
	name          string
	boot          bool // it came to port 4011
	as            Machine
	proxy         string // the answers, as describe has them
	lab           string
	file, elseURI string
}{
	{name: "ipxe-bios-discover", as: Machine{PXE: true, Arch: BIOS, IPXE: true},
		proxy: "OFFER 60=PXEClient 43=060108ff siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "OFFER 60=PXEClient 43=060108ff siaddr=10.77.0.1 file=pxelinux.0 175=b00101"},
	{name: "intel-bios-discover", as: Machine{PXE: true, Arch: BIOS},
		proxy: "OFFER 60=PXEClient 43=060108ff siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "OFFER 60=PXEClient 43=060108ff siaddr=10.77.0.1 file=pxelinux.0"},
	{name: "edk2-x64-discover", as: Machine{PXE: true, Arch: X64},
		proxy: "OFFER 60=PXEClient siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "OFFER siaddr=10.77.0.1 file=pxelinux.0"},
	{name: "edk2-x64-4011", boot: true, as: Machine{PXE: true, Arch: X64},
		proxy: "ACK 60=PXEClient siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "ACK 60=PXEClient siaddr=10.77.0.1 file=pxelinux.0"},
	{name: "edk2-arm64-discover", as: Machine{PXE: true, Arch: ARM64},
		proxy: "OFFER 60=PXEClient siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "OFFER siaddr=10.77.0.1 file=pxelinux.0"},
	{name: "ipxe-efi-discover", as: Machine{PXE: true, Arch: X64, IPXE: true},
		proxy: "OFFER 60=PXEClient siaddr=10.77.0.1 file=pxelinux.0",
		lab:   "OFFER siaddr=10.77.0.1 file=pxelinux.0 175=b00101"},
	{name: "edk2-http-discover", as: Machine{PXE: true, HTTP: true, Arch: HTTPX64},
		proxy: "OFFER 60=HTTPClient 67=http://10.77.0.1/boot.efi siaddr=10.77.0.1 file=http://10.77.0.1/boot.efi",
		lab:   "OFFER 60=HTTPClient 67=http://10.77.0.1/boot.efi siaddr=10.77.0.1 file=http://10.77.0.1/boot.efi"},
	// A machine's system, and loaders after the firmware, ask for no boot file.
	{name: "udhcpc-discover", proxy: "", lab: "OFFER siaddr=0.0.0.0 file="},
}

func describe(s sent) string {
	d := name(s.MessageType())
	for _, o := range []uint8{60, 43, 67} {
		if v, ok := s.Options[o]; ok && o == 43 {
			d += " 43=" + hex.EncodeToString(v)
		} else if ok {
			d += " " + map[uint8]string{60: "60=", 67: "67="}[o] + strings.TrimSuffix(string(v), "\x00")
		}
	}
	d += " siaddr=" + s.ServerIPAddr.String() + " file=" + s.BootFileName
	if v, ok := s.Options[175]; ok {
		d += " 175=" + hex.EncodeToString(v)
	}
	return d
}

func TestSpecimens(t *testing.T) {
	for _, c := range specimens {
		t.Run(c.name, func(t *testing.T) {
			p := specimen(t, c.name)
			m := parse(p)
			if m == nil {
				t.Fatal("the packet is not read")
			}
			who := read(m)
			if who.PXE != c.as.PXE || who.Arch != c.as.Arch || who.HTTP != c.as.HTTP || who.IPXE != c.as.IPXE {
				t.Errorf("it is taken for %+v", who)
			}
			for mode, want := range map[string]string{"proxy": c.proxy, "lab": c.lab} {
				lab := testLab()
				lab.Fixed = func(Machine) (netip.Addr, bool) { return ip("10.77.0.20"), true }
				if mode == "proxy" {
					lab = nil
				}
				r := newRig(t, lab)
				from, to := netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast
				if c.boot {
					from, to = netip.AddrPortFrom(addr(m.ClientIPAddr), 4011), here
				}
				r.packet(p, 2, from, to, c.boot)
				out, events := r.heard()
				if len(events) != 1 || events[0].MAC.String() != m.ClientHWAddr.String() {
					t.Errorf("%s: told %+v", mode, events)
				}
				if want == "" {
					if len(out) != 0 {
						t.Errorf("%s: answered %v", mode, describe(out[0]))
					}
					continue
				}
				s := one(t, out)
				if got := describe(s); got != want {
					t.Errorf("%s: answered\n%s\nwant\n%s", mode, got, want)
				}
				invariants(t, m, s, mode == "proxy" || c.boot)
				if c.boot && (s.to != from || !s.boot || s.from != here) || !c.boot && (s.to.Addr() != broadcast || s.to.Port() != 68 || s.boot) {
					t.Errorf("%s: the answer went to %v", mode, s.to)
				}
				if s.card != 2 || s.from != here {
					t.Errorf("%s: the answer went by card %d from %v", mode, s.card, s.from)
				}
			}
		})
	}
}

// invariants are what is true of every answer to m.
func invariants(t testing.TB, m *dhcpv4.DHCPv4, s sent, proxy bool) {
	t.Helper()
	if s.OpCode != dhcpv4.OpcodeBootReply || s.TransactionID != m.TransactionID || s.ClientHWAddr.String() != m.ClientHWAddr.String() {
		t.Errorf("the answer is for another request: %v", s.Summary())
	}
	for _, o := range []uint8{97, 82, 61} {
		if v, ok := m.Options[o]; ok != s.Options.Has(dhcpv4.GenericOptionCode(o)) || !bytes.Equal(v, s.Options[o]) {
			t.Errorf("option %d was %x and is answered %x", o, v, s.Options[o])
		}
	}
	if !s.GatewayIPAddr.Equal(m.GatewayIPAddr) || len(s.Options[54]) != 4 {
		t.Errorf("giaddr %v, server %x", s.GatewayIPAddr, s.Options[54])
	}
	if proxy && (!s.YourIPAddr.IsUnspecified() || s.Options.Has(dhcpv4.OptionIPAddressLeaseTime)) {
		t.Errorf("a proxy gave an address: %v", s.Summary())
	}
	limit := leastLimit
	if n, err := dhcpv4.GetUint16(dhcpv4.OptionMaximumDHCPMessageSize, m.Options); err == nil {
		limit = min(max(limit, int(n)), mostLimit)
	}
	if s.size > limit-headers {
		t.Errorf("the answer has %d bytes", s.size)
	}
	if g := addr(m.GatewayIPAddr); g.IsValid() && !s.boot && s.to != netip.AddrPortFrom(g, 67) {
		t.Errorf("the relay %v asked, and the answer went to %v", g, s.to)
	}
	if a := s.to.Addr(); a != broadcast && (a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a == ip("10.77.0.255")) {
		t.Errorf("the answer went to %v", s.to)
	}
}

// What gets no answer from a proxy.
func TestUnanswered(t *testing.T) {
	anybody := netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	bios := pxe(BIOS)
	for name, c := range map[string]struct {
		m    *dhcpv4.DHCPv4
		card int
		from netip.AddrPort
		boot bool
		set  func(*Server)
	}{
		"no option 60":     {m: discover(box1, bios, dhcpv4.WithoutOption(dhcpv4.OptionClassIdentifier))},
		"no option 93":     {m: discover(box1, bios, dhcpv4.WithoutOption(dhcpv4.OptionClientSystemArchitectureType))},
		"93 is odd":        {m: discover(box1, bios, option(93, 0, 7, 0))},
		"another class":    {m: discover(box1, bios, option(60, []byte("MSFT 5.0")...))},
		"an answer":        {m: discover(box1, bios, func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply })},
		"no Ethernet":      {m: discover(box1, bios, func(m *dhcpv4.DHCPv4) { m.HWType = 32 })},
		"a long address":   {m: discover(append(slices.Clone(box1), 7, 8), bios)},
		"a group":          {m: discover(net.HardwareAddr{1, 0, 94, 0, 0, 1}, bios)},
		"no MAC address":   {m: discover(make(net.HardwareAddr, 6), bios)},
		"our own relay":    {m: discover(box1, bios, dhcpv4.WithGatewayIP(here.AsSlice()))},
		"a relay in space": {m: discover(box1, bios, dhcpv4.WithGatewayIP(net.IP{224, 0, 0, 1}))},
		"a relay for all":  {m: discover(box1, bios, dhcpv4.WithGatewayIP(net.IP{10, 77, 0, 255}))},
		"from ourselves":   {m: discover(box1, bios), from: netip.AddrPortFrom(there, 67)},
		"chose another":    {m: packet(dhcpv4.MessageTypeRequest, box1, bios, server(ip("10.77.0.2")))},
		"no address here":  {m: discover(box1, bios), card: 4},
		"loopback":         {m: discover(box1, bios), card: 1},
		"no such card":     {m: discover(box1, bios), card: 9},
		"not served":       {m: discover(box1, bios), card: 3, set: func(s *Server) { s.Interfaces = []string{"eth0"} }},
		"DISCOVER on 4011": {m: discover(box1, bios), boot: true, from: netip.AddrPortFrom(ip("10.77.0.9"), 68)},
		"4011, no PXE":     {m: packet(dhcpv4.MessageTypeRequest, box1), boot: true, from: netip.AddrPortFrom(ip("10.77.0.9"), 68)},
		"4011, no address": {m: packet(dhcpv4.MessageTypeRequest, box1, bios), boot: true},
		"nothing for it":   {m: discover(box1, bios), set: func(s *Server) { s.Decide = func(Machine) (Boot, bool) { return Boot{}, false } }},
		"no file":          {m: discover(box1, bios), set: func(s *Server) { s.Decide = func(Machine) (Boot, bool) { return Boot{}, true } }},
		"no URI": {m: discover(box1, pxe(HTTPX64), option(60, []byte("HTTPClient")...)),
			set: func(s *Server) { s.Decide = func(Machine) (Boot, bool) { return Boot{File: "x"}, true } }},
		"a long name": {m: discover(box1, bios),
			set: func(s *Server) {
				s.Decide = func(Machine) (Boot, bool) { return Boot{File: strings.Repeat("x", 128)}, true }
			}},
		"too much": {m: discover(box1, bios), set: func(s *Server) {
			s.Decide = func(Machine) (Boot, bool) {
				return Boot{File: "x", Config: strings.Repeat("x", 200), Prefix: strings.Repeat("y", 200) + "/"}, true
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			if c.set != nil {
				c.set(r.Server)
			}
			if c.card == 0 {
				c.card = 2
			}
			if !c.from.IsValid() {
				c.from = anybody
			}
			if out := r.from(c.m, c.card, c.from, broadcast, c.boot); len(out) != 0 {
				t.Errorf("answered %v", out[0].Summary())
			}
		})
	}
	r := newRig(t, nil)
	if one(t, r.ask(discover(box1, bios))).MessageType() != dhcpv4.MessageTypeOffer {
		t.Error("the request that all of these are made from gets no answer either")
	}
	for _, p := range [][]byte{nil, {1}, make([]byte, 240), bytes.Repeat([]byte{255}, 1500)} {
		r.packet(p, 2, anybody, broadcast, false)
	}
	if out, _ := r.heard(); len(out) != 0 {
		t.Error("rubbish was answered")
	}
}

func TestRelay(t *testing.T) {
	relay := ip("10.50.0.1")
	for _, flags := range []uint16{0, 0x8000} {
		r := newRig(t, nil)
		m := discover(box1, pxe(BIOS), dhcpv4.WithGatewayIP(relay.AsSlice()), option(82, 1, 2, 'a', 'b'))
		m.Flags = flags
		s := one(t, r.from(m, 3, netip.AddrPortFrom(relay, 67), there, false))
		invariants(t, m, s, true)
		if s.card != 0 || s.from != there || s.Flags != flags || s.ServerIPAddr.String() != there.String() {
			t.Errorf("card %d, from %v, flags %x, siaddr %v", s.card, s.from, s.Flags, s.ServerIPAddr)
		}
		if b := m.ToBytes(); !bytes.Contains(s.ToBytes(), []byte{82, 4, 1, 2, 'a', 'b', 255}) {
			t.Errorf("option 82 is not the last one in %x", b)
		}
	}
}

// Each card answers with its own address.
func TestCards(t *testing.T) {
	r := newRig(t, nil)
	for index, address := range map[int]netip.Addr{2: here, 3: there} {
		s := one(t, r.from(discover(box1, pxe(BIOS)), index, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false))
		if s.card != index || s.from != address || addr(s.ServerIPAddr) != address || addr(s.Options[54]) != address {
			t.Errorf("card %d: by %d from %v, siaddr %v", index, s.card, s.from, s.ServerIPAddr)
		}
	}
}

// The TFTP server may be elsewhere. UEFI firmware first asks our port 4011 all
// the same.
func TestNextServer(t *testing.T) {
	other := ip("10.77.0.9")
	for _, c := range []struct {
		arch Arch
		boot bool
		want netip.Addr
	}{{BIOS, false, other}, {X64, false, here}, {X64, true, other}, {ARM64, false, here}, {ARM64, true, other}} {
		r := newRig(t, nil)
		r.Decide = func(Machine) (Boot, bool) { return Boot{File: "f", NextServer: other}, true }
		kind := map[bool]dhcpv4.MessageType{false: dhcpv4.MessageTypeDiscover, true: dhcpv4.MessageTypeRequest}[c.boot]
		s := one(t, r.from(packet(kind, box1, pxe(c.arch)), 2, netip.AddrPortFrom(ip("10.77.0.20"), 4011), here, c.boot))
		if addr(s.ServerIPAddr) != c.want {
			t.Errorf("%+v: siaddr %v", c, s.ServerIPAddr)
		}
	}
}

func TestOption43(t *testing.T) {
	for _, c := range []struct {
		choice Choice
		arch   Arch
		want   bool
	}{{Auto, BIOS, true}, {Auto, X64, false}, {Always, X64, true}, {Never, BIOS, false}} {
		r := newRig(t, nil)
		r.Decide = func(Machine) (Boot, bool) { return Boot{File: "f", Option43: c.choice}, true }
		if s := one(t, r.ask(discover(box1, pxe(c.arch)))); s.Options.Has(dhcpv4.OptionVendorSpecificInformation) != c.want {
			t.Errorf("%+v: %x", c, s.Options[43])
		}
	}
}

func TestPXELinuxOptions(t *testing.T) {
	r := newRig(t, nil)
	r.Decide = func(Machine) (Boot, bool) { return Boot{File: "f", Config: "c", Prefix: "p/", Reboot: 300e9}, true }
	s := one(t, r.ask(discover(box1, pxe(BIOS))))
	if string(s.Options[209]) != "c" || string(s.Options[210]) != "p/" || !bytes.Equal(s.Options[211], []byte{0, 0, 1, 44}) {
		t.Errorf("209 %q, 210 %q, 211 %x", s.Options[209], s.Options[210], s.Options[211])
	}
	r.Decide = func(Machine) (Boot, bool) { return Boot{File: "f", Prefix: "p"}, true }
	if out := r.ask(discover(box1, pxe(BIOS))); len(out) != 0 {
		t.Error("a prefix without a slash is told")
	}
}

func TestArchitectures(t *testing.T) {
	for _, c := range []struct {
		list []byte
		want Arch
	}{
		{[]byte{0, 7}, X64}, {[]byte{0, 9}, X64BC}, {[]byte{0, 11}, ARM64}, {[]byte{1, 1, 0, 7, 0, 0}, X64}, {[]byte{0, 16}, HTTPX64},
		{[]byte{2, 2, 3, 3}, 0x202}, {[]byte{0, 0}, BIOS},
	} {
		if who := read(discover(box1, pxe(BIOS), option(93, c.list...))); who.Arch != c.want || !who.PXE {
			t.Errorf("%v is %d", c.list, who.Arch)
		}
	}
}

// Option 97 may be empty, and it may be what no standard has.
func TestUUID(t *testing.T) {
	id := append([]byte{0}, bytes.Repeat([]byte{7}, 16)...)
	for _, v := range [][]byte{{}, id, {0, 1, 2}, append([]byte{0}, bytes.Repeat([]byte{255}, 16)...)} {
		r := newRig(t, nil)
		m := discover(box1, pxe(BIOS), option(97, v...))
		r.packet(m.ToBytes(), 2, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
		out, events := r.heard()
		invariants(t, m, one(t, out), true)
		if told := events[0].UUID != [16]byte{}; told != bytes.Equal(v, id) {
			t.Errorf("%x is told as %x", v, events[0].UUID)
		}
	}
}

func TestUserClass(t *testing.T) {
	for class, want := range map[string]bool{"iPXE": true, "\x04iPXE": true, "gPXE": true, "": false, "iPXE?": false} {
		if who := read(discover(box1, option(77, []byte(class)...))); who.IPXE != want {
			t.Errorf("%q: %v", class, who.IPXE)
		}
	}
}

// A machine that chose another DHCP server says so in its request.
func TestChosenIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.packet(packet(dhcpv4.MessageTypeRequest, box1, server(ip("10.77.0.2")), want(ip("10.77.0.40"))).ToBytes(), 2,
		netip.AddrPortFrom(netip.IPv4Unspecified(), 68), broadcast, false)
	if _, events := r.heard(); len(events) != 1 || events[0].Chosen != ip("10.77.0.2") || events[0].Machine.Address != ip("10.77.0.40") {
		t.Errorf("told %+v", events)
	}
}

// edk2 writes a zero behind option 67 if it does not end with one.
func TestURIEnds(t *testing.T) {
	r := newRig(t, nil)
	s := one(t, r.ask(discover(box1, pxe(HTTPX64), option(60, []byte("HTTPClient:Arch:00016")...))))
	if got := string(s.Options[67]); got != "http://10.77.0.1/boot.efi\x00" {
		t.Errorf("option 67 is %q", got)
	}
}

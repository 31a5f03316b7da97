package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Found is an answer of another DHCP server.
type Found struct {
	Interface  string     // our card
	As         string     // what we asked as: "machine", "BIOS" or "UEFI"
	Server     netip.Addr // what it calls itself
	From       netip.Addr // where the answer came from: the server, or a relay
	Address    netip.Addr // that it offers; a ProxyDHCP server offers none
	Mask       net.IPMask // option 1; nil if there is none
	Router     []netip.Addr
	DNS        []netip.Addr
	NextServer netip.Addr // the header's
	ServerName string     // the header's
	File       string     // the header's
	TFTPServer string     // option 66
	BootFile   string     // option 67
	Class      string     // option 60
	Vendor     []byte     // option 43
}

// OthersError says that there are other DHCP servers.
type OthersError struct{ Found []Found }

func (e *OthersError) Error() string {
	var names []string
	for _, f := range e.Found {
		if n := fmt.Sprintf("%v on %s", f.Server, f.Interface); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return "there is another DHCP server: " + strings.Join(names, ", ") +
		". Two servers would give one address to two machines; use the one that is there, or stop it first"
}

const (
	// lookTime is longer than servers take that try their address by ping before
	// they offer it. dnsmasq takes 3 seconds.
	lookTime  = 5 * time.Second
	maxFound  = 64
	lookAgain = 2 // times that the questions are repeated
)

// looking collects the answers to our own questions.
type looking struct {
	one   sync.Mutex                      // one Look at a time
	mu    sync.Mutex                      // guards the fields below
	asked map[dhcpv4.TransactionID]string // what we asked as
	found []Found
}

// take takes a packet that is an answer to us.
func (l *looking) take(p []byte, c card, from netip.AddrPort) bool {
	if len(p) == 0 || dhcpv4.OpcodeType(p[0]) != dhcpv4.OpcodeBootReply {
		return false
	}
	m, err := dhcpv4.FromBytes(p)
	if err != nil || m.MessageType() != dhcpv4.MessageTypeOffer {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	as, ok := l.asked[m.TransactionID]
	if !ok || len(l.found) >= maxFound {
		return true
	}
	f := readFound(m)
	f.Interface, f.As, f.From = c.name, as, from.Addr()
	if !f.Server.IsValid() {
		f.Server = f.From
	}
	if !slices.ContainsFunc(l.found, func(o Found) bool { return o.Server == f.Server && o.As == f.As && o.Interface == f.Interface }) {
		l.found = append(l.found, f)
	}
	return true
}

func readFound(m *dhcpv4.DHCPv4) Found {
	return Found{
		Server: addrOption(m, dhcpv4.OptionServerIdentifier), Address: addr(m.YourIPAddr),
		Mask: m.SubnetMask(), Router: addrs(m.Router()), DNS: addrs(m.DNS()),
		NextServer: addr(m.ServerIPAddr), ServerName: m.ServerHostName, File: m.BootFileName,
		TFTPServer: text(m, dhcpv4.OptionTFTPServerName), BootFile: text(m, dhcpv4.OptionBootfileName),
		Class: text(m, dhcpv4.OptionClassIdentifier), Vendor: m.Options.Get(dhcpv4.OptionVendorSpecificInformation),
	}
}

func text(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode) string {
	return strings.TrimRight(string(m.Options.Get(code)), "\x00")
}

func addrs(list []net.IP) []netip.Addr {
	var all []netip.Addr
	for _, ip := range list {
		if a := addr(ip); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// Look asks which other DHCP servers there are, on all cards that are served.
// It takes some seconds. Serve must be running. The questions look as if a relay
// had passed them on, so that the answers come to port 67, which is ours
// anyway; port 68 may be a DHCP client's of this machine.
func (s *Server) Look(ctx context.Context) ([]Found, error) {
	s.mu.Lock()
	running := s.main != nil
	s.mu.Unlock()
	if !running {
		return nil, errors.New("the DHCP server is not running")
	}
	s.looking.one.Lock()
	defer s.looking.one.Unlock()
	asked := map[dhcpv4.TransactionID]string{}
	var questions []question
	for _, c := range s.cards.now() {
		if !s.serves(c) || !c.first().IsValid() {
			continue
		}
		for _, as := range []string{"machine", "BIOS", "UEFI"} {
			q, err := ask(c, as)
			if err != nil {
				return nil, err
			}
			asked[q.msg.TransactionID] = as
			questions = append(questions, q)
		}
	}
	s.looking.mu.Lock()
	s.looking.asked, s.looking.found = asked, nil
	s.looking.mu.Unlock()
	wait := s.lookTime
	if wait == 0 {
		wait = lookTime
	}
	for range lookAgain {
		for _, q := range questions {
			// A card whose cable is out is no reason to give up.
			s.out(q.msg.ToBytes(), netip.AddrPortFrom(broadcast, portServer), q.card.index, q.card.first(), false)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait / lookAgain):
		}
	}
	s.looking.mu.Lock()
	defer s.looking.mu.Unlock()
	found := s.looking.found
	s.looking.asked, s.looking.found = nil, nil
	return found, ctx.Err()
}

type question struct {
	card card
	msg  *dhcpv4.DHCPv4
}

// ask makes a DISCOVER from the card of ours, which a server is likely to know.
// It asks for an address and never takes it.
func ask(c card, as string) (question, error) {
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1} // a card without a MAC address
	if i, err := net.InterfaceByIndex(c.index); err == nil && len(i.HardwareAddr) == 6 {
		hw = i.HardwareAddr
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithGatewayIP(c.first().AsSlice()), dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionVendorSpecificInformation,
		dhcpv4.OptionClassIdentifier, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName)}
	pxe := func(class string, arch iana.Arch) {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)), dhcpv4.WithOption(dhcpv4.OptClientArch(arch)),
			dhcpv4.WithGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16}))
	}
	switch as {
	case "BIOS":
		pxe("PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC)
	case "UEFI":
		pxe("PXEClient:Arch:00007:UNDI:003016", iana.EFI_X86_64)
	}
	m, err := dhcpv4.NewDiscovery(hw, mods...)
	if err != nil {
		return question{}, err
	}
	m.HopCount = 1
	return question{c, m}, nil
}

// alone is an error if there is another DHCP server that gives addresses.
func (s *Server) alone(ctx context.Context) error {
	found, err := s.Look(ctx)
	if err != nil {
		return nil // ctx ended
	}
	others := slices.DeleteFunc(found, func(f Found) bool { return !f.Address.IsValid() })
	if len(others) > 0 {
		return &OthersError{others}
	}
	return nil
}

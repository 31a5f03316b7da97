package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Arch is what a machine can start, as option 93 has it (RFC 4578, and IANA's
// list of processor architecture types).
type Arch uint16

// The architectures that loaders exist for.
const (
	BIOS      Arch = 0 // Raspberry Pi 5 says so too
	IA32      Arch = 6
	X64       Arch = 7
	X64BC     Arch = 9 // the RFC's number of x64, before its erratum
	ARM32     Arch = 10
	ARM64     Arch = 11
	HTTPIA32  Arch = 15
	HTTPX64   Arch = 16
	HTTPARM32 Arch = 18
	HTTPARM64 Arch = 19
)

var known = map[Arch]bool{BIOS: true, IA32: true, X64: true, X64BC: true, ARM32: true, ARM64: true,
	HTTPIA32: true, HTTPX64: true, HTTPARM32: true, HTTPARM64: true}

// Machine is what a request says of the machine that asks. Nothing of it is
// trusted.
type Machine struct {
	MAC net.HardwareAddr // always 6 bytes
	// UUID is in the order of the packet, which is SMBIOS'. It is zero if the
	// machine tells none. With a Lab it may be one that the machine told earlier.
	UUID [16]byte
	// PXE is true if the machine asks what to start. Without it, Arch says nothing.
	PXE       bool
	Arch      Arch   // the first known one of its list
	HTTP      bool   // the firmware loads by HTTP: it wants a URI
	IPXE      bool   // it is iPXE that asks, which may have been loaded before
	Class     string // option 60, any bytes
	UserClass string // option 77, any bytes
	// Address is the one that the machine has or asks for. It may have none. With a
	// Lab, Decide is told the one that it is given.
	Address   netip.Addr
	Relay     netip.Addr // the relay's address, if one was between
	Interface string     // the card of ours to which the request came
	Server    netip.Addr // the address of ours that answers
}

// Choice is a setting that can be left to the package.
type Choice int

// The choices.
const (
	Auto Choice = iota
	Always
	Never
)

// Boot is what a machine is told to start.
type Boot struct {
	File string // what it loads by TFTP, at most 127 bytes; iPXE also takes a URL
	// NextServer is the TFTP server. Zero means the address of ours that answers.
	NextServer netip.Addr
	// URI is for Machine.HTTP, at most 254 bytes. It should have an address
	// instead of a name, because the lab's DHCP may tell no DNS server.
	URI string
	// Config, Prefix and Reboot are PXELINUX's options 209 to 211 (RFC 5071).
	// Zero leaves them out. Prefix ends in "/".
	Config, Prefix string
	Reboot         time.Duration
	// Option43 says whether the machine is told to take File at once. Auto does
	// so for BIOS. Older UEFI firmware forgets an answer that has it.
	Option43 Choice
}

// Event tells that a machine was heard, and what it was given.
type Event struct {
	Machine
	Asked   string     // for example DISCOVER
	Answer  string     // for example OFFER, "" if there was none
	Address netip.Addr // that was given
	Boot    Boot       // that was given
	Given   bool       // Boot counts
	// Chosen is another DHCP server that the machine has chosen.
	Chosen netip.Addr
	Err    error // why there was no answer, or not the one that was expected
}

const (
	maxPacket  = 1500 // bytes that are read of a packet
	maxEcho    = 64   // bytes of option 97; the standard has 0 or 17
	leastLimit = 576  // bytes of an IP packet that every machine takes (RFC 2131)
	mostLimit  = 1472 // what edk2 takes at most, so it is no use to send more
	headers    = 28   // IP and UDP
	fileField  = 128  // bytes, with a zero at the end
)

var pxeOption = dhcpv4.GenericOptionCode(97) // the machine's UUID (RFC 4578)

const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// parse reads a request. It returns nil for everything that gets no answer,
// whatever is in it.
func parse(p []byte) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.FromBytes(p)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 {
		return nil
	}
	if a := m.ClientHWAddr; a[0]&1 != 0 || bytes.Equal(a, make([]byte, 6)) {
		return nil
	}
	if len(m.Options.Get(pxeOption)) > maxEcho || len(m.Options.Get(dhcpv4.OptionRelayAgentInformation)) > 255 {
		return nil
	}
	return m
}

// read says what a request tells of its machine.
func read(m *dhcpv4.DHCPv4) Machine {
	who := Machine{MAC: m.ClientHWAddr, Relay: addr(m.GatewayIPAddr)}
	if id := m.Options.Get(pxeOption); len(id) == 17 && !bytes.Equal(id[1:], bytes.Repeat([]byte{255}, 16)) {
		copy(who.UUID[:], id[1:]) // a board that was never given one may have only ones
	}
	who.Class = string(m.Options.Get(dhcpv4.OptionClassIdentifier))
	who.UserClass = string(m.Options.Get(dhcpv4.OptionUserClassInformation))
	// iPXE leaves out the lengths that RFC 3004 wants.
	who.IPXE = who.UserClass == "iPXE" || who.UserClass == "\x04iPXE" || who.UserClass == "gPXE"
	archs := m.Options.Get(dhcpv4.OptionClientSystemArchitectureType)
	who.HTTP = strings.HasPrefix(who.Class, classHTTP)
	who.PXE = (who.HTTP || strings.HasPrefix(who.Class, classPXE)) && len(archs) >= 2 && len(archs)%2 == 0
	if who.PXE {
		who.Arch = firstKnown(archs)
	}
	if who.Address = addr(m.ClientIPAddr); !who.Address.IsValid() {
		who.Address = addrOption(m, dhcpv4.OptionRequestedIPAddress)
	}
	return who
}

func firstKnown(list []byte) Arch {
	for b := list; len(b) >= 2; b = b[2:] {
		if a := Arch(binary.BigEndian.Uint16(b)); known[a] {
			return a
		}
	}
	return Arch(binary.BigEndian.Uint16(list))
}

// addr is not valid if the address is 0.0.0.0.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func addrOption(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode) netip.Addr {
	if b := m.Options.Get(code); len(b) == 4 {
		return addr(b)
	}
	return netip.Addr{}
}

// reply begins an answer with all that it repeats of the request.
func reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, server netip.Addr) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: m.HWType, TransactionID: m.TransactionID, Flags: m.Flags,
		ClientHWAddr: m.ClientHWAddr, GatewayIPAddr: m.GatewayIPAddr, ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero,
		ServerIPAddr: net.IPv4zero, Options: dhcpv4.Options{}}
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(server.AsSlice()))
	for _, code := range []dhcpv4.OptionCode{pxeOption, dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation} {
		if m.Options.Has(code) { // also one of length 0
			r.Options[code.Code()] = m.Options.Get(code)
		}
	}
	return r
}

// form is the kind of answer that carries boot facts.
type form int

const (
	proxyOffer form = iota // beside the lab's DHCP server
	proxyAck               // the second answer, on port 4011
	whole                  // from us as the lab's DHCP server
)

// tell adds what the machine is to start.
func (b Boot) tell(r *dhcpv4.DHCPv4, who Machine, f form) error {
	next := b.NextServer
	// UEFI firmware asks port 4011 of this address, so there it has to be ours.
	// The second answer has the TFTP server.
	if !next.IsValid() || f == proxyOffer && who.Arch != BIOS && !who.IPXE && !who.HTTP {
		next = who.Server
	}
	r.ServerIPAddr = next.AsSlice()
	if who.HTTP {
		return b.tellHTTP(r)
	}
	if len(b.File) >= fileField || strings.IndexByte(b.File, 0) >= 0 {
		return fmt.Errorf("the name of the boot file %.40q... does not fit into an answer", b.File)
	}
	// The field and no option: shim reads nothing else, and old loaders read past
	// the end of option 67.
	r.BootFileName = b.File
	atOnce := b.Option43 == Always || b.Option43 == Auto && who.Arch == BIOS
	if atOnce {
		// PXE_DISCOVERY_CONTROL, bit 3: take the file, look for no other server
		// (Intel's PXE specification 2.1).
		r.Options[dhcpv4.OptionVendorSpecificInformation.Code()] = []byte{6, 1, 8, 255}
	}
	// In an answer with an address, this word makes UEFI firmware ask port 4011
	// although it has the file's name.
	if f != whole || atOnce {
		r.UpdateOption(dhcpv4.OptClassIdentifier(classPXE))
	}
	return b.tellPXELinux(r)
}

func (b Boot) tellHTTP(r *dhcpv4.DHCPv4) error {
	if len(b.URI) > 254 || strings.IndexByte(b.URI, 0) >= 0 {
		return fmt.Errorf("the URI %.40q... does not fit into an answer", b.URI)
	}
	r.UpdateOption(dhcpv4.OptClassIdentifier(classHTTP))
	// edk2 puts a zero after the option if it has none at its end, which damages
	// the next one.
	r.Options[dhcpv4.OptionBootfileName.Code()] = []byte(b.URI + "\x00")
	if len(b.URI) < fileField {
		r.BootFileName = b.URI
	}
	return nil
}

func (b Boot) tellPXELinux(r *dhcpv4.DHCPv4) error {
	if len(b.Config) > 255 || len(b.Prefix) > 255 {
		return errors.New("the options 209 and 210 of PXELINUX have at most 255 bytes")
	}
	if b.Prefix != "" && !strings.HasSuffix(b.Prefix, "/") {
		return fmt.Errorf("the path prefix %q of PXELINUX (option 210) has to end in a slash", b.Prefix)
	}
	if b.Config != "" {
		r.Options[209] = []byte(b.Config)
	}
	if b.Prefix != "" {
		r.Options[210] = []byte(b.Prefix)
	}
	if b.Reboot > 0 {
		r.Options[211] = binary.BigEndian.AppendUint32(nil, uint32(min(b.Reboot, 1<<31*time.Second)/time.Second))
	}
	return nil
}

// serves is false if the boot facts have nothing for this kind of machine.
func (b Boot) serves(who Machine) bool {
	if who.HTTP {
		return b.URI != ""
	}
	return b.File != ""
}

// pack makes the bytes of an answer. It is an error if the machine does not
// take so many.
func pack(r, m *dhcpv4.DHCPv4) ([]byte, error) {
	limit := leastLimit
	if n, err := dhcpv4.GetUint16(dhcpv4.OptionMaximumDHCPMessageSize, m.Options); err == nil {
		limit = min(max(limit, int(n)), mostLimit)
	}
	b := r.ToBytes()
	if len(b) > limit-headers {
		return nil, fmt.Errorf("the answer has %d bytes, and the machine takes %d; shorten what it is told", len(b), limit-headers)
	}
	return b, nil
}

package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"testbox-imaging/internal/durable"
)

// Lab is what a DHCP server of a lab needs.
//
// A machine is known by the MAC address of its card and by nothing else. Its
// firmware, its loader and its system have different client identifiers, and
// systems that were restored from one image have the same.
type Lab struct {
	Subnets []Subnet
	// Fixed returns the address that a machine always has. It must not wait, nor
	// ask the Server anything. The same is true of Reserved.
	Fixed func(Machine) (netip.Addr, bool)
	// Reserved reports whether an address is a fixed one of any machine. Such an
	// address is given to nobody else.
	Reserved func(netip.Addr) bool
	// Leases is the path of the file of leases.
	Leases string
	FS     durable.FS // nil means durable.OS
	// Beside makes it answer although there may be other DHCP servers. Then it
	// says nothing to machines that ask for an address which it did not give.
	Beside bool
}

// Subnet is a network whose machines get addresses.
type Subnet struct {
	Prefix      netip.Prefix
	First, Last netip.Addr // for machines without a fixed address; not valid if they get none
	Router      []netip.Addr
	DNS         []netip.Addr
	Domain      string
	Lease       time.Duration // 0 means DefaultLease
}

const (
	// DefaultLease is how long an address is given for.
	DefaultLease = 12 * time.Hour
	leastLease   = 2 * time.Minute

	maxRange    = 1 << 14          // addresses of all subnets for machines without a fixed one
	maxServers  = 8                // routers or DNS servers that are told
	declineTime = 10 * time.Minute // an address that somebody else uses is not given
)

func (n *Subnet) lease() time.Duration {
	if n.Lease == 0 {
		return DefaultLease
	}
	return n.Lease
}

// inRange reports whether an address is for machines without a fixed one.
func (n *Subnet) inRange(a netip.Addr) bool {
	return n.First.IsValid() && n.First.Compare(a) <= 0 && a.Compare(n.Last) <= 0
}

// special reports whether no machine may have an address of the subnet.
func (n *Subnet) special(a netip.Addr) bool {
	first := n.Prefix.Masked().Addr()
	return a == first || a == last(n.Prefix) || slices.Contains(n.Router, a) || slices.Contains(n.DNS, a)
}

func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// Check returns an error if a server with these settings would not start.
func (l *Lab) Check() error {
	if len(l.Subnets) == 0 {
		return fmt.Errorf("a DHCP server needs a subnet")
	}
	sum := 0
	for i := range l.Subnets {
		n := &l.Subnets[i]
		if !n.Prefix.Addr().Is4() || n.Prefix.Bits() < 8 || n.Prefix.Bits() > 30 {
			return fmt.Errorf("%v is no IPv4 subnet of 8 to 30 bits", n.Prefix)
		}
		if slices.ContainsFunc(l.Subnets[:i], func(o Subnet) bool { return o.Prefix.Overlaps(n.Prefix) }) {
			return fmt.Errorf("the subnet %v overlaps another one", n.Prefix)
		}
		if n.lease() < leastLease || n.lease() > 1<<31*time.Second {
			return fmt.Errorf("addresses of %v are leased for %v; give a time from %v on", n.Prefix, n.lease(), leastLease)
		}
		if len(n.Router) > maxServers || len(n.DNS) > maxServers || len(n.Domain) > 255 {
			return fmt.Errorf("the subnet %v has too many routers or DNS servers, or too long a domain", n.Prefix)
		}
		for _, a := range slices.Concat(n.Router, n.DNS) {
			if !a.Is4() {
				return fmt.Errorf("the subnet %v has the router or DNS server %v, which is no IPv4 address", n.Prefix, a)
			}
		}
		if !n.First.IsValid() && !n.Last.IsValid() {
			continue
		}
		if !n.Prefix.Contains(n.First) || !n.Prefix.Contains(n.Last) || n.Last.Less(n.First) {
			return fmt.Errorf("%v to %v is no range of the subnet %v", n.First, n.Last, n.Prefix)
		}
		if sum += int(number(n.Last)-number(n.First)) + 1; sum > maxRange {
			return fmt.Errorf("the ranges have more than %d addresses", maxRange)
		}
	}
	return nil
}

// verdict is what becomes of a request for an address.
type verdict struct {
	kind  dhcpv4.MessageType // none if there is no answer
	net   *Subnet
	addr  netip.Addr
	fixed bool  // the address does not depend on the file of leases
	keep  bool  // the answer has to wait until the lease is durable
	probe bool  // look first whether somebody uses the address
	err   error // for people
}

// lab answers as the lab's DHCP server.
func (s *Server) lab(r *request) {
	s.mu.Lock()
	if s.quiet {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	nets := s.Lab.nets(r)
	s.book.recall(&r.who)
	v := s.decide(r, nets, now)
	e := Event{Machine: r.who, Asked: name(r.kind), Err: v.err}
	if other := addrOption(r.msg, dhcpv4.OptionServerIdentifier); other.IsValid() && !s.cards.ours(other) {
		e.Chosen = other
	}
	if v.probe {
		s.probe(r, v)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if v.kind == dhcpv4.MessageTypeNone {
		s.seen(e)
		return
	}
	a, err := s.compose(r, v, &e)
	if err != nil {
		e.Err = err
		s.seen(e)
		return
	}
	if v.keep {
		s.keeper.later(kept{a, r.msg, e, v})
		return
	}
	s.finish(a, r.msg, e, v)
}

// finish sends an answer and tells of it.
func (s *Server) finish(a answer, m *dhcpv4.DHCPv4, e Event, v verdict) {
	if err := s.send(a, m); err != nil {
		e.Err, e.Boot, e.Given = err, Boot{}, false
	} else {
		e.Answer, e.Address = name(v.kind), v.addr
	}
	s.seen(e)
}

// nets are the subnets of the link that a request came from.
func (l *Lab) nets(r *request) []*Subnet {
	link := r.who.Relay
	// A relay with one address for several links names the link (RFC 3527).
	if sub := r.msg.RelayAgentInfo(); link.IsValid() && sub != nil {
		if a := sub.Get(dhcpv4.LinkSelectionSubOption); len(a) == 4 {
			link = addr(a)
		}
	}
	if !link.IsValid() && r.to.IsValid() {
		// A machine behind a relay renews without the relay.
		link = addr(r.msg.ClientIPAddr)
	}
	var nets []*Subnet
	for i := range l.Subnets {
		n := &l.Subnets[i]
		if link.IsValid() && n.Prefix.Contains(link) || !link.IsValid() && r.card.in(n.Prefix).IsValid() {
			nets = append(nets, n)
		}
	}
	return nets
}

func netOf(nets []*Subnet, a netip.Addr) *Subnet {
	for _, n := range nets {
		if a.IsValid() && n.Prefix.Contains(a) {
			return n
		}
	}
	return nil
}

// decide follows RFC 2131 section 4.3. s.mu is held.
func (s *Server) decide(r *request, nets []*Subnet, now time.Time) verdict {
	if len(nets) == 0 {
		if r.kind == dhcpv4.MessageTypeDiscover {
			return verdict{err: fmt.Errorf("no subnet of ours belongs to the link that it asks from")}
		}
		return verdict{}
	}
	me := macOf(r.msg)
	chosen := addrOption(r.msg, dhcpv4.OptionServerIdentifier)
	asked := addrOption(r.msg, dhcpv4.OptionRequestedIPAddress)
	has := addr(r.msg.ClientIPAddr)
	switch r.kind {
	case dhcpv4.MessageTypeDiscover:
		return s.offer(r, nets, me, asked, now)
	case dhcpv4.MessageTypeRequest:
		want := asked
		if !want.IsValid() {
			want = has
		}
		if chosen.IsValid() && !s.cards.ours(chosen) {
			s.book.withdraw(me)
			return verdict{}
		}
		if !want.IsValid() {
			return verdict{}
		}
		return s.request(r, nets, me, want, chosen.IsValid(), now)
	case dhcpv4.MessageTypeDecline:
		if !s.cards.ours(chosen) || !s.book.decline(me, asked, now) {
			return verdict{}
		}
		s.keeper.changed()
		return verdict{err: fmt.Errorf("another machine uses %v; find it. The address is not given for %v", asked, declineTime)}
	case dhcpv4.MessageTypeRelease:
		if s.cards.ours(chosen) && s.book.release(me, has, now) {
			s.keeper.changed()
		}
	case dhcpv4.MessageTypeInform:
		if n := netOf(nets, has); n != nil && s.oneMachine(has) {
			return verdict{kind: dhcpv4.MessageTypeAck, net: n}
		}
	}
	return verdict{}
}

// offer answers a machine that has no address.
func (s *Server) offer(r *request, nets []*Subnet, me mac, asked netip.Addr, now time.Time) verdict {
	v := s.assign(r, nets, me, now)
	if v.err == nil && !v.addr.IsValid() {
		v = s.pick(nets, me, asked, now)
	}
	if v.err != nil {
		return v
	}
	v.kind = dhcpv4.MessageTypeOffer
	if v.fixed {
		return v
	}
	if s.book.broken != nil {
		return verdict{err: s.book.broken}
	}
	if s.probing[v.addr] {
		return verdict{} // the machine is answered when that is done
	}
	v.probe = s.book.offer(v.addr, me, now) && r.canProbe(v.addr)
	return v
}

// request answers a machine that wants a certain address: the one that we
// offered, or one that it has or had.
func (s *Server) request(r *request, nets []*Subnet, me mac, want netip.Addr, selecting bool, now time.Time) verdict {
	v := s.assign(r, nets, me, now)
	if !v.addr.IsValid() && v.err == nil {
		// It may remember a lease that we lost.
		n := netOf(nets, want)
		if n != nil && s.usable(n, want) && s.book.free(want, me, now) && (selecting || !s.Lab.Beside) {
			v = verdict{net: n, addr: want}
		}
	}
	if v.err != nil || v.addr != want {
		if s.Lab.Beside && !selecting && !s.book.knows(want) {
			return verdict{err: v.err} // another server may have given it
		}
		err := v.err
		if err == nil && v.fixed {
			err = fmt.Errorf("it asks for %v, but its address is %v", want, v.addr)
		}
		return verdict{kind: dhcpv4.MessageTypeNak, net: nets[0], err: err}
	}
	if !v.fixed && s.book.broken != nil {
		return verdict{err: s.book.broken}
	}
	v.kind, v.keep = dhcpv4.MessageTypeAck, true
	if !v.fixed {
		if s.probing[v.addr] {
			return verdict{}
		}
		// An address that it holds, or that was just offered, was looked at before.
		if v.probe = s.book.offer(v.addr, me, now) && r.canProbe(v.addr); v.probe {
			return v
		}
	}
	if err := s.book.bind(v.net.Prefix, v.addr, me, r.who.UUID, now.Add(v.net.lease())); err != nil {
		return verdict{err: err}
	}
	return v
}

// assign finds the address that a machine has already: its fixed one, or its
// lease. There may be none.
func (s *Server) assign(r *request, nets []*Subnet, me mac, now time.Time) verdict {
	if a, ok := s.Lab.fixed(r.who); ok {
		n := netOf(nets, a)
		switch {
		case n == nil:
			// It stands in another network than its address.
		case n.special(a) || s.cards.ours(a):
			return verdict{fixed: true, err: fmt.Errorf("its address %v is that of a router, of a server or of the subnet itself", a)}
		default:
			if s.otherCard(r, a, me, now) {
				break
			}
			if err := s.book.taken(a, me, now); err != nil {
				return verdict{fixed: true, err: err}
			}
			return verdict{net: n, addr: a, fixed: true}
		}
	}
	for _, k := range s.book.byMAC[me] {
		n := netOf(nets, k.addr)
		if n != nil && s.usable(n, k.addr) && s.book.free(k.addr, me, now) {
			return verdict{net: n, addr: k.addr}
		}
	}
	return verdict{}
}

// otherCard reports whether another card of the same machine has the machine's fixed
// address. If the firmware asks, the machine was restarted, so what had the address
// before has ended, and the card that boots gets it.
func (s *Server) otherCard(r *request, a netip.Addr, me mac, now time.Time) bool {
	k := s.book.byAddr[a]
	if k == nil || k.offer != nil || k.mac == me || !k.held(now) {
		return false
	}
	if same, ok := s.Lab.fixed(Machine{MAC: k.mac[:], UUID: k.uuid}); !ok || same != a {
		return false
	}
	if r.who.PXE {
		k.until = now
		return false
	}
	return true
}

func (l *Lab) fixed(who Machine) (netip.Addr, bool) {
	if l.Fixed == nil {
		return netip.Addr{}, false
	}
	a, ok := l.Fixed(who)
	return a, ok && a.Is4()
}

// usable reports whether an address may be given to machines without a fixed
// one.
func (s *Server) usable(n *Subnet, a netip.Addr) bool {
	return n.inRange(a) && !n.special(a) && !s.cards.ours(a) && (s.Lab.Reserved == nil || !s.Lab.Reserved(a))
}

// pick chooses an address for a machine that has none. The place in the range
// comes from its MAC address, so that it gets the same one also if its lease
// was lost.
func (s *Server) pick(nets []*Subnet, me mac, asked netip.Addr, now time.Time) verdict {
	if n := netOf(nets, asked); n != nil && s.usable(n, asked) && s.book.free(asked, me, now) {
		return verdict{net: n, addr: asked}
	}
	ranged := false
	for _, n := range nets {
		if !n.First.IsValid() {
			continue
		}
		ranged = true
		first, size := number(n.First), number(n.Last)-number(n.First)+1
		var old *lease
		for i := range size {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], first+(me.hash()+i)%size)
			a := netip.AddrFrom4(b)
			if !s.usable(n, a) || s.book.blocked(a, now) {
				continue
			}
			k := s.book.byAddr[a]
			if k == nil {
				return verdict{net: n, addr: a}
			}
			// The longest unused one, and an offer that was not taken last of all.
			if !k.held(now) && (old == nil || k.until.Before(old.until)) {
				old = k
			}
		}
		if old != nil {
			return verdict{net: n, addr: old.addr}
		}
		if a, ok := s.book.oldestOffer(n); ok {
			return verdict{net: n, addr: a}
		}
	}
	if !ranged {
		return verdict{err: fmt.Errorf("it has no fixed address, and its subnet has no addresses for unknown machines")}
	}
	return verdict{err: fmt.Errorf("all addresses for unknown machines are in use; make the range larger")}
}

// compose makes the answer of a verdict.
func (s *Server) compose(r *request, v verdict, e *Event) (answer, error) {
	server := r.to
	if !server.IsValid() {
		if server = r.card.in(v.net.Prefix); !server.IsValid() {
			server = r.who.Server
		}
	}
	r.who.Server = server
	e.Server = server
	m := reply(r.msg, v.kind, server)
	has := addr(r.msg.ClientIPAddr)
	to := netip.AddrPortFrom(broadcast, portClient)
	if v.kind == dhcpv4.MessageTypeNak {
		// The machine may not have the address that it thinks it has.
		m.SetBroadcast()
		m.UpdateOption(dhcpv4.OptMessage("this address is not for you here"))
		a := s.way(r, to)
		a.msg = m
		return a, nil
	}
	if s.oneMachine(has) && v.net.Prefix.Contains(has) {
		to = netip.AddrPortFrom(has, portClient)
		m.ClientIPAddr = has.AsSlice()
	}
	a := s.way(r, to)
	a.msg = m
	if v.addr.IsValid() {
		m.YourIPAddr = v.addr.AsSlice()
		lease := v.net.lease()
		m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(lease))
		m.UpdateOption(dhcpv4.OptRenewTimeValue(lease / 2))
		m.UpdateOption(dhcpv4.OptRebindingTimeValue(lease / 8 * 7))
	}
	v.net.tell(m)
	if r.who.PXE {
		if v.addr.IsValid() {
			r.who.Address = v.addr
		}
		if boot, ok := s.Decide(r.who); ok && boot.serves(r.who) {
			if err := boot.tell(m, r.who, whole); err != nil {
				return a, err
			}
			e.Boot, e.Given = boot, true
		}
	}
	if r.who.IPXE {
		// Option 176 of iPXE's own: do not wait for a ProxyDHCP server.
		m.Options[175] = []byte{176, 1, 1}
	}
	return a, nil
}

// tell adds what a subnet's machines are told.
func (n *Subnet) tell(m *dhcpv4.DHCPv4) {
	m.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(n.Prefix.Bits(), 32)))
	if len(n.Router) > 0 {
		m.UpdateOption(dhcpv4.OptRouter(ips(n.Router)...))
	}
	if len(n.DNS) > 0 {
		m.UpdateOption(dhcpv4.OptDNS(ips(n.DNS)...))
	}
	if n.Domain != "" {
		m.UpdateOption(dhcpv4.OptDomainName(n.Domain))
	}
}

func ips(addrs []netip.Addr) []net.IP {
	var list []net.IP
	for _, a := range addrs {
		list = append(list, a.AsSlice())
	}
	return list
}

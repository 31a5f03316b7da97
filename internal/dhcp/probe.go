package dhcp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
)

const (
	probeWait = 400 * time.Millisecond // a machine answers ARP at once; a PXE ROM waits for seconds
	maxProbes = 64
	maxTries  = 3                // addresses for one request
	staleTime = 10 * time.Second // after it the kernel knows about an address
)

// canProbe reports whether an address can be looked at. ARP does not pass a
// router.
func (r *request) canProbe(a netip.Addr) bool { return !r.who.Relay.IsValid() && r.card.holds(a) }

// probe looks whether a machine uses an address, before it is given to another
// for the first time. It needs no rights: a datagram to the address makes the
// kernel ask by ARP, and everybody may read what it found. The request is taken
// up again later. s.mu is held.
func (s *Server) probe(r *request, v verdict) {
	if len(s.probing) >= maxProbes {
		s.book.withdraw(macOf(r.msg)) // it asks again
		return
	}
	s.probing[v.addr] = true
	s.prod(r, v.addr)
	time.AfterFunc(probeWait, func() { s.probed(r, v) })
}

// prod makes the kernel ask for an address. Port 9 takes everything and answers
// nothing (RFC 863).
func (s *Server) prod(r *request, a netip.Addr) {
	s.out([]byte{0}, netip.AddrPortFrom(a, 9), r.card.index, r.card.first(), false)
}

func (s *Server) probed(r *request, v verdict) {
	by, sure := s.neighbour(r.card.index, v.addr, macOf(r.msg))
	s.mu.Lock()
	delete(s.probing, v.addr)
	if s.quiet {
		s.mu.Unlock()
		return
	}
	if by == "" {
		s.mu.Unlock()
		s.lab(r)
		return
	}
	wait := staleTime
	if sure {
		wait = declineTime
	}
	s.book.withdraw(macOf(r.msg))
	s.book.refuse(v.addr, time.Now().Add(wait))
	s.mu.Unlock()
	if sure {
		s.trouble(fmt.Errorf("%s uses %v, and this server does not know why; find it. The address is not given for %v",
			by, v.addr, declineTime))
	}
	// A machine that wants just this address is told so.
	if r.tries++; r.tries < maxTries || r.kind == dhcpv4.MessageTypeRequest {
		s.lab(r)
	}
}

// neighbour says which other machine has an address on a link, as the kernel
// knows. It is not sure if the kernel has not heard from that machine lately.
func neighbour(index int, a netip.Addr, me mac) (by string, sure bool) {
	list, err := netlink.NeighList(index, netlink.FAMILY_V4)
	if err != nil {
		return "", false
	}
	for _, n := range list {
		if ip, ok := netip.AddrFromSlice(n.IP.To4()); !ok || ip != a || len(n.HardwareAddr) == 0 {
			continue
		}
		if len(n.HardwareAddr) == 6 && mac(n.HardwareAddr) == me {
			return "", false // it is the machine itself
		}
		switch {
		case n.State&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0:
			return n.HardwareAddr.String(), true
		case n.State&(netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0:
			return n.HardwareAddr.String(), false
		}
	}
	return "", false
}

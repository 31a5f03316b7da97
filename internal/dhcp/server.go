// Package dhcp tells booting machines where their boot files are. It does so
// beside the lab's own DHCP server, which gives the addresses (a ProxyDHCP
// server of Intel's PXE specification 2.1), or as the DHCP server of a lab that has none.
// It knows nothing of jobs and boxes.
//
// What each packet has, and why, is in docs/booting.md.
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
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/durable"
)

const (
	portServer = 67
	portClient = 68
	portBoot   = 4011
)

// Server answers. Its exported fields must not change while it serves.
type Server struct {
	// Decide says what a machine is to start, and false if it is told nothing. It
	// must not wait for anything: iPXE waits 2 seconds for an answer. It is called
	// by several goroutines, as are Seen and Trouble.
	Decide func(Machine) (Boot, bool)
	// Seen is told of every request that was heard, if it is not nil. It must not
	// wait either.
	Seen func(Event)
	// Trouble is told what an admin should know, if it is not nil.
	Trouble func(error)
	// Answers is called when requests are answered from now on, if it is not nil.
	Answers func()
	// Interfaces are the cards to serve. None means all.
	Interfaces []string
	// Lab makes this the lab's DHCP server. Without it no address is given.
	Lab *Lab

	// Tests put other functions here.
	out       func(b []byte, to netip.AddrPort, index int, from netip.Addr, boot bool) error
	neighbour func(index int, a netip.Addr, me mac) (by string, sure bool)
	lookTime  time.Duration // 0 means lookTime

	cards   cards
	main    *ipv4.PacketConn // port 67
	boot    *ipv4.PacketConn // port 4011, may be nil
	looking looking

	mu      sync.Mutex
	quiet   bool // no request is answered: other servers are looked for, or it has ended
	book    *book
	keeper  *keeper
	probing map[netip.Addr]bool
}

// request is a packet that may get an answer.
type request struct {
	msg   *dhcpv4.DHCPv4
	kind  dhcpv4.MessageType
	who   Machine
	card  card
	from  netip.AddrPort
	to    netip.Addr // the address of ours that was asked; a broadcast has none
	boot  bool       // it came to port 4011
	tries int        // addresses that turned out to be taken
}

// answer is what is sent.
type answer struct {
	msg  *dhcpv4.DHCPv4
	to   netip.AddrPort
	card int        // the card by which it goes; 0 leaves that to the routes
	from netip.Addr // our address
	boot bool       // it goes by port 4011
}

// Serve answers what comes to the two sockets until ctx ends. Then it returns
// nil. The sockets are of ports 67 and 4011, for IPv4, bound to no address. It
// does not close them. boot may be nil, which leaves out UEFI machines.
//
// A Server with a Lab first looks for other DHCP servers, which takes some
// seconds, and returns an OthersError if it finds one.
func (s *Server) Serve(ctx context.Context, main, boot *net.UDPConn) error {
	if err := s.start(main, boot); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 3)
	fail := func(err error) {
		if err != nil {
			failed <- err
			cancel()
		}
	}
	var wg sync.WaitGroup
	for _, conn := range []*net.UDPConn{main, boot} {
		if conn != nil {
			wg.Go(func() { fail(s.loop(ctx, conn, conn == boot)) })
		}
	}
	if s.Lab != nil {
		wg.Go(func() { s.keeper.run(ctx) })
		if !s.Lab.Beside {
			fail(s.alone(ctx))
		}
		s.setQuiet(ctx.Err() != nil)
	}
	if s.Answers != nil && ctx.Err() == nil {
		s.Answers()
	}
	<-ctx.Done()
	s.setQuiet(true)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (s *Server) setQuiet(quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = quiet
}

func (s *Server) start(main, boot *net.UDPConn) error {
	for _, conn := range []*net.UDPConn{main, boot} {
		if conn == nil {
			continue
		}
		pc := ipv4.NewPacketConn(conn)
		if err := pc.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
			return fmt.Errorf("DHCP needs the address and the card that a packet came to: %w", err)
		}
		if err := allowBroadcast(conn); err != nil {
			return fmt.Errorf("DHCP needs to send broadcasts: %w", err)
		}
		conn.SetReadBuffer(1 << 20)       // a room of boxes may start at once
		conn.SetReadDeadline(time.Time{}) // an earlier Serve left one behind
		s.mu.Lock()
		if conn == main {
			s.main = pc
		} else {
			s.boot = pc
		}
		s.mu.Unlock()
	}
	s.out, s.neighbour = s.write, neighbour
	if s.Lab == nil {
		s.setQuiet(false)
		return nil
	}
	return s.startLab()
}

func (s *Server) startLab() error {
	if err := s.Lab.Check(); err != nil {
		return err
	}
	if s.Lab.FS == nil {
		s.Lab.FS = durable.OS{}
	}
	book, err := s.Lab.open()
	if err != nil {
		s.trouble(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = !s.Lab.Beside
	s.book, s.keeper, s.probing = book, newKeeper(s), map[netip.Addr]bool{}
	return nil
}

// allowBroadcast is what net does for sockets of its own, but not for those
// that a service manager hands over.
func allowBroadcast(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }); e != nil {
		return e
	}
	return err
}

func (s *Server) trouble(err error) {
	if s.Trouble != nil && err != nil {
		s.Trouble(err)
	}
}

func (s *Server) seen(e Event) {
	if s.Seen != nil {
		s.Seen(e)
	}
}

// loop takes one packet after the other. So a flood costs time, but neither
// memory nor goroutines.
func (s *Server) loop(ctx context.Context, conn *net.UDPConn, boot bool) error {
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	pc := s.main
	if boot {
		pc = s.boot
	}
	buf := make([]byte, maxPacket)
	for {
		n, cm, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // for example a card that went away
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if cm == nil {
			continue
		}
		client := from.(*net.UDPAddr).AddrPort()
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		to, _ := netip.AddrFromSlice(cm.Dst)
		s.packet(buf[:n], cm.IfIndex, client, to.Unmap(), boot)
	}
}

// serves reports whether machines may be behind a card.
func (s *Server) serves(c card) bool {
	return !c.first().IsLoopback() && (len(s.Interfaces) == 0 || slices.Contains(s.Interfaces, c.name))
}

// packet takes one packet.
func (s *Server) packet(p []byte, index int, from netip.AddrPort, to netip.Addr, boot bool) {
	c, ok := s.cards.get(index)
	if !ok || !s.serves(c) {
		return
	}
	// A broadcast of ours comes back to us.
	if s.cards.ours(from.Addr()) && from.Port() != portClient {
		return
	}
	if s.looking.take(p, c, from) {
		return
	}
	m := parse(p)
	if m == nil {
		return
	}
	if relay := addr(m.GatewayIPAddr); relay.IsValid() && (s.cards.ours(relay) || !s.oneMachine(relay)) {
		return
	}
	r := &request{msg: m, kind: m.MessageType(), who: read(m), card: c, from: from, boot: boot}
	if s.cards.ours(to) {
		r.to = to
	}
	r.who.Interface = c.name
	if r.who.Server = r.to; !r.to.IsValid() {
		r.who.Server = c.first()
	}
	if !r.who.Server.IsValid() {
		s.seen(Event{Machine: r.who, Asked: name(r.kind), Err: fmt.Errorf("%s has no IPv4 address to answer from", c.name)})
		return
	}
	switch {
	case boot:
		s.second(r)
	case s.Lab == nil:
		s.first(r)
	default:
		s.lab(r)
	}
}

// first answers beside the lab's DHCP server.
func (s *Server) first(r *request) {
	e := Event{Machine: r.who, Asked: name(r.kind)}
	if r.kind == dhcpv4.MessageTypeRequest {
		e.Chosen = addrOption(r.msg, dhcpv4.OptionServerIdentifier)
	}
	if r.kind != dhcpv4.MessageTypeDiscover || !r.who.PXE {
		s.seen(e)
		return
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), portClient)
	s.proxy(r, e, dhcpv4.MessageTypeOffer, proxyOffer, s.way(r, to))
}

// second answers on port 4011, where UEFI firmware asks once more when it has
// its address.
func (s *Server) second(r *request) {
	e := Event{Machine: r.who, Asked: name(r.kind)}
	if !r.who.PXE || r.kind != dhcpv4.MessageTypeRequest && r.kind != dhcpv4.MessageTypeInform {
		s.seen(e)
		return
	}
	// The firmware listens at the port that it asked from. dnsmasq answers there
	// too.
	to := r.from
	if !s.oneMachine(to.Addr()) || to.Port() == 0 {
		to = netip.AddrPortFrom(addr(r.msg.ClientIPAddr), portClient)
	}
	a := answer{to: to, card: r.card.index, from: r.who.Server, boot: true}
	if !r.card.holds(to.Addr()) {
		a.card = 0 // it is behind a router
	}
	s.proxy(r, e, dhcpv4.MessageTypeAck, proxyAck, a)
}

// proxy answers with boot facts and without an address.
func (s *Server) proxy(r *request, e Event, kind dhcpv4.MessageType, f form, a answer) {
	if a.to.Addr() != broadcast && !s.oneMachine(a.to.Addr()) {
		s.seen(e)
		return
	}
	boot, ok := s.Decide(r.who)
	if !ok || !boot.serves(r.who) {
		s.seen(e)
		return
	}
	a.msg = reply(r.msg, kind, r.who.Server)
	if e.Err = boot.tell(a.msg, r.who, f); e.Err == nil {
		e.Err = s.send(a, r.msg)
	}
	if e.Err == nil {
		e.Answer, e.Boot, e.Given = name(kind), boot, true
	}
	s.seen(e)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// way is where an answer goes: to the relay, if there is one, else to the
// machine. A machine without an address is reached by broadcast, since a
// unicast would need rights that the server does not have.
func (s *Server) way(r *request, to netip.AddrPort) answer {
	if r.who.Relay.IsValid() {
		// The relay is asked by its port of a server, also if the machine wants a
		// broadcast (RFC 2131 section 4.1).
		return answer{to: netip.AddrPortFrom(r.who.Relay, portServer), from: r.who.Server}
	}
	a := answer{to: to, card: r.card.index, from: r.who.Server}
	if to.Addr() != broadcast && !r.card.holds(to.Addr()) {
		a.card = 0
	}
	return a
}

func (s *Server) send(a answer, m *dhcpv4.DHCPv4) error {
	b, err := pack(a.msg, m)
	if err != nil {
		return err
	}
	return s.out(b, a.to, a.card, a.from, a.boot)
}

func (s *Server) write(b []byte, to netip.AddrPort, index int, from netip.Addr, boot bool) error {
	pc := s.main
	if boot {
		pc = s.boot
	}
	_, err := pc.WriteTo(b, &ipv4.ControlMessage{IfIndex: index, Src: from.AsSlice()}, net.UDPAddrFromAddrPort(to))
	return err
}

// name is the word of a kind of message, as people know it.
func name(kind dhcpv4.MessageType) string { return strings.ToUpper(kind.String()) }

// card is a network card of ours.
type card struct {
	index int
	name  string
	addrs []netip.Prefix
}

// first is the card's address. It is not valid if it has none.
func (c card) first() netip.Addr {
	for _, p := range c.addrs {
		if !p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	if len(c.addrs) > 0 {
		return c.addrs[0].Addr()
	}
	return netip.Addr{}
}

// holds reports whether an address is in a network of the card.
func (c card) holds(a netip.Addr) bool {
	return slices.ContainsFunc(c.addrs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// in returns the address that the card has in a network.
func (c card) in(n netip.Prefix) netip.Addr {
	for _, p := range c.addrs {
		if n.Contains(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// cards knows the network cards. It looks at most once a second, so that a
// flood does not make it ask the kernel for each packet.
type cards struct {
	list func() []card // nil asks the kernel

	mu  sync.Mutex
	at  time.Time
	all []card
}

const cardsAge = time.Second

func (c *cards) now() []card {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > cardsAge {
		if c.list == nil {
			c.list = kernelCards
		}
		c.all, c.at = c.list(), time.Now()
	}
	return c.all
}

func (c *cards) get(index int) (card, bool) {
	all := c.now()
	i := slices.IndexFunc(all, func(k card) bool { return k.index == index })
	if i < 0 {
		return card{}, false
	}
	return all[i], true
}

func (c *cards) ours(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	return slices.ContainsFunc(c.now(), func(k card) bool {
		return slices.ContainsFunc(k.addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// oneMachine is false for addresses that nobody can have. A packet to one of
// them could reach many.
func (s *Server) oneMachine(a netip.Addr) bool {
	if !a.Is4() || a.IsMulticast() || a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return false
	}
	return !slices.ContainsFunc(s.cards.now(), func(k card) bool {
		return slices.ContainsFunc(k.addrs, func(p netip.Prefix) bool {
			return p.Bits() < 31 && (a == p.Masked().Addr() || a == last(p))
		})
	})
}

// kernelCards asks the kernel. Loopback interfaces are there too: their
// addresses are ours.
func kernelCards() []card {
	found, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var all []card
	for _, f := range found {
		addrs, err := f.Addrs()
		if err != nil {
			continue // it went away
		}
		k := card{index: f.Index, name: f.Name}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				bits, _ := n.Mask.Size()
				ip, _ := netip.AddrFromSlice(n.IP.To4())
				k.addrs = append(k.addrs, netip.PrefixFrom(ip, bits))
			}
		}
		all = append(all, k)
	}
	return all
}

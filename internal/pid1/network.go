package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

const (
	networkRetry = 2 * time.Second  // between two tries
	carrierWait  = 20 * time.Second // a link takes some seconds to come up, and after that we try without
)

// network brings the box's network up and returns the box's address. It tries
// again until the stall time ends it.
func (s *system) network(ctx context.Context) (netip.Addr, error) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		netlink.LinkSetUp(lo)
	}
	s.setHostName(s.cmd.Host, s.cmd.Net.Host)
	last := ""
	for {
		address, err := s.networkOnce(ctx)
		if err == nil {
			return address, nil
		}
		if err.Error() != last {
			s.say("network: %v; trying again", err)
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, ctx.Err()
		case <-time.After(networkRetry):
		}
		s.drivers.scan() // a card may have appeared late
	}
}

func (s *system) networkOnce(ctx context.Context) (netip.Addr, error) {
	link, err := s.findCard(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	if err := bringUp(ctx, link); err != nil {
		s.say("network: %v; trying without", err)
	}
	conf := s.cmd.Net
	if conf.DHCP || conf.IsZero() {
		return s.dhcp(ctx, link)
	}
	if err := setAddress(link, conf.Prefix(), conf.Gateway); err != nil {
		return netip.Addr{}, err
	}
	s.say("network: %s has %s", link.Attrs().Name, conf.Prefix())
	return conf.Address, nil
}

// findCard returns the network card to use. That is the card that booted, else
// the one that the command line names, else one that has a link. Not every card
// with a link leads to a DHCP server, so each try takes the next one.
func (s *system) findCard(ctx context.Context) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network cards: %w", err)
	}
	cards := usableCards(links)
	if s.cmd.BootIF != nil || s.cmd.Net.Device != "" {
		return chooseCard(cards, s.cmd.BootIF, s.cmd.Net)
	}
	for _, c := range cards {
		netlink.LinkSetUp(c)
	}
	for end := time.Now().Add(carrierWait); ; time.Sleep(settlePoll) {
		if up := slices.DeleteFunc(slices.Clone(cards), func(c netlink.Link) bool { return !hasCarrier(c) }); len(up) > 0 {
			s.tries++
			return up[(s.tries-1)%len(up)], nil
		}
		if len(cards) == 0 || time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.New("no network card has a link; is its driver in the maintenance system, and the cable plugged in?")
		}
	}
}

// usableCards leaves out interfaces that are not Ethernet cards of their own,
// such as lo, and the virtual functions that the kernel puts below a
// hypervisor's card.
func usableCards(links []netlink.Link) []netlink.Link {
	var cards []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback == 0 && len(a.HardwareAddr) == 6 && a.MasterIndex == 0 {
			cards = append(cards, l)
		}
	}
	return cards
}

// chooseCard finds the card that booted, or the named card if that is not
// known. The card that booted goes first, because the names depend on the order
// in which drivers were loaded.
func chooseCard(cards []netlink.Link, bootIF net.HardwareAddr, conf bootcfg.IPConfig) (netlink.Link, error) {
	var seen []string
	for _, c := range cards {
		a := c.Attrs()
		if bootIF != nil && bytes.Equal(a.HardwareAddr, bootIF) || bootIF == nil && a.Name == conf.Device {
			return c, nil
		}
		seen = append(seen, a.Name+" "+a.HardwareAddr.String())
	}
	what := "the card " + conf.Device
	if bootIF != nil {
		what = "the card that booted, " + bootIF.String() + ","
	}
	return nil, fmt.Errorf("%s is not there (seen: %s)", what, strings.Join(seen, ", "))
}

// hasCarrier reports whether the card has a link now.
func hasCarrier(l netlink.Link) bool {
	now, err := netlink.LinkByIndex(l.Attrs().Index)
	return err == nil && now.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// bringUp switches the card on and waits for its link.
func bringUp(ctx context.Context, l netlink.Link) error {
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("cannot switch %s on: %w", l.Attrs().Name, err)
	}
	for end := time.Now().Add(carrierWait); !hasCarrier(l); time.Sleep(settlePoll) {
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%s has no link", l.Attrs().Name)
		}
	}
	return nil
}

// setAddress gives the card its address and, if there is one, its gateway.
func setAddress(l netlink.Link, p netip.Prefix, gateway netip.Addr) error {
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("cannot give %s the address %s: %w", l.Attrs().Name, p, err)
	}
	if !gateway.IsValid() || gateway.IsUnspecified() {
		return nil
	}
	return addRoute(l, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)
}

// addRoute sends traffic for p through the gateway, or straight onto the link
// if the gateway is 0.0.0.0. The gateway may be outside of the card's network.
// It is then reached on the link.
func addRoute(l netlink.Link, p netip.Prefix, gateway netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
	if gateway.IsUnspecified() {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Gw, r.Flags = gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("cannot route %s through %s: %w", p, gateway, err)
	}
	return nil
}

// setHostName sets the first of the names that is not empty or "(none)".
func (s *system) setHostName(names ...string) {
	for _, n := range names {
		if n != "" && n != "(none)" {
			unix.Sethostname([]byte(n))
			return
		}
	}
}

// resolvConf makes the text of resolv.conf, for programs that look up names,
// and for people.
func resolvConf(servers []net.IP, domains []string) []byte {
	var b bytes.Buffer
	for _, d := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if len(domains) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(domains, " "))
	}
	return b.Bytes()
}

func writeResolvConf(etc string, text []byte) error {
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(etc, "resolv.conf"), text, 0o644)
}

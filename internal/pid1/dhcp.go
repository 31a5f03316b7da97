package pid1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"testbox-imaging/internal/box"
)

const (
	dhcpTimeout = 2 * time.Second // for the first answer, doubled at each of dhcpTries
	dhcpTries   = 4
	minMTU      = 1280 // bytes; less makes no sense in an offer
	maxMTU      = 9216
	minRenew    = time.Minute
)

// offer is the part of a DHCP server's answer that we use.
type offer struct {
	prefix  netip.Prefix
	routes  []route
	dns     []net.IP
	domains []string
	host    string // "" if not given
	mtu     int    // 0 if not given
	renew   time.Duration
}

type route struct {
	to      netip.Prefix
	gateway netip.Addr // 0.0.0.0 if to is reached on the link itself
}

// dhcp asks for an address for the card, sets the card up with it, and keeps
// the lease renewed.
func (s *system) dhcp(ctx context.Context, l netlink.Link) (netip.Addr, error) {
	name := l.Attrs().Name
	client, err := nclient4.New(name, nclient4.WithTimeout(dhcpTimeout), nclient4.WithRetry(dhcpTries))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot ask for an address on %s: %w", name, err)
	}
	lease, err := client.Request(ctx, s.dhcpWishes()...)
	var o *offer
	if err == nil {
		o, err = readOffer(lease.ACK)
	}
	if err == nil {
		err = s.useOffer(l, o)
	}
	if err != nil {
		client.Close()
		return netip.Addr{}, fmt.Errorf("DHCP on %s: %w", name, err)
	}
	s.say("network: %s has %s by DHCP", name, o.prefix)
	go s.renew(ctx, client, lease, o)
	return o.prefix.Addr(), nil
}

// dhcpWishes asks for the address that was armed. The loader's DHCP client
// identifies itself in another way than ours, so the server may not know that
// this is the same box.
func (s *system) dhcpWishes() []dhcpv4.Modifier {
	wishes := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.OptionInterfaceMTU, dhcpv4.OptionHostName,
		dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute)}
	if !s.cmd.Address.IsZero() {
		wishes = append(wishes, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(s.cmd.Address.IP().AsSlice())))
	}
	return wishes
}

// readOffer reads what we use from a server's answer. The answer is not
// trusted.
func readOffer(ack *dhcpv4.DHCPv4) (*offer, error) {
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || ip.IsUnspecified() {
		return nil, errors.New("the server gave no address")
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		return nil, fmt.Errorf("the server gave %s the netmask %v", ip, net.IP(mask))
	}
	o := &offer{prefix: netip.PrefixFrom(ip, bits), dns: ack.DNS(), routes: offeredRoutes(ack)}
	if o.host = ack.HostName(); !box.ValidHost(o.host) {
		o.host = ""
	}
	for _, d := range offeredDomains(ack) {
		if box.ValidHost(d) {
			o.domains = append(o.domains, d)
		}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= minMTU && mtu <= maxMTU {
		o.mtu = int(mtu)
	}
	if o.renew = ack.IPAddressRenewalTime(0); o.renew == 0 {
		o.renew = ack.IPAddressLeaseTime(0) / 2
	}
	return o, nil
}

// offeredRoutes returns the classless routes. Only if there are none, it uses
// the router option, as RFC 3442 demands.
func offeredRoutes(ack *dhcpv4.DHCPv4) []route {
	var routes []route
	for _, r := range ack.ClasslessStaticRoute() {
		to, ok1 := netip.AddrFromSlice(r.Dest.IP.To4())
		gateway, ok2 := netip.AddrFromSlice(r.Router.To4())
		if bits, size := r.Dest.Mask.Size(); ok1 && ok2 && size == 32 {
			routes = append(routes, route{netip.PrefixFrom(to, bits), gateway})
		}
	}
	if routers := ack.Router(); len(routes) == 0 && len(routers) > 0 {
		if gateway, ok := netip.AddrFromSlice(routers[0].To4()); ok && !gateway.IsUnspecified() {
			routes = append(routes, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway})
		}
	}
	return routes
}

func offeredDomains(ack *dhcpv4.DHCPv4) []string {
	if list := ack.DomainSearch(); list != nil && len(list.Labels) > 0 {
		return list.Labels
	}
	return []string{ack.DomainName()}
}

// useOffer sets the card up as the server says.
func (s *system) useOffer(l netlink.Link, o *offer) error {
	if o.mtu != 0 {
		if err := netlink.LinkSetMTU(l, o.mtu); err != nil {
			s.say("network: cannot set the MTU of %s to %d: %v", l.Attrs().Name, o.mtu, err)
		}
	}
	if err := setAddress(l, o.prefix, netip.Addr{}); err != nil {
		return err
	}
	for _, r := range o.routes {
		if err := addRoute(l, r.to, r.gateway); err != nil {
			s.say("network: %v", err)
		}
	}
	s.setHostName(s.cmd.Host, s.cmd.Net.Host, o.host)
	s.resolv = resolvConf(o.dns, o.domains)
	return nil
}

// renew keeps the lease renewed. If the server does not renew it, the box keeps
// the address all the same, because without an address the action would surely
// fail.
func (s *system) renew(ctx context.Context, client *nclient4.Client, lease *nclient4.Lease, o *offer) {
	defer client.Close()
	for o.renew > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(o.renew, minRenew)):
		}
		fresh, err := client.Renew(ctx, lease)
		if err != nil {
			s.say("network: the lease of %s was not renewed: %v", o.prefix, err)
			o.renew = max(o.renew/2, minRenew)
			continue
		}
		lease = fresh
		if again, err := readOffer(fresh.ACK); err == nil {
			o.renew = again.renew
		}
	}
}

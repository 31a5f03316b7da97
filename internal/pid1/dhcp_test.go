package pid1

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"testbox-imaging/internal/bootcfg"
)

func ack(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 40, 41, 42)),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReadOffer(t *testing.T) {
	o, err := readOffer(ack(t,
		dhcpv4.WithNetmask(net.CIDRMask(22, 32)), dhcpv4.WithRouter(net.IPv4(10, 40, 40, 1)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 53)),
		dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptHostName("box42")),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28})))
	if err != nil {
		t.Fatal(err)
	}
	if o.prefix != netip.MustParsePrefix("10.40.41.42/22") || o.host != "box42" || o.mtu != 9000 || o.renew != 30*time.Minute ||
		len(o.dns) != 1 {
		t.Errorf("%+v", o)
	}
	if !slices.Equal(o.routes, []route{{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.40.40.1")}}) {
		t.Errorf("%+v", o.routes)
	}
}

func TestReadOfferClasslessRoutes(t *testing.T) {
	_, dst, _ := net.ParseCIDR("10.99.0.0/16")
	o, err := readOffer(ack(t, dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(10, 40, 41, 1)),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: dst, Router: net.IPv4(10, 40, 41, 9)}))))
	if err != nil || !slices.Equal(o.routes, []route{{netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.40.41.9")}}) {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestReadOfferRefuses(t *testing.T) {
	for name, m := range map[string]*dhcpv4.DHCPv4{
		"no address": ack(t, dhcpv4.WithYourIP(net.IPv4zero)),
		"bad mask":   ack(t, dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})),
		"no mask":    ack(t, dhcpv4.WithNetmask(net.IPMask{0, 0, 0, 0})),
	} {
		if o, err := readOffer(m); err == nil {
			t.Errorf("%s gave %+v", name, o)
		}
	}
	o, err := readOffer(ack(t, dhcpv4.WithOption(dhcpv4.OptHostName("../x y")), dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 1})))
	if err != nil || o.host != "" || o.mtu != 0 || o.prefix.Bits() != 8 {
		t.Errorf("%+v, %v", o, err)
	}
}

func FuzzReadOffer(f *testing.F) {
	f.Add(ack(f, dhcpv4.WithNetmask(net.CIDRMask(22, 32)), dhcpv4.WithRouter(net.IPv4(10, 40, 40, 1))).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{33, 1, 2, 3, 4, 5})).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionDNSDomainSearchList, []byte{3, 'a', 'b', 'c', 0xc0, 0})).ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		o, err := readOffer(m)
		if err != nil {
			return
		}
		if !o.prefix.IsValid() || !o.prefix.Addr().Is4() || o.prefix.Bits() == 0 || o.mtu != 0 && o.mtu < minMTU || o.renew < 0 {
			t.Fatalf("%+v", o)
		}
		for _, r := range o.routes {
			if !r.to.IsValid() || !r.gateway.IsValid() {
				t.Fatalf("route %+v", r)
			}
		}
	})
}

func card(name, mac string, master int) netlink.Link {
	hw, _ := net.ParseMAC(mac)
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hw, MasterIndex: master}}
}

func TestChooseCard(t *testing.T) {
	boot, _ := net.ParseMAC("52:54:00:00:00:02")
	cards := usableCards([]netlink.Link{
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Flags: net.FlagLoopback, HardwareAddr: make(net.HardwareAddr, 6)}},
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "ib0", HardwareAddr: make(net.HardwareAddr, 20)}},
		card("eth2", "52:54:00:00:00:02", 7), // a virtual function below eth1
		card("eth0", "52:54:00:00:00:01", 0), card("eth1", "52:54:00:00:00:02", 0),
	})
	if len(cards) != 2 {
		t.Fatalf("%d cards", len(cards))
	}
	for _, c := range []struct {
		boot   net.HardwareAddr
		device string
		want   string
	}{{boot, "eth0", "eth1"}, {nil, "eth0", "eth0"}, {nil, "eth7", ""}, {net.HardwareAddr{1, 2, 3, 4, 5, 6}, "eth0", ""}} {
		got, err := chooseCard(cards, c.boot, bootcfg.IPConfig{Device: c.device})
		if (c.want == "") != (err != nil) || err == nil && got.Attrs().Name != c.want {
			t.Errorf("%+v gave %v, %v", c, got, err)
		}
	}
}

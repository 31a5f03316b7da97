package server

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/dhcp"
)

// The values of DHCP.Mode.
const (
	dhcpOff   = ""
	dhcpProxy = "proxy"
	dhcpFull  = "full"
)

// DHCP is how boxes that start are told where their boot files are.
type DHCP struct {
	Mode       string   `toml:"mode"`       // dhcpOff, dhcpProxy or dhcpFull
	Interfaces []string `toml:"interfaces"` // network cards that are served; none means all
	Beside     bool     `toml:"beside"`     // dhcpFull answers although there is another DHCP server
	Lease      Duration `toml:"lease"`      // how long dhcpFull gives an address for
	Subnets    []Subnet `toml:"subnets"`    // in which dhcpFull gives addresses
}

// Subnet is a network in which our DHCP server gives addresses.
type Subnet struct {
	Network string   `toml:"network"` // "10.42.1.0/24"
	Range   string   `toml:"range"`   // "10.42.1.100-10.42.1.199", for machines that are no boxes; "" gives them none
	Routers []string `toml:"routers"`
	DNS     []string `toml:"dns"`
}

// tidy makes lists without entries nil.
func (d *DHCP) tidy() {
	lists := []*[]string{&d.Interfaces}
	for i := range d.Subnets {
		lists = append(lists, &d.Subnets[i].Routers, &d.Subnets[i].DNS)
	}
	for _, l := range lists {
		if len(*l) == 0 {
			*l = nil
		}
	}
	if len(d.Subnets) == 0 {
		d.Subnets = nil
	}
}

// validCard matches what the kernel takes as the name of a network card.
var validCard = regexp.MustCompile(`^[!-.0-~]{1,15}$`)

const maxCards = 64

func (d *DHCP) check(tftp bool) error {
	switch {
	case d.Mode != dhcpOff && d.Mode != dhcpProxy && d.Mode != dhcpFull:
		return fmt.Errorf(`dhcp.mode is not "proxy", not "full", and not empty`)
	case d.Mode != dhcpOff && !tftp:
		return fmt.Errorf(`dhcp.mode is %q, and tftp is empty: boxes would be sent to a TFTP server that is not there`, d.Mode)
	case len(d.Interfaces) > maxCards:
		return fmt.Errorf("dhcp.interfaces has more than %d network cards", maxCards)
	case d.Mode == dhcpFull && len(d.Subnets) == 0:
		return fmt.Errorf(`dhcp.mode is "full", and there are no [[dhcp.subnets]] in which addresses could be given`)
	}
	for _, name := range d.Interfaces {
		if !validCard.MatchString(name) {
			return fmt.Errorf("dhcp.interfaces: %.40q is no name of a network card, such as eth0", name)
		}
	}
	subnets, err := d.subnets()
	if err == nil && len(subnets) > 0 {
		err = (&dhcp.Lab{Subnets: subnets}).Check()
	}
	if err != nil {
		return fmt.Errorf("dhcp.subnets: %w", err)
	}
	if !within(d.Lease, 2*time.Minute, 365*24*time.Hour) {
		return fmt.Errorf("dhcp.lease is not between 2m and 8760h")
	}
	return nil
}

func (d *DHCP) subnets() (all []dhcp.Subnet, err error) {
	for _, s := range d.Subnets {
		n := dhcp.Subnet{Lease: time.Duration(d.Lease)}
		if n.Prefix, err = netip.ParsePrefix(s.Network); err != nil || n.Prefix != n.Prefix.Masked() {
			return nil, fmt.Errorf("the network %.40q is none like 10.42.1.0/24", s.Network)
		}
		if s.Range != "" {
			first, last, _ := strings.Cut(s.Range, "-")
			if n.First, err = addr4(first); err == nil {
				n.Last, err = addr4(last)
			}
			if err != nil {
				return nil, fmt.Errorf("the range %.40q is none like 10.42.1.100-10.42.1.199", s.Range)
			}
		}
		if n.Router, err = addrs4(s.Routers); err == nil {
			n.DNS, err = addrs4(s.DNS)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Prefix, err)
		}
		all = append(all, n)
	}
	return all, nil
}

func addr4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil || !a.Is4() {
		return a, fmt.Errorf("%.40q is no IPv4 address", s)
	}
	return a, nil
}

func addrs4(list []string) (all []netip.Addr, err error) {
	for _, s := range list {
		a, err := addr4(s)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// text writes the part of the configuration file.
func (d *DHCP) text(b *bytes.Buffer, line func(key string, v any, help string), text func(any) string) {
	b.WriteString("[dhcp]\n")
	line("mode", d.Mode, "Who tells boxes where their boot files are: \"\" for your DHCP server, \"proxy\" for this server beside\n"+
		"# yours, which goes on giving the addresses, \"full\" for this server as the only DHCP server of a lab.")
	line("interfaces", d.Interfaces, "The network cards at which it answers; [] for all.")
	line("beside", d.Beside, "Whether \"full\" answers although there is another DHCP server.")
	line("lease", d.Lease, "How long \"full\" gives an address for.")
	if len(d.Subnets) == 0 {
		b.WriteString(`# Where "full" gives addresses. A box gets the address under which it is in the list of boxes, and
# other machines one of the range.
# [[dhcp.subnets]]
# network = "10.42.1.0/24"
# range = "10.42.1.100-10.42.1.199"
# routers = ["10.42.1.1"]
# dns = ["10.42.1.1"]

`)
	}
	for _, s := range d.Subnets {
		fmt.Fprintf(b, "[[dhcp.subnets]]\nnetwork = %s\nrange = %s\nrouters = %s\ndns = %s\n\n",
			text(s.Network), text(s.Range), text(s.Routers), text(s.DNS))
	}
}

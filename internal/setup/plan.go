package setup

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/server"
)

// Wish is what an admin wants otherwise than Make would choose.
type Wish struct {
	Address string // "" leaves it to Make
	Card    string
	State   string // the state folder; "" is the usual one
	DHCP    string // "proxy", "full", "none", or "" for what Make finds best
}

// Given is what is there already and was perhaps changed by hand.
type Given struct {
	Config *server.Config // nil if there is no file
	File   string
	Server netip.Addr // of the site file; not valid if there is none
	Runs   bool       // a server answers
}

// Plan says how the server is to be set up.
type Plan struct {
	Address Address
	Config  server.Config // as it is, or is to be written
	New     bool          // Config is to be written
	Named   bool          // another DHCP server sends boxes to this machine
	Notes   []Note
}

// Kind says what a Note means.
type Kind string

// The kinds of notes.
const (
	Chosen Kind = "chosen"  // Make has chosen something
	Right  Kind = "so"      // it is so already
	Hint   Kind = "hint"    // perhaps something is wrong
	Wrong  Kind = "MISSING" // the server will not work as it should
)

// Note is something that the admin should know.
type Note struct {
	Kind Kind
	What string
	Text string
	Else string // how to choose otherwise
}

func (p *Plan) note(k Kind, what, other, format string, args ...any) {
	p.Notes = append(p.Notes, Note{k, what, fmt.Sprintf(format, args...), other})
}

// Make decides. An error says that it cannot, and what the admin is to say.
func Make(f *Facts, w Wish, g Given) (*Plan, error) {
	p := &Plan{New: g.Config == nil}
	if g.Config != nil {
		p.Config = *g.Config
	} else {
		p.Config = server.DefaultConfig()
		if w.State != "" {
			p.Config.State = w.State
		}
	}
	why, err := p.choose(f, w, g)
	if err != nil {
		return nil, err
	}
	kind := Chosen
	if g.Server.IsValid() {
		kind = Right
	}
	p.note(kind, "address", "--address IP or --interface CARD, at the first time", "%v of the card %s, in the network %v. %s",
		p.Address.Prefix.Addr(), p.Address.Card, p.Address.Prefix.Masked(), why)
	if p.Address.Dynamic {
		p.note(Hint, "address", "", "It came by DHCP and may change. Have the DHCP server reserve it, or make it a fixed one, "+
			"since boxes are told this address.")
	}
	if !p.Address.Link {
		p.note(Hint, "address", "", "The card %s has no link. Is its cable in?", p.Address.Card)
	}
	if p.Address.Prefix.Bits() > 30 {
		p.note(Hint, "address", "", "The network %v has no room for boxes. Is its mask right?", p.Address.Prefix.Masked())
	}
	p.room(f)
	if y := f.Now.Year(); y < 2025 {
		p.note(Wrong, "time", "", "The clock of this machine says the year %d. Set it, since armings and tokens end by it.", y)
	}
	if len(f.Missing) > 0 {
		p.note(Wrong, "packages", "", "Needed files are not there. Run: apt-get install %s", strings.Join(f.Missing, " "))
	}
	if !g.Runs {
		p.ports(f)
	}
	if err := p.chooseDHCP(f, w, g); err != nil {
		return nil, err
	}
	if f.Firewall != "" {
		p.note(Hint, "firewall", "", "It may be in the way, since %s. Boxes must reach %s of this machine.", f.Firewall, p.boxPorts())
	}
	return p, server.CheckConfig(&p.Config)
}

func (p *Plan) boxPorts() string {
	text := "UDP 69 and TCP 80 and 8444, and admins TCP 8443,"
	if p.Config.DHCP.Mode != "" {
		text = "UDP 67, 69 and 4011 and TCP 80 and 8444, and admins TCP 8443,"
	}
	return text
}

// inner matches cards that containers, virtual machines and tunnels of this machine have.
var inner = regexp.MustCompile(`^(docker|virbr|br-[0-9a-f]{12}|veth|lxc|lxdbr|cni|flannel|cali|tun|tap|wg|podman|vmnet|vboxnet|incusbr)`)

// choose finds the address by which boxes reach this machine.
func (p *Plan) choose(f *Facts, w Wish, g Given) (why string, err error) {
	if g.Server.IsValid() {
		if w.Address != "" && w.Address != g.Server.String() {
			return "", problem.Wrongf("site.conf says server = %v, and --address says %.40s; change the file or leave --address out",
				g.Server, w.Address)
		}
		i := slices.IndexFunc(f.Addresses, func(a Address) bool { return a.Prefix.Addr() == g.Server })
		if i < 0 {
			return "", problem.Wrongf("site.conf says that boxes reach this machine at %v, and no card has that address; "+
				"give it to a card, or change `server` in site.conf. This machine has: %s", g.Server, list(f.Addresses))
		}
		if p.Address = f.Addresses[i]; w.Card != "" && w.Card != p.Address.Card {
			return "", problem.Wrongf("site.conf says server = %v, which the card %s has, and --interface says %.40q; change the file or leave "+
				"--interface out", g.Server, p.Address.Card, w.Card)
		}
		return "The file site.conf says so.", nil
	}
	all := f.Addresses
	if w.Card != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(a Address) bool { return a.Card != w.Card })
		if len(all) == 0 {
			return "", problem.Wrongf("--interface: the card %.40q is not up, or has no IPv4 address. This machine has: %s", w.Card,
				list(f.Addresses))
		}
	}
	if w.Address != "" {
		i := slices.IndexFunc(all, func(a Address) bool { return a.Prefix.Addr().String() == w.Address })
		if i < 0 {
			return "", problem.Wrongf("--address: no card has the address %.40q. This machine has: %s", w.Address, list(f.Addresses))
		}
		p.Address = all[i]
		return "You chose it.", nil
	}
	if len(all) == 0 {
		text := "no network card is up and has an IPv4 address"
		if f.IPv6 {
			text += ", only addresses of IPv6. Boxes start by IPv4"
		}
		idle := "there is no card but the loopback"
		if len(f.Idle) > 0 {
			idle = strings.Join(f.Idle, ", ")
		}
		return "", problem.Wrongf("%s (%s); give the card in the boxes' network one in the configuration of this machine's network. "+
			"Until then: ip link set CARD up; ip addr add 10.40.0.1/24 dev CARD", text, idle)
	}
	for _, rule := range []struct {
		keep func(Address) bool
		why  string
	}{
		{func(Address) bool { return true }, "It is the only one."},
		{func(a Address) bool {
			return w.Card != "" || !inner.MatchString(a.Card) && a.Kind != "veth" || len(f.Addresses) == 1
		},
			"The other cards belong to containers, virtual machines or tunnels of this machine."},
		{func(a Address) bool { return a.Link }, "The other cards have no link."},
		{func(a Address) bool { return named(f.DHCP, a) }, "A DHCP server names it as the boot server."},
		{func(a Address) bool { return !a.Dynamic }, "The others came by DHCP, and a server needs one that stays."},
	} {
		left := slices.DeleteFunc(slices.Clone(all), func(a Address) bool { return !rule.keep(a) })
		if len(left) == 1 {
			p.Address = left[0]
			return rule.why, nil
		}
		if len(left) > 0 {
			all = left
		}
	}
	var lines []string
	for _, a := range all {
		lines = append(lines, fmt.Sprintf("  testbox setup --address %v    # card %s, network %v", a.Prefix.Addr(), a.Card,
			a.Prefix.Masked()))
	}
	return "", problem.Wrongf("boxes could reach this machine by several addresses, and nothing tells which; type one of these:\n%s",
		strings.Join(lines, "\n"))
}

func list(all []Address) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, fmt.Sprintf("%v on %s", a.Prefix.Addr(), a.Card))
	}
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

// named reports whether a DHCP server names an address as the boot server, to machines of BIOS that ask on its card.
func named(found []dhcp.Found, a Address) bool {
	return slices.ContainsFunc(found, func(o dhcp.Found) bool {
		return o.Interface == a.Card && o.Names(dhcp.Want{Server: a.Prefix.Addr(), Loaders: bootcfg.BIOSLoaders})
	})
}

func (p *Plan) room(f *Facts) {
	const gib = 1 << 30
	text := fmt.Sprintf("%s, on a file system %s with %d GiB free.", p.Config.State, f.FileSystem, f.Free/gib)
	kind, other := Chosen, "--state FOLDER, at the first time"
	if !p.New {
		kind = Right
	}
	switch {
	case f.Free < gib:
		kind, text = Wrong, text+" That is too little to work with. Make room, or choose another folder."
	case f.FileSystem == "tmpfs" || f.FileSystem == "ramfs":
		kind, text = Wrong, text+" All backups would be lost when this machine restarts."
	}
	p.note(kind, "state", other, "%s", text)
	if f.Free >= gib && f.Free < 20*gib {
		p.note(Hint, "state", "", "A first backup of a box often needs more room than that.")
	}
	if slices.Contains([]string{"nfs", "cifs", "vfat", "fuse", "overlay"}, f.FileSystem) {
		p.note(Hint, "state", "", "A local file system such as ext4 or xfs is better for it.")
	}
}

// has is the program that has a port which this machine's server needs.
func has(busy []Busy, proto, at string) *Busy {
	i := strings.LastIndexByte(at, ':')
	for _, b := range busy {
		mine, _ := netip.ParseAddr(at[:max(i, 0)])
		same := !mine.IsValid() || mine.IsUnspecified() || b.At.Addr().IsUnspecified() || mine == b.At.Addr()
		// systemd keeps the sockets of our own units.
		if b.Proto == proto && same && fmt.Sprint(b.At.Port()) == at[i+1:] && b.PID != 1 {
			return &b
		}
	}
	return nil
}

func (p *Plan) ports(f *Facts) {
	c, wrong := &p.Config, false
	for _, n := range []struct{ proto, key, at, other string }{
		{"tcp", "agents", c.Agents, ""}, {"tcp", "api", c.API, ""},
		{"udp", "tftp", c.TFTP, " Or, if that program is to give boot files out, set tftp = \"\" in the configuration."},
	} {
		if b := has(f.Busy, n.proto, n.at); n.at != "" && b != nil {
			wrong = true
			port := n.at[strings.LastIndexByte(n.at, ':')+1:]
			p.note(Wrong, "port "+port, "", "%s port %s is in use by %s, and the server needs it (%s). Stop that program.%s",
				strings.ToUpper(n.proto), port, b, n.key, n.other)
		}
	}
	if b := has(f.Busy, "tcp", c.HTTP); c.HTTP != "" && b != nil {
		const other = ":8080"
		if p.New && has(f.Busy, "tcp", other) == nil {
			c.HTTP = other
			p.note(Chosen, "port", "http in the configuration",
				"Boxes get files by HTTP at TCP port 8080, since port 80 is in use by %s.", b)
		} else {
			p.note(Hint, "port", "", "TCP port %s is in use by %s. All but a rescue works without; give http another port in the configuration.",
				c.HTTP[strings.LastIndexByte(c.HTTP, ':')+1:], b)
		}
	}
	if !wrong {
		p.note(Right, "ports", "", "No other program has a port that the server cannot do without.")
	}
}

// chooseDHCP decides who tells boxes their boot server.
func (p *Plan) chooseDHCP(f *Facts, w Wish, g Given) error {
	c := &p.Config.DHCP
	if w.DHCP != "" && w.DHCP != "proxy" && w.DHCP != "full" && w.DHCP != "none" {
		return problem.Wrongf("--dhcp %.40q is not proxy, not full and not none", w.DHCP)
	}
	if !p.New {
		if is := map[string]string{"": "none"}[c.Mode] + c.Mode; w.DHCP != "" && w.DHCP != is {
			return problem.Wrongf("%s says that the DHCP mode is %q, and --dhcp says %s; change the file or leave --dhcp out", g.File,
				c.Mode, w.DHCP)
		}
		p.note(Right, "DHCP", "", "The mode is %q, as %s says.", c.Mode, g.File)
		if c.Mode == "" {
			p.heard(f)
		}
		return nil
	}
	const other = "--dhcp proxy, --dhcp full or --dhcp none"
	gives, boots := p.others(f)
	p.Named = named(f.DHCP, p.Address)
	local := has(f.Busy, "udp", ":67")
	mode := w.DHCP
	switch {
	case mode == "full" && len(gives) > 0:
		return problem.Refusef("--dhcp full: the DHCP server %s gives addresses in this network. "+
			"Two servers would give one address to two machines. "+
			"Use --dhcp proxy, or stop that one", strings.Join(gives, ", "))
	case mode != "":
		p.note(Chosen, "DHCP", other, "The mode is %s. You chose it.", mode)
	case p.Named:
		mode = "none"
		p.note(Chosen, "DHCP", other, "The DHCP server %s names this machine as the boot server already, so ours stays off.",
			strings.Join(boots, ", "))
	case local != nil:
		mode = "none"
		p.note(Chosen, "DHCP", other, "%s on this machine has the port of DHCP, so ours stays off. "+
			"That one has to name this machine; see the end.", local)
	case len(boots) > 0:
		mode = "none"
		p.note(Hint, "DHCP", other, "The server %s sends machines that start to another boot server. "+
			"Ours stays off, so that the two do not compete. "+
			"Change that one; see the end.", strings.Join(boots, ", "))
	case f.NoDHCP != nil:
		mode = "none"
		p.note(Hint, "DHCP", other, "Other DHCP servers could not be looked for: %v. Ours stays off.", f.NoDHCP)
	case len(gives) > 0:
		mode = "proxy"
		p.note(Chosen, "DHCP", other, "The DHCP server %s gives the addresses and names no boot server. "+
			"So our server adds that (ProxyDHCP).",
			strings.Join(gives, ", "))
	default:
		mode = "none"
		p.note(Hint, "DHCP", other, "No DHCP server was heard. There is none, or it answers only machines that it knows. "+
			"Ours stays off. If this network has none, --dhcp full makes ours give the addresses.")
	}
	if mode == "none" {
		return nil
	}
	c.Mode, c.Interfaces = mode, []string{p.Address.Card}
	if mode == "full" {
		s, err := subnet(p.Address.Prefix, f.Gateway)
		if err != nil {
			return err
		}
		c.Subnets = []server.Subnet{s}
		p.note(Chosen, "DHCP", "[[dhcp.subnets]] in the configuration", "Machines that are no boxes get the addresses %s.", s.Range)
	}
	return nil
}

// others are the DHCP servers that give addresses to the boxes' network, and those that name
// what to start.
func (p *Plan) others(f *Facts) (gives, boots []string) {
	for _, o := range f.DHCP {
		if o.Interface != p.Address.Card {
			continue
		}
		if o.Address.IsValid() {
			gives = add(gives, o.Server.String())
		}
		if o.Boots() {
			boots = add(boots, o.Server.String())
		}
	}
	return gives, boots
}

// heard says whether another DHCP server sends boxes to this machine, where ours is off.
func (p *Plan) heard(f *Facts) {
	gives, boots := p.others(f)
	p.Named = named(f.DHCP, p.Address)
	switch {
	case p.Named:
		p.note(Right, "DHCP", "", "The DHCP server %s names this machine as the boot server.", strings.Join(boots, ", "))
	case f.NoDHCP != nil:
		p.note(Hint, "DHCP", "", "Nobody knows whether another DHCP server names this machine: %v.", f.NoDHCP)
	case len(boots) > 0:
		p.note(Hint, "DHCP", "", "The server %s sends machines that start to another boot server. Change that one; see the end.",
			strings.Join(boots, ", "))
	case len(gives) > 0:
		p.note(Hint, "DHCP", "", "The DHCP server %s names no boot server. Change that one, as the end says, or set the mode to \"proxy\".",
			strings.Join(gives, ", "))
	default:
		p.note(Hint, "DHCP", "", "No DHCP server was heard. There is none, or it answers only machines that it knows.")
	}
}

func add(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// subnet chooses a range of at most 100 addresses in the half of the network where this
// machine is not.
func subnet(p netip.Prefix, gateway netip.Addr) (server.Subnet, error) {
	if p.Bits() < 8 || p.Bits() > 28 {
		return server.Subnet{}, problem.Wrongf("--dhcp full: the network %v is not of 8 to 28 bits, in which a range could be chosen", p.Masked())
	}
	b := p.Masked().Addr().As4()
	first, size := binary.BigEndian.Uint32(b[:]), uint32(1)<<(32-p.Bits())
	at := func(n uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], n)
		return netip.AddrFrom4(b)
	}
	from, to := first+size/2, first+size-2
	if a := p.Addr(); !a.Less(at(from)) {
		from, to = first+1, first+size/2-1
	}
	if to-from > 99 {
		to = from + 99
	}
	s := server.Subnet{Network: p.Masked().String(), Range: fmt.Sprintf("%v-%v", at(from), at(to))}
	if gateway.IsValid() && p.Contains(gateway) {
		s.Routers = []string{gateway.String()}
		if !gateway.Less(at(from)) && !at(to).Less(gateway) {
			return s, problem.Wrongf("--dhcp full: the router %v is where the range would be; "+
				"use --dhcp none, and write the part [dhcp] by hand", gateway)
		}
	}
	return s, nil
}

// DHCPLines are what to set in the DHCP server of a lab, if ours does not tell boxes their boot server.
func (p *Plan) DHCPLines() string {
	a := p.Address.Prefix.Addr()
	return fmt.Sprintf(`In the DHCP server of this network, set one of these:
  dnsmasq      dhcp-boot=pxelinux.0,,%[1]v
  ISC dhcpd    next-server %[1]v; filename "pxelinux.0";
  Kea          "next-server": "%[1]v", "boot-file-name": "pxelinux.0"
  Windows      option 066 (Boot Server Host Name) %[1]v, option 067 (Bootfile Name) pxelinux.0
  MikroTik     next-server=%[1]v boot-file-name=pxelinux.0, at /ip dhcp-server network
UEFI machines need shimx64.efi in place of pxelinux.0, for client architectures 7 and 9. Each box needs a reservation there for the MAC address of its card. docs/guide.md, section 3, has whole files, and the lines for UEFI machines.
`, a)
}

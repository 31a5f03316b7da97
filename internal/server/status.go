package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/words"
)

// status says which part of the server does what.
func (s *server) status() api.ServerStatus {
	l := s.sockets
	agents := api.Part{Name: "agents", State: api.PartOn, At: reached(l.agents.Addr()), Text: "work with the agents of boxes"}
	admins := api.Part{Name: "admins", State: api.PartOn, At: []string{l.socket.Addr().String()}, Text: "the admin API"}
	if l.api != nil {
		admins.At = append(admins.At, reached(l.api.Addr())...)
	}
	return api.ServerStatus{Started: s.started, Boxes: s.roster.count(),
		Parts: []api.Part{agents, admins, s.bootFilesPart(), s.tftpPart(), s.httpPart(), s.dhcpPart(), s.upPart(), s.bootPart()}}
}

// upPart says whether jobs can wait until their boxes are up.
func (s *server) upPart() api.Part {
	p := api.Part{Name: "wait=up", State: api.PartOn, Text: "finds out whether a box's own system is up, by " + s.Config.Jobs.Probe}
	switch {
	case s.sockets.tftp == nil:
		p.State, p.Text = api.PartOff, "no job can wait until its box is up, since another TFTP server gives boot files out"
	case s.Config.Jobs.Probe == probeNone:
		p.State, p.Text = api.PartOff, "no job can wait until its box is up, since there is no probe"
	case s.noProbe != nil:
		p.State, p.Missing = api.PartFailed, []string{fmt.Sprintf("No job can wait until its box is up: %v", s.noProbe)}
	}
	return p
}

// sayStatus writes the status into the log, at the start.
func (s *server) sayStatus() {
	for _, p := range s.status().Parts {
		args := []any{"state", p.State}
		if len(p.At) > 0 {
			args = append(args, "at", strings.Join(p.At, " "))
		}
		s.Log.Info(p.Name+": "+p.Text, args...)
		for _, m := range p.Missing {
			s.Log.Warn(p.Name + ": " + m)
		}
	}
}

// bootFilesPart says whether boxes could be armed.
func (s *server) bootFilesPart() api.Part {
	p := api.Part{Name: "boot files", State: api.PartOn, Text: "in " + s.Config.TFTPDir()}
	if err := s.Place.Ready(box.Backup, s.served); err != nil {
		p.State = api.PartFailed
		p.Missing = []string{fmt.Sprintf("No box can be armed: %v", err)}
	} else if err := s.Place.Ready(box.Rescue, s.served); err != nil && s.served.HTTP != 0 { // else the part HTTP says so
		p.Text += fmt.Sprintf("; no box can be rescued: %v", err)
	}
	return p
}

func (s *server) tftpPart() api.Part {
	p := api.Part{Name: "TFTP", State: api.PartOn, Text: "gives boot files out"}
	if s.sockets.tftp == nil {
		p.State, p.Text = api.PartOff, "another TFTP server has to give out "+s.Config.TFTPDir()
		return p
	}
	p.At = reached(s.sockets.tftp.LocalAddr())
	files := present{area: s.netboot.area}
	files.look()
	for _, name := range files.lacks(bios, false) {
		p.Missing = append(p.Missing, fmt.Sprintf("The file %s is missing, so boxes with BIOS cannot start from the network. "+
			"`testbox server init` makes it", name))
	}
	for _, k := range loaders.Kinds {
		pair, err := s.netboot.area.Loaders(k)
		switch {
		case err == nil:
			p.Text += fmt.Sprintf("; %v", pair)
		case !errors.Is(err, fs.ErrNotExist):
			p.Missing = append(p.Missing, noLoaders(k, err))
		case k == loaders.X64:
			p.Text += "; none for UEFI machines, which `testbox maintenance build` gets"
		}
	}
	return p
}

// noLoaders says why UEFI machines of a kind are given no loaders.
func noLoaders(k loaders.Kind, err error) string {
	return fmt.Sprintf("UEFI machines (%s) are given no loaders and start their own disk: %v. `testbox maintenance build` puts new ones "+
		"there", k.Arch, err)
}

func (s *server) httpPart() api.Part {
	l := s.sockets
	p := api.Part{Name: "HTTP for boxes", State: api.PartOn, Text: "gives boot files out, and the system for a rescue"}
	switch {
	case l.http != nil:
		p.At = reached(l.http.Addr())
	case s.Config.HTTP == "":
		p.State, p.Text = api.PartOff, "so no box can be rescued"
	default:
		p.State, p.Missing = api.PartFailed, []string{fmt.Sprintf("No box can be rescued, but all else works: %v", l.noHTTP)}
	}
	return p
}

func (s *server) dhcpPart() api.Part {
	b := s.bootDHCP
	if b == nil {
		return api.Part{Name: "DHCP", State: api.PartOff,
			Text: fmt.Sprintf("your DHCP server has to name this machine (next-server) and %s (filename), for UEFI %s", bios.file,
				loaders.X64.Shim)}
	}
	p := api.Part{Name: "ProxyDHCP", State: api.PartOn, Text: "tells boxes their boot files; another DHCP server gives the addresses"}
	if b.dhcp.Lab != nil {
		p.Name = "DHCP"
		leased := words.Count(len(b.dhcp.Leases()), "address is", "addresses are")
		p.Text = "gives addresses and tells boxes their boot files; " + leased + " leased"
	}
	p.At, p.Missing = b.cards()
	if at, ok := s.sockets.tftp.LocalAddr().(*net.UDPAddr); ok && at.Port != 69 {
		p.Missing = append(p.Missing, fmt.Sprintf("TFTP is at port %d, and boxes ask at port 69", at.Port))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.refused != nil:
		p.State = api.PartFailed
		text := fmt.Sprintf("It does not answer: %v. It tries again every 30 seconds", b.refused)
		if errors.As(b.refused, new(*dhcp.OthersError)) {
			text += ". If both are to answer, set beside = true in the section [dhcp]"
		}
		p.Missing = append(p.Missing, text)
		return p
	case !b.answers:
		p.State, p.Text = api.PartStarting, "looks for other DHCP servers first"
	}
	chose := b.chosen.IsValid() && time.Since(b.chose) < troubleShown
	by := givers(b.others)
	switch {
	case len(by) > 0:
		p.Text += "; heard " + strings.Join(by, ", ")
	case chose && b.dhcp.Lab == nil:
		p.Text += "; machines take those of " + b.chosen.String()
	case chose && !b.dhcp.Lab.Beside:
		p.Missing = append(p.Missing, fmt.Sprintf("A machine took the address of another DHCP server, %v. Stop one of the two", b.chosen))
	case b.dhcp.Lab == nil && !b.looked.IsZero():
		p.Text += "; none was heard, so there is none, or it answers only machines that it knows"
	}
	if !b.looked.IsZero() {
		p.Heard = &api.HeardDHCP{Time: b.looked.UTC(), Offers: offers(b.others)}
		for _, f := range b.faults(b.others) {
			if f.Check != dhcp.NoDHCP {
				p.Missing = append(p.Missing, f.Sentences())
			} else if chose {
				continue
			}
			p.Heard.Faults = append(p.Heard.Faults, api.DHCPFault{Check: f.Check, Sure: f.Sure, Text: f.Text, Do: f.Do})
		}
		if chose {
			p.Heard.Chosen = b.chosen.String()
		}
	}
	if b.trouble != nil && time.Since(b.since) < troubleShown {
		p.Missing = append(p.Missing, fmt.Sprintf("Since %s: %v", b.since.UTC().Format(time.RFC3339), b.trouble))
	}
	return p
}

// offers are what other DHCP servers have offered, for programs.
func offers(found []dhcp.Found) []api.DHCPOffer {
	text := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	all := []api.DHCPOffer{}
	for _, f := range found {
		all = append(all, api.DHCPOffer{Card: f.Interface, As: f.As, Server: text(f.Server), Address: text(f.Address),
			NextServer: text(f.NextServer), File: f.Loader(), Class: f.Class})
	}
	return all
}

// givers are the DHCP servers that give addresses.
func givers(found []dhcp.Found) (all []string) {
	for _, f := range found {
		if text := fmt.Sprintf("%v on %s", f.Server, f.Interface); f.Address.IsValid() && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// cards are the network cards at which DHCP answers, and what is wrong with them.
func (b *bootDHCP) cards() (at, missing []string) {
	wanted := b.Config.DHCP.Interfaces
	for name, addrs := range cardsWithAddresses() {
		if len(wanted) > 0 && !slices.Contains(wanted, name) {
			continue
		}
		for _, a := range addrs {
			at = append(at, fmt.Sprintf("%s (%v)", name, a.Addr()))
		}
	}
	slices.Sort(at)
	have := cardsWithAddresses()
	for _, name := range wanted {
		if len(have[name]) == 0 {
			missing = append(missing, fmt.Sprintf("The network card %s is not there, or has no IPv4 address, so nothing is answered there", name))
		}
	}
	subnets, err := b.Config.DHCP.subnets()
	if b.dhcp.Lab == nil || err != nil {
		return at, missing
	}
	cardless := slices.DeleteFunc(b.roster.cardless(), func(a netip.Addr) bool {
		return !slices.ContainsFunc(subnets, func(n dhcp.Subnet) bool { return n.Prefix.Contains(a) })
	})
	if len(cardless) > 0 {
		missing = append(missing, fmt.Sprintf("Of %s, such as %v, no network card is known, so the machine gets another address than that. "+
			"Say `testbox box accept %v --mac MAC`", words.Count(len(cardless), "box", "boxes"), cardless[0], cardless[0]))
	}
	for _, n := range subnets {
		here := false
		for _, addrs := range cardsWithAddresses() {
			here = here || slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return n.Prefix.Contains(a.Addr()) })
		}
		if !here {
			missing = append(missing, fmt.Sprintf("This machine has no address in %v, so boxes there are served through a relay alone", n.Prefix))
		}
	}
	return at, missing
}

// cardsWithAddresses are the IPv4 addresses of this machine's network cards.
func cardsWithAddresses() map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	cards, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, c := range cards {
		addrs, err := c.Addrs()
		if err != nil || c.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				all[c.Name] = append(all[c.Name], p)
			}
		}
	}
	return all
}

// reached are the addresses at which a socket can be reached. One that is bound to no
// address has those of the machine's network cards.
func reached(a net.Addr) []string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return []string{a.String()}
	}
	var all []string
	for _, addrs := range cardsWithAddresses() {
		for _, p := range addrs {
			all = append(all, netip.AddrPortFrom(p.Addr(), at.Port()).String())
		}
	}
	if slices.Sort(all); len(all) == 0 {
		return []string{a.String()}
	}
	return all
}

package arming

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// machine is what is known of a box's hardware. Unknown fields are empty.
type machine struct {
	macs []string // lower case, with colons
	uuid string   // lower case
}

// machineOf collects what this machine knows of the box's hardware. It looks
// among the neighbours on the network, and in the inventory of the box's last
// action.
func (p *Place) machineOf(addr box.Addr, near map[string]string) machine {
	var m machine
	if mac := near[addr.String()]; mac != "" {
		m.macs = append(m.macs, mac)
	}
	inv := p.inventory(addr)
	if inv == nil {
		return m
	}
	m.uuid = strings.ToLower(inv.UUID)
	for _, n := range inv.Network {
		if mac, err := net.ParseMAC(n.MAC); err == nil {
			m.macs = append(m.macs, mac.String())
		}
	}
	return m
}

// shadow is a file that the loader takes, or may take, before a box's boot file.
type shadow struct {
	name  string
	owner owner // ownerBox or ownerUnknown
}

// shadows lists the files that the loader of this box takes, or may take,
// before the box's boot file. They are named by a UUID or a network card. The
// list leaves out only files that are known to be another machine's.
func (p *Place) shadows(addr box.Addr) ([]shadow, error) {
	names, err := p.FS.ReadDir(p.Boot.Dir())
	if err != nil {
		return nil, err
	}
	var list []shadow
	var near map[string]string
	var m machine
	for _, name := range names {
		owner, early := bootcfg.ParseOwner(name)
		if !early {
			continue
		}
		if near == nil {
			near = readNeighbours(p.Neighbours)
			m = p.machineOf(addr, near)
		}
		if whose := belongs(owner, m, addr, near); whose != ownerOther {
			list = append(list, shadow{name, whose})
		}
	}
	return list, nil
}

// checkShadows refuses a box that would not take its boot file.
func (p *Place) checkShadows(t Target) error {
	list, err := p.shadows(t.Addr)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list {
		if s.owner == ownerBox {
			errs = append(errs, problem.Refusef("%s is this box's too, and the loader takes it before %s, which would arm %s; "+
				"move it out of the folder", p.Boot.Path(s.name), t.Addr.Hex(), t))
			continue
		}
		errs = append(errs, problem.Refusef("%s is taken by some machine before the file that is named by its address, "+
			"and it is not known whether that is %s, which would then not be armed; "+
			"move the file out of the folder, or ping the box from here, so that its network card is known", p.Boot.Path(s.name), t))
	}
	return errors.Join(errs...)
}

// checkLater refuses a box that would not start its own disk when it is not
// armed any more, because the loader finds another file before `default`.
func (p *Place) checkLater(t Target) error {
	later, err := p.Boot.Later(t.Addr)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range later {
		if l.Why != nil {
			errs = append(errs, problem.Refusef("%s is taken by %s before `%s` as soon as it is not armed any more, "+
				"and it does not clearly boot the local disk: %w; move it out of the folder, or give it the content of `%s`",
				p.Boot.Path(l.Name), t, bootcfg.DefaultName, l.Why, bootcfg.DefaultName))
			continue
		}
		errs = append(errs, p.Boot.CheckModules(l.Name))
	}
	return errors.Join(errs...)
}

// boxStrays returns an error for the files that the loader takes for the box
// before its boot file, or before `default`. With shared it includes files that
// the loader takes for other addresses too.
func (p *Place) boxStrays(addr box.Addr, shared bool) error {
	shadows, err := p.shadows(addr)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range shadows {
		sure := "the loader takes it for this box"
		if s.owner == ownerUnknown {
			sure = "it is not known whose it is; if it is this box's, the loader takes it"
		}
		errs = append(errs, fmt.Errorf("%s: %s: %s before %s, which then does not count", p.Boot.Path(s.name), addr, sure, addr.Hex()))
	}
	later, err := p.Boot.Later(addr)
	if err != nil {
		return err
	}
	for _, l := range later {
		if _, _, many := bootcfg.ParsePrefix(l.Name); l.Why != nil && (shared || !many) {
			errs = append(errs, fmt.Errorf("%s: %s takes it before `%s` when it is not armed, and it does not clearly boot the local disk: %w",
				p.Boot.Path(l.Name), addr, bootcfg.DefaultName, l.Why))
		}
	}
	return errors.Join(errs...)
}

// owner says whose file it is that the loader takes before the boot file.
type owner int

const (
	ownerOther owner = iota
	ownerBox
	ownerUnknown
)

// belongs says whose file it is, as far as m and the neighbours show.
func belongs(o bootcfg.Owner, m machine, addr box.Addr, near map[string]string) owner {
	known, same := len(m.macs) > 0, o.MAC != nil && slices.Contains(m.macs, o.MAC.String())
	if o.UUID != "" {
		known, same = m.uuid != "", o.UUID == m.uuid || o.UUID == bootcfg.OtherOrder(m.uuid)
	}
	switch {
	case same:
		return ownerBox
	case known:
		return ownerOther
	}
	for ip, mac := range near {
		if o.MAC != nil && mac == o.MAC.String() && ip != addr.String() {
			return ownerOther
		}
	}
	return ownerUnknown
}

// readNeighbours reads the kernel's table of IPv4 neighbours, and returns the
// hardware address of each IP address. The format is in proc_pid_net(5). Type 1
// is Ethernet, and flag 2 is a complete entry.
func readNeighbours(path string) map[string]string {
	near := map[string]string{}
	file, err := os.Open(path)
	if err != nil {
		return near
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "0x1" || f[2] == "0x0" {
			continue
		}
		if mac, err := net.ParseMAC(f[3]); err == nil {
			near[f[0]] = mac.String()
		}
	}
	return near
}

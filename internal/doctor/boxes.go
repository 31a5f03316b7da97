package doctor

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/words"
)

// Status turns what a server says of its parts into findings. version is that of this
// program.
func Status(st api.ServerStatus, version string) (all []Finding) {
	if st.Version != version {
		all = append(all, warning("version", "Restart the server after an upgrade (systemctl restart testbox), or upgrade this program.",
			"the server is testbox %.100s, and this program is %s", st.Version, version))
	}
	for _, p := range st.Parts {
		known := map[string]bool{} // what is said as a finding of its own
		switch {
		case p.Heard != nil:
			for _, f := range p.Heard.Faults {
				known[dhcp.Fault{Text: f.Text, Do: f.Do}.Sentences()] = true
				all = append(all, fault(f.Check, f.Sure, f.Text, f.Do+" The server heard it at "+p.Heard.Time.UTC().Format(time.RFC3339)+
					", and asks again each hour, and when it starts."))
			}
			if len(p.Heard.Faults) == 0 {
				all = append(all, fine("dhcp", "the server asked other DHCP servers at %s, and they do not get in its way",
					p.Heard.Time.UTC().Format(time.RFC3339)))
			}
		case (p.Name == "ProxyDHCP" || p.Name == "DHCP") && p.State != api.PartOff && p.State != api.PartFailed:
			all = append(all, notLooked("dhcp", "the server has not asked other DHCP servers yet. It does half a minute after its start"))
		}
		for _, m := range p.Missing {
			if !known[m] {
				all = append(all, problem("server", "As it says. `testbox server status` says it again.", "%.60s: %s", p.Name, m))
			}
		}
		switch {
		case len(p.Missing) > 0:
		case p.State == api.PartFailed:
			all = append(all, problem("server", "The log of the server says why: journalctl -u testbox", "%.60s does not work: %s", p.Name,
				p.Text))
		default:
			all = append(all, fine("server", "%.60s is %s: %s", p.Name, p.State, p.Text))
		}
	}
	return all
}

// Boxes looks at the list of boxes. nets are the networks in which they may be, with the
// addresses of the server.
func Boxes(list []api.Box, nets []netip.Prefix) (all []Finding) {
	byMAC := map[string]string{}
	for i := range list {
		b := &list[i]
		if b.Health == ledger.Retired {
			continue
		}
		all = append(all, address(b, nets)...)
		for _, mac := range b.MACs {
			if other := byMAC[mac]; other != "" && other != b.Address {
				all = append(all, problem("two-macs", "testbox box accept BOX --mac MAC says which card a box has.",
					"the boxes %s and %s have the same network card %s", other, b.Address, mac))
			}
			byMAC[mac] = b.Address
		}
		all = append(all, seen(b)...)
	}
	if len(all) == 0 {
		all = append(all, fine("boxes", "%s, and none is silent, moved, has what another one has, or a "+
			"firmware that does not keep the network first", words.Count(len(list), "box", "boxes")))
	}
	return all
}

func address(b *api.Box, nets []netip.Prefix) (all []Finding) {
	a, err := netip.ParseAddr(b.Address)
	if err != nil || !a.Is4() {
		return nil
	}
	for _, n := range nets {
		do := fmt.Sprintf("testbox box readdress %s ADDRESS", a)
		switch {
		case n.Addr() == a:
			all = append(all, problem("address", do, "the box %s has the address of the server itself", a))
		case n.Bits() > 30 || !n.Contains(a):
		case a == n.Masked().Addr() || a == last(n):
			all = append(all, problem("address", do, "the address of the box %s is the first or the last one of the network %v, which no "+
				"machine can have", a, n.Masked()))
		}
	}
	return all
}

// last is the last address of an IPv4 network.
func last(n netip.Prefix) netip.Addr {
	b := n.Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// seen says what was seen of a box that should not be.
func seen(b *api.Box) (all []Finding) {
	switch {
	case b.Lost:
		all = append(all, problem("silent", "Is it on? Its firmware must try the network first; docs/booting.md says how a box is brought back "+
			"to that. testbox doctor "+b.Address,
			"the box %s is lost: it was to start anew after its action, and has not asked for its boot files since; it was seen last at %s",
			b.Address, b.LastSeen.UTC().Format(time.RFC3339)))
	case !b.SilentSince.IsZero():
		all = append(all, warning("silent", "Is it on? Does it boot from the network first? testbox doctor "+b.Address,
			"the box %s was seen last at %s, which is longer ago than is usual for it", b.Address, b.LastSeen.UTC().Format(time.RFC3339)))
	}
	if b.Moved != nil {
		all = append(all, problem("moved", "testbox box readdress "+b.Address+" "+b.Moved.Address,
			"the machine of the box %s asks from %.40s, so a boot file for %s does not reach it", b.Address, b.Moved.Address, b.Address))
	}
	if b.Shared != nil {
		all = append(all, problem("shared", "Find the other machine in the DHCP server's list of leases, and give it an address of its own.",
			"another machine (%.40s) asks from the address of the box %s", b.Shared.MAC, b.Address))
	}
	if f := b.Firmware; f != nil && f.Needs {
		all = append(all, problem("boot-order", f.BootOrder.Do()+" Then: testbox refresh-info "+b.Address, "the box %s, boot order %s: %s %s",
			b.Address, f.BootOrder, f.BootOrder.Means(), f.Why))
	}
	return all
}

// Firmware compares how a box starts now with the backup that a restore would take. list are its backups, the oldest
// first. A system that was installed for one kind of firmware mostly does not start by the other.
func Firmware(b *api.Box, list []api.Backup) (all []Finding) {
	var of *api.Backup
	for i := range list {
		if of == nil || list[i].Baseline || !of.Baseline {
			of = &list[i]
		}
	}
	now := startsBy(b)
	if now == "" || of == nil || of.Firmware == nil {
		return nil
	}
	if of.Firmware.Kind == now {
		return []Finding{fine("firmware", "it starts by %s, as at its backup %s", now, of.ID)}
	}
	return []Finding{warning("firmware", "Set the firmware's boot mode (legacy, CSM) back. Or restore a backup that was made by "+now+".",
		"it starts by %s now, and its backup %s, which a restore takes, was made by %s: the system of that backup may not start",
		now, of.ID, of.Firmware.Kind)}
}

// startsBy says whether a box starts by BIOS or by UEFI, by what it told last. "" means that this is not known.
func startsBy(b *api.Box) (kind string) {
	var at time.Time
	if f := b.Firmware; f != nil {
		kind, at = f.Kind, f.Time
	}
	for _, m := range b.Machines {
		if word, _, _ := strings.Cut(m.Arch, " "); (word == efi.BIOS || word == efi.UEFI) && m.LastSeen.After(at) {
			kind, at = word, m.LastSeen
		}
	}
	return kind
}

// startTime is how long a box may take from its restart to the agent's hello.
const startTime = 15 * time.Minute

// Stuck says why the job of a box that is armed does not begin, by what its machine asked for
// since then. It needs what is said of a single box.
func Stuck(b *api.Box, now time.Time) []Finding {
	j := b.Last
	if j == nil || j.State != job.Armed {
		return nil
	}
	since := j.Since
	hex := bootName(b.Address)
	var dhcp, loader, file, kernel, own bool
	var latest time.Time
	for _, m := range b.Machines {
		own = own || m.OwnDisk.After(since)
		for _, a := range m.Asked {
			if !a.Time.After(since) {
				continue
			}
			if a.Time.After(latest) {
				latest = a.Time
			}
			switch name := a.Given; {
			case a.Over == "dhcp":
				dhcp = true
			case strings.HasSuffix(name, "pxelinux.0"), strings.HasSuffix(name, "ldlinux.c32"):
				loader = true
			case hex != "" && strings.EqualFold(name, "pxelinux.cfg/"+hex):
				file = true
			case strings.HasPrefix(name, "maintenance-boot/"):
				kernel = true
			}
		}
	}
	what := fmt.Sprintf("the box %s is armed since %s", b.Address, since.UTC().Format(time.RFC3339))
	soon := now.Sub(latest) < startTime
	switch {
	case own && !file:
		return []Finding{problem("stuck", "testbox doctor on the server finds files that shadow the boot file. Is the box restarted with "+
			"this address?",
			"%s, and it was given the default boot file after that, so it has started its own disk", what)}
	case kernel && !soon:
		return []Finding{problem("stuck", "Look at its screen: the kernel lacks a driver for its network card, or a firewall keeps it "+
			"from the port for agents (8444).",
			"%s, and it got the kernel at %s, but the agent never said hello", what, latest.UTC().Format(time.RFC3339))}
	case file && !kernel && !soon:
		return []Finding{problem("stuck", "Look at its screen. Kernel and initrd are large: a firewall, a small MTU or a full ARP table "+
			"stops them.",
			"%s, and it got its boot file at %s, but never the kernel", what, latest.UTC().Format(time.RFC3339))}
	case loader && !file && !soon:
		return []Finding{problem("stuck", "Look at its screen. A loader that got pxelinux.0 and nothing else lacks ldlinux.c32, or has an "+
			"address other than this one.",
			"%s, and it got the loader at %s, but never its boot file", what, latest.UTC().Format(time.RFC3339))}
	case dhcp && !loader && !soon:
		return []Finding{problem("stuck", "Is TFTP blocked? Does another DHCP server answer the box? testbox doctor on another machine of "+
			"its network finds out.",
			"%s, and it asked by DHCP at %s, but never got the loader", what, latest.UTC().Format(time.RFC3339))}
	case latest.IsZero() && b.LastSeen.After(since):
		return []Finding{problem("boot-order", "Put the network first in its firmware's boot order.",
			"%s, and it was seen at %s without asking for boot files, so it does not boot from the network first", what,
			b.LastSeen.UTC().Format(time.RFC3339))}
	case latest.IsZero() && now.Sub(since) > time.Hour:
		return []Finding{warning("boot-order", "Restart it. If somebody did already: put the network first in its firmware's boot order. "+
			"A power command restarts it (testbox box set "+b.Address+" --power NAME).",
			"%s, and it has asked for nothing since then: it was not restarted, or does not boot from the network first", what)}
	}
	return []Finding{fine("stuck", "%s, and starts or waits for its restart", what)}
}

func bootName(addr string) string {
	a, err := netip.ParseAddr(addr)
	if err != nil || !a.Is4() {
		return ""
	}
	return fmt.Sprintf("%X", a.AsSlice())
}

// Box looks at one box of a server.
func Box(b *api.Box, now time.Time) (all []Finding) {
	all = append(all, seen(b)...)
	all = append(all, Stuck(b, now)...)
	for _, m := range b.Machines {
		var steps []string
		for _, a := range m.Asked {
			given := a.Given
			if given == "" {
				given = "nothing"
			}
			steps = append(steps, fmt.Sprintf("%s %s %.60q: %.60q", a.Time.UTC().Format(time.RFC3339), a.Over, a.Asked, given))
		}
		if len(steps) > 0 {
			all = append(all, fine("starts", "the machine %.40s asked for and was given:\n%s", m.MAC, strings.Join(steps, "\n")))
		}
	}
	if len(b.Machines) == 0 {
		all = append(all, warning("starts", "Restart it once with the network first in its boot order.",
			"it was never seen asking for boot files"))
	}
	if b.Health != ledger.Good {
		all = append(all, warning("health", "testbox box set "+b.Address+" --health good, when that is repaired",
			"it is marked as %s: %.200s", b.Health, b.HealthReason))
	}
	if e := b.Effective; e != nil && e.Power == "none" && e.PowerWhy != "" {
		all = append(all, warning("power", "testbox box set "+b.Address+" --power NAME", "the server cannot restart it, since it has no "+
			"power command: %.200s", e.PowerWhy))
	}
	if j := b.Last; j != nil && j.Text != "" && (j.State != job.Ended || j.Outcome != "done") {
		all = append(all, warning("job", "testbox log "+b.Address, "its latest job (%s) is %s: %s", j.Action, j.State, j.Text))
	}
	switch {
	case b.LastBackup == nil:
		all = append(all, warning("backup", "testbox backup "+b.Address, "it has no backup, so a restore is refused"))
	case now.Sub(b.LastBackup.Time) > 8*24*time.Hour:
		all = append(all, warning("backup", "testbox backup "+b.Address, "its latest backup is of "+
			"%s", b.LastBackup.Time.UTC().Format(time.RFC3339)))
	default:
		all = append(all, fine("backup", "its latest backup is of %s", b.LastBackup.Time.UTC().Format(time.RFC3339)))
	}
	if b.Disks != nil {
		all = append(all, fine("disks", "its list of disks:\n%.1000s", *b.Disks))
	}
	if b.Holder != nil {
		all = append(all, warning("holder", "testbox box unhold "+b.Address, "%.100s has reserved it (%.200s), and jobs of others are "+
			"refused", b.Holder.Name, b.Holder.Reason))
	}
	return all
}

// Restore turns what a server says of a restore that would be asked for now into findings. err is why
// it did not say it.
func Restore(b *api.Box, jobs []api.CheckedJob, err error) []Finding {
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusForbidden:
		return []Finding{notLooked("restore", "only somebody with the role operator may ask whether a restore would be refused")}
	case err != nil:
		return []Finding{notLooked("restore", "%v", err)}
	case len(jobs) != 1:
		return []Finding{notLooked("restore", "the server did not say whether a restore would be refused")}
	}
	j := jobs[0]
	switch {
	case j.Refused != "" && (b.LastBackup == nil || b.Holder != nil):
		return []Finding{warning("restore", "As it says.", "a restore would be refused now: %s", j.Refused)}
	case j.Refused != "":
		return []Finding{problem("restore", "As it says.", "a restore would be refused now: %s", j.Refused)}
	case j.Open != nil:
		return []Finding{fine("restore", "a restore would be taken now, and would wait for its job %s to end", j.Open.ID)}
	}
	return []Finding{fine("restore", "a restore would be taken now")}
}

// Backups looks at the backups of a box.
func Backups(list []api.Backup) (all []Finding) {
	for _, b := range list {
		for _, d := range b.Disks {
			if d.Lacks {
				all = append(all, problem("damage", "testbox backup BOX brings what its disk still has. Else: testbox store copy from a second copy",
					"the store lacks some of the backup %s, disk %.60s: a restore of it is refused", b.ID, d.Name))
			} else if d.Bad {
				all = append(all, warning("damage", "Replace the disk.", "the backup %s, disk %.60s has zeros for sectors that could not be "+
					"read", b.ID, d.Name))
			}
		}
	}
	return all
}

// Alike says which disks of a box cannot be told apart.
func Alike(addr string, all []api.AlikeDisks) (found []Finding) {
	for _, a := range all {
		do := "testbox restore " + addr + " --map IMAGE=DISK,IMAGE=DISK after a look at which is which. Or put in disks that have serials, " +
			"which a virtual machine can give its disks."
		if found = append(found, warning("alike", do, "the box %s: %s", addr, a.Text)); a.Placed {
			found[len(found)-1].Do = "Leave them where they are plugged in. If they were moved: " + do
		}
	}
	return found
}

// Orphans finds boot files that no job needs. The boxes were read after the boot files.
func Orphans(boot *bootfiles.Folder, files []*bootfiles.File, list []api.Box) (all []Finding) {
	last := map[string]*api.LastJob{}
	for i := range list {
		last[list[i].Address] = list[i].Last
	}
	for _, f := range files {
		if f.Cmdline == nil || f.Cmdline.Mode != bootcfg.ServerMode {
			continue
		}
		if now, err := boot.Read(f.Addr); err != nil || now.Cmdline == nil || now.Cmdline.Arming != f.Cmdline.Arming {
			continue // it is gone by now, or another one
		}
		if j := last[f.Addr.String()]; j == nil || j.State == job.Ended {
			all = append(all, problem("stale", "rm "+boot.BootFile(f.Addr), "the box %s has a boot file, and no job of the server needs it: "+
				"the box starts maintenance at each start, and restarts from there", f.Addr))
		}
	}
	return all
}

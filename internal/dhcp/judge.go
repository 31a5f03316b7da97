package dhcp

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Want is what DHCP has to tell boxes.
type Want struct {
	Server  netip.Addr   // where boxes get their boot files; not valid if that is not known
	Mine    []netip.Addr // other addresses of the same server
	Loaders []string     // files that machines with BIOS may be told to start
	UEFI    []string     // the same for machines with UEFI; none if there is nothing for them
	Who     Who
}

// Who tells boxes what they are to start.
type Who int

// Who tells it.
const (
	Others Who = iota // another server, which gives the addresses too
	Proxy             // ours, and another server gives the addresses
	Ours              // ours, which gives the addresses too
	Beside            // the same, and it is wanted that other servers do so too
)

// Fault is something wrong with what other DHCP servers offer.
type Fault struct {
	Check string // a word for what was looked at
	Sure  bool   // boxes do not start by it; else they may not
	Text  string // what was seen
	Do    string // what to do
}

// Sentences are the text and what to do, as sentences.
func (f Fault) Sentences() string {
	if f.Text == "" {
		return f.Do
	}
	return strings.ToUpper(f.Text[:1]) + f.Text[1:] + ". " + f.Do
}

// NoDHCP is the check of the fault that no server gives addresses. It may answer only
// machines that it knows, so this is never sure.
const NoDHCP = "no-dhcp"

// UEFINextServer is the check of the fault that UEFI machines would get GRUB from our ProxyDHCP, and its configuration
// from nowhere. Such machines are lost until somebody comes.
const UEFINextServer = "uefi-next-server"

// Judge says what is wrong with what other servers offer. Nothing is said twice.
func Judge(found []Found, want Want) (all []Fault) {
	say := func(f Fault) {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	givers := map[string][]string{} // by card
	for _, f := range found {
		if who := f.Server.String(); f.Address.IsValid() && !slices.Contains(givers[f.Interface], who) {
			givers[f.Interface] = append(givers[f.Interface], who)
		}
	}
	switch {
	case want.Who == Ours || want.Who == Beside:
	case len(givers) == 0 && want.Who == Proxy:
		say(Fault{NoDHCP, false, "ProxyDHCP tells boxes what to start, and no server was heard that gives them addresses",
			"If boxes start, nothing is wrong. Else: does your DHCP server run, in the boxes' network?"})
	case len(givers) == 0:
		say(Fault{NoDHCP, false, "no DHCP server has offered an address to this machine, on any of its network cards",
			"Start the DHCP server, or let `testbox server` be it ([dhcp] in server.toml). If it answers only machines " +
				"that it knows, and boxes start, nothing is wrong."})
	}
	for _, card := range slices.Sorted(maps.Keys(givers)) {
		who := givers[card]
		slices.Sort(who)
		switch {
		case want.Who == Beside:
		case want.Who == Ours:
			for _, other := range who {
				say(sure("two-dhcp", "Stop one of the two.", "another DHCP server, %s on %.40s, gives addresses too", other, card))
			}
		case len(who) > 1:
			say(sure("two-dhcp", "Stop all but one of them: `systemctl disable --now dnsmasq`, or whatever it is there.",
				"%d DHCP servers give addresses on %.40s: %s. Two machines can get one address, and boxes take whichever answers first",
				len(who), card, strings.Join(who, ", ")))
		}
	}
	for _, f := range found {
		if f.As == "BIOS" || f.As == "UEFI" {
			for _, o := range f.faults(found, want) {
				say(o)
			}
		}
	}
	return all
}

func sure(check, do, format string, args ...any) Fault {
	return Fault{check, true, fmt.Sprintf(format, args...), do}
}

// faults judges one offer to a machine that asks what to start.
func (f Found) faults(found []Found, want Want) (all []Fault) {
	ours := want.is(f.Server)
	if ours && (want.Who != Others || !f.Address.IsValid()) {
		return nil
	}
	say := func(f Fault) { all = append(all, f) }
	who := fmt.Sprintf("the DHCP server %v on %.40s", f.Server, f.Interface)
	file, next, server := f.Loader(), f.BootServer(), want.server()
	switch {
	case want.Who != Others && !f.Address.IsValid():
		return []Fault{sure("two-dhcp", "Stop one of the two.",
			"another ProxyDHCP server, %v on %.40s, answers too, and boxes may listen to either", f.Server, f.Interface)}
	case want.Who == Ours || want.Who == Beside:
		return nil // that another server gives addresses is said, or wanted
	}
	if strings.HasPrefix(f.Class, "PXEClient") && !ours {
		say(Fault{"option-60", false, fmt.Sprintf("%s sends option 60 %.40q to %s machines, so that UEFI asks it alone what to start, "+
			"at port 4011", who, f.Class, f.As), "Take option 60 (vendor-class-identifier) out of its configuration."})
	}
	if menu := pxeMenu(f.Vendor); menu != "" && !ours {
		say(sure("option-43", "Take option 43 out of its configuration, or dnsmasq's lines pxe-service and pxe-prompt.",
			"%s sends option 43 with %s, and boxes obey that instead of the boot file", who, menu))
	}
	if want.Who == Proxy {
		if file != "" {
			say(sure("boot-file", "Take boot file, next-server and the options 66 and 67 out of its configuration.",
				"%s names a boot file of its own (%.60q) to %s machines beside ours, and boxes may take that one", who, file, f.As))
		}
		if f.As == "UEFI" && f.Address.IsValid() && len(want.UEFI) > 0 && want.known() && !want.is(next) {
			say(sure(UEFINextServer, "Set next-server to "+server+" there (dnsmasq: dhcp-boot=,,"+server+"), without a boot file.",
				"%s sends UEFI machines to %v for their boot files (next-server). Debian 12's GRUB may listen to that alone and not to ProxyDHCP, "+
					"and without its configuration it stops at its prompt", who, next))
		}
		return all
	}
	if f.As != "BIOS" {
		return append(all, f.uefiFaults(found, want, who)...)
	}
	if file == "" {
		// A ProxyDHCP server beside it may name one.
		if !slices.ContainsFunc(found, func(o Found) bool { return o.Interface == f.Interface && o.Names(want) }) {
			say(sure("boot-file", "Say there: filename \"pxelinux.0\" and next-server "+server+" (dnsmasq: dhcp-boot=pxelinux.0,,"+server+").",
				"%s names no boot file, so boxes with BIOS say PXE-E53 or start their disk", who))
		}
		return all
	}
	if !want.loads(file) {
		say(sure("boot-file", "Let it name one of "+strings.Join(want.Loaders, ", ")+".",
			"%s names the boot file %.60q to machines with BIOS, which is none of ours", who, file))
	}
	if want.Server.IsValid() && next != want.Server {
		say(sure("next-server", "Set next-server to "+server+" there (dnsmasq: dhcp-boot=pxelinux.0,,"+server+").",
			"%s sends boxes to %v for their boot files (next-server), and these are at %v", who, next, want.Server))
	}
	if f.Mask != nil && f.Address.IsValid() && next.IsValid() && len(f.Router) == 0 {
		ones, _ := f.Mask.Size()
		if p, err := f.Address.Prefix(ones); err == nil && !p.Contains(next) {
			say(sure("pxe-e11", "Let it name a router (option 3), or use a TFTP server in "+p.String()+".",
				"%s offers %v in %v and names no router, but the TFTP server %v is in another network. Boxes say PXE-E11 (ARP timeout)",
				who, f.Address, p, next))
		}
	}
	return all
}

// uefiFaults judges an offer of a server that is to tell UEFI machines what to start. A lab may want its UEFI machines
// to start elsewhere, so that most of it is not sure.
func (f Found) uefiFaults(found []Found, want Want, who string) (all []Fault) {
	file, next, server := f.Loader(), f.BootServer(), want.server()
	if len(want.UEFI) == 0 {
		return nil
	}
	do := "Say there, for machines of client architecture 7 or 9: filename \"" + want.UEFI[0] + "\" and next-server " + server + "."
	isOurs := slices.Contains(want.UEFI, path.Base(strings.ReplaceAll(file, `\`, "/")))
	switch {
	case file == "":
		names := func(o Found) bool { return o.Interface == f.Interface && o.As == "UEFI" && o.Loader() != "" }
		if !slices.ContainsFunc(found, names) {
			all = append(all, Fault{"uefi-boot-file", false, who + " names no boot file to UEFI machines, so they start their disk", do})
		}
	case !isOurs:
		all = append(all, Fault{"uefi-boot-file", false,
			fmt.Sprintf("%s names the boot file %.60q to UEFI machines, which is none of ours", who, file), do})
	case want.known() && !want.is(next):
		all = append(all, sure("next-server", "Set next-server to "+server+" there.",
			"%s sends UEFI machines to %v for their boot files (next-server), and these are at %v. If GRUB finds no configuration there, it "+
				"stops at its prompt", who, next, want.Server))
	case strings.TrimRight(f.File, "\x00 ") == "" && strings.Contains(file, "/"):
		all = append(all, Fault{"uefi-boot-file", false, fmt.Sprintf("%s names %.60q in option 67 alone. shim looks for GRUB in the folder "+
			"that the field `file` of the header has, so it does not find the one in this folder", who, file),
			"Let it fill the header (dnsmasq: dhcp-no-override), or name " + want.UEFI[0] + " without a folder."})
	}
	return all
}

// is reports whether an address is that of the server of boot files.
func (w Want) is(a netip.Addr) bool {
	return a.IsValid() && (a == w.Server || slices.Contains(w.Mine, a))
}

func (w Want) known() bool { return w.Server.IsValid() || len(w.Mine) > 0 }

func (w Want) server() string {
	if !w.Server.IsValid() && len(w.Mine) == 1 {
		return w.Mine[0].String()
	}
	if !w.Server.IsValid() {
		return "SERVER"
	}
	return w.Server.String()
}

func (w Want) loads(file string) bool {
	return slices.Contains(w.Loaders, path.Base(strings.ReplaceAll(file, `\`, "/")))
}

// Names reports whether an offer tells machines with BIOS to start one of the wanted files from the wanted server.
func (f Found) Names(want Want) bool {
	return f.As == "BIOS" && want.loads(f.Loader()) && f.BootServer() == want.Server
}

// Boots reports whether an offer says what to start, or that another answer of the server will.
func (f Found) Boots() bool {
	return f.As != "machine" && (f.Loader() != "" || strings.HasPrefix(f.Class, "PXEClient") || !f.Address.IsValid())
}

// Loader is the file that an offer tells a machine to start. "" is none.
func (f Found) Loader() string {
	if file := strings.TrimRight(f.File, "\x00 "); file != "" {
		return file
	}
	return strings.TrimRight(f.BootFile, "\x00 ")
}

// BootServer is where a machine with this offer asks for its boot file.
func (f Found) BootServer() netip.Addr {
	if f.NextServer.IsValid() && !f.NextServer.IsUnspecified() {
		return f.NextServer
	}
	if a, err := netip.ParseAddr(f.TFTPServer); err == nil {
		return a
	}
	return f.Server
}

// pxeMenu says what of option 43 lets a ROM pass over the boot file (Intel's PXE
// specification 2.1, table 2-1). Discovery control 8 alone does not.
func pxeMenu(b []byte) string {
	names := map[byte]string{8: "a list of boot servers", 9: "a boot menu", 10: "a menu prompt"}
	var all []string
	for len(b) >= 2 && b[0] != 255 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			break
		}
		if name := names[b[0]]; name != "" {
			all = append(all, name)
		}
		b = b[2+n:]
	}
	return strings.Join(all, ", ")
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/dhcp"
)

// Want is what DHCP has to tell boxes.
type Want struct {
	Server  netip.Addr    // where boxes get their boot files
	Loaders []string      // files that boxes with BIOS may be told to start
	Proxy   bool          // ours says what to start, and another server gives the addresses
	Port67  func() string // says which program has the port of DHCP servers on this machine
}

// Listen asks which DHCP servers there are, on all cards of this machine, while no
// DHCP server runs here. It needs port 67.
func Listen(ctx context.Context) ([]dhcp.Found, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", ":67")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ready := make(chan struct{})
	s := &dhcp.Server{Decide: func(dhcp.Machine) (dhcp.Boot, bool) { return dhcp.Boot{}, false }, Answers: func() { close(ready) }}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, conn.(*net.UDPConn), nil) }()
	select {
	case <-ready:
	case err := <-ended:
		return nil, err
	}
	found, err := s.Look(ctx)
	cancel()
	<-ended
	return found, err
}

// DHCP asks by listen which DHCP servers there are, and judges what they tell.
func DHCP(ctx context.Context, listen func(context.Context) ([]dhcp.Found, error), want Want) []Finding {
	found, err := listen(ctx)
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return []Finding{notLooked("dhcp", "only root may ask by DHCP: sudo testbox doctor")}
	case errors.Is(err, unix.EADDRINUSE):
		return []Finding{notLooked("dhcp", "port 67 of this machine is in use by %s. "+
			"Ask from another machine of the boxes' network. What ours hears, `testbox server status` says", want.Port67())}
	case err != nil:
		return []Finding{notLooked("dhcp", "%v", err)}
	}
	return Offers(found, want)
}

// Offers judges what DHCP servers offer.
func Offers(found []dhcp.Found, want Want) (all []Finding) {
	say := func(f Finding) {
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
	if len(givers) == 0 {
		say(warning("no-dhcp", "Start the DHCP server, or let `testbox server` be it ([dhcp] in server.toml). If it answers only machines "+
			"that it knows, and boxes start, nothing is wrong.",
			"no DHCP server has offered an address to this machine, on any of its network cards"))
	}
	for _, f := range twoGive(givers) {
		say(f)
	}
	for _, f := range found {
		if f.As == "BIOS" || f.As == "UEFI" {
			for _, o := range offer(f, want) {
				say(o)
			}
		}
	}
	if Count(all, Fine) == len(all) {
		say(fine("dhcp", "one DHCP server answers on each network card that has one, and names the right files"))
	}
	return all
}

// twoGive finds network cards, in whose networks more than one DHCP server gives addresses.
func twoGive(givers map[string][]string) (all []Finding) {
	for _, card := range slices.Sorted(maps.Keys(givers)) {
		if who := givers[card]; len(who) > 1 {
			slices.Sort(who)
			all = append(all, problem("two-dhcp", "Stop all but one of them: `systemctl disable --now dnsmasq`, or whatever it is there.",
				"%d DHCP servers give addresses on %.40s: %s. Two machines can get one address, and boxes take whichever answers first",
				len(who), card, strings.Join(who, ", ")))
		}
	}
	return all
}

// offer judges one offer to a machine that asks what to start.
func offer(f dhcp.Found, want Want) (all []Finding) {
	who := fmt.Sprintf("the DHCP server %v on %s", f.Server, f.Interface)
	file := strings.TrimRight(f.File, "\x00 ")
	if file == "" {
		file = strings.TrimRight(f.BootFile, "\x00 ")
	}
	next := nextServer(f)
	if strings.HasPrefix(f.Class, "PXEClient") && f.Server != want.Server {
		all = append(all, warning("option-60", "Take option 60 (vendor-class-identifier) out of its configuration.",
			"%s sends option 60 %.40q, so that UEFI asks it alone what to start, at port 4011", who, f.Class))
	}
	if menu := pxeMenu(f.Vendor); menu != "" && f.Server != want.Server {
		all = append(all, problem("option-43", "Take option 43 out of its configuration, or dnsmasq's lines pxe-service and pxe-prompt.",
			"%s sends option 43 with %s, and boxes obey that instead of the boot file", who, menu))
	}
	if want.Proxy {
		if file != "" && f.Server != want.Server {
			all = append(all, problem("boot-file", "Take boot file, next-server and the options 66 and 67 out of its configuration.",
				"%s names a boot file of its own (%.60q) beside ours, and boxes may take that one", who, file))
		}
		return all
	}
	if f.As != "BIOS" {
		return all
	}
	if file == "" {
		return append(all, problem("boot-file", "Say there: filename \"pxelinux.0\" and next-server "+addrOr(want.Server)+
			" (dnsmasq: dhcp-boot=pxelinux.0,,"+addrOr(want.Server)+").", "%s names no boot file, so boxes with BIOS say PXE-E53 or start "+
			"their disk", who))
	}
	if !slices.Contains(want.Loaders, path.Base(strings.ReplaceAll(file, `\`, "/"))) {
		all = append(all, problem("boot-file", "Let it name one of "+strings.Join(want.Loaders, ", ")+".",
			"%s names the boot file %.60q to machines with BIOS, which is none of ours", who, file))
	}
	if want.Server.IsValid() && next != want.Server {
		all = append(all, problem("next-server", "Set next-server to "+want.Server.String()+" there (dnsmasq: dhcp-boot=pxelinux.0,,"+
			want.Server.String()+").", "%s sends boxes to %v for their boot files (next-server), and these are at %v", who, next, want.Server))
	}
	if f.Mask != nil && f.Address.IsValid() && next.IsValid() {
		ones, _ := f.Mask.Size()
		if p, err := f.Address.Prefix(ones); err == nil && !p.Contains(next) && len(f.Router) == 0 {
			all = append(all, problem("pxe-e11", "Let it name a router (option 3), or use a TFTP server in "+p.String()+".",
				"%s offers %v in %v and names no router, but the TFTP server %v is in another network. Boxes say PXE-E11 (ARP timeout)",
				who, f.Address, p, next))
		} else if err == nil && p.Contains(next) && next != f.Server {
			all = append(all, fine("pxe-e11", "TFTP server %v and DHCP server %v are two machines of one network", next, f.Server))
		}
	}
	return all
}

func addrOr(a netip.Addr) string {
	if !a.IsValid() {
		return "SERVER"
	}
	return a.String()
}

// nextServer is where a machine with this offer asks for its boot file.
func nextServer(f dhcp.Found) netip.Addr {
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

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/bootarea"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/loaders"
)

// loader is what a kind of firmware starts, from the boot files' area.
type loader struct {
	file  string
	needs []string      // files without which it would not start the machine's own disk
	uefi  *loaders.Kind // nil for BIOS
}

// bios starts PXELINUX. Without its second half it restarts the machine again and again,
// and without the default boot file it stops at its prompt.
var bios = loader{file: bootcfg.LoaderName, needs: []string{"ldlinux.c32", bootcfg.ConfigDir + "/" + bootcfg.DefaultName}}

func uefi(k *loaders.Kind) loader { return loader{file: k.Shim, uefi: k} }

// byArch has what each kind of firmware starts. UEFI machines start shim, which starts GRUB beside it. For arm64
// nothing is built, but the names are those that its shim would have.
var byArch = map[dhcp.Arch]loader{
	dhcp.BIOS: bios, dhcp.X64: uefi(&loaders.X64), dhcp.X64BC: uefi(&loaders.X64), dhcp.IA32: uefi(&loaders.IA32),
	dhcp.ARM64: uefi(&loaders.AA64), dhcp.HTTPX64: uefi(&loaders.X64), dhcp.HTTPIA32: uefi(&loaders.IA32),
	dhcp.HTTPARM64: uefi(&loaders.AA64),
}

// present says which files of the area are there. It looks now and then, so that nobody who
// asks waits for a disk.
type present struct {
	area *bootarea.Area
	have atomic.Pointer[map[string]bool]
}

const presentAge = 5 * time.Second

func (p *present) look() {
	have := map[string]bool{}
	for _, name := range append([]string{bios.file}, bios.needs...) {
		f, err := p.area.Open(name, netip.Addr{})
		if err == nil {
			f.Close()
		}
		have[name] = err == nil
	}
	p.have.Store(&have)
}

// lacks returns what is missing for a loader, such as files that are not there. http is true if it is to load by
// HTTP.
func (p *present) lacks(l loader, http bool) (names []string) {
	if l.uefi != nil {
		pair, err := p.area.Loaders(*l.uefi)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return []string{l.file}
		case err != nil:
			return []string{err.Error()}
		case http && !pair.HTTP:
			return []string{fmt.Sprintf("a GRUB that can load by HTTP, which %s is not", pair.GRUB)}
		}
		return nil
	}
	have := *p.have.Load()
	for _, name := range append([]string{l.file}, l.needs...) {
		if !have[name] {
			names = append(names, name)
		}
	}
	return names
}

func (p *present) run(ctx context.Context) {
	for {
		select {
		case <-time.After(presentAge):
			p.look()
		case <-ctx.Done():
			return
		}
	}
}

// bootDHCP tells starting machines where their boot files are. It never waits for the
// ledger or a disk before it answers.
type bootDHCP struct {
	*server
	dhcp   *dhcp.Server
	files  present
	next   netip.Addr     // the TFTP server, if it is not at all addresses
	web    netip.AddrPort // HTTP for boxes; not valid if there is none
	notes  chan note
	astray atomic.Pointer[string] // why UEFI machines are told nothing: they would find GRUB, and it nothing; nil if they are

	mu      sync.Mutex // guards the fields below
	answers bool
	refused error        // why it does not answer
	others  []dhcp.Found // what other servers told
	looked  time.Time    // when they were asked
	chosen  netip.Addr   // another server, whose offer a machine took
	chose   time.Time    // when
	trouble error
	since   time.Time // of the trouble
}

// note is a line of the log. The log may be a disk.
type note struct {
	key   string // the next lines of the same key are left out for a while
	level slog.Level
	text  string
	args  []any
}

const (
	maxNotes     = 256
	dhcpAgain    = 30 * time.Second // after it was refused
	othersAgain  = time.Hour        // other servers are asked for again
	astrayAgain  = time.Minute      // the same, while UEFI machines are told nothing
	troubleShown = 24 * time.Hour   // in the status
	othersWait   = 2 * time.Second  // after a start, so that a card has a link
)

func newBootDHCP(s *server) (*bootDHCP, error) {
	cfg := &s.Config.DHCP
	b := &bootDHCP{server: s, files: present{area: s.netboot.area}, notes: make(chan note, maxNotes)}
	b.files.look()
	if at, ok := s.sockets.tftp.LocalAddr().(*net.UDPAddr); ok && !at.IP.IsUnspecified() {
		b.next, _ = netip.AddrFromSlice(at.IP.To4())
	}
	if s.sockets.http != nil {
		if at, err := netip.ParseAddrPort(s.sockets.http.Addr().String()); err == nil {
			b.web = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
	}
	b.dhcp = &dhcp.Server{Decide: b.decide, Seen: b.seen, Trouble: b.troubled, Answers: b.begins, Interfaces: cfg.Interfaces}
	if cfg.Mode == dhcpFull {
		subnets, err := cfg.subnets()
		if err != nil {
			return nil, err
		}
		b.dhcp.Lab = &dhcp.Lab{Subnets: subnets, Fixed: b.fixed, Reserved: b.reserved, Leases: s.Config.LeaseFile(), Beside: cfg.Beside}
	}
	return b, nil
}

// run answers until ctx ends. Where another DHCP server gives addresses, or has the port, it
// waits until that one is gone. The rest of the server goes on meanwhile.
func (b *bootDHCP) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { b.files.run(ctx) })
	all.Go(func() { b.write(ctx) })
	all.Go(func() { b.watchOthers(ctx) })
	for {
		err := b.sockets.listenDHCP()
		if err == nil {
			if err = b.dhcp.Serve(ctx, b.sockets.dhcp, b.sockets.boot); !errors.As(err, new(*dhcp.OthersError)) {
				return err
			}
		}
		b.mu.Lock()
		b.answers, b.refused = false, err
		b.mu.Unlock()
		b.note(note{"refused", slog.LevelError, "DHCP does not start. It is tried again every 30 seconds.", []any{"error", err}})
		select {
		case <-time.After(dhcpAgain):
		case <-ctx.Done():
			return nil
		}
	}
}

// begins is told that requests are answered from now on.
func (b *bootDHCP) begins() {
	b.mu.Lock()
	b.answers, b.refused = true, nil
	b.others, b.looked = nil, time.Time{} // what was heard before is out of date
	b.mu.Unlock()
	b.note(note{"begins", slog.LevelInfo, "Requests by DHCP are answered.", []any{"mode", b.Config.DHCP.Mode}})
}

// write writes the log.
func (b *bootDHCP) write(ctx context.Context) {
	for {
		select {
		case n := <-b.notes:
			if more, ok := b.netboot.spare.Take("dhcp " + n.key); ok {
				b.Log.Log(ctx, n.level, n.text+more, n.args...)
			}
		case <-ctx.Done():
			return
		}
	}
}

// note has a line written. If there are too many at once, it is left out.
func (b *bootDHCP) note(n note) {
	select {
	case b.notes <- n:
	default:
	}
}

// watchOthers asks now and then which other servers there are.
func (b *bootDHCP) watchOthers(ctx context.Context) {
	for wait := othersWait; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		b.mu.Lock()
		answers := b.answers
		b.mu.Unlock()
		if wait = othersWait; !answers {
			continue
		}
		found, err := b.dhcp.Look(ctx)
		if err != nil {
			continue
		}
		wait = othersAgain
		b.mu.Lock()
		b.others, b.looked = found, time.Now()
		b.mu.Unlock()
		if b.judge(found); b.astray.Load() != nil {
			wait = astrayAgain
		}
		for _, f := range b.faults(found) {
			if f.Check != dhcp.NoDHCP {
				b.note(note{"others " + f.Text, slog.LevelWarn, f.Sentences(), nil})
			}
		}
	}
}

// judge notes whether another DHCP server sends GRUB elsewhere. A machine that has GRUB, and no configuration for it, stops
// at GRUB's prompt, while one that is told nothing starts its own disk.
func (b *bootDHCP) judge(found []dhcp.Found) {
	for _, f := range b.faults(found) {
		if f.Check == dhcp.UEFINextServer {
			text := f.Sentences()
			b.astray.Store(&text)
			return
		}
	}
	b.astray.Store(nil)
}

// faults are what is wrong with what other servers tell machines that start.
func (b *bootDHCP) faults(found []dhcp.Found) []dhcp.Fault {
	want := dhcp.Want{Server: b.next, Who: dhcp.Proxy}
	if !b.next.IsValid() {
		for _, all := range cardsWithAddresses() {
			for _, a := range all {
				want.Mine = append(want.Mine, a.Addr())
			}
		}
	}
	// Debian 13's GRUB, the first with http, takes the server that ProxyDHCP names (tried in OVMF beside dnsmasq).
	for _, k := range loaders.Kinds {
		if pair, err := b.netboot.area.Loaders(k); err == nil && !pair.HTTP {
			want.UEFI = append(want.UEFI, k.Shim)
		}
	}
	switch {
	case b.dhcp.Lab != nil && b.dhcp.Lab.Beside:
		want.Who = dhcp.Beside
	case b.dhcp.Lab != nil:
		want.Who = dhcp.Ours
	}
	return dhcp.Judge(found, want)
}

// decide says what a machine is to start. All get the same loader, which asks for the
// machine's own boot file, and then for the default. So a machine that nobody knows starts
// its own disk, and so does a box that is not armed.
func (b *bootDHCP) decide(who dhcp.Machine) (dhcp.Boot, bool) {
	l, ok := byArch[who.Arch]
	if !ok || len(b.files.lacks(l, who.HTTP)) > 0 || who.HTTP && !b.web.IsValid() {
		return dhcp.Boot{}, false
	}
	if l.uefi != nil && !who.HTTP && b.astray.Load() != nil {
		return dhcp.Boot{}, false
	}
	boot := dhcp.Boot{File: l.file, NextServer: b.next}
	if who.HTTP {
		// The address of ours, since the lab may tell no DNS server.
		at := b.web
		if at.Addr().IsUnspecified() {
			at = netip.AddrPortFrom(who.Server, at.Port())
		}
		boot.URI = "http://" + strings.TrimSuffix(at.String(), ":80") + "/" + l.file
	}
	return boot, true
}

// fixed is the address of the box with a network card. If several boxes have the card in
// the list, nobody knows which of them asks.
func (b *bootDHCP) fixed(who dhcp.Machine) (netip.Addr, bool) {
	mac := who.MAC.String()
	all := b.roster.withMAC(mac)
	if len(all) > 1 {
		all = slices.DeleteFunc(slices.Clone(all), func(k *known) bool { return k.Retired })
	}
	switch len(all) {
	case 0:
		return netip.Addr{}, false
	case 1:
		return all[0].Addr, true
	}
	b.note(note{"several " + mac, slog.LevelWarn, "Several boxes have the same network card, so it gets the address of none of them. " +
		"`testbox box accept BOX --mac MAC` says which cards a box has.",
		[]any{"card", mac, "boxes", fmt.Sprint(all[0].Addr, " ", all[1].Addr)}})
	return netip.Addr{}, false
}

// reserved keeps the addresses of boxes from other machines.
func (b *bootDHCP) reserved(a netip.Addr) bool { return b.roster.at(a) != nil }

// seen is told of each request.
func (b *bootDHCP) seen(e dhcp.Event) {
	b.sawDHCP(e)
	if e.Chosen.IsValid() {
		b.mu.Lock()
		b.chosen, b.chose = e.Chosen, time.Now()
		b.mu.Unlock()
	}
	mac := e.MAC.String()
	args := []any{"card", mac, "asked", e.Asked}
	if e.PXE {
		args = append(args, "architecture", archText(e.Arch))
	}
	switch {
	case e.Err != nil:
		b.note(note{mac + " error", slog.LevelWarn, "A machine did not get what it asked for by DHCP.", append(args, "error", e.Err)})
	case e.Given:
		b.note(note{mac + " " + toldText(e), slog.LevelInfo, "A machine was told by DHCP what to start.", append(args, "told", toldText(e))})
	case e.PXE && e.Asked == "DISCOVER":
		b.note(note{mac + " nothing", slog.LevelWarn, "A machine asked by DHCP what to start, and there is nothing for it.",
			append(args, "missing", b.missingFor(e.Machine))})
	}
}

// missingFor says why there is nothing that a machine could start.
func (b *bootDHCP) missingFor(who dhcp.Machine) string {
	l, ok := byArch[who.Arch]
	switch {
	case !ok:
		return "a loader for this architecture"
	case who.HTTP && !b.web.IsValid():
		return "HTTP for boxes"
	case l.uefi != nil && !who.HTTP:
		if why := b.astray.Load(); why != nil {
			return *why
		}
	}
	return strings.Join(b.files.lacks(l, who.HTTP), ", ")
}

// troubled is told what an admin should know.
func (b *bootDHCP) troubled(err error) {
	b.mu.Lock()
	b.trouble, b.since = err, time.Now()
	b.mu.Unlock()
	b.note(note{"trouble " + err.Error(), slog.LevelError, "DHCP is in trouble.", []any{"error", err}})
}

package server

import (
	"debug/pe"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/testenv/testpe"
)

// newTestDHCP is the part of a server that answers by DHCP, with an area of files.
func newTestDHCP(t *testing.T, mode string, files ...string) *bootDHCP {
	t.Helper()
	return newUEFIDHCP(t, mode, nil, files...)
}

// newUEFIDHCP has besides what a function puts into the area.
func newUEFIDHCP(t *testing.T, mode string, uefi func(dir string), files ...string) *bootDHCP {
	t.Helper()
	s := testSights(ledger.Box{Address: addr(t, "10.0.0.7"), MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}},
		ledger.Box{Address: addr(t, "10.0.0.8"), MACs: []string{"52:54:00:00:00:02", "52:54:00:00:00:03"}},
		ledger.Box{Address: addr(t, "10.0.0.9"), MACs: []string{"52:54:00:00:00:03"}, Health: ledger.Retired})
	cfg, err := ParseConfig([]byte(strings.Replace(subnet("10.0.0.0/24", ""), dhcpFull, mode, 1)))
	must(t, err)
	cfg.State = t.TempDir()
	s.Config, s.Log = cfg, slog.New(slog.DiscardHandler)
	for _, name := range files {
		path := filepath.Join(cfg.TFTPDir(), name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, 0o644))
	}
	must(t, os.MkdirAll(cfg.TFTPDir(), 0o755))
	if uefi != nil {
		uefi(cfg.TFTPDir())
	}
	s.netboot, err = newNetboot(s, cfg.TFTPDir())
	must(t, err)
	t.Cleanup(s.netboot.close)
	s.sockets = &listeners{}
	s.sockets.tftp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	s.sockets.http, err = net.Listen("tcp", ":0")
	must(t, err)
	t.Cleanup(s.sockets.close)
	b, err := newBootDHCP(s)
	must(t, err)
	return b
}

func mac(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	must(t, err)
	return m
}

// line is the next line for the log.
func (b *bootDHCP) line(t *testing.T) note {
	t.Helper()
	select {
	case n := <-b.notes:
		return n
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is written to the log")
		return note{}
	}
}

// putLoaders returns a function that puts loaders of a site with keys of its own into a folder. GRUB has
// the modules.
func putLoaders(t *testing.T, modules ...string) func(dir string) {
	site := testpe.NewSite()
	return func(dir string) {
		t.Helper()
		for name, data := range map[string][]byte{"shimx64.efi": site.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5"),
			"grubx64.efi":    site.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2.12-9", "7", modules...),
			"uefi-trust.pem": site.Firmware.PEM()} {
			must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
		}
	}
}

// TestDecideUEFI: a UEFI machine is sent to shim only if that can start a GRUB that can start the machine's own disk.
func TestDecideUEFI(t *testing.T) {
	us := netip.MustParseAddr("10.0.0.1")
	whole := putLoaders(t, "tftp", "http")
	without := func(name string) func(string) {
		return func(dir string) {
			whole(dir)
			must(t, os.Remove(filepath.Join(dir, name)))
		}
	}
	cut := func(name string) func(string) {
		return func(dir string) {
			whole(dir)
			must(t, os.Truncate(filepath.Join(dir, name), 2000))
		}
	}
	over := dhcp.Machine{Arch: dhcp.HTTPX64, HTTP: true, Server: us}
	for name, c := range map[string]struct {
		files func(string)
		who   dhcp.Machine
		want  string // file or URI
		lacks string
	}{
		"whole":          {whole, dhcp.Machine{Arch: dhcp.X64}, "shimx64.efi", ""},
		"its other name": {whole, dhcp.Machine{Arch: dhcp.X64BC}, "shimx64.efi", ""},
		"32 bits":        {whole, dhcp.Machine{Arch: dhcp.IA32}, "", "shimia32.efi"},
		"arm64":          {whole, dhcp.Machine{Arch: dhcp.ARM64}, "", "shimaa64.efi"},
		"HTTP":           {whole, over, "http://10.0.0.1:PORT/shimx64.efi", ""},
		"HTTP, not GRUB": {putLoaders(t, "tftp"), over, "", "a GRUB that can load by HTTP, which 2.12-9 is not"},
		"TFTP, not HTTP": {putLoaders(t, "tftp"), dhcp.Machine{Arch: dhcp.X64}, "shimx64.efi", ""},
		"nothing, HTTP":  {nil, over, "", "shimx64.efi"},
		"no shim":        {without("shimx64.efi"), dhcp.Machine{Arch: dhcp.X64}, "", "shimx64.efi"},
		"no GRUB":        {without("grubx64.efi"), dhcp.Machine{Arch: dhcp.X64}, "", "grubx64.efi cannot be read"},
		"half a shim":    {cut("shimx64.efi"), dhcp.Machine{Arch: dhcp.X64}, "", "cut off"},
		"half a GRUB":    {cut("grubx64.efi"), dhcp.Machine{Arch: dhcp.X64}, "", "cut off"},
		"strange keys":   {without("uefi-trust.pem"), dhcp.Machine{Arch: dhcp.X64}, "", "nobody who is trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newUEFIDHCP(t, dhcpProxy, c.files)
			c.who.Server = us
			boot, ok := b.decide(c.who)
			got := boot.File
			if c.who.HTTP {
				_, port, err := net.SplitHostPort(b.sockets.http.Addr().String())
				must(t, err)
				got = strings.Replace(boot.URI, port, "PORT", 1)
			}
			if got != c.want || ok != (c.want != "") {
				t.Errorf("%+v, %v", boot, ok)
			}
			if says := b.missingFor(c.who); !ok && !strings.Contains(says, c.lacks) || ok && says != "" {
				t.Errorf("lacks %q", says)
			}
		})
	}
	b := newUEFIDHCP(t, dhcpProxy, whole)
	b.web = netip.MustParseAddrPort("10.0.0.2:80")
	if boot, _ := b.decide(over); boot.URI != "http://10.0.0.2/shimx64.efi" {
		t.Error(boot.URI)
	}
	if text := b.tftpPart().Text; !strings.Contains(text, "UEFI x64: shim 16.1, and GRUB 2.12-9, which loads by TFTP and HTTP") {
		t.Error(text)
	}
	b.web = netip.AddrPort{}
	if boot, ok := b.decide(over); ok {
		t.Error(boot.URI)
	}
	b = newUEFIDHCP(t, dhcpProxy, cut("grubx64.efi"))
	if missing := strings.Join(b.tftpPart().Missing, " "); !strings.Contains(missing, "UEFI machines (x64) are given no loaders") ||
		!strings.Contains(missing, "testbox maintenance build") {
		t.Error(missing)
	}
}

// TestDecide: a machine is sent to a loader only if that could start the machine's own disk.
func TestDecide(t *testing.T) {
	bios := []string{"pxelinux.0", "ldlinux.c32", "pxelinux.cfg/default"}
	us := netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		files []string
		who   dhcp.Machine
		want  string
		lacks string
	}{
		{bios, dhcp.Machine{Arch: dhcp.BIOS}, "pxelinux.0", ""},
		{bios[1:], dhcp.Machine{Arch: dhcp.BIOS}, "", "pxelinux.0"},
		{bios[:2], dhcp.Machine{Arch: dhcp.BIOS}, "", "pxelinux.cfg/default"},
		{[]string{bios[0], bios[2]}, dhcp.Machine{Arch: dhcp.BIOS}, "", "ldlinux.c32"},
		{bios, dhcp.Machine{Arch: dhcp.X64}, "", "shimx64.efi"},
		{bios, dhcp.Machine{Arch: 99}, "", "a loader for this architecture"},
	} {
		b := newTestDHCP(t, dhcpProxy, c.files...)
		c.who.Server = us
		boot, ok := b.decide(c.who)
		if boot.File != c.want || ok != (c.want != "") || ok && boot.NextServer.String() != "127.0.0.1" {
			t.Errorf("%v with %q: %+v, %v", c.who.Arch, c.files, boot, ok)
		}
		if !ok && b.missingFor(c.who) != c.lacks {
			t.Errorf("%v with %q lacks %q", c.who.Arch, c.files, b.missingFor(c.who))
		}
	}
}

// TestAstray: GRUB of a ProxyDHCP asks the server that the lab's DHCP server names. If that is not ours, the machine
// would stop at GRUB's prompt, so that it is told nothing.
func TestAstray(t *testing.T) {
	plain := dhcp.Found{Interface: "eth0", As: "UEFI", Server: netip.MustParseAddr("10.0.0.1"), Address: netip.MustParseAddr("10.0.0.50")}
	ours := plain
	ours.NextServer = netip.MustParseAddr("127.0.0.1")
	b := newUEFIDHCP(t, dhcpProxy, putLoaders(t, "tftp"), "pxelinux.0", "ldlinux.c32", "pxelinux.cfg/default")
	for _, c := range []struct {
		found []dhcp.Found
		want  bool
	}{{nil, true}, {[]dhcp.Found{plain}, false}, {[]dhcp.Found{ours}, true}, {[]dhcp.Found{ours, plain}, false}} {
		b.judge(c.found)
		for who, want := range map[*dhcp.Machine]bool{{Arch: dhcp.X64}: c.want, {Arch: dhcp.BIOS}: true} {
			if _, ok := b.decide(*who); ok != want || !ok && !strings.Contains(b.missingFor(*who), "Set next-server to 127.0.0.1") {
				t.Errorf("%v, after %+v: %v, missing %q", who.Arch, c.found, ok, b.missingFor(*who))
			}
		}
	}
	newer := newUEFIDHCP(t, dhcpProxy, putLoaders(t, "http"))
	if newer.judge([]dhcp.Found{plain}); newer.astray.Load() != nil {
		t.Error("it is said of a GRUB that listens to ProxyDHCP")
	}
	none := newTestDHCP(t, dhcpProxy)
	if none.judge([]dhcp.Found{plain}); none.astray.Load() != nil {
		t.Error("it is said of an area that has no loaders for UEFI")
	}
}

// TestFixed: a network card leads to the address of its box, if there is one box alone.
func TestFixed(t *testing.T) {
	b := newTestDHCP(t, dhcpFull)
	for card, want := range map[string]string{"52:54:00:00:00:01": "10.0.0.7", "52:54:00:00:00:02": "", "52:54:00:00:00:03": "10.0.0.8",
		"52:54:00:00:00:04": ""} {
		a, ok := b.dhcp.Lab.Fixed(dhcp.Machine{MAC: mac(t, card)})
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %v, %v", card, a, ok)
		}
	}
	if n := b.line(t); !strings.HasPrefix(n.text, "Several boxes have the same network card") {
		t.Errorf("%+v", n)
	}
	for a, want := range map[string]bool{"10.0.0.7": true, "10.0.0.9": true, "10.0.0.10": false} {
		if got := b.dhcp.Lab.Reserved(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is reserved: %v", a, got)
		}
	}
	card := mac(t, "52:54:00:00:00:01")
	told := make(chan bool)
	go func() {
		for range 2 * maxNotes { // nobody reads them
			b.seen(dhcp.Event{Machine: dhcp.Machine{MAC: card, PXE: true, Arch: dhcp.X64}, Asked: "DISCOVER"})
		}
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(30 * time.Second):
		t.Fatal("an answer waits for the log")
	}
	if n := b.line(t); n.level != slog.LevelWarn || !strings.Contains(n.text, "there is nothing for it") {
		t.Errorf("%+v", n)
	}
}

// TestOthersWrong: what other DHCP servers tell may keep boxes from our loader. What is wrong, package dhcp tests.
func TestOthersWrong(t *testing.T) {
	plain := dhcp.Found{Interface: "eth0", As: "BIOS", Server: netip.MustParseAddr("10.0.0.1"), Address: netip.MustParseAddr("10.0.0.50")}
	named := plain
	named.File = "other.0"
	for _, c := range []struct {
		mode   string
		beside bool
		found  []dhcp.Found
		check  string // "" is no fault
		text   string
	}{
		{dhcpProxy, false, []dhcp.Found{plain}, "", ""},
		{dhcpProxy, false, []dhcp.Found{named}, "boot-file", `names a boot file of its own ("other.0") to BIOS machines`},
		{dhcpProxy, false, nil, dhcp.NoDHCP, ""},
		{dhcpFull, false, nil, "", ""},
		{dhcpFull, false, []dhcp.Found{named}, "two-dhcp", "Another DHCP server, 10.0.0.1 on eth0, gives addresses too. Stop one"},
		{dhcpFull, true, []dhcp.Found{named}, "", ""},
	} {
		b := newTestDHCP(t, c.mode)
		b.server.bootDHCP = b
		b.begins()
		b.looked, b.others = time.Now(), c.found
		if c.beside {
			b.dhcp.Lab.Beside = true
		}
		p := b.dhcpPart()
		if c.check == "" && len(p.Heard.Faults) > 0 || c.check != "" && (len(p.Heard.Faults) != 1 || p.Heard.Faults[0].Check != c.check) {
			t.Errorf("%s, %+v: %+v", c.mode, c.found, p.Heard.Faults)
			continue
		}
		if missing := strings.Join(p.Missing, " "); !strings.Contains(missing, c.text) ||
			c.text != "" && !strings.Contains(missing, ". "+p.Heard.Faults[0].Do) {
			t.Errorf("%s, %+v: %q", c.mode, c.found, p.Missing)
		}
		if b.chosen, b.chose = netip.MustParseAddr("10.0.0.9"), time.Now(); c.check == dhcp.NoDHCP && len(b.dhcpPart().Heard.Faults) > 0 {
			t.Error("a machine took the address of another server, and none is said to be there")
		}
	}
}

// TestChosen: a server that answers only machines which it knows is not heard, but machines
// say that they chose it.
func TestChosen(t *testing.T) {
	other := dhcp.Event{Machine: dhcp.Machine{MAC: mac(t, "52:54:00:00:00:01")}, Asked: "REQUEST", Chosen: netip.MustParseAddr("10.0.0.99")}
	for _, c := range []struct {
		mode          string
		text, missing string
	}{{dhcpProxy, "machines take those of 10.0.0.99", ""}, {dhcpFull, "", "took the address of another DHCP server, 10.0.0.99"}} {
		b := newTestDHCP(t, c.mode)
		b.server.bootDHCP = b
		b.begins()
		b.looked = time.Now()
		if p := b.dhcpPart(); p.State != api.PartOn || c.mode == dhcpProxy && !strings.Contains(p.Text, "none was heard") {
			t.Errorf("%+v", p)
		}
		b.seen(other)
		p := b.dhcpPart()
		if p.Heard == nil || p.Heard.Chosen != "10.0.0.99" || len(p.Heard.Offers) != 0 {
			t.Errorf("heard %+v", p.Heard)
		}
		if missing := strings.Join(p.Missing, " "); !strings.Contains(p.Text, c.text) || !strings.Contains(missing, c.missing) ||
			c.missing == "" && strings.Contains(missing, "another") {
			t.Errorf("%s: %+v", c.mode, p)
		}
	}
}

// TestPortTaken: another DHCP server has the port. The rest of the server works, and the
// status says it.
func TestPortTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	was, wasBoot := dhcpAt, bootAt
	defer func() { dhcpAt, bootAt = was, wasBoot }()
	dhcpAt, bootAt = taken.LocalAddr().String(), "127.0.0.1:0"
	p := newParts(t)
	p.Config.DHCP.Mode = dhcpProxy
	at, stop := run(t, p)
	defer stop()
	c, err := apiclient.New(apiclient.Config{Server: at.Socket})
	must(t, err)
	defer c.Close()
	var last api.Part
	for end := time.Now().Add(30 * time.Second); last.State != api.PartFailed && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var st api.ServerStatus
		must(t, c.Do(t.Context(), "GET", apiclient.Path("status"), nil, &st))
		last = st.Parts[slices.IndexFunc(st.Parts, func(p api.Part) bool { return p.Name == "ProxyDHCP" })]
	}
	if missing := strings.Join(last.Missing, " "); last.State != api.PartFailed || !strings.Contains(missing, "address already in use") {
		t.Errorf("%+v", last)
	}
}

// TestStatus: the status says where the parts are, and what is missing.
// A box whose network card is not known gets another address than the one at which it is armed.
func TestCardless(t *testing.T) {
	b := newTestDHCP(t, dhcpFull)
	says := func() string {
		_, missing := b.cards()
		return strings.Join(missing, "\n")
	}
	b.roster.change([]ledger.Box{{Address: addr(t, "10.0.0.9"), Health: ledger.Retired}, {Address: addr(t, "10.9.0.9")}}, nil)
	if strings.Contains(says(), "no network card") {
		t.Errorf("%s", says())
	}
	b.roster.change([]ledger.Box{{Address: addr(t, "10.0.0.12")}, {Address: addr(t, "10.0.0.11")}}, nil)
	if !strings.Contains(says(), "Of 2 boxes, such as 10.0.0.11, no network card is known") {
		t.Errorf("%s", says())
	}
	b = newTestDHCP(t, dhcpProxy)
	b.roster.change([]ledger.Box{{Address: addr(t, "10.0.0.12")}}, nil)
	if strings.Contains(says(), "no network card") {
		t.Errorf("another server gives the addresses: %s", says())
	}
}

func TestStatus(t *testing.T) {
	p := newParts(t)
	p.Config.HTTP = ""
	must(t, os.Remove(filepath.Join(p.Config.TFTPDir(), "pxelinux.0")))
	at, stop := run(t, p)
	defer stop()
	c, err := apiclient.New(apiclient.Config{Server: at.Socket})
	must(t, err)
	defer c.Close()
	var st api.ServerStatus
	must(t, c.Do(t.Context(), "GET", apiclient.Path("status"), nil, &st))
	parts := map[string]api.Part{}
	for _, p := range st.Parts {
		parts[p.Name] = p
	}
	if tftp := parts["TFTP"]; tftp.State != api.PartOn || len(tftp.At) != 1 || tftp.At[0] != at.TFTP.String() ||
		!strings.Contains(strings.Join(tftp.Missing, " "), "The file pxelinux.0 is missing") {
		t.Errorf("%+v", tftp)
	}
	if p := parts["agents"]; p.State != api.PartOn || p.At[0] != at.Agents.String() {
		t.Errorf("%+v", p)
	}
	if p := parts["DHCP"]; p.State != api.PartOff || !strings.Contains(p.Text, "next-server") {
		t.Errorf("%+v", p)
	}
	if p := parts["HTTP for boxes"]; p.State != api.PartOff || len(p.Missing) > 0 {
		t.Errorf("%+v", p)
	}
	if st.Started.IsZero() || st.Version == "" {
		t.Errorf("%+v", st)
	}
}

// TestHeard: the status has for programs what other DHCP servers offered.
func TestHeard(t *testing.T) {
	b := newTestDHCP(t, dhcpProxy)
	b.server.bootDHCP = b
	b.begins()
	if p := b.dhcpPart(); p.Heard != nil {
		t.Errorf("heard before anybody was asked: %+v", p.Heard)
	}
	b.looked = time.Now()
	at := netip.MustParseAddr
	b.others = []dhcp.Found{
		{Interface: "eth0", As: "BIOS", Server: at("10.0.0.2"), Address: at("10.0.0.50"), NextServer: at("10.0.0.3"), BootFile: "x.0"},
		{Interface: "eth0", As: "UEFI", Server: at("10.0.0.4"), File: "y.0", BootFile: "z.0", Class: "PXEClient"},
	}
	want := []api.DHCPOffer{
		{Card: "eth0", As: "BIOS", Server: "10.0.0.2", Address: "10.0.0.50", NextServer: "10.0.0.3", File: "x.0"},
		{Card: "eth0", As: "UEFI", Server: "10.0.0.4", File: "y.0", Class: "PXEClient"},
	}
	if p := b.dhcpPart(); p.Heard == nil || !slices.Equal(p.Heard.Offers, want) || !p.Heard.Time.Equal(b.looked) {
		t.Errorf("heard %+v", p.Heard)
	}
}

// TestFirmwareOf: a machine that asks for a loader shows which firmware it has, whoever sent it there.
func TestFirmwareOf(t *testing.T) {
	s := testSights()
	for n, c := range []struct{ file, want string }{{"pxelinux.0", "BIOS"}, {"//shimx64.efi", "UEFI x86-64"}, {"grubx64.efi", "UEFI x86-64"},
		{"shimia32.efi", "UEFI x86"}, {"site/shimx64.efi", ""}, {"grub/grub.cfg", ""}} {
		client := netip.AddrFrom4([4]byte{10, 9, 0, byte(n)})
		s.sawFile("tftp", client, c.file, nil)
		got := "not seen"
		for _, m := range s.sights.Machines() {
			if m.Addr == client {
				got = m.Arch
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.file, got, c.want)
		}
	}
}

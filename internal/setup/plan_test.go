package setup

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/server"
)

func card(name, prefix string, change ...func(*Address)) Address {
	a := Address{Card: name, Kind: "device", Prefix: netip.MustParsePrefix(prefix), Link: true}
	for _, c := range change {
		c(&a)
	}
	return a
}

func byDHCP(a *Address) { a.Dynamic = true }
func noLink(a *Address) { a.Link = false }

func facts(all ...Address) *Facts {
	return &Facts{Root: true, Addresses: all, Free: 1 << 40, FileSystem: "ext4", Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func text(p *Plan) string {
	var b strings.Builder
	for _, n := range p.Notes {
		b.WriteString("[" + string(n.Kind) + "] " + n.What + ": " + n.Text + "\n")
	}
	return b.String()
}

func TestAddress(t *testing.T) {
	lab, up := card("eth1", "10.42.1.1/24"), card("eth0", "192.168.7.20/24", byDHCP, func(a *Address) { a.Default = true })
	names := dhcp.Found{Interface: "eth0", As: "BIOS", Server: netip.MustParseAddr("192.168.7.1"),
		Address:    netip.MustParseAddr("192.168.7.99"),
		NextServer: netip.MustParseAddr("192.168.7.20"), File: "pxelinux.0"}
	for name, k := range map[string]struct {
		f    *Facts
		w    Wish
		g    Given
		want string // the address, or what the error says
	}{
		"one":               {facts(lab), Wish{}, Given{}, "10.42.1.1"},
		"one, by DHCP":      {facts(up), Wish{}, Given{}, "192.168.7.20"},
		"fixed beside DHCP": {facts(up, lab), Wish{}, Given{}, "10.42.1.1"},
		"containers": {facts(lab, card("docker0", "172.17.0.1/16"), card("virbr0", "192.168.122.1/24")), Wish{}, Given{},
			"10.42.1.1"},
		"no link":            {facts(lab, card("eth2", "10.9.0.1/24", noLink)), Wish{}, Given{}, "10.42.1.1"},
		"two alike":          {facts(lab, card("eth2", "10.9.0.1/24")), Wish{}, Given{}, "testbox setup --address 10.9.0.1"},
		"two of one card":    {facts(lab, card("eth1", "10.9.0.1/24")), Wish{}, Given{}, "testbox setup --address 10.9.0.1"},
		"chosen":             {facts(lab, card("eth2", "10.9.0.1/24")), Wish{Address: "10.9.0.1"}, Given{}, "10.9.0.1"},
		"chosen by card":     {facts(lab, card("eth2", "10.9.0.1/24")), Wish{Card: "eth2"}, Given{}, "10.9.0.1"},
		"card is not there":  {facts(lab), Wish{Card: "eth7"}, Given{}, "10.42.1.1 on eth1"},
		"not ours":           {facts(lab), Wish{Address: "10.9.9.9"}, Given{}, "no card has the address"},
		"none":               {facts(), Wish{}, Given{}, "(there is no card but the loopback); give"},
		"down":               {&Facts{Idle: []string{"eth0 is down", "eth1 has none"}}, Wish{}, Given{}, "(eth0 is down, eth1 has none)"},
		"IPv6 only":          {&Facts{IPv6: true}, Wish{}, Given{}, "Boxes start by IPv4"},
		"site.conf":          {facts(lab, up), Wish{}, Given{Server: netip.MustParseAddr("192.168.7.20")}, "192.168.7.20"},
		"site.conf is stale": {facts(lab), Wish{}, Given{Server: netip.MustParseAddr("192.168.7.20")}, "no card has that address"},
		"site.conf and flag": {facts(lab), Wish{Address: "10.42.1.1"}, Given{Server: netip.MustParseAddr("10.42.1.2")},
			"leave --address out"},
		"site.conf and card": {facts(lab, up), Wish{Card: "eth1"}, Given{Server: netip.MustParseAddr("192.168.7.20")},
			"which the card eth0 has"},
		"named by DHCP": {func() *Facts { f := facts(up, lab); f.DHCP = []dhcp.Found{names}; return f }(), Wish{}, Given{},
			"192.168.7.20"},
	} {
		p, err := Make(k.f, k.w, k.g)
		if err != nil {
			if !strings.Contains(err.Error(), k.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := p.Address.Prefix.Addr().String(); got != k.want {
			t.Errorf("%s: %s, want %s", name, got, k.want)
		}
	}
}

func TestDHCPMode(t *testing.T) {
	at := netip.MustParseAddr
	offer := func(change func(*dhcp.Found)) dhcp.Found {
		f := dhcp.Found{Interface: "eth1", As: "BIOS", Server: at("10.42.1.254"), Address: at("10.42.1.77")}
		if change != nil {
			change(&f)
		}
		return f
	}
	with := func(found ...dhcp.Found) *Facts {
		f := facts(card("eth1", "10.42.1.1/24"))
		f.DHCP = found
		return f
	}
	for name, k := range map[string]struct {
		f     *Facts
		w     Wish
		mode  string // or "error"
		wants string
	}{
		"none heard":       {with(), Wish{}, "", "answers only machines that it knows"},
		"gives addresses":  {with(offer(nil)), Wish{}, "proxy", "10.42.1.254"},
		"proxy not wanted": {with(offer(nil)), Wish{DHCP: "none"}, "", "You chose it"},
		"names us": {with(offer(func(f *dhcp.Found) { f.NextServer, f.File = at("10.42.1.1"), "pxelinux.0" })), Wish{}, "",
			"names this machine as the boot server already"},
		"names us by options": {with(offer(func(f *dhcp.Found) { f.TFTPServer, f.BootFile = "10.42.1.1", "pxelinux.0" })), Wish{}, "",
			"names this machine as the boot server already"},
		"names us, another file": {with(offer(func(f *dhcp.Found) { f.NextServer, f.File = at("10.42.1.1"), "grub.0" })), Wish{}, "",
			"another boot server"},
		"names another": {with(offer(func(f *dhcp.Found) { f.NextServer, f.File = at("10.42.1.9"), "pxelinux.0" })), Wish{}, "",
			"another boot server"},
		"a ProxyDHCP server": {with(offer(nil),
			offer(func(f *dhcp.Found) { f.Address = netip.Addr{}; f.Server = at("10.42.1.8") })), Wish{}, "", "10.42.1.8"},
		"on another card":     {with(offer(func(f *dhcp.Found) { f.Interface = "eth9" })), Wish{}, "", "No DHCP server was heard"},
		"full":                {with(), Wish{DHCP: "full"}, "full", "10.42.1.128-10.42.1.227"},
		"full beside another": {with(offer(nil)), Wish{DHCP: "full"}, "error", "10.42.1.254 gives addresses"},
		"no such mode":        {with(), Wish{DHCP: "both"}, "error", "not proxy"},
		"could not be asked":  {func() *Facts { f := with(); f.NoDHCP = errors.New("no way"); return f }(), Wish{}, "", "no way"},
		"a server on this one": {func() *Facts {
			f := with()
			f.Busy = []Busy{{"udp", netip.MustParseAddrPort("0.0.0.0:67"), 7, "dnsmasq"}}
			return f
		}(), Wish{}, "", "dnsmasq"},
	} {
		p, err := Make(k.f, k.w, Given{File: "server.toml"})
		if err != nil {
			if k.mode != "error" || !strings.Contains(err.Error(), k.wants) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if p.Config.DHCP.Mode != k.mode || !strings.Contains(text(p), k.wants) {
			t.Errorf("%s: the mode is %q, and it says\n%s", name, p.Config.DHCP.Mode, text(p))
		}
		if _, err := server.ParseConfig(server.ConfigText(&p.Config)); err != nil {
			t.Errorf("%s: the server could not read the configuration: %v", name, err)
		}
	}
}

func TestRanges(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.42.1.1/24": "10.42.1.128-10.42.1.227", "10.42.1.200/24": "10.42.1.1-10.42.1.100", "10.0.0.1/8": "10.128.0.0-10.128.0.99",
		"10.42.1.1/28": "10.42.1.8-10.42.1.14", "10.42.1.1/30": "",
	} {
		s, err := subnet(netip.MustParsePrefix(prefix), netip.Addr{})
		if err != nil && want != "" || s.Range != want {
			t.Errorf("%s: %s, %v", prefix, s.Range, err)
		}
	}
}

// TestTrouble has what stands in the way, and what is only said.
func TestTrouble(t *testing.T) {
	busy := func(proto, at string) func(*Facts) {
		return func(f *Facts) {
			f.Busy = append(f.Busy, Busy{proto, netip.MustParseAddrPort(at), 812, "other\x1b[31m"})
		}
	}
	for name, k := range map[string]struct {
		change func(*Facts)
		wants  string
	}{
		"TFTP":        {busy("udp", "0.0.0.0:69"), "[MISSING] port 69: UDP port 69 is in use by \"other\\x1b[31m\" (process 812)"},
		"agents":      {busy("tcp", "[::]:8444"), "[MISSING] port 8444: TCP port 8444"},
		"web server":  {busy("tcp", "0.0.0.0:80"), "[chosen] port: Boxes get files by HTTP at TCP port 8080"},
		"full":        {func(f *Facts) { f.Free = 1 << 20 }, "[MISSING] state: "},
		"memory":      {func(f *Facts) { f.FileSystem = "tmpfs" }, "[MISSING] state: "},
		"little room": {func(f *Facts) { f.Free = 5 << 30 }, "[perhaps]"},
		"packages":    {func(f *Facts) { f.Missing = []string{"pxelinux", "xz-utils"} }, "apt-get install pxelinux xz-utils"},
		"clock":       {func(f *Facts) { f.Now = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC) }, "[MISSING] time: "},
		"firewall":    {func(f *Facts) { f.Firewall = "ufw is on" }, "UDP 69 and TCP 80 and 8444"},
		"no link":     {func(f *Facts) { noLink(&f.Addresses[0]) }, "[hint] address: The card eth1 has no link"},
		"no room": {func(f *Facts) { f.Addresses[0].Prefix = netip.MustParsePrefix("10.42.1.1/32") },
			"10.42.1.1/32 has no room for boxes"},
		"by DHCP":          {func(f *Facts) { f.Addresses[0].Dynamic = true }, "may change"},
		"nothing is wrong": {func(*Facts) {}, "[so] ports: No other program"},
	} {
		f := facts(card("eth1", "10.42.1.1/24"))
		k.change(f)
		p, err := Make(f, Wish{}, Given{})
		if err != nil || !strings.Contains(text(p), strings.ReplaceAll(k.wants, "[perhaps]", "[hint] state: ")) {
			t.Errorf("%s: %v\n%s", name, err, text(p))
		}
	}
}

// TestGivenStays: what is in a configuration is not chosen anew.
func TestGivenStays(t *testing.T) {
	cfg, err := server.ParseConfig([]byte("http = \":8081\"\n[dhcp]\nmode = \"proxy\"\ninterfaces = [\"eth9\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := facts(card("eth1", "10.42.1.1/24"))
	f.Busy = []Busy{{"tcp", netip.MustParseAddrPort("0.0.0.0:8081"), 7, "nginx"}}
	p, err := Make(f, Wish{}, Given{Config: cfg, File: "server.toml"})
	if err != nil || p.New || string(server.ConfigText(&p.Config)) != string(server.ConfigText(cfg)) {
		t.Errorf("the configuration is another one: %v", err)
	}
	if _, err := Make(f, Wish{DHCP: "none"}, Given{Config: cfg,
		File: "server.toml"}); err == nil || !strings.Contains(err.Error(), "leave --dhcp out") {
		t.Errorf("a flag against the configuration: %v", err)
	}
}

// TestHeard: where our DHCP is off, it is said whether another one sends boxes here.
func TestHeard(t *testing.T) {
	at := netip.MustParseAddr
	cfg := server.DefaultConfig()
	offer := dhcp.Found{Interface: "eth1", As: "BIOS", Server: at("10.42.1.254"), Address: at("10.42.1.77")}
	for want, change := range map[string]func(*Facts){
		"[so] DHCP: The DHCP server 10.42.1.254 names this machine": func(f *Facts) {
			offer := offer
			offer.NextServer, offer.File = at("10.42.1.1"), "pxelinux.0"
			f.DHCP = []dhcp.Found{offer}
		},
		"to another boot server": func(f *Facts) {
			offer := offer
			offer.NextServer, offer.File = at("10.42.1.9"), "pxelinux.0"
			f.DHCP = []dhcp.Found{offer}
		},
		"names no boot server": func(f *Facts) { f.DHCP = []dhcp.Found{offer} },
		"was heard":            func(*Facts) {},
		"no way":               func(f *Facts) { f.NoDHCP = errors.New("no way") },
	} {
		f := facts(card("eth1", "10.42.1.1/24"))
		change(f)
		p, err := Make(f, Wish{}, Given{Config: &cfg, File: "server.toml"})
		if err != nil || !strings.Contains(text(p), want) || p.Config.DHCP.Mode != "" || p.Named != strings.HasPrefix(want, "[so]") {
			t.Errorf("%s: %v\n%s", want, err, text(p))
		}
	}
}

func TestSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 00000000000000000000000000000000:20FB 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4713 1
   3: junk
`
	got := parseSockets(strings.NewReader(table), "tcp")
	if len(got) != 2 || got[0].busy.At.String() != "127.0.0.1:8080" || got[0].inode != "4711" || got[1].busy.At.String() != "[::]:8443" {
		t.Errorf("%+v", got)
	}
	all := BusyPorts("/proc")
	if len(all) == 0 {
		t.Skip("nothing listens here")
	}
}

func FuzzSockets(f *testing.F) {
	f.Add("head\n 0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 4711 1\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseSockets(strings.NewReader(s), "tcp")
		parseSockets(strings.NewReader(s), "udp")
	})
}

// TestLinesOfGuide: what is printed for other DHCP servers is what the guide has.
func TestLinesOfGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{Address: card("eth0", "10.40.0.1/16")}
	for _, line := range []string{"dhcp-boot=pxelinux.0,,10.40.0.1", "next-server 10.40.0.1;", `filename "pxelinux.0";`, `"next-server": "10.40.0.1"`,
		`"boot-file-name": "pxelinux.0"`, "Boot Server Host Name", "Bootfile Name", "next-server=10.40.0.1 boot-file-name=pxelinux.0"} {
		if !strings.Contains(p.DHCPLines(), line) || !strings.Contains(string(guide), line) {
			t.Errorf("%s is not in both", line)
		}
	}
}

package doctor

import (
	"context"
	"debug/pe"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/server"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/testenv/testpe"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// has fails unless there is a finding of this severity and check that has the text.
func has(t testing.TB, all []Finding, s Severity, check, text string) {
	t.Helper()
	for _, f := range all {
		if f.Severity == s && f.Check == check && strings.Contains(f.Text, text) {
			if (s == Problem || s == Warning) && f.Do == "" {
				t.Errorf("%s: %s says not what to do", check, f.Text)
			}
			return
		}
	}
	t.Errorf("no %s of %s with %q: %+v", s, check, text, all)
}

// onlyFine fails if something is wrong.
func onlyFine(t testing.TB, all []Finding) {
	t.Helper()
	for _, f := range all {
		if f.Severity != Fine {
			t.Errorf("%s: %s: %s", f.Severity, f.Check, f.Text)
		}
	}
	if len(all) == 0 {
		t.Error("nothing was said")
	}
}

func TestRun(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	all := run(t.Context(), []Check{
		{"hangs", func(context.Context) []Finding { <-forever; return nil }},
		{"hostile", func(context.Context) []Finding {
			return []Finding{problem("", "do\x1b[2J", "a\x1b]0;b\n%s", strings.Repeat("ä", 5000))}
		}},
		{"many", func(context.Context) []Finding { return make([]Finding, 5000) }},
	}, 10*time.Millisecond)
	has(t, all, NotLooked, "hangs", "longer than")
	if all[1].Check != "hostile" || strings.ContainsRune(all[1].Text+all[1].Do, '\x1b') || len(all[1].Text) > maxText+10 {
		t.Errorf("%q", all[1])
	}
	if len(all) > maxFindings+3 {
		t.Errorf("%d findings", len(all))
	}
}

// TestOffers: faults of offers become findings, and without one it is said that all is well. What faults there are, package dhcp tests.
func TestOffers(t *testing.T) {
	good := dhcp.Found{Interface: "eth0", As: "BIOS", Server: ip("10.1.0.1"), Address: ip("10.1.0.50"), NextServer: ip("10.1.0.2"),
		File: "pxelinux.0", Class: "PXEClient"}
	want := dhcp.Want{Server: ip("10.1.0.2"), Loaders: bootcfg.BIOSLoaders}
	has(t, Offers([]dhcp.Found{good}, want), Warning, "option-60", "PXEClient")
	good.Class = ""
	onlyFine(t, Offers([]dhcp.Found{good}, want))
	good.NextServer = ip("10.1.0.9")
	has(t, Offers([]dhcp.Found{good}, want), Problem, "next-server", "10.1.0.9")
	has(t, Offers(nil, want), Warning, "no-dhcp", "")
}

// TestDHCPNotAsked: why nobody could be asked is said, and is not taken for silence.
func TestDHCPNotAsked(t *testing.T) {
	want := dhcp.Want{}
	say := func(err error) []Finding {
		return DHCP(t.Context(), func(context.Context) ([]dhcp.Found, error) { return nil, err }, want,
			func() string { return "\"dnsmasq\" (process 7)" })
	}
	has(t, say(os.NewSyscallError("bind", unix.EADDRINUSE)), NotLooked, "dhcp", `in use by "dnsmasq" (process 7)`)
	has(t, say(os.NewSyscallError("bind", unix.EACCES)), NotLooked, "dhcp", "only root")
	has(t, say(nil), Warning, "no-dhcp", "no DHCP server has offered")
	want.Who = dhcp.Proxy
	if all := say(os.NewSyscallError("bind", unix.EADDRINUSE)); len(all) > 0 {
		t.Errorf("our own server has the port: %+v", all)
	}
}

func TestTFTP(t *testing.T) {
	testenv.Long(t, "6 seconds")
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer conn.Close()
	answer := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 600)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if buf[1] == 1 {
				select {
				case a := <-answer:
					conn.WriteToUDPAddrPort(a, from)
				default:
				}
			}
		}
	}()
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	none := func(context.Context) (string, error) { return `{"nftables":[]}`, nil }
	answer <- []byte("\x00\x03\x00\x01data")
	onlyFine(t, TFTP(t.Context(), at, "pxelinux.0", true, none))
	answer <- []byte("\x00\x05\x00\x01no \x1bfile\x00")
	has(t, TFTP(t.Context(), at, "pxelinux.0", true, none), Problem, "tftp", `error 1: "no \x1bfile"`)
	has(t, TFTP(t.Context(), at, "pxelinux.0", true, none), Problem, "tftp", "no TFTP server answers")
	answer <- []byte("\x00\x03\x00\x01data")
	has(t, TFTP(t.Context(), at, "x", true, func(context.Context) (string, error) { return "", os.ErrPermission }), NotLooked, "firewall", "")
}

// place is a folder of boot files that is right.
func place(t testing.TB) *arming.Place {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "testbox-tftp")
	files := map[string]string{
		"pxelinux.0": strings.Repeat("PXELINUX ", 200), "ldlinux.c32": "\x7fELF" + strings.Repeat("x", 2000),
		"pxelinux.cfg/default": string(bootcfg.DefaultConfig()), "pxelinux.cfg/site.conf": "server = 10.1.0.2\n",
		"maintenance-boot/ram-1/vmlinuz":      strings.Repeat("\x00", 0x202) + "HdrS" + strings.Repeat("k", 100),
		"maintenance-boot/ram-1/initrd.img":   "\x28\xb5\x2f\xfd" + strings.Repeat("i", 100),
		"maintenance-boot/ram-1/version.json": `{"format":1,"version":"ram-1","form":"ram","kernel":"6.1.0-1-amd64","built":"2026-11-01T00:00:00Z"}`,
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	if os.Getuid() == 0 {
		must(t, os.Chown(filepath.Join(dir, "pxelinux.cfg"), 65534, -1)) // boxes come as this user
	}
	return &arming.Place{Boot: bootfiles.New(durable.OS{}, filepath.Join(dir, "pxelinux.cfg")), FS: durable.OS{}, Now: time.Now,
		Neighbours: "/dev/null", Names: arming.Resolver{
			Addrs: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") },
			Names: func(context.Context, string) ([]string, error) { return nil, errors.New("no such address") },
		}}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func TestBootFiles(t *testing.T) {
	p := place(t)
	onlyFine(t, BootFiles(t.Context(), p))
	write(t, p.Boot.Path("01-52-54-00-12-34-56"), "x")
	write(t, p.Boot.Path("0A28292A"), "damaged")
	write(t, p.Boot.Path("0A28"), "KERNEL menu.c32\n")
	all := BootFiles(t.Context(), p)
	has(t, all, Warning, "shadow", "01-52-54-00-12-34-56")
	has(t, all, Problem, "boot-files", "0A28292A")
	has(t, all, Problem, "boot-files", "10.40.0.0 to 10.40.255.255")
	write(t, p.Boot.Path("default"), "DEFAULT menu.c32\n")
	has(t, BootFiles(t.Context(), p), Problem, "boot-files", "does not clearly boot the local disk")
}

func TestLoaders(t *testing.T) {
	p, usr := place(t), t.TempDir()
	tftp := p.Boot.TFTP()
	has(t, Loaders(tftp, usr), NotLooked, "loader", "not installed here")
	for _, c := range []struct{ from, to string }{{"pxelinux.0", "PXELINUX/pxelinux.0"},
		{"ldlinux.c32", "syslinux/modules/bios/ldlinux.c32"}} {
		b, err := os.ReadFile(filepath.Join(tftp, c.from))
		must(t, err)
		write(t, filepath.Join(usr, c.to), string(b))
	}
	onlyFine(t, Loaders(tftp, usr))
	write(t, filepath.Join(tftp, "ldlinux.c32"), "\x7fELF"+strings.Repeat("y", 2000))
	has(t, Loaders(tftp, usr), Problem, "loader", "two versions")
	write(t, filepath.Join(tftp, "ldlinux.c32"), strings.Repeat("y", 2000))
	has(t, Loaders(tftp, usr), Problem, "loader", "damaged")
	must(t, os.Remove(filepath.Join(tftp, "pxelinux.0")))
	has(t, Loaders(tftp, usr), Problem, "loader", "no such file")
	has(t, Loaders(tftp, usr), Fine, "loader", "there are none for UEFI machines")
	keys := testpe.NewSite()
	grub := string(keys.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2.12-9", "7", "http"))
	write(t, filepath.Join(tftp, "uefi-trust.pem"), string(keys.Firmware.PEM()))
	write(t, filepath.Join(tftp, "shimx64.efi"), string(keys.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5")))
	write(t, filepath.Join(tftp, "grubx64.efi"), grub)
	has(t, Loaders(tftp, usr), Fine, "loader", "GRUB 2.12-9, which loads by TFTP and HTTP, rightly signed (by Firmware CA)")
	write(t, filepath.Join(tftp, "grubx64.efi"), grub[:len(grub)-9])
	has(t, Loaders(tftp, usr), Problem, "loader", "the loaders for UEFI machines (x64)")
}

func TestMaintenance(t *testing.T) {
	p := place(t)
	now := time.Now()
	whole := maintenance.Compared{Packages: 9, Known: 9, Lists: now}
	look := func(c maintenance.Compared, err error) []Finding {
		return Maintenance(t.Context(), p, bootcfg.ServerMode, func(_ context.Context, dir string) (*maintenance.Compared, error) {
			if filepath.Base(dir) != "ram-1" {
				t.Errorf("the packages of %s", dir)
			}
			return &c, err
		})
	}
	onlyFine(t, look(whole, nil))
	newer := whole
	for i := range 7 {
		newer.Updates = append(newer.Updates, maintenance.Update{
			Name: fmt.Sprint("linux-image-", i), Has: "6.1.1-1", Newer: "6.1.2-1", Security: i < 2})
	}
	has(t, look(newer, nil), Warning, "maintenance", "knows 7 newer ones, 2 security updates: "+
		"linux-image-0 6.1.1-1 (there is 6.1.2-1, a security update)")
	has(t, look(newer, nil), Warning, "maintenance", "and 2 more")
	unknown, old := whole, whole
	unknown.Known, old.Lists = 0, now.Add(-40*24*time.Hour)
	has(t, look(unknown, nil), NotLooked, "maintenance", "knows none of the 9 packages")
	has(t, look(old, nil), NotLooked, "maintenance", "apt-get update")
	has(t, look(whole, os.ErrNotExist), NotLooked, "maintenance", "cannot be compared")
	dir := filepath.Join(p.Boot.TFTP(), "maintenance-boot/ram-1")
	write(t, filepath.Join(dir, "initrd.img"), "rubbish")
	has(t, look(whole, nil), Problem, "maintenance", "initrd.img is damaged")
	write(t, filepath.Join(dir, "vmlinuz"), "rubbish")
	has(t, look(whole, nil), Problem, "maintenance", "vmlinuz is damaged")
	must(t, os.Remove(filepath.Join(dir, "vmlinuz")))
	has(t, look(whole, nil), Problem, "maintenance", "there is no maintenance system")
}

func TestMachine(t *testing.T) {
	now := time.Now()
	prog := filepath.Join(t.TempDir(), "testbox")
	write(t, prog, "")
	onlyFine(t, Clock(now, prog))
	has(t, Clock(now.Add(-time.Hour), prog), Problem, "clock", "later than that")
	onlyFine(t, Skew(now, now.Add(time.Minute)))
	has(t, Skew(now, now.Add(time.Hour)), Problem, "clock", "differ by 1h0m0s")
	onlyFine(t, roomOf("/s", 50<<30, 100<<30))
	has(t, roomOf("/s", 5<<30, 100<<30), Warning, "room", "5 %")
	has(t, roomOf("/s", 1<<30, 100<<30), Problem, "room", "1 %")

	cfg := server.DefaultConfig()
	cfg.State = t.TempDir()
	onlyFine(t, LedgerCopy(&cfg, now))
	write(t, cfg.LedgerFile(), "")
	has(t, LedgerCopy(&cfg, now), Warning, "ledger-copy", "no copy")
	write(t, cfg.LedgerCopy(), "")
	onlyFine(t, LedgerCopy(&cfg, now))
	must(t, os.Chtimes(cfg.LedgerCopy(), now, now.Add(-72*time.Hour)))
	has(t, LedgerCopy(&cfg, now), Problem, "ledger-copy", "is of")
	cfg.Upkeep.At = ""
	has(t, LedgerCopy(&cfg, now), Warning, "ledger-copy", "never copied")
}

func TestStatus(t *testing.T) {
	st := api.ServerStatus{Version: "1", Parts: []api.Part{{Name: "TFTP", State: api.PartOn}}}
	onlyFine(t, Status(st, "1"))
	has(t, Status(st, "2"), Warning, "version", "")
	st.Parts = append(st.Parts, api.Part{Name: "HTTP for boxes", State: api.PartFailed, Missing: []string{"port 80 is taken"}})
	has(t, Status(st, "1"), Problem, "server", "port 80 is taken")

	proxy := func(h *api.HeardDHCP, missing ...string) []Finding {
		return Status(api.ServerStatus{Version: "1", Parts: []api.Part{{Name: "ProxyDHCP", State: api.PartOn, Heard: h, Missing: missing}}}, "1")
	}
	has(t, proxy(nil), NotLooked, "dhcp", "has not asked")
	onlyFine(t, proxy(&api.HeardDHCP{}))
	all := proxy(&api.HeardDHCP{Faults: []api.DHCPFault{
		{Check: "option-43", Sure: true, Text: "a menu", Do: "Stop."}, {Check: "no-dhcp", Text: "none", Do: "Start."}},
	}, "A menu. Stop.", "no card")
	has(t, all, Problem, "option-43", "a menu")
	has(t, all, Warning, "no-dhcp", "none")
	has(t, all, Problem, "server", "no card")
	if Count(all, Problem) != 2 {
		t.Errorf("something is said twice: %+v", all)
	}
}

func TestBoxes(t *testing.T) {
	nets := []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}
	onlyFine(t, Boxes([]api.Box{{Address: "10.1.0.50", MACs: []string{"a"}}, {Address: "10.1.0.51", MACs: []string{"b"}}}, nets))
	all := Boxes([]api.Box{{Address: "10.1.0.2"}, {Address: "10.1.0.255"}, {Address: "10.1.0.0"},
		{Address: "10.1.0.7", MACs: []string{"a"}, SilentSince: time.Now()},
		{Address: "10.1.0.9", SilentSince: time.Now(), Lost: true}, {Address: "10.1.0.8", MACs: []string{"a"},
			Moved: &api.Moved{Address: "10.1.0.99"}, Shared: &api.SharedAddress{MAC: "c"}}}, nets)
	has(t, all, Problem, "address", "of the server itself")
	has(t, all, Problem, "address", "10.1.0.255 is the first or the last")
	has(t, all, Problem, "address", "10.1.0.0 is the first or the last")
	has(t, all, Problem, "two-macs", "10.1.0.7 and 10.1.0.8")
	has(t, all, Warning, "silent", "10.1.0.7")
	has(t, all, Problem, "silent", "10.1.0.9 is lost")
	has(t, all, Problem, "moved", "10.1.0.99")
	has(t, all, Problem, "shared", "(c)")
}

func TestStuck(t *testing.T) {
	now := time.Now()
	since := now.Add(-2 * time.Hour)
	asked := func(given ...string) api.Box {
		m := api.Machine{}
		for _, g := range given {
			over, name, _ := strings.Cut(g, ":")
			m.Asked = append(m.Asked, api.Ask{Time: since.Add(time.Hour), Over: over, Given: name})
		}
		return api.Box{Address: "10.40.41.42", Last: &api.LastJob{State: "armed", Since: since}, Machines: []api.Machine{m}}
	}
	for _, c := range []struct {
		b           api.Box
		s           Severity
		check, text string
	}{
		{asked(), Warning, "boot-order", "asked for nothing"},
		{asked("dhcp:10.40.41.42"), Problem, "stuck", "never got the loader"},
		{asked("dhcp:", "tftp:pxelinux.0"), Problem, "stuck", "never its boot file"},
		{asked("tftp:pxelinux.0", "tftp:pxelinux.cfg/0A28292A"), Problem, "stuck", "never the kernel"},
		{asked("tftp:pxelinux.cfg/0A28292A", "tftp:maintenance-boot/ram-1/vmlinuz"), Problem, "stuck", "never said hello"},
	} {
		has(t, Stuck(&c.b, now), c.s, c.check, c.text)
	}
	b := asked()
	b.LastSeen = since.Add(time.Minute)
	has(t, Stuck(&b, now), Problem, "boot-order", "does not boot from the network first")
	b.Machines[0].OwnDisk = since.Add(time.Minute)
	has(t, Stuck(&b, now), Problem, "stuck", "default boot file")
	b = asked("tftp:pxelinux.0")
	onlyFine(t, Stuck(&b, since.Add(time.Hour+time.Minute)))
	if b.Last.State = "ended"; Stuck(&b, now) != nil {
		t.Error("a job that has ended is stuck")
	}
}

func TestBox(t *testing.T) {
	b := api.Box{Address: "10.1.0.7", Health: "suspect", Effective: &api.Effective{Power: "none", PowerWhy: "two groups"},
		Last: &api.LastJob{State: "ended", Outcome: "failed", Text: "no room"}, Holder: &api.Holder{Name: "ann"}}
	all := Box(&b, time.Now())
	has(t, all, Warning, "health", "suspect")
	has(t, all, Warning, "power", "two groups")
	has(t, all, Warning, "job", "no room")
	has(t, all, Warning, "backup", "no backup")
	has(t, all, Warning, "holder", "ann")
	has(t, Backups([]api.Backup{{ID: "1", Disks: []api.BackupDisk{{Name: "sda", Lacks: true}}}}), Problem, "damage", "sda")
}

// TestBootOrder: a box whose firmware does not keep the network first is a problem, with what to do about it.
func TestBootOrder(t *testing.T) {
	b := api.Box{Address: "10.1.0.7", Firmware: &api.BoxFirmware{Kind: efi.UEFI, BootOrder: efi.OrderRepaired}}
	onlyFine(t, Boxes([]api.Box{b}, nil))
	for result, want := range map[efi.Result]string{efi.OrderIgnored: "did not stay", efi.OrderFailed: "could not put",
		efi.OrderNone: "no boot entry"} {
		b.Firmware = &api.BoxFirmware{Kind: efi.UEFI, BootOrder: result, Needs: true, Why: "It was 0002."}
		for _, all := range [][]Finding{Boxes([]api.Box{b}, nil), Box(&b, time.Now())} {
			has(t, all, Problem, "boot-order", want)
			has(t, all, Problem, "boot-order", "It was 0002.")
			for _, f := range all {
				if f.Check == "boot-order" && !strings.Contains(f.Do, "testbox refresh-info 10.1.0.7") {
					t.Errorf("what to do is %q", f.Do)
				}
			}
		}
	}
}

// TestFirmware: a backup of a system that starts by BIOS is no good for a box that starts by UEFI now.
func TestFirmware(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	backup := func(id, kind string, baseline bool) api.Backup {
		b := api.Backup{ID: id, Baseline: baseline}
		if kind != "" {
			b.Firmware = &api.BackupFirmware{Kind: kind}
		}
		return b
	}
	noted := api.Box{Firmware: &api.BoxFirmware{Kind: efi.UEFI, Time: at}}
	asked := noted
	asked.Machines = []api.Machine{{Arch: "BIOS", LastSeen: at.Add(-time.Hour)}, {Arch: "UEFI x86-64", LastSeen: at.Add(time.Hour)},
		{LastSeen: at.Add(2 * time.Hour)}}
	legacy := noted
	legacy.Machines = []api.Machine{{Arch: "BIOS", LastSeen: at.Add(time.Hour)}}
	for name, c := range map[string]struct {
		box  api.Box
		list []api.Backup
		want Severity // "" is nothing
		text string
	}{
		"as noted":               {noted, []api.Backup{backup("1", efi.BIOS, false), backup("2", efi.UEFI, false)}, Fine, "backup 2"},
		"the latest is another":  {noted, []api.Backup{backup("1", efi.UEFI, false), backup("2", efi.BIOS, false)}, Warning, "backup 2"},
		"the baseline counts":    {noted, []api.Backup{backup("1", efi.BIOS, true), backup("2", efi.UEFI, false)}, Warning, "backup 1"},
		"it asked for UEFI last": {asked, []api.Backup{backup("1", efi.UEFI, false)}, Fine, "UEFI"},
		"it asked for BIOS last": {legacy, []api.Backup{backup("1", efi.UEFI, false)}, Warning, "starts by BIOS now"},
		"an old backup":          {noted, []api.Backup{backup("1", efi.BIOS, false), backup("2", "", false)}, "", ""},
		"no backup":              {noted, nil, "", ""},
		"nothing known":          {api.Box{}, []api.Backup{backup("1", efi.BIOS, false)}, "", ""},
	} {
		all := Firmware(&c.box, c.list)
		if c.want == "" {
			if len(all) > 0 {
				t.Errorf("%s: %+v", name, all)
			}
			continue
		}
		has(t, all, c.want, "firmware", c.text)
	}
}

func TestRestore(t *testing.T) {
	saved := &api.Box{Address: "10.1.0.7", LastBackup: &api.LastBackup{}}
	say := func(b *api.Box, refused string, open *api.LastJob) []Finding {
		return Restore(b, []api.CheckedJob{{Box: b.Address, Refused: refused, Open: open}}, nil)
	}
	onlyFine(t, say(saved, "", nil))
	has(t, say(saved, "", &api.LastJob{ID: "j7"}), Fine, "restore", "j7")
	has(t, say(saved, "the store lacks it", nil), Problem, "restore", "the store lacks it")
	has(t, say(&api.Box{}, "there is no backup", nil), Warning, "restore", "no backup")
	held := *saved
	held.Holder = &api.Holder{Name: "ann"}
	has(t, say(&held, "ann has it", nil), Warning, "restore", "ann has it")
	forbidden := fmt.Errorf("asked: %w", &api.Problem{Status: 403, Detail: "no"})
	has(t, Restore(saved, nil, forbidden), NotLooked, "restore", "role operator")
	has(t, Restore(saved, nil, os.ErrDeadlineExceeded), NotLooked, "restore", "timeout")
	has(t, Restore(saved, nil, nil), NotLooked, "restore", "did not say")
}

// careless lets each write succeed.
type careless struct{ blob.Store }

func (c careless) Create(ctx context.Context, name string, _ blob.Version) (blob.Writer, error) {
	return c.Store.Create(ctx, name, blob.Any)
}

func TestBlocks(t *testing.T) {
	chain := `{"chain":{"family":"inet","table":"f","name":"in","hook":"input","policy":%s}}`
	doc := func(policy string, rules ...string) string {
		b, _ := json.Marshal(policy)
		text := `{"nftables":[` + strings.ReplaceAll(chain, "%s", string(b))
		for _, r := range rules {
			text += `,{"rule":{"family":"inet","table":"f","chain":"in","expr":` + r + `}}`
		}
		return text + "]}"
	}
	ssh := `[{"match":{"left":{"payload":{"protocol":"tcp","field":"dport"}},"right":22}},{"accept":null}]`
	tftp := `[{"match":{"left":{"payload":{"protocol":"udp","field":"dport"}},"right":69}},{"accept":null}]`
	for rules, want := range map[string]bool{
		doc("accept"): false, doc("accept", ssh): false, doc("drop"): true, doc("drop", ssh): true, doc("drop", ssh, tftp): false,
		doc("accept", ssh, `[{"reject":null}]`): true, doc("accept", strings.ReplaceAll(tftp, "accept", "drop")): true, "": false, "[]": false,
	} {
		if Blocks(rules, 69) != want {
			t.Errorf("not %v: %s", want, rules)
		}
	}
}

func TestConditions(t *testing.T) {
	onlyFine(t, Conditions(t.Context(), &mem.Store{}, false))
	has(t, Conditions(t.Context(), careless{&mem.Store{}}, false), Problem, "s3", "would lose backups")
	has(t, Conditions(t.Context(), careless{&mem.Store{}}, true), Warning, "s3", "nothing else writes")
}

// TestNoNFS: what does not answer, or answers rubbish, is said.
func TestNoNFS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				c.Read(make([]byte, 100))
				c.Write([]byte("\xff\xff\xff\xffrubbish"))
				c.Close()
			}()
		}
	}()
	s := &site.Site{Server: ip("127.0.0.1")}
	has(t, exports(t.Context(), s, port, port), Problem, "exports", "too long")
	l.Close()
	has(t, exports(t.Context(), s, port, port), Problem, "exports", "does not answer")
}

// TestServedKeys: another key at the server's address is another machine, or one that was made anew.
func TestServedKeys(t *testing.T) {
	mine, other := wire.Fingerprint{1}, wire.Fingerprint{2}
	ports := []KeyAt{{"https://10.1.0.2:8444", "/t/agents.crt", func() (wire.Fingerprint, error) { return mine, nil }}}
	say := func(is wire.Fingerprint, err error) []Finding {
		return ServedKeys(t.Context(), ports, func(_ context.Context, url string) (wire.Fingerprint, error) { return is, err })
	}
	onlyFine(t, say(mine, nil))
	has(t, say(other, nil), Problem, "keys", "https://10.1.0.2:8444 has the key")
	has(t, say(mine, os.ErrDeadlineExceeded), Problem, "keys", "nobody shows a key at https://10.1.0.2:8444")
	ports[0].Want = func() (wire.Fingerprint, error) { return mine, os.ErrPermission }
	has(t, say(mine, nil), NotLooked, "keys", "/t/agents.crt cannot be read")
}

// TestUnanswered reads the kernel's table of neighbours.
func TestUnanswered(t *testing.T) {
	table := filepath.Join(t.TempDir(), "arp")
	write(t, table, "IP address       HW type     Flags       HW address            Mask     Device\n"+
		"10.1.0.7         0x1         0x2         52:54:00:00:00:07     *        eth0\n"+
		"10.1.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0\nrubbish\n")
	for addr, want := range map[string]bool{"10.1.0.7": false, "10.1.0.8": true, "10.1.0.9": false} {
		if got := unanswered(table, ip(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if unanswered(table+"x", ip("10.1.0.8")) {
		t.Error("without a table")
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/doctor"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/server"
	"testbox-imaging/internal/setup"
	"testbox-imaging/internal/version"
	"testbox-imaging/internal/wire"
	"testbox-imaging/internal/words"
)

func newDoctorCmd(w world) *cobra.Command {
	d := &doctorRun{world: w, api: serverFlag{world: w}}
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "doctor [BOX]",
		Short: "Find what keeps boxes from being backed up or restored, and say what to do",
		Long: `Looks for what admins lose days with: no DHCP server or two, one that sends boxes elsewhere, TFTP that a
firewall keeps away, files that shadow boot files, stale or damaged boot files, loaders that do not fit
together, an old maintenance system, exports that boxes cannot mount or write to, a full disk, wrong clocks
and keys, object storage that loses writes, boxes that do not start from the network. With BOX it looks at
that box. Nothing is changed.

On the storage server run it as root, since only root may look at all. On another machine of the boxes'
network it sees what boxes see: DHCP and TFTP. It ends within a minute. docs/troubleshooting.md says more of
each finding. What could not be looked at is said, with the reason.

The exit code is 1 if there is a problem. It is 0 if there are only warnings, or things that were
not looked at.`,
		Example: `  sudo testbox doctor
  testbox doctor 10.40.41.42
  testbox doctor --json`,
		Args: takesWords(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 50*time.Second)
			defer cancel()
			checks, err := d.checks(ctx, args)
			if err != nil {
				return err
			}
			found := doctor.Run(ctx, checks)
			if err := context.Cause(cmd.Context()); err != nil {
				return err
			}
			return printFindings(printerOf(cmd), found, asJSON, all)
		},
	}
	d.api.add(cmd)
	cmd.Flags().StringVar(&d.config, "config", server.DefaultFile, "the configuration `FILE` of a server on this machine")
	cmd.Flags().StringVarP(&d.boot, "boot-files", "c", "", "`FOLDER` of boot files of share mode (pxelinux.cfg), if it is not one of "+
		"the usual")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all findings for programs")
	cmd.Flags().BoolVarP(&all, "verbose", "v", false, "also say what is fine")
	mustComplete(cmd.MarkFlagFilename("config", "toml"))
	mustComplete(cmd.MarkFlagDirname("boot-files"))
	return cmd
}

func printFindings(p printer, found []doctor.Finding, asJSON, all bool) error {
	if asJSON {
		if err := printJSON(p, map[string]any{"findings": found}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			if f.Severity == doctor.Fine && !all {
				continue
			}
			p.printf("%s: %s: %s\n", f.Severity, f.Check, strings.ReplaceAll(strings.TrimSuffix(f.Text, "."), "\n", "\n    ")+".")
			if f.Do != "" {
				p.printf("    do: %s\n", strings.ReplaceAll(f.Do, "\n", "\n    "))
			}
		}
		p.printf("%s, %s, %d not looked at, %d fine.\n", words.Count(doctor.Count(found, doctor.Problem), "problem"),
			words.Count(doctor.Count(found, doctor.Warning), "warning"), doctor.Count(found, doctor.NotLooked), doctor.Count(found, doctor.Fine))
	}
	if n := doctor.Count(found, doctor.Problem); n > 0 {
		return fmt.Errorf("%s found", words.Count(n, "problem was", "problems were"))
	}
	return nil
}

// doctorRun is one call of the doctor: what it knows of this machine.
type doctorRun struct {
	world  world
	api    serverFlag
	config string
	boot   string

	cfg   *server.Config // of a server on this machine; or nil
	place *arming.Place  // the boot files that this machine has; or nil
	site  netip.Addr     // where boxes get their boot files; not valid if that is not known
	mine  []netip.Prefix // addresses of this machine
}

// checks decides what is looked at.
func (d *doctorRun) checks(ctx context.Context, args []string) (all []doctor.Check, err error) {
	add := func(name string, look func(context.Context) []doctor.Finding) {
		all = append(all, doctor.Check{Name: name, Look: look})
	}
	var facts setup.Facts
	if err := facts.Cards(); err != nil {
		return nil, err
	}
	d.mine = facts.Mine
	unread := d.readConfig()
	mode := bootcfg.ShareMode
	if d.cfg != nil {
		mode = bootcfg.ServerMode
	}
	dir := d.boot
	if d.cfg != nil && dir == "" {
		dir = d.cfg.BootDir()
	}
	var noPlace error
	if d.place, noPlace = d.world.place(dir); noPlace != nil && d.boot != "" {
		return nil, noPlace
	}
	if d.place != nil {
		if s, err := arming.ReadSite(d.place.FS, d.place.Boot); err == nil {
			d.site = s.Server
			if d.cfg == nil {
				add("exports", func(ctx context.Context) []doctor.Finding { return doctor.Exports(ctx, s) })
			}
		}
	}
	client, noServer := d.api.open()
	if noServer == nil && !d.site.IsValid() {
		d.site = remoteAddress(client.Server())
	}
	if unread != nil {
		add("server-files", func(context.Context) []doctor.Finding { return []doctor.Finding{*unread} })
	}
	if len(args) == 1 {
		d.boxChecks(args[0], client, noServer, add)
		return all, nil
	}
	if prog, err := d.world.executable(); err == nil {
		add("clock", func(context.Context) []doctor.Finding { return doctor.Clock(d.world.now(), prog) })
	}
	d.networkChecks(add)
	switch {
	case d.place != nil:
		d.bootChecks(mode, add)
		if !ofServer(d.place) {
			add("machine-id", func(context.Context) []doctor.Finding { return doctor.ShareCopies(d.place) })
		}
	case d.cfg != nil || noServer != nil:
		add("boot-files", func(context.Context) []doctor.Finding {
			return []doctor.Finding{doctor.NotLookedAt("boot-files", noPlace.Error())}
		})
	default:
		add("boot-files", func(context.Context) []doctor.Finding {
			return []doctor.Finding{doctor.NotLookedAt("boot-files", "they are on the storage server; run testbox doctor there")}
		})
	}
	if d.cfg != nil {
		d.serverChecks(add)
	}
	if d.cfg != nil || noServer == nil {
		add("server", func(ctx context.Context) []doctor.Finding { return d.askServer(ctx, client, noServer) })
	}
	return all, nil
}

// readConfig reads the configuration of a server on this machine.
func (d *doctorRun) readConfig() *doctor.Finding {
	cfg, err := server.ReadConfig(d.config)
	if err == nil {
		d.cfg = cfg
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // share mode, or another machine
	}
	f := doctor.NotLookedAt("server-files", err.Error())
	if !errors.Is(err, fs.ErrPermission) {
		f.Severity, f.Text, f.Do = doctor.Problem, err.Error(), "testbox server --check, after each change"
	}
	return &f
}

// remoteAddress is the address in a URL of a server.
func remoteAddress(server string) netip.Addr {
	u, err := url.Parse(server)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(u.Hostname())
	return a
}

// hasPort67 says which program of this machine is a DHCP server.
func hasPort67() string {
	for _, b := range setup.BusyPorts("/proc") {
		if b.Proto == "udp" && b.At.Port() == 67 {
			return b.String()
		}
	}
	return "a program that is not known"
}

type addCheck = func(string, func(context.Context) []doctor.Finding)

// networkChecks look at what boxes meet before the server.
func (d *doctorRun) networkChecks(add addCheck) {
	want := dhcp.Want{Server: d.site, Loaders: bootcfg.BIOSLoaders}
	if d.place != nil {
		for _, k := range loaders.Kinds {
			pair, err := loaders.Read(durable.OS{}, d.place.Boot.TFTP(), k)
			if proxy := d.cfg != nil && d.cfg.DHCP.Mode == "proxy"; err == nil && !(proxy && pair.HTTP) { // Debian 13's listens to it
				want.UEFI = append(want.UEFI, k.Shim)
			}
		}
	}
	port := uint16(69)
	if d.cfg != nil {
		switch c := d.cfg.DHCP; {
		case c.Mode == "proxy":
			want.Who = dhcp.Proxy
		case c.Mode == "full" && c.Beside:
			want.Who = dhcp.Beside
		case c.Mode == "full":
			want.Who = dhcp.Ours
		}
		if at, err := net.ResolveUDPAddr("udp4", d.cfg.TFTP); err == nil && d.cfg.TFTP != "" {
			port = uint16(at.Port)
		}
	}
	listen := func(ctx context.Context) ([]dhcp.Found, error) { return dhcp.Find(ctx, nil) }
	add("dhcp", func(ctx context.Context) []doctor.Finding {
		if len(d.mine) == 0 {
			return []doctor.Finding{doctor.NotLookedAt("dhcp", "this machine has no network card with an IPv4 address")}
		}
		return doctor.DHCP(ctx, listen, want, hasPort67)
	})
	add("tftp", func(ctx context.Context) []doctor.Finding {
		if !d.site.IsValid() {
			return []doctor.Finding{doctor.NotLookedAt("tftp", "the address of the TFTP server is not known here (line server in site.conf)")}
		}
		return doctor.TFTP(ctx, netip.AddrPortFrom(d.site, port), bootcfg.LoaderName, doctor.Here(d.site, d.mine), doctor.Rules)
	})
}

// bootChecks look at the folder of boot files.
func (d *doctorRun) bootChecks(mode bootcfg.Mode, add addCheck) {
	add("boot-files", func(ctx context.Context) []doctor.Finding { return doctor.BootFiles(ctx, d.place) })
	add("loader", func(context.Context) []doctor.Finding { return doctor.Loaders(d.place.Boot.TFTP(), d.world.loaders) })
	add("maintenance", func(ctx context.Context) []doctor.Finding {
		return doctor.Maintenance(ctx, d.place, mode, maintenance.Updates)
	})
}

// serverChecks look at the state folder of a server on this machine.
func (d *doctorRun) serverChecks(add addCheck) {
	cfg := d.cfg
	add("server-files", func(ctx context.Context) []doctor.Finding {
		return doctor.Configured(server.Look(ctx, cfg, func(a box.Action) error {
			if d.place == nil {
				return problem.Refusef("the folder of boot files is not there")
			}
			return d.place.Ready(a, cfg.Served())
		}))
	})
	add("room", func(context.Context) []doctor.Finding { return doctor.Room(cfg.StoreDir()) })
	add("ledger-copy", func(context.Context) []doctor.Finding { return doctor.LedgerCopy(cfg, d.world.now()) })
	if d.place != nil {
		add("keys", func(context.Context) []doctor.Finding {
			return doctor.Keys(d.place.Boot, func() (string, error) { return server.AgentsKey(cfg) })
		})
	}
	add("s3", func(ctx context.Context) []doctor.Finding { return conditions(ctx, cfg.StoreDir()) })
}

// keyPorts are the ports at which boxes and admins ask for the server of this machine.
func (d *doctorRun) keyPorts() (all []doctor.KeyAt) {
	for name, at := range map[string]string{"agents": d.cfg.Agents, "api": d.cfg.API} {
		if host, port, err := net.SplitHostPort(at); err == nil {
			if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() || name == "agents" {
				host = d.site.String()
			}
			all = append(all, doctor.KeyAt{URL: "https://" + net.JoinHostPort(host, port),
				File: filepath.Join(d.cfg.KeyDir(), name+".crt"),
				Want: func() (wire.Fingerprint, error) { return server.KeyPrint(d.cfg.KeyDir(), name) }})
		}
	}
	slices.SortFunc(all, func(a, b doctor.KeyAt) int { return strings.Compare(a.File, b.File) })
	return all
}

// conditions tries the object storage of a store, if it has one.
func conditions(ctx context.Context, dir string) []doctor.Finding {
	r, err := readRemote(dir)
	if err != nil {
		return []doctor.Finding{doctor.NotLookedAt("s3", err.Error())}
	}
	if r == nil {
		return nil
	}
	if os.Getenv("AWS_ACCESS_KEY_ID") == "" {
		return []doctor.Finding{doctor.NotLookedAt("s3", "AWS_ACCESS_KEY_ID is not set here, and the server has it; "+
			"the server itself tries it at each start")}
	}
	s, err := r.open(ctx, dir)
	if err != nil {
		return []doctor.Finding{doctor.NotLookedAt("s3", err.Error())}
	}
	return doctor.Conditions(ctx, s.Blobs, r.onlyWriter)
}

// maxDoctorBoxes bounds for how many armed boxes is asked what they did.
const maxDoctorBoxes = 50

// maxDoctorJobs is how many of the latest jobs are looked at.
const maxDoctorJobs = 5000

// askServer looks at what a server that runs says.
func (d *doctorRun) askServer(ctx context.Context, c *apiclient.Client, noServer error) (all []doctor.Finding) {
	if noServer != nil {
		return []doctor.Finding{{Severity: doctor.Problem, Check: "server", Text: noServer.Error(), Do: "systemctl start testbox"}}
	}
	defer c.Close()
	var st api.ServerStatus
	if err := c.Do(ctx, "GET", apiclient.Path("status"), nil, &st); err != nil {
		return []doctor.Finding{d.noAnswer(err)}
	}
	all = doctor.Status(st, version.String())
	if at, err := c.Clock(ctx); err == nil {
		all = append(all, doctor.Skew(at, d.world.now())...)
	}
	if d.cfg != nil && d.site.IsValid() {
		all = append(all, doctor.ServedKeys(ctx, d.keyPorts(), apiclient.KeyOf)...)
	}
	nets := slices.Clone(d.mine)
	if d.cfg == nil {
		nets = nil // they are those of another machine
	}
	var list []api.Box
	for after := ""; ; {
		var page api.BoxList
		if err := c.Do(ctx, "GET", apiclient.Path("boxes")+"?limit=1000&after="+url.QueryEscape(after), nil, &page); err != nil {
			return append(all, doctor.NotLookedAt("boxes", err.Error()))
		}
		list = append(list, page.Boxes...)
		if after = page.Next; after == "" || len(list) > 100_000 {
			break
		}
	}
	all = append(all, doctor.Boxes(list, nets)...)
	if jobs, err := readJobs(ctx, c, url.Values{"state": {"ended"}}, maxDoctorJobs); err != nil {
		all = append(all, doctor.NotLookedAt("machine-id", err.Error()))
	} else {
		all = append(all, doctor.Copies(jobs)...)
	}
	all = append(all, alikeDisks(ctx, c, list)...)
	if d.place != nil && d.cfg != nil {
		if files, err := d.place.Boot.List(); err == nil {
			all = append(all, doctor.Orphans(d.place.Boot, files, list)...)
		}
	}
	looked := 0
	for i := range list {
		if j := list[i].Last; j == nil || j.State != "armed" {
			continue
		}
		if looked++; looked > maxDoctorBoxes {
			all = append(all, doctor.NotLookedAt("stuck", fmt.Sprintf("more than %d boxes are armed; testbox doctor BOX looks at one",
				maxDoctorBoxes)))
			break
		}
		var b api.Box
		if err := c.Do(ctx, "GET", apiclient.Path("boxes", list[i].Address), nil, &b); err == nil {
			all = append(all, doctor.Stuck(&b, d.world.now())...)
		}
	}
	return all
}

// maxAlikeTime bounds how long inventories of boxes are looked at. Each takes some milliseconds.
const maxAlikeTime = 15 * time.Second

// alikeDisks looks for boxes whose disks cannot be told apart.
func alikeDisks(ctx context.Context, c *apiclient.Client, list []api.Box) (all []doctor.Finding) {
	begun := time.Now()
	looked, unknown := 0, 0
	for _, b := range list {
		if b.Health == ledger.Retired {
			continue
		}
		if time.Since(begun) > maxAlikeTime {
			all = append(all, doctor.NotLookedAt("alike", fmt.Sprintf("the disks of %s were looked at, and then the time was over; "+
				"testbox doctor BOX looks at those of one", words.Count(looked, "box", "boxes"))))
			break
		}
		found, known, err := alikeOf(ctx, c, b.Address)
		if err != nil { // the others would fail in the same way
			all = append(all, doctor.NotLookedAt("alike", fmt.Sprintf("the disks of %s were looked at, and then: %v",
				words.Count(looked, "box", "boxes"), err)))
			break
		}
		if all = append(all, found...); known {
			looked++
		} else {
			unknown++
		}
	}
	if len(all) == 0 {
		text := fmt.Sprintf("the disks of %s can be told apart", words.Count(looked, "box", "boxes"))
		if unknown > 0 {
			text += fmt.Sprintf(", and those of %d are not known, since there is no inventory that can be read", unknown)
		}
		all = append(all, doctor.Finding{Severity: doctor.Fine, Check: "alike", Text: text})
	}
	return all
}

// alikeOf looks at the disks of a box. known is false if it has no inventory that can be read.
func alikeOf(ctx context.Context, c *apiclient.Client, addr string) (found []doctor.Finding, known bool, err error) {
	var is api.InventoryChanges
	err = c.Do(ctx, "GET", apiclient.Path("boxes", addr, "inventory", "changes"), nil, &is)
	var none *api.Problem
	switch {
	case errors.As(err, &none) && none.Code == api.CodeNotFound:
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return doctor.Alike(addr, is.Alike), true, nil
}

// noAnswer is the finding of a server that cannot be asked.
func (d *doctorRun) noAnswer(err error) doctor.Finding {
	switch p := (*api.Problem)(nil); {
	case errors.As(err, &p), errors.Is(err, fs.ErrPermission):
		return doctor.NotLookedAt("server", serverErr(err).Error())
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("the server does not answer")
	}
	return doctor.Finding{Severity: doctor.Problem, Check: "server", Text: serverErr(err).Error(),
		Do: "systemctl status testbox; journalctl -u testbox"}
}

// boxChecks look at one box.
func (d *doctorRun) boxChecks(word string, c *apiclient.Client, noServer error, add addCheck) {
	if noServer == nil {
		add("server", func(ctx context.Context) []doctor.Finding {
			defer c.Close()
			return d.askBox(ctx, c, word)
		})
	} else {
		add("server", func(context.Context) []doctor.Finding {
			return []doctor.Finding{doctor.NotLookedAt("server", "no server of boxes is known here: "+noServer.Error())}
		})
	}
	if d.place != nil && (d.cfg == nil || isAddress(word)) {
		add("boot-files", func(ctx context.Context) []doctor.Finding { return doctor.BootFiles(ctx, d.place, word) })
	}
	if d.place != nil && d.cfg == nil {
		add("arming", func(ctx context.Context) []doctor.Finding { return doctor.ShareBox(ctx, d.place, word) })
	}
}

func (d *doctorRun) askBox(ctx context.Context, c *apiclient.Client, word string) []doctor.Finding {
	var b api.Box
	if err := c.Do(ctx, "GET", apiclient.Path("boxes", word), nil, &b); err != nil {
		if p := (*api.Problem)(nil); errors.As(err, &p) {
			return []doctor.Finding{{Severity: doctor.Problem, Check: "box", Text: p.Detail,
				Do: "testbox boxes; testbox boxes --new lists machines that are no boxes yet"}}
		}
		return []doctor.Finding{d.noAnswer(err)}
	}
	all := doctor.Box(&b, d.world.now())
	var list api.BackupList
	if err := c.Do(ctx, "GET", apiclient.Path("backups", b.Address), nil, &list); err != nil {
		return append(all, doctor.NotLookedAt("damage", err.Error()))
	}
	for _, id := range list.Unreadable {
		all = append(all, doctor.Finding{Severity: doctor.Problem, Check: "damage", Text: "the record of the backup " + id + " cannot be read",
			Do: "testbox store copy from a second copy, or testbox image delete " + b.Address + "@" + id + " --yes"})
	}
	all = append(all, doctor.Backups(list.Backups)...)
	all = append(all, doctor.Firmware(&b, list.Backups)...)
	found, _, err := alikeOf(ctx, c, b.Address)
	if all = append(all, found...); err != nil {
		all = append(all, doctor.NotLookedAt("alike", err.Error()))
	}
	var jobs api.CheckedJobs
	err = c.Do(ctx, "POST", apiclient.Path("jobs", "check"), api.NewJobs{Action: box.Restore, Targets: []string{"box:" + b.Address}}, &jobs)
	return append(all, doctor.Restore(&b, jobs.Jobs, err)...)
}

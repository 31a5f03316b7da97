package arming

import (
	"context"
	"debug/pe"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/testenv/testpe"
)

var start = time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)

// newPlace is a TFTP area with a maintenance system of the form ram, in which
// boxes can disarm themselves. The names box1 and box2 have addresses.
func newPlace(t *testing.T) *Place {
	t.Helper()
	tftp := filepath.Join(t.TempDir(), bootcfg.TFTPArea)
	dir := filepath.Join(tftp, bootcfg.ConfigDir)
	s := site.Defaults()
	s.Server = netip.MustParseAddr("10.42.1.1")
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: "1", Form: bootcfg.FormRAM, Kernel: "6.1.0-37-amd64", Built: start}
	version, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, bootcfg.DefaultName): string(bootcfg.DefaultConfig()), filepath.Join(dir, site.FileName): string(s.Template()),
		filepath.Join(tftp, "pxelinux.0"): "loader", filepath.Join(tftp, "ldlinux.c32"): "loader",
		filepath.Join(tftp, v.KernelPath()): "kernel", filepath.Join(tftp, v.InitrdPath()): "initrd",
		filepath.Join(tftp, bootcfg.MaintDir, "1", bootcfg.VersionFile): string(version),
	} {
		write(t, path, text)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	boxes := map[string]string{"box1": "10.40.41.42", "box2": "10.40.41.43", "twin": "10.40.41.42"}
	return &Place{
		Boot: bootfiles.New(durable.OS{}, dir), FS: durable.OS{}, Neighbours: filepath.Join(dir, "..", "neighbours"),
		Now: func() time.Time { return start },
		Names: Resolver{
			Addrs: func(_ context.Context, host string) ([]netip.Addr, error) {
				if ip, ok := boxes[host]; ok {
					return []netip.Addr{netip.MustParseAddr(ip), netip.MustParseAddr("::ffff:" + ip)}, nil
				}
				return nil, errors.New("no such host")
			},
			Names: func(context.Context, string) ([]string, error) { return nil, errors.New("no such address") },
		},
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// arm plans and arms boxes for an action.
func (p *Place) arm(t *testing.T, action box.Action, replace bool, boxes ...string) *Plan {
	t.Helper()
	plan, err := p.Plan(context.Background(), Request{Boxes: boxes, Cmdline: bootcfg.Cmdline{Action: action}, Replace: replace})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range plan.Boxes {
		if err := p.Arm(b, replace); err != nil {
			t.Fatal(err)
		}
	}
	return plan
}

// armed are the ids of the armings in the folder, by address.
func (p *Place) armed(t *testing.T) map[string]box.Arming {
	t.Helper()
	files, err := p.Boot.List()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]box.Arming{}
	for _, f := range files {
		if f.Cmdline == nil {
			t.Fatalf("%s: %v", f.Addr, f.Err)
		}
		all[f.Addr.String()] = f.Cmdline.Arming
	}
	return all
}

// TestArmedAnewBeforeDisarm: two boxes are to be disarmed, and somebody arms one
// of them anew after their boot files were read. The new arming stays, and that
// is an error; the other box is disarmed.
func TestArmedAnewBeforeDisarm(t *testing.T) {
	p := newPlace(t)
	p.arm(t, box.Backup, false, "box1", "box2")
	targets, files, err := p.ReadArmed(context.Background(), []string{"box1", "box2", "10.40.41.99"})
	if err != nil || len(targets) != 3 || files[2] != nil {
		t.Fatalf("%v, %v, %v", targets, files, err)
	}
	anew := p.arm(t, box.Restore, true, "box1").Boxes[0].Cmdline.Arming
	var other *bootfiles.ArmedAnewError
	if err := p.Disarm(files[0]); !errors.As(err, &other) || other.File.Cmdline.Arming != anew {
		t.Errorf("armed anew: %v", err)
	}
	if err := p.Disarm(files[1]); err != nil {
		t.Error(err)
	}
	if err := p.Disarm(files[1]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("disarmed by somebody else: %v", err)
	}
	if all := p.armed(t); len(all) != 1 || all["10.40.41.42"] != anew {
		t.Errorf("armed are %v, and %s was armed anew", all, anew)
	}
	// Another program's file stays too.
	write(t, p.Boot.BootFile(targets[0].Addr), string(bootcfg.DefaultConfig()))
	if err := p.Disarm(files[0]); !errors.As(err, new(*bootfiles.NotOursError)) || isKind(err, problem.Refused) {
		t.Errorf("another program's: %v", err)
	}
	if _, err := os.Stat(p.Boot.BootFile(targets[0].Addr)); err != nil {
		t.Error(err)
	}
}

func isKind(err error, kind problem.Kind) bool {
	var p *problem.Error
	return errors.As(err, &p) && p.Kind == kind
}

// TestPlan: what is wrong with any box keeps all of them from being armed, is of
// the right kind, and writes nothing.
func TestPlan(t *testing.T) {
	type change = func(p *Place, r *Request)
	put := func(name, text string) change {
		return func(p *Place, _ *Request) { write(t, p.Boot.Path(name), text) }
	}
	gone := func(path string) change {
		return func(p *Place, _ *Request) { os.RemoveAll(p.Boot.Path(path)) }
	}
	sees := func(ip, mac string) change { // among the neighbours
		return func(p *Place, _ *Request) {
			write(t, p.Neighbours, "IP address HW type Flags HW address Mask Device\n"+ip+" 0x1 0x2 "+mac+" * eth0\n")
		}
	}
	armed := func(p *Place, _ *Request) { p.arm(t, box.Verify, false, "box2") }
	replace := func(_ *Place, r *Request) { r.Replace = true }
	soon := func(_ *Place, r *Request) { r.Expire = time.Second }
	closed := func(p *Place, _ *Request) {
		os.Chmod(p.Boot.Dir(), 0o555)
		t.Cleanup(func() { os.Chmod(p.Boot.Dir(), 0o755) })
	}
	rescue := func(_ *Place, r *Request) { r.Cmdline.Action = box.Rescue }
	const card, grub = "01-52-54-00-00-00-01", "../grub/grub.cfg"
	keys := testpe.NewSite()
	uefi := func(p *Place, _ *Request) {
		write(t, p.Boot.Path("../uefi-trust.pem"), string(keys.Firmware.PEM()))
		write(t, p.Boot.Path("../shimx64.efi"), string(keys.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5")))
		write(t, p.Boot.Path("../grubx64.efi"), string(keys.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2.12", "7")))
	}
	for what, c := range map[string]struct {
		boxes   string
		changes []change
		kind    problem.Kind // 0: it can be done
		says    string
	}{
		"all is well":            {boxes: "box1 10.40.41.44"},
		"no such box":            {"box1 box9", nil, problem.Wrong, "no such host"},
		"not an address":         {"10.40.41.256", nil, problem.Wrong, "neither"},
		"the storage server":     {"box1 10.42.1.1", nil, problem.Refused, "10.42.1.1 is the storage server"},
		"one box twice":          {"box1 twin", nil, problem.Wrong, "the same box"},
		"armed already":          {"box1 box2", []change{armed}, problem.Refused, "armed already"},
		"armed, and replaced":    {boxes: "box2", changes: []change{armed, replace}},
		"another program's file": {"box2", []change{put("0A28292B", "DEFAULT x\n"), replace}, problem.Refused, "not ours"},
		"rescue by ram":          {"box1", []change{rescue}, problem.Refused, "nobody to log in"},
		"no maintenance system":  {"box1", []change{gone("../" + bootcfg.MaintDir)}, problem.Wrong, "maintenance build"},
		"default boots on":       {"box1", []change{put("default", "UI menu.c32\n")}, problem.Refused, "does not clearly boot"},
		"a shadow":               {"box1", []change{put(card, "")}, problem.Refused, "not known whether"},
		"another box's shadow":   {boxes: "box1", changes: []change{put(card, ""), sees("10.40.41.99", "52:54:00:00:00:01")}},
		"its own shadow":         {"box1", []change{put(card, ""), sees("10.40.41.42", "52:54:00:00:00:01")}, problem.Refused, "this box's too"},
		"taken afterwards":       {"box1", []change{put("0A28", "DEFAULT x\n")}, problem.Refused, "0A28 is taken by box1"},
		"a second":               {"box1", []change{soon}, problem.Wrong, "cannot count"},
		"no site file":           {"box1", []change{gone(site.FileName)}, problem.Wrong, "share init"},
		"no loader":              {"box1", []change{gone("../pxelinux.0")}, problem.Refused, "cannot give"},
		"boxes cannot disarm":    {"box1", []change{closed}, problem.Refused, "again and again"},
		"UEFI and BIOS":          {boxes: "box1", changes: []change{uefi, put(grub, string(bootcfg.GRUBConfig()))}},
		"GRUB's file is gone":    {"box1", []change{uefi}, problem.Refused, "it is not there"},
		"GRUB's file is cut off": {"box1", []change{uefi, put(grub, string(bootcfg.GRUBConfig()[:999]))}, problem.Refused, "it is damaged"},
		"GRUB's file is empty":   {"box1", []change{uefi, put(grub, "")}, problem.Refused, "it is damaged"},
		"GRUB's file is another": {boxes: "box1", changes: []change{uefi, put(grub, "configfile other\n")}},
		"GRUB itself is gone":    {"box1", []change{uefi, put(grub, "x"), gone("../grubx64.efi")}, problem.Refused, "grubx64.efi"},
		"GRUB is cut off": {"box1", []change{uefi, put(grub, "x"), put("../grubx64.efi", "MZ")}, problem.Refused,
			"`testbox maintenance build` puts whole ones there"},
		"shim of nobody":     {"box1", []change{uefi, put(grub, "x"), gone("../uefi-trust.pem")}, problem.Refused, "nobody who is trusted"},
		"BIOS only, no GRUB": {boxes: "box1", changes: []change{put(grub, "")}},
	} {
		p := newPlace(t)
		r := Request{Boxes: strings.Fields(c.boxes), Cmdline: bootcfg.Cmdline{Action: box.Backup}}
		for _, change := range c.changes {
			change(p, &r)
		}
		before := p.files(t)
		plan, err := p.Plan(context.Background(), r)
		switch {
		case c.kind == 0 && (err != nil || len(plan.Boxes) != len(r.Boxes)):
			t.Errorf("%s: %v", what, err)
		case c.kind != 0 && (!isKind(err, c.kind) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v", what, err)
		}
		if after := p.files(t); after != before {
			t.Errorf("%s: the folder had\n%sand has\n%s", what, before, after)
		}
	}
}

// files are the names and contents in the folder of boot files.
func (p *Place) files(t *testing.T) string {
	t.Helper()
	names, err := p.FS.ReadDir(p.Boot.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(p.Boot.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %q\n", name, text)
	}
	return b.String()
}

// TestOptions: an option is refused with each action to which it means nothing.
func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		with    bootcfg.Cmdline
		actions string
	}{
		"disks":          {bootcfg.Cmdline{Disks: []string{"sda"}}, "backup backup-again restore verify"},
		"precheck":       {bootcfg.Cmdline{PrecheckSize: true}, "restore"},
		"accept-machine": {bootcfg.Cmdline{AcceptMachine: true}, "restore"},
		"accept-failing": {bootcfg.Cmdline{AcceptFailing: true}, "backup backup-again"},
		"raw":            {bootcfg.Cmdline{Raw: true}, "restore verify"},
		"image":          {bootcfg.Cmdline{OldImages: true}, "restore verify"},
	} {
		for _, action := range box.Actions {
			c.with.Action = action
			err := checkOptions(&c.with)
			if good := slices.Contains(strings.Fields(c.actions), string(action)); good != (err == nil) || !good && !isKind(err, problem.Wrong) {
				t.Errorf("--%s with %s: %v", name, action, err)
			}
		}
	}
}

// TestPlannedBox: a boot file says what the admin asked for and what the site is.
func TestPlannedBox(t *testing.T) {
	p := newPlace(t)
	c := bootcfg.Cmdline{Action: box.Restore, Disks: []string{"sda"}, AcceptMachine: true}
	plan, err := p.Plan(context.Background(), Request{Boxes: []string{"box1", "10.40.41.43"}, Cmdline: c, Expire: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for i, host := range []string{"box1", ""} {
		b := plan.Boxes[i]
		got, kernel, initrd, err := bootcfg.ParseBootFile(b.Text)
		if err != nil {
			t.Fatal(err)
		}
		if got.Action != box.Restore || len(got.Disks) != 1 || !got.AcceptMachine || got.Host != host || got.Address != b.Addr ||
			got.Arming != b.Cmdline.Arming || !got.Expires.Equal(start.Add(time.Hour)) || got.TFTP.Server.String() != "10.42.1.1" ||
			kernel != plan.Version.KernelPath() || initrd != plan.Version.InitrdPath() {
			t.Errorf("%s: %+v, %s, %s", b.Target, got, kernel, initrd)
		}
	}
	if plan.Boxes[0].Cmdline.Arming == plan.Boxes[1].Cmdline.Arming {
		t.Error("two boxes have one arming")
	}
}

// TestArmedAfterPlan: somebody else arms a box after its plan was made. That is
// the refusal of a box that is armed already.
func TestArmedAfterPlan(t *testing.T) {
	p := newPlace(t)
	plan, err := p.Plan(context.Background(), Request{Boxes: []string{"box1"}, Cmdline: bootcfg.Cmdline{Action: box.Backup}})
	if err != nil {
		t.Fatal(err)
	}
	other := p.arm(t, box.Restore, false, "box1").Boxes[0].Cmdline.Arming
	if err := p.Arm(plan.Boxes[0], false); !isKind(err, problem.Refused) || !strings.Contains(err.Error(), "is armed already, for restore") {
		t.Errorf("armed already: %v", err)
	}
	if all := p.armed(t); all["10.40.41.42"] != other {
		t.Errorf("armed are %v, and %s was first", all, other)
	}
	if err := p.Arm(plan.Boxes[0], true); err != nil || p.armed(t)["10.40.41.42"] != plan.Boxes[0].Cmdline.Arming {
		t.Errorf("with replace: %v, armed are %v", err, p.armed(t))
	}
}

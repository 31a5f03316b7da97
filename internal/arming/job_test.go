package arming

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/site"
)

func jobCmdline(action box.Action) bootcfg.Cmdline {
	return bootcfg.Cmdline{
		Action: action, Arming: box.NewArming(), Secret: "1-0123456789abcdef", Key: strings.Repeat("0123456789abcdef", 4), Disks: []string{"sda"},
	}
}

// forJob makes and writes the boot file of box 10.40.41.42.
func (p *Place) forJob(t *testing.T, c bootcfg.Cmdline) (PlannedBox, error) {
	t.Helper()
	addr, err := box.ParseAddr("10.40.41.42")
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.ForJob(Target{Given: addr.String(), Addr: addr}, Served{Agents: 8444, HTTP: 80}, c)
	if err != nil {
		return b, err
	}
	return b, p.Arm(b, true)
}

func TestForJob(t *testing.T) {
	p := newPlace(t)
	if err := p.Ready(box.Restore, Served{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // each start of a box has a boot file of its own
		c := jobCmdline(box.Restore)
		b, err := p.forJob(t, c)
		if err != nil {
			t.Fatal(err)
		}
		file, err := p.Boot.Read(b.Addr)
		if err != nil || file.Err != nil {
			t.Fatal(err, file.Err)
		}
		got := file.Cmdline
		if got.Mode != bootcfg.ServerMode || got.Server != netip.MustParseAddrPort("10.42.1.1:8444") || got.Arming != c.Arming ||
			got.Secret != c.Secret || got.Key != c.Key || len(got.Disks) != 1 || !got.Expires.IsZero() || !got.TFTP.IsZero() {
			t.Errorf("the boot file asks for %+v", got)
		}
	}
}

// TestForJobWithoutRights has a folder of boot files in which boxes may not write.
// With a server they need not do so.
func TestForJobWithoutRights(t *testing.T) {
	p := newPlace(t)
	if os.Getuid() == 0 {
		if err := os.Chown(p.Boot.Dir(), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.forJob(t, jobCmdline(box.Backup)); err != nil {
		t.Error(err)
	}
}

func TestForJobRefused(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, p *Place){
		"is the storage server": func(t *testing.T, p *Place) {
			s := site.Defaults()
			s.Server = netip.MustParseAddr("10.40.41.42")
			write(t, p.Boot.Path(site.FileName), string(s.Template()))
		},
		"boot file that is not ours": func(t *testing.T, p *Place) { write(t, p.Boot.Path("0A28292A"), "DEFAULT other\n") },
		"by `testbox pxe-conf`":      func(t *testing.T, p *Place) { p.arm(t, box.Verify, false, "10.40.41.42") },
		"no maintenance system":      func(t *testing.T, p *Place) { os.RemoveAll(filepath.Join(p.Boot.TFTP(), bootcfg.MaintDir)) },
		"default":                    func(t *testing.T, p *Place) { write(t, p.Boot.Path(bootcfg.DefaultName), "DEFAULT other\n") },
		"0A2829":                     func(t *testing.T, p *Place) { write(t, p.Boot.Path("0A2829"), "DEFAULT other\n") },
	} {
		p := newPlace(t)
		spoil(t, p)
		before := p.files(t)
		_, err := p.forJob(t, jobCmdline(box.Restore))
		if err == nil || !strings.Contains(err.Error(), what) || !errors.As(err, new(*problem.Error)) {
			t.Errorf("the error is %v, and should have %q", err, what)
		}
		if after := p.files(t); after != before {
			t.Errorf("%s: the folder was\n%s\nand is\n%s", what, before, after)
		}
	}
	if err := newPlace(t).Ready(box.Rescue, Served{HTTP: 80}); err == nil {
		t.Error("a rescue is said to be possible with a system of the form ram")
	}
}

// debian puts a maintenance system of the form debian into a TFTP area.
func (p *Place) debian(t *testing.T, v bootcfg.Version, root string) {
	t.Helper()
	v.Format, v.Version, v.Form, v.Kernel, v.Built = bootcfg.VersionFormat, "2", bootcfg.FormDebian, "6.1.0-37-amd64", start
	text, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{v.KernelPath(): "kernel", v.InitrdPath(): "initrd", v.RootFile(): root,
		filepath.Join(bootcfg.MaintDir, "2", bootcfg.VersionFile): string(text)} {
		write(t, filepath.Join(p.Boot.TFTP(), path), text)
	}
}

// A rescue of server mode has its root over HTTP, with its hash, and needs no NFS.
func TestForJobRescue(t *testing.T) {
	p := newPlace(t)
	sum := strings.Repeat("0123456789abcdef", 4)
	p.debian(t, bootcfg.Version{Root: bootcfg.RootSum{Size: 4, SHA256: sum}, NoNFS: true}, "root")
	c := jobCmdline(box.Rescue)
	c.Disks = nil
	b, err := p.forJob(t, c)
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.Boot.Read(b.Addr)
	if err != nil || file.Err != nil {
		t.Fatal(err, file.Err)
	}
	got := file.Cmdline
	if got.Fetch.URL() != "http://10.42.1.1:80/maintenance-boot/2/root.squashfs" || got.Fetch.SHA256 != sum || !got.Root.IsZero() {
		t.Errorf("the boot file asks for %+v", got)
	}
	away := errors.New("the port is taken")
	if err := p.Ready(box.Rescue, Served{NoHTTP: away}); !errors.Is(err, away) {
		t.Errorf("without HTTP: %v", err)
	}
	if err := p.Ready(box.Backup, Served{NoHTTP: away}); err != nil {
		t.Errorf("a backup, which needs no HTTP: %v", err)
	}
	if _, err := p.Plan(t.Context(), Request{Boxes: []string{"box2"}, Cmdline: bootcfg.Cmdline{Action: box.Rescue}}); err == nil ||
		!strings.Contains(err.Error(), "no root for NFS") {
		t.Errorf("share mode: %v", err)
	}
	for what, spoil := range map[string]func(){
		"has 3 bytes, and must have 4": func() { p.debian(t, bootcfg.Version{Root: bootcfg.RootSum{Size: 4, SHA256: sum}}, "roo") },
		"no such file": func() {
			p.debian(t, bootcfg.Version{Root: bootcfg.RootSum{Size: 4, SHA256: sum}}, "root")
			os.Remove(filepath.Join(p.Boot.TFTP(), bootcfg.MaintDir, "2", bootcfg.RootName))
		},
		"root.squashfs may not be read by everybody": func() {
			p.debian(t, bootcfg.Version{Root: bootcfg.RootSum{Size: 4, SHA256: sum}}, "root")
			os.Chmod(filepath.Join(p.Boot.TFTP(), bootcfg.MaintDir, "2", bootcfg.RootName), 0o600)
		},
		"has no file root.squashfs": func() { p.debian(t, bootcfg.Version{}, "root") },
	} {
		spoil()
		if err := p.Ready(box.Rescue, Served{HTTP: 80}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q: %v", what, err)
		}
	}
}

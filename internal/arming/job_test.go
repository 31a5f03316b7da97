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
	b, err := p.ForJob(Target{Given: addr.String(), Addr: addr}, 8444, c)
	if err != nil {
		return b, err
	}
	return b, p.Arm(b, true)
}

func TestForJob(t *testing.T) {
	p := newPlace(t)
	if err := p.Ready(box.Restore); err != nil {
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
	if err := newPlace(t).Ready(box.Rescue); err == nil {
		t.Error("a rescue is said to be possible with a system of the form ram")
	}
}

package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/kmod"
)

const testTable = `testbox-modules 1
module scsi_mod
module libata scsi_mod
module ahci libata
module sd_mod scsi_mod
module crc32c_intel
module e1000e crc32c_intel
module softdog
module nfsv3
alias pci:ahci* ahci
alias pci:e1000e* e1000e
alias scsi:t-0x00* sd_mod
load nfsv3
`

// bench is a machine: a device's driver brings further devices.
type bench struct {
	sys    fstest.MapFS
	loaded []string
	fails  map[string]error
	brings map[string]string // module: modalias of the device that it finds
	said   strings.Builder
}

func newBench(t *testing.T) (*bench, *modules) {
	t.Helper()
	table, err := kmod.Parse([]byte(testTable))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{sys: fstest.MapFS{}, fails: map[string]error{}, brings: map[string]string{}}
	m := newModules(table, b.sys, b.load, func(f string, a ...any) { fmt.Fprintf(&b.said, f+"\n", a...) }, func() {})
	return b, m
}

func (b *bench) load(name string) error {
	if err := b.fails[name]; err != nil {
		return err
	}
	b.loaded = append(b.loaded, name)
	if alias := b.brings[name]; alias != "" {
		b.device(alias)
	}
	return nil
}

func (b *bench) device(alias string) {
	b.sys[fmt.Sprintf("devices/d%d/modalias", len(b.sys))] = &fstest.MapFile{Data: []byte(alias + "\n")}
}

func TestScanFollowsNewDevices(t *testing.T) {
	b, m := newBench(t)
	b.device("pci:ahci:v8086")
	b.brings["ahci"] = "scsi:t-0x00"
	b.sys["devices/other/uevent"] = &fstest.MapFile{Data: []byte("pci:e1000e")}
	if n := m.scan(); n != 4 {
		t.Errorf("%d modules", n)
	}
	if want := []string{"scsi_mod", "libata", "ahci", "sd_mod"}; !slices.Equal(b.loaded, want) {
		t.Errorf("loaded %v, want %v", b.loaded, want)
	}
	if n := m.scan(); n != 0 {
		t.Errorf("a second scan loaded %d", n)
	}
	b.device("pci:e1000e:late")
	if n := m.scan(); n != 2 || b.loaded[5] != "e1000e" {
		t.Errorf("a late card loaded %d: %v", n, b.loaded)
	}
}

// A module that has nothing to drive says ENODEV; what needs it may well work.
func TestScanGoesOnAfterFailures(t *testing.T) {
	b, m := newBench(t)
	b.device("pci:e1000e")
	b.fails["crc32c_intel"] = unix.ENODEV
	m.scan()
	if !slices.Equal(b.loaded, []string{"e1000e"}) || b.said.String() != "" {
		t.Errorf("loaded %v, said %q", b.loaded, b.said.String())
	}
	b.device("pci:ahci")
	b.fails["libata"] = unix.ENOEXEC
	m.scan()
	if !strings.Contains(b.said.String(), "cannot load module libata: exec format error") {
		t.Errorf("said %q", b.said.String())
	}
	if b.device("scsi:t-0x00"); m.scan() == 0 {
		t.Error("no driver is loaded any more")
	}
	if want := []string{"e1000e", "scsi_mod", "ahci", "sd_mod"}; !slices.Equal(b.loaded, want) {
		t.Errorf("loaded %v, want %v", b.loaded, want)
	}
}

func TestByName(t *testing.T) {
	b, m := newBench(t)
	m.loadAlways()
	if !m.byName("softdog") || m.byName("softdog") || m.byName("none") || !slices.Equal(b.loaded, []string{"nfsv3", "softdog"}) {
		t.Errorf("loaded %v", b.loaded)
	}
}

func TestBlockDevices(t *testing.T) {
	sys := fstest.MapFS{"block/sda/size": {}, "block/loop0/size": {}, "block/nvme0n1/size": {}}
	if got := blockDevices(sys)(); got != "nvme0n1 sda" {
		t.Errorf("got %q", got)
	}
}

// settleOn runs settle with what becomes of the disks and controllers of a box.
func settleOn(scan func() int, disks func() string, unready func() []disk.Controller) (said string) {
	settle(context.Background(), settling{
		scan: scan, disks: disks, unready: unready, beat: func() {}, say: func(f string, a ...any) { said += fmt.Sprintf(f+"\n", a...) },
	})
	return said
}

func TestSettle(t *testing.T) {
	type event struct {
		at    time.Duration
		disks string
	}
	driverless, starting := []disk.Controller{{Name: "c0"}}, []disk.Controller{{Name: "c0", Driven: true}}
	const (
		noDriver = "controller c0 () has no driver in this maintenance system; disks behind it cannot be seen\n"
		notReady = "controller c0 () is not ready yet; disks behind it cannot be seen\n"
	)
	for name, c := range map[string]struct {
		events  []event
		unready []disk.Controller
		ready   time.Duration // when the controllers are ready, if there are any
		busy    time.Duration // how long drivers are loaded
		slow    time.Duration // how long each look takes
		want    time.Duration
		says    string
	}{
		"at once": {events: []event{{0, "sda"}}, want: settleQuiet, says: "disks: sda\n"},
		"no disk": {want: settleNone, says: "no disk was found; if the box has one, the maintenance system lacks its driver\n"},
		"one by one": {
			events: []event{{time.Second, "sda"}, {2500 * time.Millisecond, "sda sdb"}, {4 * time.Second, "a b c"}},
			want:   4*time.Second + settleQuiet, says: "disks: a b c\n",
		},
		"late first": {events: []event{{8 * time.Second, "sda"}}, want: 8*time.Second + settleQuiet, says: "disks: sda\n"},
		"slow udev": {
			events: []event{{0, "sda"}, {time.Minute, "sda sdb"}}, busy: time.Minute,
			want: time.Minute + settleQuiet, says: "disks: sda sdb\n",
		},
		// The machine is so slow that five seconds go by between two scans.
		"seldom runs": {
			events: []event{{0, "sda"}, {time.Minute, "sda sdb"}}, busy: time.Minute, slow: 2 * time.Second,
			want: time.Minute + 40*time.Second, says: "disks: sda sdb\n",
		},
		"udev without end": {events: []event{{0, "sda"}}, busy: time.Hour, want: settleMax, says: "disks: sda\n"},
		"no driver": {
			events: []event{{0, "sda"}}, unready: driverless, ready: time.Hour,
			want: settleNone, says: noDriver + "disks: sda\n",
		},
		"late driver": {
			events: []event{{0, "sda"}, {4 * time.Minute, "sda sdb"}}, unready: driverless, ready: 4 * time.Minute, busy: 4 * time.Minute,
			want: 4*time.Minute + settleQuiet, says: "disks: sda sdb\n",
		},
		"slow NVMe": {
			events: []event{{0, "sda"}, {time.Minute, "sda nvme0n1"}}, unready: starting, ready: time.Minute,
			want: time.Minute + settleQuiet, says: "disks: sda nvme0n1\n",
		},
		"broken NVMe": {events: []event{{0, "sda"}}, unready: starting, ready: time.Hour, want: settleLong, says: notReady + "disks: sda\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				scan := func() int {
					if time.Since(start) < c.busy {
						return 1
					}
					return 0
				}
				disks := func() string {
					time.Sleep(c.slow)
					now := ""
					for _, e := range c.events {
						if time.Since(start) >= e.at {
							now = e.disks
						}
					}
					return now
				}
				said := settleOn(scan, disks, func() []disk.Controller {
					if time.Since(start) >= c.ready {
						return nil
					}
					return c.unready
				})
				if took := time.Since(start); took < c.want || took > c.want+2*time.Second+8*c.slow {
					t.Errorf("took %v, want %v", took, c.want)
				}
				if said != c.says {
					t.Errorf("said %q, want %q", said, c.says)
				}
			})
		})
	}
}

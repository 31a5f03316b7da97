package vm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/loaders"
)

// few are the cells that run whenever all tests do. A run of TestMatrix by its name, with a
// slash, runs all cells that match: `make test-matrix` does, and so does
// `go test ./internal/e2e/vm -run TestMatrix/uefi-sb/nvme/e1000e`.
var few = []string{"uefi-sb/nvme/e1000e"}

// TestMatrix has a box of each kind do what a box is there for. Each cell has a lab of its own.
func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, c := range cells() {
		if !byName() && !slices.Contains(few, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

// byName reports whether somebody has asked for cells of the matrix by their names.
func byName() bool { return strings.Contains(flag.Lookup("test.run").Value.String(), "TestMatrix/") }

// cell is a kind of box, or something that happens to one.
type cell struct {
	name string
	run  func(*testing.T)
}

func cells() (all []cell) {
	for _, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI, lab.UEFISecure} {
		for _, bus := range []lab.Bus{lab.Virtio, lab.AHCI, lab.NVMe} {
			for _, card := range []string{"virtio-net-pci", "e1000e"} {
				k := kind{firmware: firmware, bus: bus, card: card}
				all = append(all, cell{k.name(), func(t *testing.T) { roundTrip(t, k) }})
			}
		}
	}
	return append(all,
		cell{"two-systems", twoSystems},
		cell{"first-in-order", firstInOrder},
		cell{"new-mainboard", newMainboard},
		cell{"sectors-4096", sectors4096},
		cell{"swapped-disks", swappedDisks},
		cell{"cut-arming", cutArming},
		cell{"tampered-kernel", tamperedKernel},
		cell{"tampered-grub", tamperedGRUB},
		cell{"damaged-loader", damagedLoader},
		cell{"server-gone", serverGone},
		cell{"http-boot", httpBoot},
		cell{"golden", golden},
		cell{"share/bios", func(t *testing.T) { threeDisks(t, lab.BIOS) }},
		cell{"share/uefi-sb", func(t *testing.T) { threeDisks(t, lab.UEFISecure) }},
		cell{"debian", wholeDebian},
	)
}

// kind is a kind of box.
type kind struct {
	firmware lab.Firmware
	bus      lab.Bus
	card     string
	sector   int
}

func (k kind) name() string {
	return fmt.Sprintf("%s/%s/%s", k.firmware, k.bus, strings.TrimSuffix(k.card, "-net-pci"))
}

// mbox is a box of a cell, and what the cell has done so far.
type mbox struct {
	*vbox
	kind   kind
	begun  time.Time // of the present stage
	stages []string
}

// newMatrixBox makes a lab with a storage server that answers DHCP, and a box in it that is switched off. change, which may
// be nil, changes the system on its disk before that is made.
func newMatrixBox(t *testing.T, k kind, change func(*lab.OwnSystem, *lab.Spec)) *mbox {
	t.Helper()
	needs(t)
	must(t, sharedParts()) // the first cell makes them for all, which is no part of its own time
	m := &mbox{kind: k, begun: time.Now()}
	b := makeLab(t, lab.Options{Server: true, DHCP: lab.DHCPOwn})
	b.plain = b.install(t, plainRAM)
	m.vbox = &vbox{bench: b, own: lab.OwnSystem{Name: "box0", Kernel: b.kernel, Size: 96 << 20, Data: 8 << 20, Sector: k.sector}}
	spec := lab.Spec{Firmware: k.firmware, Cards: []string{k.card}}
	if m.forUEFI(t, &spec) {
		b.installLoaders(t)
	}
	if change != nil {
		change(&m.own, &spec)
	}
	d := lab.Disk{Path: filepath.Join(b.lab.Dir, "disk0"), Bus: k.bus, Serial: "TB-DISK0", Sector: k.sector}
	must(t, m.own.MakeDisk(t.Context(), d.Path))
	m.disks, m.hashes = []lab.Disk{d}, []string{hash(t, d.Path)}
	spec.Disks = append(m.disks, spec.Disks...)
	var err error
	m.Machine, err = b.lab.Machine(spec)
	must(t, err)
	t.Cleanup(func() {
		t.Logf("cell %s: %s", strings.TrimPrefix(t.Name(), "TestMatrix/"), strings.Join(m.stages, ", "))
		if t.Failed() {
			t.Logf("the server says:\n%s", b.serverLog())
		}
	})
	m.stage("lab")
	return m
}

// stage notes how many seconds something took, since the stage before.
func (m *mbox) stage(what string) {
	m.stages = append(m.stages, fmt.Sprintf("%s %.0f s", what, time.Since(m.begun).Seconds()))
	m.begun = time.Now()
}

// start is what the own system says of how it was started.
type start struct {
	current string   // boot entry by which the firmware began, which is the network's or the disk's
	order   []string // BootOrder
}

var startLine = regexp.MustCompile(`: SecureBoot +([01]) BootCurrent ([0-9a-f]{4}) BootOrder ([0-9a-f ]+)$`)

// home waits for the own system, and looks at what it says of its start.
func (m *mbox) home(t *testing.T) (s start) {
	t.Helper()
	if m.kind.firmware != lab.BIOS {
		s = m.started(t)
	}
	m.ownSystem(t)
	m.stage("local boot")
	return s
}

func (m *mbox) started(t *testing.T) start {
	t.Helper()
	said := startLine.FindStringSubmatch(m.console(t, "^testbox own system "+m.own.Name+startLine.String(), bootTime))
	if secure := m.kind.firmware == lab.UEFISecure; secure != (said[1] == "1") {
		t.Errorf("the own system sees Secure Boot as %s", said[1])
	}
	return start{said[2], strings.Fields(said[3])}
}

// job has the server do an action, which must succeed at once.
func (m *mbox) job(t *testing.T, action box.Action, args ...string) *lab.Job {
	t.Helper()
	j, err := m.bench.lab.Job(t.Context(), m.Machine, action, args...)
	must(t, err)
	if j.Outcome != box.Done || j.Attempt != 1 {
		t.Errorf("the job ended so: %+v", j)
	}
	m.bench.step(t, "%s is done, %d bytes crossed the network", action, j.Sent)
	m.stage(string(action))
	return j
}

// roundTrip is local boot, backup, wreck, restore, local boot.
func roundTrip(t *testing.T, k kind) {
	m := newMatrixBox(t, k, nil)
	must(t, m.PowerOn())
	m.home(t)
	m.backupAndRestore(t)
	m.end(t)
}

// backupAndRestore does not wait until the box has started its disk after the backup. Other cells do, and a start takes half a minute.
func (m *mbox) backupAndRestore(t *testing.T) {
	t.Helper()
	m.job(t, box.Backup)
	m.end(t)
	m.sameDisks(t)
	must(t, lab.Wreck(m.disks[0].Path))
	m.job(t, box.Restore)
	m.home(t)
}

// end switches the box off, which has done what it was asked for.
func (m *mbox) end(t *testing.T) {
	t.Helper()
	m.PowerOff()
	if m.armed() {
		t.Error("the box has done its action and is still armed")
	}
}

// installLoaders puts what UEFI machines load from the server into the lab, which the build of the maintenance system has
// made. A storage server gives it out once it has looked at the signatures.
func (b *bench) installLoaders(t *testing.T) {
	t.Helper()
	for _, name := range []string{loaders.X64.Shim, loaders.X64.GRUB} {
		data, err := os.ReadFile(filepath.Join(sharedDir, name))
		must(t, err)
		must(t, durable.WriteFile(durable.OS{}, filepath.Join(b.lab.TFTP(), name), data, 0o644))
	}
	if b.serves {
		_, err := b.lab.ServerLog().Wait(t.Context(), regexp.MustCompile("UEFI machines are given new loaders"), bootTime)
		must(t, err)
	}
}

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/e2e/contents"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap"
)

// These are the cells of the matrix in which something happens to a box.

var secure = kind{firmware: lab.UEFISecure, bus: lab.Virtio, card: "virtio-net-pci"}

// twoSystems: the box has a system on each of its disks. GRUB finds the one on NVMe first, until somebody has made a boot entry
// for the other one. That is what the box starts from its next backup on, and after a restore.
func twoSystems(t *testing.T) {
	var two lab.OwnSystem
	m := newMatrixBox(t, kind{firmware: lab.UEFISecure, bus: lab.NVMe, card: "virtio-net-pci"}, func(own *lab.OwnSystem, spec *lab.Spec) {
		two = *own
		two.Name, own.Makes = "box0-two", &two
	})
	m.addDisk(t, lab.Virtio, func(path string) error { return two.MakeDisk(t.Context(), path) })
	must(t, m.PowerOn())
	m.home(t)
	m.PowerOff() // so that QEMU does not tell the order again
	m.job(t, box.Backup)
	m.own = two
	m.home(t)
	m.sameDisks(t)
	before := m.contents(t)
	for _, d := range m.disks {
		must(t, lab.Wreck(d.Path))
	}
	m.job(t, box.Restore)
	m.home(t)
	m.end(t)
	for i, data := range before {
		m.sameUsed(t, i, data)
	}
}

// addDisk puts one more disk into a box that is off.
func (m *mbox) addDisk(t *testing.T, bus lab.Bus, fill func(path string) error) {
	t.Helper()
	name := fmt.Sprint("disk", len(m.disks))
	d := lab.Disk{Path: filepath.Join(m.bench.lab.Dir, name), Bus: bus, Serial: "TB-" + strings.ToUpper(name)}
	must(t, fill(d.Path))
	m.disks, m.hashes = append(m.disks, d), append(m.hashes, hash(t, d.Path))
	must(t, m.SetDisks(m.disks...))
}

// noise makes a disk of noise.
func noise(size int64) func(path string) error {
	return func(path string) error {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		return lab.Wreck(path)
	}
}

func (m *mbox) contents(t *testing.T) (all [][]byte) {
	t.Helper()
	for _, d := range m.disks {
		data, err := os.ReadFile(d.Path)
		must(t, err)
		all = append(all, data)
	}
	return all
}

// sameUsed compares what is used of a disk with what it was.
func (m *mbox) sameUsed(t *testing.T, disk int, before []byte) {
	t.Helper()
	u, err := usedmap.Read(t.Context(), bytes.NewReader(before), int64(len(before)), 512)
	must(t, err)
	now, err := os.ReadFile(m.disks[disk].Path)
	must(t, err)
	for _, free := range u.Free {
		clear(before[free.Off : free.Off+free.Len])
		clear(now[free.Off : free.Off+free.Len])
	}
	if !bytes.Equal(before, now) {
		t.Errorf("disk %d is not what it was, where it is used", disk)
	}
}

// firstInOrder: the own system puts itself before the network, as installers do. The server does not reach the box any more, until
// its disk does not start. Then the maintenance system puts the network first again, and the entry of the system stays.
func firstInOrder(t *testing.T) {
	m := newMatrixBox(t, secure, func(own *lab.OwnSystem, spec *lab.Spec) { own.Makes, own.First = own, true })
	m.job(t, box.Backup)
	m.console(t, "made boot entry Boot0042, BootOrder 0042 ", bootTime)
	m.ownSystem(t)
	m.stage("local boot")
	m.PowerOff() // so that QEMU does not tell the order again
	must(t, m.PowerOn())
	if s := m.home(t); s.current != "0042" {
		t.Fatalf("the box has not started its disk first: %+v", s)
	}
	must(t, lab.Wreck(m.disks[0].Path))
	m.job(t, box.Restore)
	check := func(s start) {
		t.Helper()
		if s.current == "0042" || s.order[0] != s.current || !slices.Contains(s.order, "0042") {
			t.Errorf("the network is not first, or the system's entry is gone: %+v", s)
		}
	}
	check(m.home(t))
	m.PowerOff()
	must(t, m.PowerOn())
	check(m.home(t))
	m.end(t)
}

// newMainboard: mainboard and disk are new. The boot entry of the system was in the old mainboard's memory.
func newMainboard(t *testing.T) {
	m := newMatrixBox(t, secure, func(own *lab.OwnSystem, spec *lab.Spec) { own.Makes = own })
	must(t, m.PowerOn())
	m.home(t)
	m.PowerOff()
	m.job(t, box.Backup)
	m.console(t, "has boot entry Boot0042", bootTime)
	m.ownSystem(t)
	m.PowerOff()
	must(t, m.ForgetNVRAM())
	disk := lab.Disk{Path: filepath.Join(m.bench.lab.Dir, "new-disk"), Bus: lab.NVMe, Serial: "TB-NEW"}
	must(t, noise(128<<20)(disk.Path))
	must(t, m.SetDisks(disk))
	m.job(t, box.Restore)
	if line := m.console(t, "(has|made) boot entry", bootTime); !strings.Contains(line, "has") {
		t.Error("the boot entry of the system was not put back")
	}
	m.ownSystem(t)
	m.stage("local boot")
	m.end(t)
}

// sectors4096: a disk with sectors of 4096 bytes is backed up and restored. Its image does not go onto a disk with
// sectors of 512 bytes, and nothing of that is changed.
func sectors4096(t *testing.T) {
	m := newMatrixBox(t, kind{firmware: lab.UEFI, bus: lab.NVMe, card: "virtio-net-pci", sector: 4096}, nil)
	must(t, m.PowerOn())
	m.home(t)
	m.backupAndRestore(t)
	m.end(t)
	other := m.disks[0]
	other.Sector, other.Path = 0, other.Path+"-512"
	must(t, noise(m.own.Size)(other.Path))
	before := hash(t, other.Path)
	must(t, m.SetDisks(other))
	m.refused(t, box.Restore, "sector")
	if hash(t, other.Path) != before {
		t.Error("a restore was refused, and the disk is not what it was")
	}
}

// refused has the server ask for an action that the box refuses, and switches the box off.
func (m *mbox) refused(t *testing.T, action box.Action, why string) {
	t.Helper()
	if j, err := m.bench.lab.Job(t.Context(), m.Machine, action); err == nil {
		t.Fatalf("%s was not refused: %+v", action, j)
	}
	j, err := m.bench.lab.LastJob(t.Context(), m.Machine)
	must(t, err)
	m.bench.step(t, "the job is %s: %s", j.Outcome, j.Text)
	if j.Outcome != box.Refused || !strings.Contains(j.Text, why) {
		t.Errorf("the job ended so: %+v", j)
	}
	m.stage(string(action) + " refused")
	m.end(t)
}

// swappedDisks: two disks of one model and size are swapped. Each gets its own image back.
func swappedDisks(t *testing.T) {
	m := newMatrixBox(t, kind{firmware: lab.UEFI, bus: lab.NVMe, card: "virtio-net-pci"}, nil)
	m.addDisk(t, lab.NVMe, noise(m.own.Size))
	m.job(t, box.Backup)
	m.home(t)
	m.sameDisks(t)
	m.PowerOff()
	system, data := m.disks[0], m.disks[1]
	before := m.contents(t)
	must(t, lab.Wreck(system.Path))
	must(t, lab.Wreck(data.Path))
	must(t, m.SetDisks(data, system))
	m.job(t, box.Restore)
	m.home(t)
	m.end(t)
	m.sameUsed(t, 0, before[0])
	m.sameUsed(t, 1, before[1])
}

// cutArming: the server is killed while it arms the box, and the box starts. There is one boot file for both loaders, so the box starts its
// own system or does what it was armed for, and that is done in the end.
func cutArming(t *testing.T) {
	m := newMatrixBox(t, secure, nil)
	l := m.bench.lab
	must(t, m.PowerOn())
	m.home(t)
	for _, c := range []struct {
		what string
		when func() bool
	}{
		{"as soon as it knows of the job", func() bool { _, err := l.LastJob(t.Context(), m.Machine); return err == nil }},
		{"as soon as anything of the boot file is there", func() bool {
			names, _ := filepath.Glob(filepath.Join(l.TFTP(), bootcfg.ConfigDir, "*"+m.Addr.Hex()+"*"))
			return len(names) > 0
		}},
	} {
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			l.Testbox(t.Context(), string(box.RefreshInfo), m.Addr.String())
		}()
		must(t, until(t.Context(), actionTime, c.what, c.when))
		l.KillServer()
		m.bench.step(t, "the server is killed %s; the box is armed: %v", c.what, m.armed())
		must(t, l.StartServer(t.Context()))
		<-asked
		must(t, m.Reset())
		m.home(t)
		if j, err := l.LastJob(t.Context(), m.Machine); err != nil || j.Outcome != box.Done {
			m.bench.step(t, "the job is %+v, %v", j, err)
			must(t, until(t.Context(), actionTime, "the box is not armed", m.armed))
			must(t, m.Reset())
			m.home(t)
		}
		m.doneInTheEnd(t)
		m.stage("killed server")
	}

	// Half a boot file, which nothing of ours leaves behind, is none.
	_, err := l.Ask(t.Context(), m.Machine, box.RefreshInfo)
	must(t, err)
	whole, err := os.ReadFile(l.BootFile(m.Addr))
	must(t, err)
	must(t, os.WriteFile(l.BootFile(m.Addr), whole[:len(whole)/2], 0o644))
	must(t, m.Reset())
	m.home(t)
	must(t, os.WriteFile(l.BootFile(m.Addr), whole, 0o644))
	must(t, m.Reset())
	m.home(t)
	m.doneInTheEnd(t)
	m.end(t)
	m.sameDisks(t)
}

// tamperedKernel: Secure Boot keeps a kernel from running that somebody has changed, and the box starts its own disk.
func tamperedKernel(t *testing.T) {
	m := newMatrixBox(t, secure, nil)
	l := m.bench.lab
	_, err := l.Ask(t.Context(), m.Machine, box.RefreshInfo)
	must(t, err)
	kernel := filepath.Join(l.TFTP(), bootcfg.MaintDir, m.bench.plain, bootcfg.KernelFile)
	flip(t, kernel)
	must(t, m.PowerOn())
	m.console(t, "bad shim signature|verification requested but nobody cares", bootTime)
	m.home(t)
	flip(t, kernel)
	must(t, m.Reset())
	m.home(t)
	m.doneInTheEnd(t)
	m.end(t)
	m.sameDisks(t)
}

// flip changes a bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, flipped(data), 0o644))
	time.Sleep(10 * time.Millisecond) // so that its time is another one
}

// httpBoot: the firmware loads by HTTP, and no TFTP is asked for.
func httpBoot(t *testing.T) {
	m := newMatrixBox(t, secure, func(own *lab.OwnSystem, spec *lab.Spec) { spec.NoPXE = true })
	must(t, m.PowerOn())
	m.console(t, "BdsDxe: starting Boot.* .UEFI HTTPv4 ", bootTime)
	m.home(t)
	m.backupAndRestore(t)
	m.end(t)
}

// golden: the backup of one box is restored onto another one with a larger disk on another bus, and gets that box's name.
func golden(t *testing.T) {
	m := newMatrixBox(t, secure, nil)
	l := m.bench.lab
	m.job(t, box.Backup)
	m.home(t)
	m.end(t)
	from, disk := m.Addr, lab.Disk{Path: filepath.Join(l.Dir, "golden-disk"), Bus: lab.NVMe, Serial: "TB-GOLDEN"}
	must(t, noise(128<<20)(disk.Path))
	var err error
	m.Machine, err = l.Machine(lab.Spec{Number: 1, Firmware: m.kind.firmware, Memory: 1024, Disks: []lab.Disk{disk}})
	must(t, err)
	_, err = l.Testbox(t.Context(), "box", "set", m.Addr.String(), "--name", "golden-b")
	must(t, err)
	m.job(t, box.Restore, "--from", from.String(), "--hooks", "hostname")
	m.console(t, "^testbox own system "+m.own.Name+": host name golden-b$", bootTime)
	m.ownSystem(t)
	m.stage("local boot")
	m.end(t)
}

// wholeDebian: the own system is Debian, up to its login.
func wholeDebian(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mmdebstrap")
	m := newMatrixBox(t, secure, func(own *lab.OwnSystem, spec *lab.Spec) {
		own.Name, own.Size, own.Tree = "debian", 1<<30, debianTree(t, "debian")
	})
	must(t, m.PowerOn())
	m.console(t, "Secure boot enabled", bootTime)
	m.ownSystem(t)
	m.stage("local boot")
	m.job(t, box.Backup)
	m.ownSystem(t)
	m.stage("local boot")
	must(t, lab.Wreck(m.disks[0].Path))
	m.job(t, box.Restore)
	m.Console.SkipAll() // the maintenance system says it too
	m.console(t, "Secure boot enabled", bootTime)
	m.ownSystem(t)
	m.stage("local boot")
	m.end(t)
}

// debianTree makes a small Debian that asks for a login on the serial console.
func debianTree(t *testing.T, host string) string {
	t.Helper()
	suite, sources := maintenance.Sources("/etc/apt")
	if suite == "" {
		t.Fatal("this machine has no apt sources of Debian")
	}
	dir := t.TempDir()
	tree, from := filepath.Join(dir, "tree"), filepath.Join(dir, "debian.sources")
	must(t, os.WriteFile(from, sources, 0o644))
	contents.Run(t, "", "mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", "--architectures=amd64",
		"--include=systemd-sysv,udev,kmod,e2fsprogs,initramfs-tools,linux-image-cloud-amd64", suite, tree, from)
	for name, text := range map[string]string{
		"etc/hostname": host + "\n",
		"etc/fstab":    "LABEL=own-" + host + " / ext4 errors=remount-ro 0 1\n",
	} {
		must(t, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644))
	}
	return tree
}

package vm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/loaders"
)

// These are the cells of the matrix in which something is wrong with what a UEFI machine loads before Linux.

// damagedLoader: the first loader of the first disk is damaged, and GRUB starts the system's second loader. Then that is
// damaged too, and GRUB goes on to the second disk.
func damagedLoader(t *testing.T) {
	var two lab.OwnSystem
	m := newMatrixBox(t, kind{firmware: lab.UEFISecure, bus: lab.NVMe, card: "virtio-net-pci"}, func(own *lab.OwnSystem, spec *lab.Spec) {
		two = *own
		two.Name = "box0-two"
		own.Loaders = &lab.Loaders{Shim: flipped(own.Loaders.Shim), GRUB: own.Loaders.GRUB}
	})
	m.addDisk(t, lab.Virtio, func(path string) error { return two.MakeDisk(t.Context(), path) })
	must(t, m.PowerOn())
	m.console(t, `: /EFI/debian/shimx64.efi of .* did not start`, bootTime)
	m.home(t)
	m.PowerOff()
	m.own.Loaders = &lab.Loaders{Shim: m.own.Loaders.Shim, GRUB: flipped(m.own.Loaders.GRUB)}
	must(t, m.own.MakeDisk(t.Context(), m.disks[0].Path))
	m.hashes[0] = hash(t, m.disks[0].Path)
	m.own = two
	must(t, m.PowerOn())
	m.console(t, `: /EFI/debian/grubx64.efi of .* did not start`, bootTime)
	m.home(t)
	m.end(t)
	m.sameDisks(t)
}

// flipped is a copy of data with another bit in its middle.
func flipped(data []byte) []byte {
	data = append([]byte(nil), data...)
	data[len(data)/2] ^= 1
	return data
}

// tamperedGRUB: shim would wait for a key with a GRUB that somebody has changed. The server gives it to nobody and says so, and the
// firmware starts the own disk. With the right file the box does what it was armed for. grub.cfg is gone by then, and the server gives
// out its own.
func tamperedGRUB(t *testing.T) {
	m := newMatrixBox(t, secure, func(own *lab.OwnSystem, spec *lab.Spec) { own.Makes = own })
	l := m.bench.lab
	must(t, m.PowerOn())
	m.home(t)
	m.PowerOff() // so that QEMU does not tell the order again
	_, err := l.Ask(t.Context(), m.Machine, box.RefreshInfo)
	must(t, err)
	log := l.ServerLog()
	flipWhileServed := func(said string) {
		t.Helper()
		log.SkipAll()
		flip(t, filepath.Join(l.TFTP(), loaders.X64.GRUB))
		_, err := log.Wait(t.Context(), regexp.MustCompile(said), bootTime)
		must(t, err)
	}
	const said = "UEFI machines (x64) are given no loaders and start their own disk"
	flipWhileServed(regexp.QuoteMeta(said))
	status, err := l.Testbox(t.Context(), "server", "status")
	if !strings.Contains(status, said) {
		t.Errorf("server status (%v) does not say %q:\n%s", err, said, status)
	}
	found, err := l.TestboxInside(t.Context(), "doctor", "--config", l.ServerConfig())
	if !strings.Contains(strings.Join(strings.Fields(found), " "), said) {
		t.Errorf("doctor (%v) does not say %q:\n%s", err, said, found)
	}
	must(t, m.PowerOn())
	if s := m.home(t); s.current != "0042" {
		t.Errorf("the box has started its disk by another entry: %+v", s)
	}
	if text, err := m.Console.Text(); err != nil || strings.Contains(text, "Security Violation") {
		t.Errorf("shim was given the GRUB that was changed (%v)", err)
	}
	flipWhileServed("UEFI machines are given new loaders")
	config := filepath.Join(l.TFTP(), "grub/grub.cfg")
	must(t, os.Rename(config, config+".away"))
	must(t, m.Reset())
	m.console(t, "Testbox Imaging: loading maintenance-boot/", bootTime)
	must(t, os.Rename(config+".away", config))
	m.home(t)
	m.doneInTheEnd(t)
	m.end(t)
	m.sameDisks(t)
}

// doneInTheEnd waits until the box's latest job is done. Who asked for it may have stopped waiting, since the server was away for long.
func (m *mbox) doneInTheEnd(t *testing.T) {
	t.Helper()
	must(t, until(t.Context(), actionTime, "the job is not done", func() bool {
		j, err := m.bench.lab.LastJob(t.Context(), m.Machine)
		return err == nil && j.Outcome == box.Done
	}))
}

// serverGone: the server dies when GRUB has read grub.cfg. GRUB gives up each of the other files, and starts the own disk. When the
// server is back, the box does what it was armed for. GRUB measures its clock within a millisecond of its start. If the
// emulator was interrupted in it, all times of GRUB are longer, so there is much time here.
func serverGone(t *testing.T) {
	m := newMatrixBox(t, secure, nil)
	l := m.bench.lab
	_, err := l.Ask(t.Context(), m.Machine, box.RefreshInfo)
	must(t, err)
	must(t, m.PowerOn())
	m.console(t, "Testbox Imaging: this machine is "+m.Addr.String(), bootTime)
	l.KillServer()
	m.console(t, "Testbox Imaging: starting /EFI/debian/shimx64.efi", 2*actionTime)
	m.home(t)
	must(t, l.StartServer(t.Context()))
	must(t, m.Reset())
	m.home(t)
	m.doneInTheEnd(t)
	m.end(t)
	m.sameDisks(t)
}

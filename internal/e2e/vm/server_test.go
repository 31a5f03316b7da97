package vm

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
)

// TestServedBoxes is a walk through all cases of the form ram with a storage server.
// Each case begins and ends with a box that is switched off. The first ones start beside
// the DHCP server of another machine, and the others by the storage server's own.
func TestServedBoxes(t *testing.T) {
	t.Parallel()
	b := makeLab(t, lab.Options{Server: true, DHCP: lab.DHCPProxy})
	b.plain, b.faults = b.install(t, plainRAM), b.install(t, faultsRAM)
	x := b.newBox(t, lab.Spec{}, lab.AHCI)
	must(t, b.lab.Listen(func(a box.Addr) { b.step(t, "the server has switched box %s", a) }))
	for _, c := range []struct {
		name string
		run  func(*testing.T, *vbox)
	}{
		{"server killed in a backup", servedBackup},
		{"server killed and network cut in a restore", servedRestore},
		{"the server gives the addresses", servedOwnDHCP},
		{"power cut in a restore", servedCutRestore},
		{"power cut between commit and outcome", servedCutBackup},
		{"three failures, held, released", servedHeld},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, x) }) {
			t.Fatalf("the server says:\n%s", x.bench.serverLog())
		}
	}
}

// servedOwnDHCP: from here on there is no other DHCP server.
func servedOwnDHCP(t *testing.T, x *vbox) {
	l := x.bench.lab
	said := func(want string) {
		t.Helper()
		must(t, until(t.Context(), bootTime, "the server does not say "+want, func() bool {
			text, _ := l.Testbox(t.Context(), "server", "status")
			return strings.Contains(text, want)
		}))
	}
	told := `A machine was told by DHCP what to start." card=` + lab.BoxMAC(0) + ` asked=DISCOVER architecture=BIOS told=pxelinux.0`
	if log := x.bench.serverLog(); !strings.Contains(log, told) {
		t.Errorf("the box did not start by our ProxyDHCP; the server says\n%s", log)
	}
	said("ProxyDHCP")
	must(t, l.GiveAddresses(t.Context()))
	said("gives addresses and tells boxes their boot files")
	x.bench.step(t, "the server gives the addresses")
}

func (b *bench) serverLog() string {
	text, _ := b.lab.ServerLog().Text()
	return text
}

// ask asks the server for an action and switches the box on.
func (x *vbox) ask(t *testing.T, action box.Action, changes ...change) *lab.Asked {
	t.Helper()
	a, err := x.bench.lab.Ask(t.Context(), x.Machine, action)
	must(t, err)
	x.next(t, changes...)
	x.bench.step(t, "armed for %s", action)
	must(t, x.PowerOn())
	return a
}

// ended waits for a job, which must have been done in so many attempts.
func (x *vbox) ended(t *testing.T, a *lab.Asked, attempts int) *lab.Job {
	t.Helper()
	j, err := a.Wait()
	must(t, err)
	if j.Outcome != box.Done || j.Attempt != attempts {
		t.Errorf("the job ended so: %+v", j)
	}
	x.bench.step(t, "the job is %s, %d bytes crossed the network", j.Outcome, j.Sent)
	return j
}

// killServer kills the server, and starts it again after a while.
func (b *bench) killServer(t *testing.T) {
	t.Helper()
	b.lab.KillServer()
	b.step(t, "the server is killed")
	time.Sleep(3 * time.Second)
	must(t, b.lab.StartServer(t.Context()))
	b.step(t, "the server is back")
}

// servedBackup: a server that dies and comes back costs time, and nothing else.
// The server itself switches the box on, by a command that fails the first time.
func servedBackup(t *testing.T, x *vbox) {
	log := x.Log()
	must(t, x.bench.lab.PowerFails(x.Machine))
	power := func(name string) {
		_, err := x.bench.lab.Testbox(t.Context(), "box", "set", x.Addr.String(), "--power", name)
		must(t, err)
	}
	x.enrol(t)
	power(lab.Power)
	a, err := x.bench.lab.Ask(t.Context(), x.Machine, box.Backup)
	must(t, err)
	power("none") // all other cases change the boot file first
	_, err = log.Wait(t.Context(), diskSeen, actionTime)
	must(t, err)
	x.bench.killServer(t)
	x.ended(t, a, 1)
	x.backHome(t)
	contains(t, x.logText(t), "power: the switch of box "+x.Addr.String()+" is busy")
	contains(t, x.logText(t), "restart (the power command lab): done.")
}

// enrol makes a box of a machine that nobody knows, by what it tells when it starts.
func (x *vbox) enrol(t *testing.T) {
	t.Helper()
	must(t, x.PowerOn())
	x.ownSystem(t)
	x.off(t)
	text, err := x.bench.lab.Testbox(t.Context(), "boxes", "--new")
	must(t, err)
	for _, want := range []string{lab.BoxMAC(0), x.Addr.String(), "BIOS"} {
		if !strings.Contains(text, want) {
			t.Errorf("the machines that nobody knows are\n%s\nand %s is not there", text, want)
		}
	}
	text, err = x.bench.lab.Testbox(t.Context(), "box", "add", lab.BoxMAC(0))
	must(t, err)
	if !strings.Contains(text, x.Addr.String()) {
		t.Fatalf("the box that was made of it is\n%s", text)
	}
}

// half waits until a part of the disk in its middle is restored.
func (x *vbox) half(t *testing.T, want []byte) {
	t.Helper()
	must(t, until(t.Context(), actionTime, "nothing is being restored", func() bool { return bytes.Equal(x.readAt(t, middle), want) }))
}

// middle is a place on the disk that a restore writes before its end.
const middle = 16 << 20

// servedRestore has the server die, and then the network, while the box restores.
func servedRestore(t *testing.T, x *vbox) {
	log := x.Log()
	must(t, lab.Wreck(x.disks[0].Path))
	a := x.ask(t, box.Restore)
	_, err := log.Wait(t.Context(), diskSeen, actionTime)
	must(t, err)
	x.bench.killServer(t)
	must(t, x.bench.lab.CutNetwork(true))
	x.bench.step(t, "the network is cut")
	time.Sleep(time.Minute)
	must(t, x.bench.lab.CutNetwork(false))
	x.bench.step(t, "the network is back")
	x.ended(t, a, 1)
	x.backHomeServed(t)
}

// backHomeServed is backHome for a disk of which the unused parts were wrecked. The
// own system checks its files.
func (x *vbox) backHomeServed(t *testing.T) {
	t.Helper()
	x.ownSystem(t)
	x.PowerOff()
	if x.armed() {
		t.Errorf("box %s has done its action and is still armed", x.Addr)
	}
	x.hashes[0] = hash(t, x.disks[0].Path)
}

// servedCutRestore: what is half restored does not boot, and the next start of the
// box restores it whole. The job ends when the box's own system answers.
func servedCutRestore(t *testing.T, x *vbox) {
	want := x.readAt(t, middle)
	must(t, lab.Wreck(x.disks[0].Path))
	a, err := x.bench.lab.Ask(t.Context(), x.Machine, box.Restore, "--wait=up")
	must(t, err)
	must(t, x.PowerOn())
	x.half(t, want)
	x.PowerOff()
	x.bench.step(t, "power cut in the middle of the restore")
	if head := x.readAt(t, 0); !bytes.Equal(head, make([]byte, len(head))) {
		t.Error("the first MiB is there before all else is proved")
	}
	if !x.armed() {
		t.Fatal("the box is not armed, and its disk is half restored")
	}
	must(t, x.PowerOn())
	if j := x.ended(t, a, 2); j.Up != "yes" {
		t.Errorf("the job did not wait until the box's own system answers: %+v", j)
	}
	x.backHomeServed(t)
}

// servedCutBackup: the backup is committed, and the power is cut before the server
// knows that it is done. The next attempt must not make another backup.
func servedCutBackup(t *testing.T, x *vbox) {
	log := x.Log()
	a := x.ask(t, box.BackupAgain, x.bench.faulty("hang-disarm"))
	_, err := log.Wait(t.Context(), hanging, actionTime)
	must(t, err)
	x.PowerOff()
	x.bench.step(t, "power cut between commit and outcome")
	before := x.backups(t)
	must(t, x.PowerOn())
	x.ended(t, a, 2)
	x.backHome(t)
	if after := x.backups(t); after != before {
		t.Errorf("there were %d backups, and are %d", before, after)
	}
}

// backups counts the backups in the store.
func (x *vbox) backups(t *testing.T) int {
	t.Helper()
	text, err := x.bench.lab.Testbox(t.Context(), "image", "list", "--store", x.bench.lab.Store())
	must(t, err)
	return strings.Count(text, x.Addr.String())
}

// servedHeld: an agent that dies after its writes, three times, leaves a box that
// stays in maintenance until an admin releases it.
func servedHeld(t *testing.T, x *vbox) {
	must(t, lab.Wreck(x.disks[0].Path))
	dies := []change{x.bench.faulty("panic-disarm"), times(5*time.Second, time.Minute)}
	a := x.ask(t, box.Restore, dies...)
	for attempt := 1; attempt <= 3; attempt++ {
		x.console(t, "panic: a panic that was asked for", actionTime)
		x.console(t, "init: rebooting", bootTime)
		if attempt < 3 {
			x.next(t, dies...)
		}
	}
	x.console(t, "(?i)held|not fit", bootTime)
	j, err := x.bench.lab.LastJob(t.Context(), x.Machine)
	must(t, err)
	if j.State != "held" || !x.armed() {
		t.Fatalf("the job is %+v, the box is armed: %v", j, x.armed())
	}
	_, err = x.bench.lab.Testbox(t.Context(), "release", x.Addr.String())
	must(t, err)
	if _, err := a.Wait(); err == nil {
		t.Error("a restore that was never proved is said to be done")
	}
	x.backHomeServed(t)
}

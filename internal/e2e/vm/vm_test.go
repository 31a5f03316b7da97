package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/usedmap"
)

// cutAt is how much of an image or disk, in bytes, is written when the power
// is cut in the middle.
const cutAt = 4 << 20

// TestVirtualBoxes is one walk through all cases of the form ram, since a lab
// and a backup are too dear to be made for each. A case begins with a box that
// is switched off or in its own system, and ends so; when one fails, the next
// ones tell little.
func TestVirtualBoxes(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.plain, b.faults = b.install(t, plainRAM), b.install(t, faultsRAM)
	x := b.newBox(t, lab.Spec{Cards: []string{"e1000e"}}, lab.AHCI)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *vbox)
	}{
		{"not armed", notArmed},
		{"free space is noise", freeIsNoise},
		{"kernel file missing", kernelMissing},
		{"power cut in a backup", cutBackup},
		{"power cut between commit and disarm", cutBeforeDisarm},
		{"power cut in a restore", cutRestore},
		{"NFS server gone before the agent starts, and in a verify", nfsGone},
		{"agent and init panic and hang", panicsAndHangs},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, x) }) {
			t.FailNow()
		}
	}
}

// notArmed: the network says `default`, and the box starts its own disk.
func notArmed(t *testing.T, x *vbox) {
	must(t, x.PowerOn())
	x.ownSystem(t)
	x.sameDisks(t)
}

// freeIsNoise: what the used map leaves out is not missed, from the boot sector
// to the last file of the own system, which checks them all.
func freeIsNoise(t *testing.T, x *vbox) {
	path := x.disks[0].Path
	before, err := os.ReadFile(path)
	must(t, err)
	m, err := usedmap.Read(t.Context(), bytes.NewReader(before), int64(len(before)), 512)
	must(t, err)
	if m.FreeBytes() < x.own.Size/3 {
		t.Fatalf("only %d bytes are free: %+v", m.FreeBytes(), m.Parts)
	}
	realfs.Noise(t, path, m.Free)
	if x.Reset() != nil { // it is off
		must(t, x.PowerOn())
	}
	x.ownSystem(t)
	x.PowerOff()
	must(t, os.WriteFile(path, before, 0o644))
}

// kernelMissing: the loader falls back to the disk, though the box is armed.
func kernelMissing(t *testing.T, x *vbox) {
	x.arm(t, box.Backup)
	maint := filepath.Join(x.bench.lab.TFTP(), bootcfg.MaintDir)
	must(t, os.Rename(maint, maint+".away"))
	must(t, x.PowerOn())
	x.ownSystem(t)
	must(t, os.Rename(maint+".away", maint))
	if !x.armed() {
		t.Error("the box was disarmed, by whom?")
	}
	x.PowerOff()
	x.disarm(t)
}

// cutBackup: half an image is no image; the next start backs up anew.
func cutBackup(t *testing.T, x *vbox) {
	x.arm(t, box.Backup)
	must(t, x.PowerOn())
	must(t, until(t.Context(), actionTime, "no image is being written", func() bool { return x.unfinished() > cutAt }))
	x.PowerOff()
	x.bench.step(t, "power cut with %d MiB of image", x.unfinished()>>20)
	if !x.armed() || x.unfinished() == 0 || len(x.images(t, ".raw.gz")) != 0 {
		t.Fatal("the power was not cut in the middle of the backup")
	}
	log := x.Log()
	must(t, x.PowerOn())
	x.done(t, log, box.Backup)
	x.backHome(t)
	x.sameImages(t, ".raw.gz")
	if x.unfinished() != 0 {
		t.Error("the image that was cut short is still there")
	}
}

// cutBeforeDisarm: a second backup-again of the same arming would push out
// the old images; the box must notice that it is done, and disarm.
func cutBeforeDisarm(t *testing.T, x *vbox) {
	x.arm(t, box.BackupAgain, x.bench.faulty("hang-disarm"))
	log := x.Log()
	must(t, x.PowerOn())
	_, err := log.Wait(t.Context(), hanging, actionTime)
	must(t, err)
	x.PowerOff()
	x.bench.step(t, "power cut between commit and disarm")
	if !x.armed() {
		t.Fatal("the box was disarmed before the power was cut")
	}
	x.sameImages(t, ".raw.gz")
	x.sameImages(t, ".raw.gz.old")
	before := fileTimes(t, x)
	must(t, x.PowerOn())
	x.done(t, log, box.BackupAgain)
	x.backHome(t)
	contains(t, x.logText(t), "done by an earlier start; only disarming")
	if after := fileTimes(t, x); after != before {
		t.Errorf("images were written again: %s, then %s", before, after)
	}
	x.sameImages(t, ".raw.gz")
	x.sameImages(t, ".raw.gz.old")
}

// cutRestore: what is half restored does not boot, and the next start
// restores it whole.
func cutRestore(t *testing.T, x *vbox) {
	const place = 48 << 20
	want := x.readAt(t, place)
	must(t, lab.Wreck(x.disks[0].Path))
	x.arm(t, box.Restore)
	must(t, x.PowerOn())
	must(t, until(t.Context(), actionTime, "nothing is being restored", func() bool { return bytes.Equal(x.readAt(t, place), want) }))
	x.PowerOff()
	x.bench.step(t, "power cut in the middle of the restore")
	if head := x.readAt(t, 0); !bytes.Equal(head, make([]byte, len(head))) {
		t.Error("the first MiB is there before all else is proved")
	}
	if !x.armed() || hash(t, x.disks[0].Path) == x.hashes[0] {
		t.Fatal("the power was not cut in the middle of the restore")
	}
	log := x.Log()
	must(t, x.PowerOn())
	x.done(t, log, box.Restore)
	x.backHome(t)
}

// nfsGone: a box that cannot mount its areas restarts until it can. An agent
// whose server goes waits for its image, and the box restarts; when the server
// is back, the action is done.
func nfsGone(t *testing.T, x *vbox) {
	const stalled = `init: .*no progress for 20s; rebooting`
	x.bench.lab.StopNFS()
	x.arm(t, box.Verify, times(5*time.Second, 20*time.Second))
	log := x.Log()
	must(t, x.PowerOn())
	x.console(t, "init: .*cannot mount", bootTime)
	x.console(t, stalled, bootTime)
	must(t, x.bench.lab.StartNFS(t.Context()))
	_, err := log.Wait(t.Context(), diskSeen, actionTime)
	must(t, err)
	x.bench.lab.StopNFS()
	x.bench.step(t, "the storage server is gone")
	x.Console.SkipAll()
	x.console(t, stalled, bootTime)
	must(t, x.bench.lab.StartNFS(t.Context()))
	x.done(t, log, box.Verify)
	x.backHome(t)
}

// panicsAndHangs is a box that breaks in another way at each start. Each time
// it restarts by itself, in the end to its own disk:
//
//   - The agent panics. Its last words are in the box's log.
//   - The agent hangs. There is no sign of progress for the stall time.
//   - Init panics. The kernel restarts the box, as panic=30 tells it.
//   - Init hangs. Nobody feeds the watchdog, and it resets the box.
//
// What the next start does is set while the box waits to restart.
func panicsAndHangs(t *testing.T, x *vbox) {
	x.arm(t, box.RefreshInfo, x.bench.faulty("panic"), times(5*time.Second, time.Minute))
	must(t, x.PowerOn())
	x.console(t, "panic: a panic that was asked for", bootTime)
	x.console(t, "init: rebooting", bootTime)
	x.next(t, x.bench.faulty("hang"), times(5*time.Second, 20*time.Second))
	contains(t, x.logText(t), "a panic that was asked for")

	x.console(t, "hanging, as asked", bootTime)
	x.next(t, x.bench.faulty("panic-init"))
	x.console(t, "init: .*no progress for 20s; rebooting", bootTime)

	x.console(t, "Kernel panic - not syncing", bootTime)
	x.next(t, x.bench.faulty("hang-init"))

	x.console(t, "init: watchdog: watchdog0 .*i6300", bootTime)
	x.disarm(t)
	x.backHome(t)
}

// TestThreeDisks has a box with Secure Boot do it. A cell of the matrix has one with a BIOS do it.
func TestThreeDisks(t *testing.T) {
	t.Parallel()
	threeDisks(t, lab.UEFISecure)
}

// threeDisks: each image is of its disk and goes back to it, whatever the
// disks hang on. The card that did not boot is left alone, and the kernel gets the
// site's words. The box has two processors.
func threeDisks(t *testing.T, firmware lab.Firmware) {
	b := newLab(t)
	b.plain = b.install(t, plainRAM)
	spec := lab.Spec{Number: 1, Firmware: firmware, Cards: []string{"virtio-net-pci", "e1000e"}, CPUs: 2}
	x := b.newBox(t, spec, lab.Virtio, lab.NVMe, lab.AHCI)
	words := x.siteWords(t)
	x.armAsAdmin(t, box.Backup)
	log := x.Log()
	must(t, x.PowerOn())
	x.console(t, "Kernel command line: .* "+regexp.QuoteMeta(words)+" BOOTIF=", bootTime)
	x.done(t, log, box.Backup)
	x.off(t)
	x.sameImages(t, ".raw.gz")
	for _, d := range x.disks {
		must(t, lab.Wreck(d.Path))
	}
	x.Firmware.SkipAll()
	must(t, x.PowerOn())
	must(t, x.BootsNothing(t.Context(), bootTime))
	x.bench.step(t, "all disks are wrecked, nothing boots")
	x.armAsAdmin(t, box.Restore)
	must(t, x.Reset())
	x.done(t, log, box.Restore)
	x.backHome(t)
}

// siteWords puts kernel arguments into the site file that a loader could take for its own, and returns them as the kernel gets
// them. GRUB moves quotation marks, which means the same to the kernel.
func (x *vbox) siteWords(t *testing.T) string {
	t.Helper()
	const awkward, quoted, moved = `lab.signs=~#%^@:,+!?*[a-z]/.. `, `lab.words="two  words"`, `"lab.words=two  words"`
	f, err := os.OpenFile(filepath.Join(x.bench.lab.TFTP(), "pxelinux.cfg", site.FileName), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("kernel-args = " + awkward + quoted + "\n")
	must(t, err)
	if x.own.Loaders != nil {
		return awkward + moved
	}
	return awkward + quoted
}

// fileTimes tells when the box's images were written.
func fileTimes(t *testing.T, x *vbox) (all string) {
	t.Helper()
	for _, name := range append(x.images(t, ".raw.gz"), x.images(t, ".raw.gz.old")...) {
		info, err := os.Stat(name)
		must(t, err)
		all += filepath.Base(name) + " " + info.ModTime().String() + "; "
	}
	return all
}

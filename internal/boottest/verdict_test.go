package boottest

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

func TestJudge(t *testing.T) {
	ready := regexp.MustCompile(`(?m)^ready$`)
	for _, c := range []struct {
		name    string
		seen    seen
		verdict image.Verdict
		sign    image.Sign
		final   bool
	}{
		{"nothing yet", seen{}, image.BootUnproven, image.SignNothing, false},
		{"nothing in time", seen{over: true}, image.BootUnproven, image.SignNothing, true},
		{"login", seen{serial: "Debian 12\nbox login: "}, image.BootPassed, image.SignLogin, true},
		{"login on the screen", seen{screen: "box login:\n"}, image.BootPassed, image.SignLogin, true},
		{"last login is none", seen{serial: "Last login: Mon Nov 30\n", over: true}, image.BootUnproven, image.SignSerial, true},
		{"login, and a line is wanted", seen{serial: "box login: ", expect: ready, over: true}, image.BootUnproven, image.SignLogin, true},
		{"the line", seen{serial: "ready\n", expect: ready}, image.BootPassed, image.SignExpected, true},
		{"panic, just now", seen{serial: "Kernel panic - not syncing: x\n"}, image.BootUnproven, image.SignNothing, false},
		{"panic", seen{serial: "Kernel panic - not syncing: x\n", still: settled}, image.BootFailed, image.SignNothing, true},
		{"error of GRUB, then a login", seen{serial: "error: file `/x' not found\nbox login: ", still: settled},
			image.BootPassed, image.SignLogin, true},
		{"emergency", seen{screen: "Give root password for maintenance\n", still: settled}, image.BootFailed, image.SignNothing, true},
		{"no device", seen{screen: "No bootable device.\n", still: settled}, image.BootFailed, image.SignNothing, true},
		{"a boot sector that does nothing, just now", seen{screen: "Booting from Hard Disk...\n", still: handedOver - 1}, image.BootUnproven,
			image.SignNothing, false},
		{"a boot sector that does nothing", seen{screen: "Booting from Hard Disk...\n", still: handedOver}, image.BootFailed,
			image.SignNothing, true},
		{"a loader whose second part is gone", seen{screen: "Booting from Hard Disk...\nGRUB \n", still: handedOver}, image.BootFailed,
			image.SignNothing, true},
		{"a busy machine", seen{serial: "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug\n", still: settled},
			image.BootUnproven, image.SignNothing, true},
		{"a boot sector that reads", seen{screen: "Booting from Hard Disk...\n", read: 1, still: handedOver, over: true}, image.BootUnproven,
			image.SignRead, true},
		{"a kernel that cannot be unpacked", seen{screen: "XZ-compressed data is corrupt\n -- System halted\n", still: settled},
			image.BootFailed, image.SignScreen, true},
		{"the shell of UEFI", seen{serial: "UEFI Interactive Shell v2.2\nMapping table\n", still: settled, uefi: true}, image.BootUnproven,
			image.SignNothing, false},
		{"no loader of UEFI", seen{serial: "EDK II\n" + scriptEnds + "\n", uefi: true}, image.BootUnproven, image.SignNothing, true},
		{"a loader of UEFI, just now", seen{serial: scriptStarts + "fs0:\\x.efi\n", still: settled, uefi: true},
			image.BootUnproven, image.SignNothing, false},
		{"a loader of UEFI that does not start",
			seen{serial: scriptStarts + "fs0:\\x.efi\nScript Error Status: Unsupported (line number 5)\n", uefi: true},
			image.BootFailed, image.SignNothing, true},
		{"the second loader of UEFI", seen{serial: "grub>\n" + scriptStarts + "fs0:\\x.efi\nbox login: ", still: settled, uefi: true},
			image.BootPassed, image.SignLogin, true},
		{"words of the script on a BIOS", seen{serial: scriptEnds + "\n"}, image.BootUnproven, image.SignNothing, false},
		{"restarts once", seen{resets: maxResets}, image.BootUnproven, image.SignNothing, false},
		{"restarts for ever", seen{resets: maxResets + 1, read: 1}, image.BootFailed, image.SignRead, true},
		{"off", seen{off: true}, image.BootFailed, image.SignNothing, true},
		{"QEMU was killed", seen{ended: "signal: killed", killed: true}, image.BootUnproven, image.SignNothing, true},
		{"QEMU died", seen{ended: "exit status 1"}, image.BootUnproven, image.SignNothing, true},
		{"a still picture", seen{picture: true, over: true, still: time.Hour}, image.BootUnproven, image.SignScreen, true},
		{"writes", seen{picture: true, wrote: loaderWrites + 1, over: true}, image.BootUnproven, image.SignWritten, true},
		{"full", seen{full: true}, image.BootUnproven, image.SignNothing, true},
	} {
		c.seen.handed = handedOver
		o := judge(c.seen)
		if o.verdict != c.verdict || o.sign != c.sign || o.final != c.final || c.seen.killed && !o.busy {
			t.Errorf("%s: %s by %s, final %v: %s", c.name, o.verdict, o.sign, o.final, o.text)
		}
	}
}

// TestDevices: a box finds its disks where it had them.
func TestDevices(t *testing.T) {
	for _, c := range []struct {
		kernel string
		sector int
		want   string
	}{
		{"sda", 512, "ide-hd,bus=ide.1,"}, {"nvme0n1", 512, "nvme,"}, {"vda", 512, "virtio-blk-pci,"}, {"", 512, "ide-hd,"},
		{"sda", 4096, "nvme,"}, {"vdb", 4096, "virtio-blk-pci,"}, {"mmcblk0", 512, "ide-hd,"},
	} {
		got := Disk{Kernel: c.kernel, Sector: c.sector}.device(1)
		if !strings.HasPrefix(got, c.want) || strings.Contains(got, "logical_block_size=4096") != (c.sector == 4096) {
			t.Errorf("%q with sectors of %d bytes is %s", c.kernel, c.sector, got)
		}
	}
}

// Package boottest starts the disks of a backup in a virtual machine that can reach
// nothing, and says which signs of life it has seen. Nothing of the machine stays.
package boottest

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

// seen is what was seen of a machine until now.
type seen struct {
	read    int64          // bytes of the disks beyond their first sectors
	wrote   int64          // bytes
	full    bool           // what it wrote did not fit into the room for it
	serial  string         // text of the serial line, beginning and end
	screen  string         // lines of the screen, if it is in text mode
	picture bool           // the screen is in graphics mode, and not of one colour
	expect  *regexp.Regexp // the line that the admin wants; nil is none
	resets  int            // by the guest
	off     bool           // the guest has switched itself off
	ended   string         // why there is no machine any more; "" is that there is
	killed  bool           // it ended so because something else has killed QEMU
	over    bool           // the time is over
	still   time.Duration  // for so long nothing of the texts has changed
	uefi    bool
	handed  time.Duration // how long the firmware's last words may be that it starts the boot sector
	time    time.Duration // since the start
}

// opinion is what follows from that.
type opinion struct {
	verdict image.Verdict
	sign    image.Sign
	text    string
	final   bool // nothing that could come later would change it
	busy    bool // this machine was too busy
}

// maxResets is how often a guest may restart itself. Some do so once when they find
// another machine, and firmware without its variables makes a loader do it too.
const maxResets = 2

// settled is how long a text of failure must stay the last word.
const settled = 15 * time.Second

// handedOver is how long the firmware's last words may be that it starts the boot sector. Each of them
// reads on at once. It takes the firmware a hundredth of that time to get there, so a slow machine is no reason.
const handedOver = time.Minute

// loaderWrites is more than a loader writes, such as GRUB into its environment block.
const loaderWrites = 256 << 10

var (
	loginLine = regexp.MustCompile(`(?m)^[^\n]{0,200}\blogin:[ \t]*\r?$`)
	// faults are texts by which firmware, loaders and systems say that they do not go on.
	faults = regexp.MustCompile(`(?im)^[^\n]{0,120}?(` + strings.Join([]string{
		`No bootable device`, `Boot failed: `, `BdsDxe: No bootable option or device was found`,
		`Missing operating system`, `Operating system not found`, `Error loading operating system`, `Invalid partition table`,
		`This is not a bootable disk`, `Non-System disk`, `BOOTMGR is missing`, `NTLDR is missing`, `Windows failed to start`,
		`Could not find kernel image`, `No DEFAULT or UI configuration directive found`, `Boot error`, `Failed to load ldlinux`,
		`grub rescue>`, `^grub>`, `Minimal BASH-like line editing`, `GRUB Hard Disk Error`, `error: [^\n]*(no such|not found|unknown filesystem)`,
		`Kernel panic - not syncing`, `-- System halted`, `Unable to mount root fs`, `^\(initramfs\)`, `Dropping to a shell`,
		`You are in emergency mode`, `Give root password for maintenance`, `dracut:/#`,
	}, "|") + `)[^\n]{0,120}`)
	// startsSector is what SeaBIOS says last before it starts a boot sector.
	startsSector = regexp.MustCompile(`Booting from Hard Disk[^\n]*\s*(GRUB[^\n]*\s*)?$`)
	// tooSlow is what a good kernel says if its virtual machine gets so little time that clocks seem to stand.
	tooSlow = regexp.MustCompile(`IO-APIC \+ timer doesn't work`)
	// loaderText is what firmware and loaders write before a system runs.
	loaderText = regexp.MustCompile(`(?i)SeaBIOS|iPXE|Booting from|BdsDxe|GRUB|ISOLINUX|SYSLINUX|EXTLINUX|^boot:|^\s*$|` +
		`UEFI|EDK II|Mapping table|Alias\(s\):|PciRoot\(|Press ESC in|Shell>|Error Status: |^testbox `)
	// loaderStatus is how the firmware's shell says that a program did not start.
	loaderStatus = regexp.MustCompile(scriptError + `([A-Za-z ]{1,40}[A-Za-z])`)
)

// judge says what was proved. A still or a living screen alone proves nothing.
func judge(s seen) opinion {
	loader, end := "", false
	if s.uefi {
		loader, s.serial, end = tried(s.serial)
	}
	o := opinion{verdict: image.BootUnproven, sign: s.sign()}
	fault, after := lastFault(s.serial, s.screen), words.Duration(s.time.Round(time.Second))
	switch {
	case s.expect != nil && o.sign == image.SignExpected:
		text := fmt.Sprintf("the expected line was there %s after the start", after)
		return opinion{verdict: image.BootPassed, sign: o.sign, text: text, final: true}
	case s.expect == nil && o.sign == image.SignLogin:
		return opinion{verdict: image.BootPassed, sign: o.sign, text: fmt.Sprintf("it asked for a login %s after the start", after), final: true}
	case s.full:
		return opinion{verdict: image.BootUnproven, sign: o.sign, text: "the system wrote more than there is room for", final: true}
	case s.resets > maxResets:
		return opinion{verdict: image.BootFailed, sign: o.sign, text: fmt.Sprintf("it restarted itself %d times", s.resets), final: true}
	case s.off:
		return opinion{verdict: image.BootFailed, sign: o.sign, text: "it switched itself off", final: true}
	case s.killed:
		return opinion{verdict: image.BootUnproven, sign: o.sign, text: "something killed the virtual machine; that is the kernel if memory " +
			"ran short, so test it again when this machine has more", final: true, busy: true}
	case s.ended != "":
		return opinion{verdict: image.BootUnproven, sign: o.sign, text: "the virtual machine ended: " + s.ended, final: true}
	case end && loader != "":
		text := "the firmware cannot start " + loader
		if m := loaderStatus.FindStringSubmatch(s.serial); m != nil {
			text += ": " + m[1]
		}
		return opinion{verdict: image.BootFailed, sign: o.sign, text: text, final: true}
	case end:
		return opinion{verdict: image.BootUnproven, sign: o.sign, text: `there is no \EFI\BOOT\BOOTX64.EFI, and no other loader that is known; ` +
			"what the box's own firmware starts is in the box's memory, and not in the backup", final: true}
	case tooSlow.MatchString(fault):
		return opinion{verdict: image.BootUnproven, sign: o.sign, text: "this machine is too busy for the test, so that the system's clocks " +
			"seem to stand; test it again later", final: true, busy: true}
	case fault != "" && (s.over || s.still >= settled):
		return opinion{verdict: image.BootFailed, sign: o.sign, text: "it says: " + fault, final: true}
	}
	if o.sign == image.SignNothing && s.still >= s.handed && startsSector.MatchString(s.screen) {
		return opinion{verdict: image.BootFailed, sign: o.sign, text: "the firmware started the boot sector, which read nothing", final: true}
	}
	o.final = s.over
	switch o.sign {
	case image.SignNothing:
		o.text = "nothing was read beyond the first sectors of its disks, and nothing was said"
	case image.SignLogin:
		o.text = "it asked for a login, but the expected line was not seen"
	case image.SignWritten:
		o.text = fmt.Sprintf("a system wrote %s to its disks, but asked for no login on the serial line or on a text screen",
			image.SizeText(s.wrote))
	case image.SignScreen:
		o.text = "its screen left firmware and loader, but no login was seen"
	case image.SignSerial:
		o.text = "it wrote to the serial line, but no login was seen"
	default:
		o.text = "its disks were read, but nothing was said"
	}
	return o
}

// sign is the strongest sign of life.
func (s seen) sign() image.Sign {
	texts := s.serial + "\n" + s.screen
	switch {
	case s.expect != nil && (s.expect.MatchString(s.serial) || s.expect.MatchString(s.screen)):
		return image.SignExpected
	case loginLine.MatchString(texts):
		return image.SignLogin
	case s.wrote > loaderWrites:
		return image.SignWritten
	case s.picture || foreign(s.screen):
		return image.SignScreen
	case foreign(s.serial):
		return image.SignSerial
	case s.read > 0:
		return image.SignRead
	}
	return image.SignNothing
}

// foreign reports whether a text has a line that is neither of firmware nor of a loader.
func foreign(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !loaderText.MatchString(line) && !faults.MatchString(line) {
			return true
		}
	}
	return false
}

// lastFault finds the last text of failure, if what came after it is short. A system
// that goes on says more.
func lastFault(texts ...string) string {
	const after = 2000
	for _, text := range texts {
		if len(text) > after {
			text = text[len(text)-after:]
		}
		if all := faults.FindAllString(text, -1); len(all) > 0 {
			return strings.TrimSpace(all[len(all)-1])
		}
	}
	return ""
}

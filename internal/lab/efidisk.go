package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf16"
)

// Loaders are the signed loaders of a system that starts by UEFI: Debian's shim, and its GRUB for disks.
type Loaders struct{ Shim, GRUB []byte }

// The packages that have the loaders, and their files there.
const (
	ShimPackage = "shim-signed"
	ShimFile    = "usr/lib/shim/shimx64.efi.signed"
	GRUBPackage = "grub-efi-amd64-signed"
	GRUBFile    = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
)

// espSize is the size of the EFI system partition, which has 4 MB of loaders.
const espSize = 12 << 20

// shimPath is where Debian's installer puts the first loader. Firmware looks there only if a boot entry says so.
const shimPath = `\EFI\debian\shimx64.efi`

// formatUEFI makes the disk of a system that starts by UEFI: an EFI system partition and the root.
func (o OwnSystem) formatUEFI(ctx context.Context, path, tree string) error {
	esp, root := o.parts()
	if err := writeGPT(path, o.Size, o.sector(), guidOf(o.Name+" disk"), []gptPart{esp, root}); err != nil {
		return err
	}
	if err := o.formatESP(ctx, path, esp); err != nil {
		return err
	}
	return o.formatRoot(ctx, path, tree, root.from, root.size)
}

func (o OwnSystem) parts() (esp, root gptPart) {
	esp = gptPart{kind: espType, id: o.espID(), from: partStart, size: espSize, name: "EFI system"}
	from := esp.from + esp.size
	end := (o.Size - 128<<10) &^ (1<<20 - 1) // the second table is behind it
	return esp, gptPart{kind: rootType, id: guidOf(o.Name + " root"), from: from, size: end - from, name: "root"}
}

func (o OwnSystem) espID() guid { return guidOf(o.Name + " esp") }

func (o OwnSystem) sector() int64 {
	if o.Sector == 0 {
		return sectorSize
	}
	return int64(o.Sector)
}

// formatESP makes the EFI system partition by mtools, which needs no mount.
func (o OwnSystem) formatESP(ctx context.Context, disk string, esp gptPart) error {
	dir, err := os.MkdirTemp(filepath.Dir(disk), "esp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, esp.size); err != nil {
		return err
	}
	id := o.espID()
	argv := []string{program("mkfs.vfat"), "-S", fmt.Sprint(o.sector()), "-i", fmt.Sprintf("%x", id[:4]), "-n", "ESP", image}
	if err := run(ctx, "", argv...); err != nil {
		return err
	}
	conf := fmt.Sprintf(`serial --unit=0 --speed=115200
terminal_output serial
echo "testbox own loader %s starts"
search --no-floppy --label --set=root %s
%s
boot
`, o.Name, o.label(), o.commands())
	files := []struct {
		name string
		data []byte
	}{{"shimx64.efi", o.Loaders.Shim}, {"grubx64.efi", o.Loaders.GRUB}, {"grub.cfg", []byte(conf)}}
	if err := run(ctx, "", "mmd", "-i", image, "::EFI", "::EFI/debian"); err != nil {
		return err
	}
	for _, f := range files {
		from := filepath.Join(dir, f.name)
		if err := os.WriteFile(from, f.data, 0o600); err != nil {
			return err
		}
		if err := run(ctx, "", "mcopy", "-i", image, from, "::EFI/debian/"+f.name); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(data, esp.from); err != nil {
		return err
	}
	return f.Close()
}

// commands are those by which GRUB loads the kernel.
func (o OwnSystem) commands() string {
	if o.Tree != "" {
		return "linux /vmlinuz root=LABEL=" + o.label() + " console=ttyS0,115200 panic=10 ro\ninitrd /initrd.img"
	}
	return "linux /boot/vmlinuz console=ttyS0,115200 quiet panic=10 ro\ninitrd /boot/initrd"
}

// bootEntry is the content of the variable that an installer makes for the system: attributes, and a load option
// (UEFI specification 3.1.3) with the partition and the path of its loader.
func (o OwnSystem) bootEntry() []byte {
	esp, _ := o.parts()
	le := binary.LittleEndian
	wide := func(s string) (b []byte) {
		for _, c := range append(utf16.Encode([]rune(s)), 0) {
			b = le.AppendUint16(b, c)
		}
		return b
	}
	drive := []byte{4, 1, 42, 0} // media, hard drive
	drive = le.AppendUint32(drive, 1)
	drive = le.AppendUint64(drive, uint64(esp.from/o.sector()))
	drive = le.AppendUint64(drive, uint64(esp.size/o.sector()))
	drive = append(append(drive, esp.id[:]...), 2, 2) // GPT, and it is a GUID
	file := wide(shimPath)
	node := append(le.AppendUint16([]byte{4, 4}, uint16(4+len(file))), file...)
	devicePath := bytes.Join([][]byte{drive, node, {0x7f, 0xff, 4, 0}}, nil)
	b := le.AppendUint32(nil, 7) // kept, and seen by firmware and system
	b = le.AppendUint32(b, 1)    // active
	b = le.AppendUint16(b, uint16(len(devicePath)))
	return bytes.Join([][]byte{b, wide(o.entryName()), devicePath}, nil)
}

// entryName is the name of the system's boot entry.
func (o OwnSystem) entryName() string { return "testbox " + o.Name }

// efiScript tells of the firmware's variables. If there is a boot entry to be made, and the firmware does not have
// it, it makes the entry as Boot0042.
const efiScript = `#!/bin/busybox sh
b=/bin/busybox
e=/sys/firmware/efi/efivars
g=8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -d $e ] && $b mount -t efivarfs efivarfs $e || exit 0
words() { $b tail -c +5 $e/$1-$g 2>/dev/null | $b od -An -v -t$2 | $b tr -d '\n'; }
echo "testbox own system %[1]s: SecureBoot$(words SecureBoot u1) BootCurrent$(words BootCurrent x2) BootOrder$(words BootOrder x2)"
[ -e /etc/boot-entry ] || exit 0
for f in $e/Boot[0-9A-F][0-9A-F][0-9A-F][0-9A-F]-$g; do
	if $b tr -d '\000' <$f | $b grep -q "$($b cat /etc/boot-entry-name)"; then
		f=${f#$e/}
		echo "testbox own system %[1]s: has boot entry ${f%%%%-8be*}"
		exit 0
	fi
done
$b cat /etc/boot-entry >$e/Boot0042-$g
$b tail -c +5 $e/BootOrder-$g >/dev/order
{
	$b printf '\007\000\000\000'
	[ -e /etc/boot-entry-first ] || $b head -c 2 /dev/order
	$b printf '\102\000'
	[ -e /etc/boot-entry-first ] && $b cat /dev/order || $b tail -c +3 /dev/order
} >/dev/order-new
$b chattr -i $e/BootOrder-$g
$b cat /dev/order-new >$e/BootOrder-$g
echo "testbox own system %[1]s: made boot entry Boot0042, BootOrder$(words BootOrder x2)"
`

// makeEFI makes the files by which the system deals with the firmware.
func (o OwnSystem) makeEFI(root string) error {
	files := map[string]string{"sbin/efi": fmt.Sprintf(efiScript, o.Name)}
	if o.Makes != nil {
		files["etc/boot-entry"], files["etc/boot-entry-name"] = string(o.Makes.bootEntry()), o.Makes.entryName()
		if o.First {
			files["etc/boot-entry-first"] = ""
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

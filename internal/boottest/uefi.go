package boottest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/problem"
)

// The firmware of package ovmf, and the variables with which it begins.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// espTypes are the types of an EFI system partition, of a GPT and of an MBR.
var espTypes = []string{"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"}

// NeedsUEFI reports whether the disks have an EFI system partition, and none of them
// has code for a BIOS.
func NeedsUEFI(disks []Disk) bool {
	esp := false
	for _, d := range disks {
		t, err := parttab.Read(d, d.Size, d.Sector)
		if err != nil {
			t = &parttab.Table{}
		}
		head := make([]byte, 512)
		if _, err := d.ReadAt(head, 0); err != nil || codeForBIOS(head, t.Kind) {
			return false
		}
		for _, p := range t.Parts {
			esp = esp || p.Type == espTypes[0] || p.Type == espTypes[1]
		}
	}
	return esp
}

// codeForBIOS reports whether a BIOS gets anywhere with a first sector. Windows writes code to each GPT disk, which can only
// start an active partition, and there is none.
func codeForBIOS(head []byte, table string) bool {
	if len(bytes.Trim(head[:440], "\x00")) == 0 || head[510] != 0x55 || head[511] != 0xaa {
		return false
	}
	active := false
	for at := 446; at < 510; at += 16 {
		active = active || head[at] == 0x80
	}
	return active || table != "gpt" || !bytes.Contains(head, []byte("Error loading operating system"))
}

// haveOVMF returns an error if this machine has no firmware for UEFI.
func haveOVMF() error {
	for _, path := range []string{ovmfCode, ovmfVars} {
		if _, err := os.Stat(path); err != nil {
			return problem.Wrongf("the disks start by UEFI, and there is no firmware %s; install the package ovmf", path)
		}
	}
	return nil
}

// newVars makes the variables of a machine's firmware. They are in memory, and gone with it.
func newVars() (*os.File, error) {
	data, err := os.ReadFile(ovmfVars)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("testbox-vars", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "vars")
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// loaders are what is tried on each file system when the firmware has started nothing by itself. The last one it has tried by
// itself, and the others are started by entries in a box's memory, which a backup does not have.
var loaders = []string{`\EFI\debian\shimx64.efi`, `\EFI\debian\grubx64.efi`, `\EFI\ubuntu\shimx64.efi`, `\EFI\ubuntu\grubx64.efi`,
	`\EFI\fedora\shimx64.efi`, `\EFI\redhat\shimx64.efi`, `\EFI\rocky\shimx64.efi`, `\EFI\almalinux\shimx64.efi`,
	`\EFI\centos\shimx64.efi`, `\EFI\opensuse\shim.efi`, `\EFI\opensuse\grubx64.efi`, `\EFI\sles\shim.efi`,
	`\EFI\systemd\systemd-bootx64.efi`, `\EFI\Microsoft\Boot\bootmgfw.efi`, `\EFI\BOOT\BOOTX64.EFI`}

// These are words on the serial line: the script's, and the shell's when it ends a script because a program did not start.
const (
	scriptStarts = "testbox starts "
	scriptEnds   = "testbox knows no other loader"
	scriptError  = "Script Error Status: "
)

// script is what the firmware's own shell does when no disk has started. The shell reads the file systems, so that nothing
// of the backup is understood outside of the machine.
func script() []byte {
	return fmt.Appendf(nil, "@echo -off\r\nfor %%l in %s\r\nfor %%d in fs0 fs1 fs2 fs3 fs4 fs5 fs6 fs7\r\nif exist %%d:%%l then\r\n"+
		"echo %s%%d:%%l\r\n%%d:%%l\r\nendif\r\nendfor\r\nendfor\r\necho %s\r\n", strings.Join(loaders, " "), scriptStarts, scriptEnds)
}

// scriptDisk is a disk with a FAT of 12 bits (ECMA-107), which has a script that the shell starts by itself.
func scriptDisk() []byte {
	const sector, sectors, roots = 512, 2048, 16
	text := script()
	d := make([]byte, sectors*sector)
	copy(d, "\xeb\x3c\x90TESTBOX ")
	le := binary.LittleEndian
	le.PutUint16(d[11:], sector)
	d[13] = 1                     // sectors of a cluster
	le.PutUint16(d[14:], 1)       // sectors before the table
	d[16] = 1                     // tables
	le.PutUint16(d[17:], roots)   // entries of the root
	le.PutUint16(d[19:], sectors) // in all
	d[21] = 0xf8                  // a fixed disk
	const table = 6               // sectors: 12 bits for each of 2048 clusters
	le.PutUint16(d[22:], table)
	le.PutUint16(d[24:], 32) // sectors of a track
	le.PutUint16(d[26:], 2)  // heads
	d[38] = 0x29
	copy(d[43:], "TESTBOX    FAT12   ")
	d[510], d[511] = 0x55, 0xaa
	entry := func(n, value int) { // 12 bits, two in three bytes
		at := sector + n*3/2
		old := int(le.Uint16(d[at:]))
		if n%2 == 0 {
			old = old&0xf000 | value
		} else {
			old = old&0xf | value<<4
		}
		le.PutUint16(d[at:], uint16(old))
	}
	entry(0, 0xff8)
	entry(1, 0xfff)
	clusters := (len(text) + sector - 1) / sector
	for i := range clusters {
		next := 3 + i
		if i == clusters-1 {
			next = 0xfff
		}
		entry(2+i, next)
	}
	root := sector * (1 + table)
	copy(d[root:], "STARTUP NSH\x20")
	le.PutUint16(d[root+26:], 2)
	le.PutUint32(d[root+28:], uint32(len(text)))
	copy(d[root+roots*32:], text)
	return d
}

var scriptStarted = regexp.MustCompile(`(?m)^` + scriptStarts + `([^\n]{1,100})$`)

// tried says which loader the script has started last, and whether it is at its end. after is what was said since the last start.
func tried(serial string) (loader, after string, end bool) {
	all := scriptStarted.FindAllStringSubmatchIndex(serial, -1)
	if len(all) == 0 {
		return "", serial, strings.Contains(serial, scriptEnds)
	}
	m := all[len(all)-1]
	after = serial[m[1]:]
	return serial[m[2]:m[3]], after, strings.Contains(after, scriptEnds) || strings.Contains(after, scriptError)
}

package boottest_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/testenv"
)

// program64 is a program for UEFI (PE32+) that writes a text to the serial line, and ends for ever.
func program64(text string) []byte {
	const head, page = 0x200, 0x1000
	code := []byte{0x66, 0xba, 0xf8, 0x03, 0x48, 0x8d, 0x35, 0x80 - 11, 0, 0, 0, 0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd}
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	put([]byte("MZ"), make([]byte, 0x3a), uint32(0x40), []byte("PE\x00\x00"))
	put(uint16(0x8664), uint16(1), [3]uint32{}, uint16(0xf0), uint16(0x22))                               // x86-64, one section
	put(uint16(0x20b), uint16(0), uint32(head), [2]uint32{}, uint32(page), uint32(page))                  // PE32+, its code
	put(uint64(0x400000), uint32(page), uint32(head), [6]uint16{}, uint32(0), uint32(2*page))             // where it would like to be
	put(uint32(head), uint32(0), uint16(10), uint16(0), [4]uint64{}, uint32(0), uint32(16), [16]uint64{}) // a program for UEFI
	put([]byte(".text\x00\x00\x00"), uint32(head), uint32(page), uint32(head), uint32(head), [3]uint32{}, uint32(0x60000020))
	d := make([]byte, head+0x80+len(text)+1, 0x1000)
	copy(d, b.Bytes())
	copy(d[head:], code)
	copy(d[head+0x80:], text)
	return d[:2*head]
}

// espDisk is a disk with a GPT and an EFI system partition with one file.
func espDisk(t *testing.T, path string, file []byte) []byte {
	t.Helper()
	testenv.Tools(t, "sfdisk", "mkfs.vfat", "mmd", "mcopy")
	dir := t.TempDir()
	disk, esp, from := filepath.Join(dir, "disk"), filepath.Join(dir, "esp"), filepath.Join(dir, "file")
	must(t, os.WriteFile(disk, make([]byte, 4<<20), 0o600))
	must(t, os.WriteFile(esp, make([]byte, 2<<20), 0o600))
	must(t, os.WriteFile(from, file, 0o600))
	run := func(stdin string, argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if cmd.Err != nil {
			cmd.Path, cmd.Err = "/usr/sbin/"+argv[0], nil
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	run("label: gpt\nstart=2048,size=4096,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n", "sfdisk", "-q", disk)
	run("", "mkfs.vfat", esp)
	parts := strings.Split(path, "/")
	for i := range len(parts) - 1 {
		run("", "mmd", "-i", esp, "::"+strings.Join(parts[:i+1], "/"))
	}
	run("", "mcopy", "-i", esp, from, "::"+path)
	whole, err := os.ReadFile(disk)
	must(t, err)
	part, err := os.ReadFile(esp)
	must(t, err)
	copy(whole[2048*512:], part)
	return whole
}

// TestNeedsUEFI: a disk whose first sector helps no BIOS, and that has an EFI system partition, wants UEFI.
func TestNeedsUEFI(t *testing.T) {
	esp := espDisk(t, "EFI/BOOT/BOOTX64.EFI", program64("x"))
	data := bytes.Repeat([]byte("LUKS\xba\xbe"), 1<<18) // no boot sector
	windows := []byte("\x33\xc0\x8e\xd0 Invalid partition table\x00Error loading operating system\x00Missing operating system")
	grub := []byte("\xeb\x63\x90 GRUB \x00Geom\x00Hard Disk\x00Read\x00 Error")
	active := with(with(esp, 0, windows), 446+16, []byte{0x80})
	for _, c := range []struct {
		name  string
		disks [][]byte
		uefi  bool
	}{
		{"an EFI system partition", [][]byte{esp}, true},
		{"and a disk of data", [][]byte{data, esp}, true},
		{"and the code of Windows", [][]byte{with(esp, 0, windows)}, true},
		{"and the code of Windows with something to start", [][]byte{active}, false},
		{"and GRUB", [][]byte{with(esp, 0, grub)}, false},
		{"a boot sector", [][]byte{sector("x", begin, serial, halt)}, false},
		{"and another disk with an EFI system partition", [][]byte{sector("x", begin, serial, halt), esp}, false},
		{"nothing", [][]byte{make([]byte, 1<<20)}, false},
	} {
		var disks []boottest.Disk
		for _, d := range c.disks {
			disks = append(disks, disk(d)...)
		}
		if got := boottest.NeedsUEFI(disks); got != c.uefi {
			t.Errorf("%s: UEFI is wanted: %v", c.name, got)
		}
	}
}

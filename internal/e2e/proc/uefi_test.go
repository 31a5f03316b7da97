package proc

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

const (
	espGUID    = "aaaaaaaa-1111-2222-3333-444444444444"
	efiGlobal  = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	shimOnDisk = `\EFI\debian\shimx64.efi`
)

// esp is a GPT with an EFI system partition.
func esp(t testing.TB, path string) {
	t.Helper()
	run(t, "label: gpt\nstart=2048, size=8192, type=U, uuid="+espGUID+"\n", "sfdisk", "-q", path)
	run(t, "", "mkfs.fat", "-i", "4a3b0c1d", "--offset", "2048", path, "4096")
}

// efiVariable writes a variable of the box.
func (b *testBox) efiVariable(name string, value []byte) {
	b.t.Helper()
	dir := b.path("sys", "firmware/efi/efivars")
	must(b.t, os.MkdirAll(dir, 0o755))
	must(b.t, os.WriteFile(filepath.Join(dir, name+efiGlobal), append([]byte{7, 0, 0, 0}, value...), 0o644))
}

// loadOption makes a boot entry (UEFI specification 3.1.3).
func loadOption(name string, path []byte) []byte {
	path = append(path, 0x7f, 0xff, 4, 0)
	b := append([]byte{1, 0, 0, 0}, byte(len(path)), 0)
	return append(append(b, utf16z(name)...), path...)
}

func utf16z(s string) (b []byte) {
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// TestUEFI: a UEFI machine whose disk has put itself first starts from the network first
// again, its loaders are known to GRUB although the agent may write nowhere else, and
// a restore brings back the boot entry of its disk.
func TestUEFI(t *testing.T) {
	sda := disk("sda", esp)
	b := newBox(t, sda)
	hd := append([]byte{4, 1, 42, 0, 1, 0, 0, 0}, make([]byte, 16)...) // its place is wrong
	id, _ := hex.DecodeString(strings.ReplaceAll(espGUID, "-", ""))    // the first three fields are the same in any order of bytes
	hd = append(append(hd, id...), 2, 2)
	file := utf16z(shimOnDisk)
	onDisk := loadOption("debian", append(append(hd, 4, 4, byte(4+len(file)), 0), file...))
	pxe := loadOption("PXE", append([]byte{3, 11, 37, 0}, make([]byte, 33)...))
	first := func(order ...byte) []byte { // of entries below 256
		var v []byte
		for _, n := range order {
			v = append(v, n, 0)
		}
		return v
	}
	order := func() (list []byte) {
		text, err := os.ReadFile(b.path("sys", "firmware/efi/efivars", "BootOrder"+efiGlobal))
		must(t, err)
		for i := 4; i < len(text); i += 2 {
			list = append(list, text[i])
		}
		return list
	}
	var note struct {
		State        struct{ Kind string }
		NetworkFirst struct{ Result string }
		PutBack      *struct{ Put []string }
	}
	noted := func() {
		t.Helper()
		note.PutBack = nil
		must(t, json.Unmarshal([]byte(b.log("testbox-firmware.json")), &note))
	}
	b.efiVariable("BootOrder", first(3, 1))
	b.efiVariable("BootCurrent", first(1))
	b.efiVariable("Boot0001", pxe)
	b.efiVariable("Boot0003", onDisk)
	b.does("backup")
	if noted(); !slices.Equal(order(), []byte{1, 3}) || note.State.Kind != "UEFI" || note.NetworkFirst.Result != "repaired" {
		t.Errorf("the order is %v, noted %+v", order(), note)
	}
	loaders, err := os.ReadFile(filepath.Join(b.root, "testbox-tftp", "grub/boxes", boxHex+".cfg"))
	if want := "LOADER 4A3B-0C1D '/EFI/debian/shimx64.efi' 'debian'\n"; err != nil || string(loaders) != want {
		t.Errorf("the loaders are %q, %v\n%s", loaders, err, b.log("maintenance.log"))
	}

	before := sda.hash(t)
	sda.wreck(t)
	must(t, os.Remove(b.path("sys", "firmware/efi/efivars", "Boot0003"+efiGlobal)))
	b.efiVariable("BootOrder", first(1))
	b.does("restore")
	if sda.hash(t) != before {
		t.Error("the disk is another one")
	}
	if noted(); !slices.Equal(order(), []byte{1, 3}) || note.PutBack == nil || !slices.Equal(note.PutBack.Put, []string{"0003"}) {
		t.Errorf("the order is %v, noted %+v\n%s", order(), note, b.log("maintenance.log"))
	}
}

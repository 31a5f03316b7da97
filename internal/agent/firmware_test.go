package agent

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/sharedir"
)

// The variables and the disk are made by hand, after the UEFI specification.

const (
	espGUID   = "aaaaaaaa-1111-2222-3333-444444444444"
	espVolume = "4A3B-0C1D"
	efivars   = "sys/firmware/efi/efivars/"
	cardMAC   = "52:54:00:00:00:01"
)

func efiGUID(s string) []byte {
	h, _ := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	slices.Reverse(h[:4])
	slices.Reverse(h[4:6])
	slices.Reverse(h[6:8])
	return h
}

func loadOption(name string, nodes ...string) string {
	path := strings.Join(append(nodes, "\x7f\xff\x04\x00"), "")
	b := binary.LittleEndian.AppendUint32(nil, 1)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	return string(b) + utf16z(name) + path
}

func utf16z(s string) string {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

func efiNode(kind, sub byte, data string) string {
	return string([]byte{kind, sub, byte(4 + len(data)), 0}) + data
}

func pxeOption() string {
	return loadOption("PXE", efiNode(3, 11, "\x52\x54\x00\x00\x00\x01"+strings.Repeat("\x00", 27)), efiNode(3, 12, strings.Repeat("\x00", 23)))
}

func diskOption(name, file string) string {
	hd := binary.LittleEndian.AppendUint32(nil, 1)
	hd = binary.LittleEndian.AppendUint64(hd, 9) // not where it is
	hd = binary.LittleEndian.AppendUint64(hd, 9)
	hd = append(hd, efiGUID(espGUID)...)
	return loadOption(name, efiNode(4, 1, string(hd)+"\x02\x02"), efiNode(4, 4, utf16z(file)))
}

func numbers(list ...efi.Number) string {
	var b []byte
	for _, n := range list {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	return string(b)
}

// variable writes a variable of the box. "" removes it.
func (b *bench) variable(name, value string) {
	path := efivars + name + "-" + efi.Global
	if value == "" {
		os.Remove(b.path(path))
		return
	}
	b.write(path, "\x07\x00\x00\x00"+value)
}

// uefi makes the box one of UEFI, that the network has started. Its disk has put itself
// first in the order.
func (b *bench) uefi() {
	b.variable("BootOrder", numbers(3, 1))
	b.variable("BootCurrent", numbers(1))
	b.variable("Boot0001", pxeOption())
	b.variable("Boot0003", diskOption("debian", `\EFI\debian\shimx64.efi`))
	b.variable("SecureBoot", "\x01")
	b.write("sys/class/dmi/id/bios_version", "1.2.3\n")
	b.mend = func(c *Config) { c.EFIVars = b.path(efivars) }
}

func (b *bench) order() []efi.Number {
	b.t.Helper()
	order, err := efi.Dir(b.path(efivars)).Order()
	if err != nil {
		b.t.Fatal(err)
	}
	return order
}

func (b *bench) note() *efi.Note {
	b.t.Helper()
	n, err := efi.ParseNote([]byte(b.read(folder + box.FirmwareFile)))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) wantOrder(want ...efi.Number) {
	b.t.Helper()
	if got := b.order(); !slices.Equal(got, want) {
		b.t.Errorf("the boot order is %v, not %v:\n%s", got, want, b.console.String())
	}
}

// esp gives a disk a GPT with one partition, which begins as a FAT.
func (b *bench) esp(name string) {
	b.t.Helper()
	data := []byte(b.read("dev/" + name))
	le, last := binary.LittleEndian, uint64(len(data)/512-1)
	clear(data[:34*512])
	clear(data[len(data)-33*512:])
	data[446+4], data[510], data[511] = 0xee, 0x55, 0xaa
	le.PutUint32(data[446+8:], 1)
	le.PutUint32(data[446+12:], uint32(last))
	entries := make([]byte, 128*128)
	copy(entries, efiGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"))
	copy(entries[16:], efiGUID(espGUID))
	le.PutUint64(entries[32:], 2048)
	le.PutUint64(entries[40:], 6143)
	header := func(at, other, table uint64) {
		h := data[at*512:]
		copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		le.PutUint64(h[24:], at)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], 34)
		le.PutUint64(h[48:], last-33)
		copy(h[56:72], "0123456789abcdef")
		le.PutUint64(h[72:], table)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		copy(data[table*512:], entries)
	}
	header(1, last, 2)
	header(last, 1, last-32)
	fat := data[2048*512 : 2049*512]
	clear(fat)
	copy(fat, "\xeb\x3c\x90MSWIN4.1\x00\x02\x04\x01\x00\x02\x00\x02\x00\x10\xf8\x0c\x00")
	fat[0x26] = 0x29
	le.PutUint32(fat[0x27:], 0x4a3b0c1d)
	fat[510], fat[511] = 0x55, 0xaa
	b.write("dev/"+name, string(data))
}

// TestNetworkFirst: every action sees to it that the network comes first, notes what it
// has found, and tells of an order that did not stay.
func TestNetworkFirst(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.uefi()
	b.do(box.RefreshInfo, box.Done)
	b.wantOrder(1, 3)
	n := b.note()
	if n.NetworkFirst.Result != efi.OrderRepaired || !slices.Equal(n.State.Order, []efi.Number{1, 3}) || n.State.Version != "1.2.3" {
		t.Errorf("noted %+v, %+v", n.NetworkFirst, n.State)
	}
	for _, action := range []box.Action{box.Backup, box.Verify, box.Restore, box.BackupAgain} {
		b.do(action, box.Done)
		if r := b.note().NetworkFirst.Result; r != efi.OrderKept {
			t.Errorf("%s: %s", action, r)
		}
	}
	b.variable("BootOrder", numbers(3, 1))
	b.do(box.Verify, box.Done)
	b.variable("BootOrder", numbers(3, 1)) // the firmware does not keep it
	b.console.Reset()
	b.do(box.RefreshInfo, box.Done)
	b.wantOrder(1, 3)
	if r := b.note().NetworkFirst.Result; r != efi.OrderIgnored || !strings.Contains(b.console.String(), "did not stay") {
		t.Errorf("%s\n%s", r, b.console.String())
	}
	inv, err := inventory.ParseJSON([]byte(b.read(folder + box.InfoJSON)))
	if err != nil || inv.Firmware.NetworkFirst.Result != efi.OrderIgnored || inv.Firmware.State == nil ||
		!slices.ContainsFunc(inv.Problems, func(p string) bool { return strings.HasPrefix(p, "boot order: ignored") }) {
		t.Errorf("the inventory has %+v, %v, %v", inv.Firmware, inv.Problems, err)
	}
	if text := b.read(folder + box.InfoText); !strings.Contains(text, "ignored") || !strings.Contains(text, "Boot0001: network MAC("+cardMAC) {
		t.Errorf("the inventory is\n%s", text)
	}
}

// TestNetworkFirstTrouble: what goes wrong with the boot order is said, and keeps no box
// from its action.
func TestNetworkFirstTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b *bench)
		want  efi.Result
		says  string
	}{
		"not mounted":  {func(b *bench) { os.RemoveAll(b.path(efivars)); b.mkdir(efivars) }, efi.OrderFailed, "not mounted"},
		"no network":   {func(b *bench) { b.variable("Boot0001", "") }, efi.OrderNone, "no boot entry for the network"},
		"an odd order": {func(b *bench) { b.variable("BootOrder", "\x01") }, efi.OrderFailed, "cannot be read"},
		"cannot be written": {func(b *bench) {
			b.variable("BootOrder", "")
			b.mkdir(efivars + "BootOrder-" + efi.Global)
		}, efi.OrderFailed, "boot order"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			b.uefi()
			c.spoil(b)
			b.do(box.Backup, box.Done)
			if n := b.note().NetworkFirst; n.Result != c.want || !strings.Contains(b.console.String(), c.says) {
				t.Errorf("%+v\n%s", n, b.console.String())
			}
		})
	}
}

// TestByCard: if no network entry has started the box, the card that booted says which
// entry is meant.
func TestByCard(t *testing.T) {
	b := newBench(t)
	b.uefi()
	b.variable("BootCurrent", "")
	b.want(b.run(b.arm(box.RefreshInfo, nil)+" BOOTIF=01-52-54-00-00-00-01"), box.Done)
	b.wantOrder(1, 3)
}

// TestFirmwareInSidecar: a backup has the state of the firmware, and the loaders of the
// box's own systems are there for GRUB. A restore onto a disk whose boot entry is gone
// puts it back.
func TestFirmwareInSidecar(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.esp("vda")
	b.uefi()
	b.write("tftp/"+bootcfg.GRUBConfigName, "grub")
	b.do(box.Backup, box.Done)
	loaders := "tftp/" + bootcfg.LoadersDir + "/" + b.addr.Hex() + ".cfg"
	own := "LOADER " + espVolume + " '/EFI/debian/shimx64.efi' 'debian'\n"
	if got := b.read(loaders); got != own {
		t.Errorf("the loaders are %q", got)
	}
	area, err := sharedir.Open(durable.OS{}, b.path("backup"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := area.Look(b.addr).Images()
	if err != nil || len(images) != 1 || images[0].Facts.Firmware == nil {
		t.Fatalf("%+v, %v", images, err)
	}
	if e := images[0].Facts.Firmware.Entry(3); e.Partition.Disk != "vda" || e.Partition.Volume != espVolume || e.File == "" {
		t.Errorf("recorded %+v, %+v", e, e.Partition)
	}

	b.disk("vda", "S1", 7) // it is wrecked
	b.variable("Boot0003", "")
	b.variable("Boot0007", diskOption("usb", `\EFI\other.efi`))
	b.variable("BootOrder", numbers(1, 7))
	os.Remove(b.path(loaders))
	b.console.Reset()
	b.do(box.Restore, box.Done)
	b.wantOrder(1, 3, 7)
	n := b.note()
	e := n.State.Entry(3)
	if n.PutBack == nil || !slices.Equal(n.PutBack.Put, []efi.Number{3}) || e == nil ||
		e.Partition.Start != 2048 || e.Partition.Blocks != 4096 {
		t.Errorf("noted %+v, %+v\n%s", n.PutBack, e, b.console.String())
	}
	if got := b.read(loaders); got != own+"LOADER "+espVolume+" '/EFI/other.efi' 'usb'\n" {
		t.Errorf("the loaders are %q", got)
	}
	b.console.Reset()
	b.do(box.Restore, box.Done)
	b.wantOrder(1, 3, 7)
	if n := b.note(); n.PutBack == nil || len(n.PutBack.Put) > 0 {
		t.Errorf("put back twice: %+v", n.PutBack)
	}
}

// TestOtherFirmware: images that were made with the other kind of firmware are told of,
// and no boot entry comes of it.
func TestOtherFirmware(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.esp("vda")
	b.do(box.Backup, box.Done)
	if n := b.note(); n.State.Kind != efi.BIOS || n.NetworkFirst != nil {
		t.Errorf("noted %+v", n)
	}
	b.uefi()
	b.do(box.Restore, box.Done)
	if !strings.Contains(b.console.String(), "made when this box was started by BIOS") || b.note().PutBack == nil {
		t.Errorf("%+v\n%s", b.note(), b.console.String())
	}
	b.wantOrder(1, 3)
	b.do(box.BackupAgain, box.Done)
	os.RemoveAll(b.path("sys/firmware"))
	b.console.Reset()
	b.do(box.Restore, box.Done)
	if !strings.Contains(b.console.String(), "made when this box was started by UEFI") || b.note().PutBack != nil {
		t.Errorf("%+v\n%s", b.note(), b.console.String())
	}
}

// TestNoFirmware: backups of agents that knew nothing of firmware restore as before.
func TestNoFirmware(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	path := folder + "vda.json"
	text := b.read(path)
	from, _, _ := strings.Cut(text, ",\n  \"firmware\"")
	b.write(path, from+"\n}\n")
	b.write(folder+box.FirmwareFile, "damaged")
	b.uefi()
	b.console.Reset()
	b.do(box.Restore, box.Done)
	said := b.console.String()
	if strings.Contains(said, "started by") || !strings.Contains(said, "no boot entries") || !strings.Contains(said, "not readable") {
		t.Error(said)
	}
}

// TestServerFirmware: the same with a server, which has the state in the record.
func TestServerFirmware(t *testing.T) {
	b := newServerBench(t)
	quickReports(t)
	b.disk("vda", "S1", 1)
	b.esp("vda")
	b.uefi()
	b.do(box.Backup, box.Done)
	b.wantOrder(1, 3)
	if n := b.rig.note(); n == nil || n.NetworkFirst.Result != efi.OrderRepaired || n.Time.Before(time.Now().Add(-time.Hour)) {
		t.Fatalf("noted %+v", n)
	}
	f := b.rig.Records()[0].Firmware
	if f == nil || f.Entry(3).Partition.Volume != espVolume {
		t.Fatalf("recorded %+v", f)
	}
	b.disk("vda", "S1", 7)
	b.variable("Boot0003", "")
	b.variable("BootOrder", numbers(3, 1))
	b.do(box.Restore, box.Done)
	b.wantOrder(1, 3)
	n := b.rig.note()
	if n.NetworkFirst.Result != efi.OrderIgnored || !slices.Equal(n.PutBack.Put, []efi.Number{3}) {
		t.Errorf("noted %+v, %+v\n%s", n.NetworkFirst, n.PutBack, b.console.String())
	}
	if w := strings.Join(b.result().Warnings, "\n"); !strings.Contains(w, "did not stay") {
		t.Errorf("the server is told %q", w)
	}
}

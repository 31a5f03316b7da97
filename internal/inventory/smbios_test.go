package inventory

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// smbios builds a structure: its formatted area from offset 4 and its strings.
func smbios(kind byte, area []byte, strs ...string) []byte {
	b := append([]byte{kind, byte(4 + len(area)), 0, kind}, area...)
	for _, s := range strs {
		b = append(append(b, s...), 0)
	}
	if len(strs) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

// area makes a formatted area of n bytes (header not counted) with bytes set
// at offsets of the specification, which count the header.
func area(n int, set map[int]byte) []byte {
	b := make([]byte, n)
	for off, v := range set {
		b[off-4] = v
	}
	return b
}

var (
	tableUUID = []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xf0}
	endMarker = smbios(endOfTable, nil)
)

func systemArea(uuid []byte) []byte {
	b := area(0x1b-4, map[int]byte{4: 1, 5: 2, 6: 3, 7: 4, 0x19: 5, 0x1a: 6})
	copy(b[4:], uuid)
	return b
}

// machineTable is a small server with one module of 32 GiB and an empty slot.
func machineTable() []byte {
	module := area(0x5c-4, map[int]byte{0x10: 1, 0x11: 2, 0x12: 0x1a, 0x17: 3, 0x18: 4, 0x1a: 5})
	binary.LittleEndian.PutUint16(module[0x0c-4:], 0x7fff)
	binary.LittleEndian.PutUint32(module[0x1c-4:], 32<<10)
	binary.LittleEndian.PutUint16(module[0x15-4:], 3200)
	cpu := area(0x30-4, map[int]byte{4: 1, 7: 2, 0x10: 3, 0x18: 0x41, 0x23: 0xff, 0x25: 0xff})
	binary.LittleEndian.PutUint16(cpu[0x14-4:], 3700)
	binary.LittleEndian.PutUint16(cpu[0x2a-4:], 288)
	binary.LittleEndian.PutUint16(cpu[0x2e-4:], 576)
	return bytes.Join([][]byte{
		smbios(0, area(0x18-4, map[int]byte{4: 1, 5: 2, 8: 3, 0x14: 5, 0x15: 13}), "Maker's BIOS", " 1.2b ", "04/01/2014"),
		smbios(1, systemArea(tableUUID), "Maker", "Server 9000", "v1", "S123", "SKU7", "Rack"),
		smbios(2, area(0x0f-4, map[int]byte{4: 1, 5: 2, 6: 3, 7: 4, 8: 5}), "Maker", "X11", "1.01", "B\x07123", "tag"),
		smbios(3, area(0x16-4, map[int]byte{4: 1, 5: 0x80 | 23}), "Maker"),
		smbios(4, cpu, "CPU1", "Intel", "Xeon X"),
		smbios(17, module, "DIMM_A1", "Bank 0", "Samsung", "00AB", "M393"),
		smbios(17, area(0x22-4, map[int]byte{0x10: 1}), "DIMM_A2"),
		smbios(2, area(0x0f-4, map[int]byte{5: 1}), "riser card"),
		endMarker,
		[]byte("what comes after the end is not looked at"),
	}, nil)
}

func TestDecodeDMI(t *testing.T) {
	all, err := parseStructures(machineTable())
	if err != nil {
		t.Fatal(err)
	}
	d := decodeDMI(all, 0x0302)
	if want := (BIOS{Vendor: "Maker's BIOS", Version: "1.2b", Date: "04/01/2014", Release: "5.13"}); d.BIOS != want {
		t.Errorf("BIOS is %+v, want %+v", d.BIOS, want)
	}
	system := Product{Maker: "Maker", Product: "Server 9000", Version: "v1", Serial: "S123", SKU: "SKU7", Family: "Rack",
		UUID: "00112233-4455-6677-8899-aabbccddeef0"}
	if d.System != system {
		t.Errorf("system is %+v, want %+v", d.System, system)
	}
	if want := (Product{Maker: "Maker", Product: "X11", Version: "1.01", Serial: "B?123", Asset: "tag"}); d.Board != want {
		t.Errorf("board is %+v, want %+v", d.Board, want)
	}
	if want := (Chassis{Maker: "Maker", Kind: "rack mount"}); d.Chassis != want {
		t.Errorf("chassis is %+v, want %+v", d.Chassis, want)
	}
	cpu := Processor{Socket: "CPU1", Populated: true, Maker: "Intel", Version: "Xeon X", MaxMHz: 3700, Cores: 288, Threads: 576}
	if len(d.Processors) != 1 || d.Processors[0] != cpu {
		t.Errorf("processors are %+v, want %+v", d.Processors, cpu)
	}
	module := MemoryModule{Slot: "DIMM_A1", Bank: "Bank 0", Size: 32 << 30, Kind: "DDR4", Speed: 3200, Maker: "Samsung", Serial: "00AB",
		Part: "M393"}
	if len(d.Memory) != 2 || d.Memory[0] != module || d.Memory[1] != (MemoryModule{Slot: "DIMM_A2"}) {
		t.Errorf("memory is %+v, want %+v and an empty slot", d.Memory, module)
	}
}

func TestUUIDByteOrder(t *testing.T) {
	const inOrder, swapped = "33221100-5544-7766-8899-aabbccddeef0", "00112233-4455-6677-8899-aabbccddeef0"
	for version, want := range map[smbiosVersion]string{0x0205: inOrder, 0x0206: swapped, 0x0302: swapped, 0: swapped} {
		if got := formatUUID(tableUUID, version.swapsUUID()); got != want {
			t.Errorf("SMBIOS %v: UUID is %s, want %s", version, got, want)
		}
	}
}

func TestEntryPoint(t *testing.T) {
	for _, c := range []struct {
		entry string
		want  string
	}{
		{"_SM_\x00\x1f\x02\x08", "2.8"}, {"_SM3_\x00\x18\x03\x02\x00", "3.2"}, {"_DMI_\x00\x00\x00\x00", ""}, {"_SM3_", ""}, {"", ""},
	} {
		if got := parseEntryPoint([]byte(c.entry)).String(); got != c.want {
			t.Errorf("entry point %q: version %q, want %q", c.entry, got, c.want)
		}
	}
}

func TestDamagedTables(t *testing.T) {
	good := smbios(1, systemArea(tableUUID), "Maker")
	for _, c := range []struct {
		name  string
		table []byte
		want  string // part of the error
		n     int    // structures before it
	}{
		{"header too short", append(bytes.Clone(good), 2, 3, 0, 0, 0, 0), "shorter than its header", 1},
		{"cut in the formatted area", append(bytes.Clone(good), 2, 200, 0, 0), "beyond the table", 1},
		{"cut in the strings", good[:len(good)-1], "no end", 0},
		{"too large", make([]byte, maxSMBIOS+1), "larger", 0},
		{"too many", bytes.Repeat(smbios(126, nil), maxStructures+1), "more than", maxStructures},
	} {
		all, err := parseStructures(c.table)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(all) != c.n {
			t.Errorf("%s: %d structures and error %v, want %d and %q", c.name, len(all), err, c.n, c.want)
		}
	}
	if all, err := parseStructures(good); err != nil || len(all) != 1 {
		t.Errorf("table without an end marker: %d structures, %v", len(all), err)
	}
}

// specimens are tables of virtual machines, copied from
// /sys/firmware/dmi/tables of Debian 12 in QEMU 7.2 (-machine q35, the first
// with -uuid and -smbios type=1,manufacturer=Acme,product=Box,serial=S1).
// dmidecode 3.4 reads them as the test expects.
var specimens = []struct{ name, maker, product, uuid, bios string }{
	{"qemu-7.2-q35-seabios", "Acme", "Box", "12345678-9abc-4def-8012-3456789abcde", "SeaBIOS"},
	{"qemu-7.2-q35-ovmf", "QEMU", "Standard PC (Q35 + ICH9, 2009)", "00000000-0000-0000-0000-000000000000", "EFI Development Kit II / OVMF"},
}

func specimen(t testing.TB, name string) (table, entry []byte) {
	table, err := os.ReadFile("testdata/" + name + ".DMI")
	if err != nil {
		t.Fatal(err)
	}
	if entry, err = os.ReadFile("testdata/" + name + ".entry"); err != nil {
		t.Fatal(err)
	}
	return table, entry
}

func TestSpecimens(t *testing.T) {
	for _, c := range specimens {
		table, entry := specimen(t, c.name)
		all, err := parseStructures(table)
		if err != nil {
			t.Fatal(err)
		}
		d := decodeDMI(all, parseEntryPoint(entry))
		if d.System.Maker != c.maker || d.System.Product != c.product || d.System.UUID != c.uuid || d.BIOS.Vendor != c.bios ||
			d.Version != "2.8" {
			t.Errorf("%s: %+v, %+v, SMBIOS %s", c.name, d.System, d.BIOS, d.Version)
		}
		if len(d.Memory) != 1 || d.Memory[0].Size != 512<<20 || d.Memory[0].Kind != "RAM" || len(d.Processors) != 1 ||
			d.Processors[0].Cores != 2 {
			t.Errorf("%s: %+v, %+v", c.name, d.Memory, d.Processors)
		}
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(machineTable(), uint16(0x0302))
	for _, c := range specimens {
		table, _ := specimen(f, c.name)
		f.Add(table, uint16(0x0208))
	}
	f.Add(smbios(1, systemArea(tableUUID), "Maker"), uint16(0x0204))
	f.Add([]byte{1, 4, 0, 0, 0, 0, 127, 4, 0, 0, 0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, table []byte, version uint16) {
		all, err := parseStructures(table)
		if err == nil && len(table) > maxSMBIOS {
			t.Fatal("a table over the limit is taken")
		}
		used := 0
		for _, s := range all {
			if s.kind == endOfTable || len(s.data) < 4 || len(s.data) != int(s.data[1]) {
				t.Fatalf("structure of type %d with %d bytes", s.kind, len(s.data))
			}
			used += len(s.data) + 2
		}
		if used > len(table) {
			t.Fatalf("structures of %d bytes in a table of %d", used, len(table))
		}
		d := decodeDMI(all, smbiosVersion(version))
		for _, text := range []string{d.BIOS.Vendor, d.System.Maker, d.System.Serial, d.Board.Product, d.Chassis.Kind} {
			if text != clean(text) {
				t.Fatalf("unsafe text %q", text)
			}
		}
		if u := d.System.UUID; u != "" && len(u) != 36 {
			t.Fatalf("UUID %q", u)
		}
		for _, m := range d.Memory {
			if m.Size < 0 || m.Speed < 0 {
				t.Fatalf("module %+v", m)
			}
		}
	})
}

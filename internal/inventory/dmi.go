package inventory

import (
	"fmt"
)

// DMI is what the firmware's SMBIOS tables say of the machine. The texts are
// the maker's own, and often only placeholders ("To Be Filled By O.E.M.").
type DMI struct {
	Version    string         `json:"version,omitempty"` // of SMBIOS, such as "2.8"
	BIOS       BIOS           `json:"bios"`
	System     Product        `json:"system"`
	Board      Product        `json:"board"`
	Chassis    Chassis        `json:"chassis"`
	Processors []Processor    `json:"processors,omitempty"`
	Memory     []MemoryModule `json:"memory,omitempty"`
}

// BIOS is SMBIOS structure type 0.
type BIOS struct {
	Vendor  string `json:"vendor,omitempty"`
	Version string `json:"version,omitempty"`
	Date    string `json:"date,omitempty"`    // as the maker writes it, mostly MM/DD/YYYY
	Release string `json:"release,omitempty"` // "5.13"
}

// Product is SMBIOS structure type 1 (system) or 2 (board).
type Product struct {
	Maker   string `json:"maker,omitempty"`
	Product string `json:"product,omitempty"`
	Version string `json:"version,omitempty"`
	Serial  string `json:"serial,omitempty"`
	UUID    string `json:"uuid,omitempty"` // system only, as it is in the table, even if it makes no sense
	SKU     string `json:"sku,omitempty"`
	Family  string `json:"family,omitempty"`
	Asset   string `json:"asset,omitempty"`
}

// Chassis is SMBIOS structure type 3.
type Chassis struct {
	Maker   string `json:"maker,omitempty"`
	Kind    string `json:"kind,omitempty"`
	Version string `json:"version,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Asset   string `json:"asset,omitempty"`
}

// Processor is SMBIOS structure type 4. Each describes one socket.
type Processor struct {
	Socket    string `json:"socket,omitempty"`
	Populated bool   `json:"populated"`
	Maker     string `json:"maker,omitempty"`
	Version   string `json:"version,omitempty"`
	MaxMHz    int    `json:"maxMHz,omitempty"`
	Cores     int    `json:"cores,omitempty"`
	Threads   int    `json:"threads,omitempty"`
}

// MemoryModule is SMBIOS structure type 17. Each describes one slot. A Size of
// 0 means an empty slot, or a module of unknown size.
type MemoryModule struct {
	Slot   string `json:"slot,omitempty"`
	Bank   string `json:"bank,omitempty"`
	Size   int64  `json:"size"` // bytes
	Kind   string `json:"kind,omitempty"`
	Speed  int    `json:"speed,omitempty"` // MT/s
	Maker  string `json:"maker,omitempty"`
	Serial string `json:"serial,omitempty"`
	Part   string `json:"part,omitempty"`
}

// maxModules limits the number of processors, and of memory modules.
const maxModules = 1024

// readDMI reads and decodes the tables. What could be decoded is returned even
// with an error.
func readDMI(sys tree) (DMI, error) {
	table, err := sys.read("firmware/dmi/tables/DMI", maxSMBIOS)
	if err != nil {
		return DMI{}, err
	}
	entry, _ := sys.read("firmware/dmi/tables/smbios_entry_point", 4096) // only the version, which is useful but not necessary
	all, err := parseStructures(table)
	return decodeDMI(all, parseEntryPoint(entry)), err
}

// decodeDMI decodes the structures that an inventory needs. A machine has one
// BIOS, system, board and chassis. Of each of them the first structure counts,
// since further ones belong to cards and trays.
func decodeDMI(all []structure, version smbiosVersion) DMI {
	d := DMI{Version: version.String()}
	seen := map[byte]bool{}
	for _, s := range all {
		first := !seen[s.kind]
		seen[s.kind] = true
		switch {
		case s.kind == 0 && first:
			d.BIOS = decodeBIOS(s)
		case s.kind == 1 && first:
			d.System = decodeSystem(s, version)
		case s.kind == 2 && first:
			d.Board = decodeProduct(s)
			d.Board.Asset = s.text(0x08)
		case s.kind == 3 && first:
			d.Chassis = decodeChassis(s)
		case s.kind == 4 && len(d.Processors) < maxModules:
			d.Processors = append(d.Processors, decodeProcessor(s))
		case s.kind == 17 && len(d.Memory) < maxModules:
			d.Memory = append(d.Memory, decodeMemory(s))
		}
	}
	return d
}

func decodeBIOS(s structure) BIOS {
	b := BIOS{Vendor: s.text(0x04), Version: s.text(0x05), Date: s.text(0x08)}
	if major := s.u8(0x14); len(s.data) > 0x15 && major != 0xff { // 0xff means no release number
		b.Release = fmt.Sprintf("%d.%d", major, s.u8(0x15))
	}
	return b
}

func decodeProduct(s structure) Product {
	return Product{Maker: s.text(0x04), Product: s.text(0x05), Version: s.text(0x06), Serial: s.text(0x07)}
}

func decodeSystem(s structure, version smbiosVersion) Product {
	p := decodeProduct(s)
	if len(s.data) >= 0x18 {
		p.UUID = formatUUID(s.data[0x08:0x18], version.swapsUUID())
	}
	p.SKU, p.Family = s.text(0x19), s.text(0x1a)
	return p
}

// chassisKinds are the enclosure types of DSP0134 that boxes have. Other types
// are shown as numbers.
var chassisKinds = map[byte]string{
	3: "desktop", 4: "low-profile desktop", 6: "mini tower", 7: "tower", 8: "portable", 9: "laptop", 10: "notebook", 13: "all in one",
	14: "sub notebook", 17: "main server chassis", 23: "rack mount", 24: "sealed-case PC", 25: "multi-system", 28: "blade",
	29: "blade enclosure",
	30: "tablet", 31: "convertible", 34: "embedded PC", 35: "mini PC", 36: "stick PC",
}

func decodeChassis(s structure) Chassis {
	c := Chassis{Maker: s.text(0x04), Version: s.text(0x06), Serial: s.text(0x07), Asset: s.text(0x08)}
	kind := s.u8(0x05) & 0x7f // bit 7 says whether there is a lock
	if c.Kind = chassisKinds[kind]; c.Kind == "" && kind > 2 {
		c.Kind = fmt.Sprintf("type %d", kind)
	}
	return c
}

func decodeProcessor(s structure) Processor {
	return Processor{
		Socket: s.text(0x04), Maker: s.text(0x07), Version: s.text(0x10),
		Populated: s.u8(0x18)&0x40 != 0,
		MaxMHz:    int(s.u16(0x14)),
		Cores:     count(s, 0x23, 0x2a),
		Threads:   count(s, 0x25, 0x2e),
	}
}

// count is a number of cores or threads. It is the byte at off. If that is
// 0xff, it is the word at wide, which version 3.0 added.
func count(s structure, off, wide int) int {
	if n := s.u8(off); n != 0xff {
		return int(n)
	}
	if n := s.u16(wide); n != 0 {
		return int(n)
	}
	return 0xff
}

// memoryKinds are the memory types of DSP0134 that boxes have.
var memoryKinds = map[byte]string{
	0x07: "RAM", 0x0f: "SDRAM", 0x12: "DDR", 0x13: "DDR2", 0x14: "DDR2 FB-DIMM", 0x18: "DDR3", 0x1a: "DDR4", 0x1b: "LPDDR",
	0x1c: "LPDDR2", 0x1d: "LPDDR3", 0x1e: "LPDDR4", 0x1f: "non-volatile", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5",
}

func decodeMemory(s structure) MemoryModule {
	return MemoryModule{
		Slot: s.text(0x10), Bank: s.text(0x11), Size: memorySize(s), Kind: memoryKinds[s.u8(0x12)],
		Speed: memorySpeed(s), Maker: s.text(0x17), Serial: s.text(0x18), Part: s.text(0x1a),
	}
}

// memorySize is a module's size in bytes. The word at 0x0c is in MiB, or in KiB
// if bit 15 is set. If it is 0x7fff, the size is the double word at 0x1c in
// MiB. 0xffff means unknown.
func memorySize(s structure) int64 {
	switch n := s.u16(0x0c); {
	case n == 0xffff:
		return 0
	case n == 0x7fff:
		return int64(s.u32(0x1c)&0x7fffffff) << 20
	case n&0x8000 != 0:
		return int64(n&0x7fff) << 10
	default:
		return int64(n) << 20
	}
}

// memorySpeed is in MT/s. If the word at 0x15 is 0xffff, the speed is the
// double word at 0x54, which version 3.3 added.
func memorySpeed(s structure) int {
	if n := s.u16(0x15); n != 0xffff {
		return int(n)
	}
	return int(s.u32(0x54) & 0x7fffffff)
}

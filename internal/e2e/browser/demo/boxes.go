package demo

import (
	"fmt"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/usedmap"
)

// kind is a kind of machine of which the lab has several.
type kind struct {
	group, name string
	count       int
	labels      []string
	maker, what string
	cpu         string
	cores       int
	memory      int64
	uefi        bool
	disks       []diskKind
}

type diskKind struct {
	name, model, serial, transport string
	size                           int64
	rotates                        bool
	parts                          []part
}

type part struct {
	fs, name, label string
	size            int64   // bytes; 0 is the rest of the disk
	used            float64 // share
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

var linux = []part{{"vfat", "EFI System Partition", "", 512 * mib, 0.02}, {"ext4", "root", "root", 60 * gib, 0.42}, {"swap", "", "",
	16 * gib, 0},
	{"xfs", "data", "data", 0, 0.18}}

var kinds = []kind{
	{"gpu", "gpu", 6, []string{"cuda", "row=1"}, "Supermicro", "SYS-740GP-TNRT", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 32, 256 * gib,
		true,
		[]diskKind{{"nvme0n1", "SAMSUNG MZQL2960HCJR-00A07", "S64FNN0T9", "nvme", 960_197_124_096, false, linux}}},
	{"storage", "nas", 5, []string{"row=1"}, "Dell Inc.", "PowerEdge R740xd", "Intel(R) Xeon(R) Silver 4210 CPU @ 2.20GHz", 20, 128 * gib,
		true,
		[]diskKind{
			{"sda", "INTEL SSDSC2KB480G8", "PHYF2431", "ata", 480_103_981_056, false, linux},
			{"sdb", "ST2000NM0055-1V4104", "ZC20A", "ata", 2_000_398_934_016, true, []part{{"xfs", "pool", "pool", 0, 0.31}}},
		}},
	{"ci", "ci", 10, []string{"docker", "row=2"}, "ASUSTeK COMPUTER INC.", "RS300-E11-PS4", "Intel(R) Xeon(R) E-2388G CPU @ 3.20GHz", 8,
		64 * gib, true,
		[]diskKind{{"nvme0n1", "WDC WDS500G1X0E-00AFY0", "2139CF4", "nvme", 500_107_862_016, false, linux}}},
	{"edge", "edge", 5, []string{"row=3"}, "Advantech", "ARK-1220L", "Intel Atom(R) CPU E3940 @ 1.60GHz", 4, 8 * gib, true,
		[]diskKind{{"mmcblk0", "DV4064", "0x7c1e3a", "mmc", 62_537_072_640, false,
			[]part{{"vfat", "EFI System Partition", "", 256 * mib, 0.03}, {"ext4", "rootfs-a", "", 16 * gib, 0.55}, {"ext4", "rootfs-b", "",
				16 * gib, 0.52},
				{"ext4", "data", "", 0, 0.12}}}}},
	{"legacy", "old", 4, []string{"bios", "row=3"}, "FUJITSU", "PRIMERGY RX100 S7", "Intel(R) Xeon(R) CPU E3-1220 V2 @ 3.10GHz", 4, 8 * gib,
		false,
		[]diskKind{{"sda", "ST3250312AS", "9VYC0", "ata", 250_059_350_016, true,
			[]part{{"ntfs", "", "Windows", 100 * gib, 0.6}, {"ext3", "", "test", 0, 0.35}}}}},
}

// Box is a box of the lab.
type Box struct {
	kind
	ledger.Box
	n     int
	Disks []*Disk
}

// Disk is a disk of a box.
type Disk struct {
	diskKind
	image.Identity
	layout usedmap.Layout
	seed   uint64
}

// Boxes are the boxes of the lab, without what changes.
func Boxes(now time.Time) (all []*Box) {
	for _, k := range kinds {
		for i := range k.count {
			n := len(all)
			addr, err := box.ParseAddr(fmt.Sprintf("10.88.1.%d", 11+n))
			if err != nil {
				panic(err) // the numbers are small
			}
			b := &Box{kind: k, n: n, Box: ledger.Box{
				Address: addr, Name: fmt.Sprintf("%s-%02d", k.name, i+1), UUID: fmt.Sprintf("4c4c4544-0051-3210-8056-%012x", 0xb2c04f503000+n),
				MACs: []string{fmt.Sprintf("52:54:00:58:01:%02x", 11+n)}, Labels: k.labels, Groups: []string{k.group}, Health: ledger.Good,
				FirstSeen: now.AddDate(0, -5, -n), LastSeen: now.Add(-time.Duration(20+7*n) * time.Minute)}}
			for d, dk := range k.disks {
				disk := &Disk{diskKind: dk, seed: uint64(n*8 + d), Identity: image.Identity{Size: dk.size, SectorSize: 512, Model: dk.model,
					Serial: fmt.Sprintf("%s%04d", dk.serial, 1207+n*37+d), Path: fmt.Sprintf("pci-0000:00:%02x.0-%s-%d", 0x17+d, dk.transport, d+1)}}
				disk.layout = disk.makeLayout()
				b.Disks = append(b.Disks, disk)
			}
			all = append(all, b)
		}
	}
	return all
}

func (d *Disk) makeLayout() usedmap.Layout {
	l := usedmap.Layout{Table: "gpt"}
	if d.parts[0].fs == "ntfs" {
		l.Table = "dos"
	}
	at := int64(mib)
	for i, p := range d.parts {
		size := p.size
		if size == 0 {
			size = (d.size - at - mib) / mib * mib
		}
		typ := "Linux filesystem"
		switch p.fs {
		case "vfat":
			typ = "EFI System"
		case "swap":
			typ = "Linux swap"
		case "ntfs":
			typ = "HPFS/NTFS/exFAT"
		}
		l.Parts = append(l.Parts, usedmap.LayoutPart{Kind: usedmap.Partition, Number: i + 1, Type: typ, Name: p.name, FS: p.fs, Label: p.label,
			Off: at, Len: size})
		at += size
	}
	return l
}

// inventory is what the box is made of.
func (b *Box) inventory(at time.Time) *inventory.Inventory {
	inv := &inventory.Inventory{Format: inventory.Format, Address: b.Address.String(), Hex: b.Address.Hex(), Host: b.Name, Time: at,
		Maintenance: "1.0",
		UUID:        b.UUID, Kernel: "Linux version 6.1.0-37-amd64 (debian-kernel@lists.debian.org)",
		CPU: inventory.CPU{Model: b.cpu, Sockets: 1, Cores: b.cores, Threads: 2 * b.cores, Microcode: "0xd0003d1", Flags: []string{"fpu",
			"vme", "sse4_2", "aes"}},
		Memory:  b.memory - 300*mib,
		Network: []inventory.NIC{{Name: "eth0", MAC: b.MACs[0], Driver: "igb", PCI: "0000:02:00.0", Up: true, Speed: 1000}},
		PCI: []inventory.PCI{
			{Address: "0000:00:00.0", Class: "060000", Vendor: "8086", Device: "3450", ClassName: "Host bridge", VendorName: "Intel Corporation"},
			{Address: "0000:02:00.0", Class: "020000", Vendor: "8086", Device: "1533", ClassName: "Ethernet controller",
				VendorName: "Intel Corporation",
				DeviceName: "I210 Gigabit Network Connection", Driver: "igb", Link: "2.5 GT/s PCIe x1"},
		},
		KernelLog: []string{"[    0.000000] Linux version 6.1.0-37-amd64", "[    1.204511] igb 0000:02:00.0 eth0: PCIe link is up",
			"[    1.911027] EXT4-fs: mounted filesystem with ordered data mode"},
	}
	inv.Firmware = inventory.Firmware{Kind: "BIOS"}
	if b.uefi {
		inv.Firmware = inventory.Firmware{Kind: "UEFI", Bits: 64, SecureBoot: "off", BootCurrent: "0003",
			BootOrder: []inventory.BootEntry{{Number: "0003", Name: "UEFI PXEv4 (MAC:" + b.MACs[0] + ")", Active: true}, {Number: "0000",
				Name: "debian", Active: true}}}
	}
	inv.DMI = inventory.DMI{Version: "3.3", BIOS: inventory.BIOS{Vendor: "American Megatrends Inc.", Version: "1.4a", Date: "08/11/2025"},
		System: inventory.Product{Maker: b.maker, Product: b.what, Serial: fmt.Sprintf("S4127%05d", 100+b.n), UUID: b.UUID},
		Memory: []inventory.MemoryModule{{Slot: "DIMMA1", Size: b.memory / 2, Kind: "DDR4", Speed: 3200, Maker: "Samsung",
			Part: "M393A4K40DB3-CWE"},
			{Slot: "DIMMB1", Size: b.memory / 2, Kind: "DDR4", Speed: 3200, Maker: "Samsung", Part: "M393A4K40DB3-CWE"}}}
	for _, d := range b.Disks {
		rotates := d.rotates
		out := inventory.Disk{Name: d.name, Identity: d.Identity, Transport: d.transport, Rotational: &rotates, Firmware: "GDC5602Q",
			Health: inventory.Health{Status: "good"}}
		for _, p := range d.layout.Parts {
			sep := ""
			if last := d.name[len(d.name)-1]; last >= '0' && last <= '9' {
				sep = "p"
			}
			out.Partitions = append(out.Partitions, inventory.Partition{Name: fmt.Sprintf("%s%s%d", d.name, sep, p.Number), Start: p.Off,
				Size: p.Len})
		}
		if d.transport == "ata" {
			raw, status := "0", "good"
			if b.Name == "old-03" {
				raw, status = "184", "failing"
				out.Health.Note = "a value is at the threshold that predicts a failure"
			}
			out.Health.Status = status
			out.Health.Attributes = []inventory.Attribute{
				{ID: 5, Name: "reallocated sectors", Value: 100, Worst: 100, Threshold: 36, Raw: raw, Failing: status == "failing"},
				{ID: 9, Name: "power-on hours", Value: 61, Worst: 61, Raw: fmt.Sprint(21_000 + 311*b.n)},
				{ID: 194, Name: "temperature", Value: 67, Worst: 48, Raw: "33"},
				{ID: 197, Name: "pending sectors", Value: 100, Worst: 100, Raw: "0"}}
		}
		if d.transport == "nvme" {
			out.Health.Attributes = []inventory.Attribute{{Name: "percentage used", Raw: fmt.Sprint(2 + b.n%9)}, {Name: "available spare",
				Raw: "100"},
				{Name: "media errors", Raw: "0"}, {Name: "temperature", Raw: "38"}}
		}
		inv.Disks = append(inv.Disks, out)
	}
	return inv
}

package inventory

import (
	"os"
	"strings"
	"testing"
)

const someIDs = `# comment
8086  Intel Corporation
	10d3  82574L Gigabit Network Connection
		8086 a01f  Gigabit CT2 Desktop Adapter
	2922  82801IR/IO/IH (ICH9R/DO/DH) 6 port SATA Controller [AHCI mode]
zzzz  not a vendor
	10d3  belongs to nothing
1af4  Red Hat, Inc.
	1000  Virtio network device
C 01  Mass storage controller
	06  SATA controller
		01  AHCI 1.0
C 02  Network controller
	00  Ethernet controller
`

func TestPCINames(t *testing.T) {
	names, err := parsePCIIDs([]byte(someIDs))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, want PCI }{
		{PCI{Vendor: "8086", Device: "10d3", SubVendor: "8086", SubDevice: "a01f", Class: "020000"},
			PCI{VendorName: "Intel Corporation", DeviceName: "82574L Gigabit Network Connection", SubsystemName: "Gigabit CT2 Desktop Adapter",
				ClassName: "Ethernet controller"}},
		{PCI{Vendor: "8086", Device: "2922", Class: "010601"},
			PCI{VendorName: "Intel Corporation", DeviceName: "82801IR/IO/IH (ICH9R/DO/DH) 6 port SATA Controller [AHCI mode]",
				ClassName: "SATA controller"}},
		{PCI{Vendor: "1af4", Device: "ffff", Class: "017700"}, PCI{VendorName: "Red Hat, Inc.", ClassName: "Mass storage controller"}},
		{PCI{Vendor: "", Device: "junk", Class: "???"}, PCI{}},
	} {
		got := c.in
		names.fill(&got)
		want := c.in
		want.VendorName, want.DeviceName, want.SubsystemName, want.ClassName = c.want.VendorName, c.want.DeviceName, c.want.SubsystemName,
			c.want.ClassName
		if got != want {
			t.Errorf("names of %s:%s are %+v, want %+v", c.in.Vendor, c.in.Device, got, want)
		}
	}
	if len(names.devices) != 3 {
		t.Errorf("%d devices, want 3: a line below no vendor must not count", len(names.devices))
	}
}

func TestRealPCIIDs(t *testing.T) {
	text, err := os.ReadFile("/usr/share/misc/pci.ids")
	if err != nil {
		t.Skip("Debian's package pci.ids is not installed")
	}
	names, err := parsePCIIDs(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := names.devices[0x8086<<16|0x10d3]; !strings.Contains(got, "82574L") {
		t.Errorf("8086:10d3 is %q", got)
	}
	if got := names.subclasses[0x0200]; got != "Ethernet controller" {
		t.Errorf("class 0200 is %q", got)
	}
	if len(names.vendors) < 2000 || len(names.devices) < 15000 || len(names.subsystems) < 10000 {
		t.Errorf("%d vendors, %d devices, %d subsystems are too few", len(names.vendors), len(names.devices), len(names.subsystems))
	}
}

func FuzzPCIIDs(f *testing.F) {
	f.Add([]byte(someIDs))
	f.Add([]byte("\t\t\t\n8086\nC \nC 0\n\t0\n8086  x\n\t\t8086\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := parsePCIIDs(text)
		if err != nil {
			if len(text) <= maxPCIIDs {
				t.Fatalf("a list within the limit is refused: %v", err)
			}
			return
		}
		lines := strings.Count(string(text), "\n") + 1
		if n := len(names.vendors) + len(names.devices) + len(names.subsystems) + len(names.classes) + len(names.subclasses); n > lines {
			t.Fatalf("%d names of %d lines", n, lines)
		}
		for key, name := range names.devices {
			if name == "" || name != clean(name) {
				t.Fatalf("device %x has the name %q", key, name)
			}
			if _, ok := names.vendors[uint16(key>>16)]; !ok {
				t.Fatalf("device %x without its vendor", key)
			}
		}
	})
}

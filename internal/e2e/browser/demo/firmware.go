package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"testbox-imaging/internal/efi"
)

// orderBox has a system that puts itself first in the boot order again and again.
const orderBox = "nas-02"

// updated is how many days ago the firmware of some boxes was updated.
const updated = 12

// Numbers of boot entries.
const (
	debianEntry efi.Number = 0
	setupEntry  efi.Number = 1
	netEntry    efi.Number = 3
	ubuntuEntry efi.Number = 5
)

// firmware is the state of a box's firmware, so many days ago.
func (b *Box) firmware(ago int) *efi.State {
	s := &efi.State{Kind: efi.BIOS, Vendor: "American Megatrends Inc.", Version: "1.4a", Date: "08/11/2025"}
	if ago > updated && b.group == "gpu" {
		s.Version, s.Date = "1.3", "02/20/2025"
	}
	for _, d := range b.Disks {
		if d.transport == "nvme" {
			s.NVMe = append(s.NVMe, efi.Namespace{Disk: d.name, Serial: d.Serial, ID: 1, Active: []uint32{1}, Blocks: uint64(d.Size) / 512,
				Formats: []efi.LBAFormat{{Block: 512, Performance: 2}, {Block: 4096}}})
		}
	}
	if !b.uefi {
		return s
	}
	s.Kind, s.Bits, s.SecureBoot = efi.UEFI, 64, "off"
	if b.group == "ci" {
		s.SecureBoot = "on"
	}
	net := netEntry
	s.Current, s.Order = &net, []efi.Number{netEntry, debianEntry}
	esp := b.Disks[0].layout.Parts[0]
	s.Entries = []efi.Entry{
		{Number: debianEntry, Name: "debian", Active: true, Kind: efi.DiskEntry, File: `\EFI\debian\shimx64.efi`, Partition: &efi.Partition{
			Number: 1, Start: uint64(esp.Off) / 512, Blocks: uint64(esp.Len) / 512, Disk: b.Disks[0].name,
			GUID: fmt.Sprintf("5b193300-fc78-40cd-8002-%012x", 0xe86c45580b47+b.n), Volume: fmt.Sprintf("4A3B-%04X", 0xc1d+b.n)}},
		{Number: setupEntry, Name: "Setup", Active: true, Hidden: true, Kind: efi.FirmwareEntry,
			Path: "Fv(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(721c8b66-426c-4e86-8e99-3457c46ab0b9)"},
		{Number: netEntry, Name: "UEFI PXEv4 (MAC:" + b.MACs[0] + ")", Active: true, Kind: efi.NetworkEntry, MAC: b.MACs[0],
			Path: "PciRoot(0x0)/Pci(0x1c,0x0)/Pci(0x0,0x0)/MAC(" + b.MACs[0] + ")/IPv4(0.0.0.0)"}}
	for _, v := range []struct{ name, value string }{{"SetupMode", "\x00"}, {"Timeout", "\x01\x00"}} {
		sum := sha256.Sum256([]byte(v.value))
		s.Variables = append(s.Variables, efi.Variable{Name: v.name, Vendor: efi.Global, Size: len(v.value), SHA256: hex.EncodeToString(sum[:]),
			Value: hex.EncodeToString([]byte(v.value))})
	}
	return s
}

// note is what the latest start of the maintenance system has noted of the firmware.
func (b *Box) note(at time.Time) *efi.Note {
	n := &efi.Note{Format: efi.NoteFormat, Time: at, State: *b.firmware(0)}
	if !b.uefi {
		return n
	}
	first := netEntry
	n.NetworkFirst = &efi.NetworkFirst{Result: efi.OrderKept, First: &first}
	if b.Name == orderBox {
		other := n.State.Entries[0]
		other.Number, other.Name, other.File = ubuntuEntry, "ubuntu", `\EFI\ubuntu\shimx64.efi`
		n.State.Entries = append(n.State.Entries, other)
		n.State.Order = []efi.Number{netEntry, ubuntuEntry, debianEntry}
		before := []efi.Number{ubuntuEntry, netEntry, debianEntry}
		n.NetworkFirst = &efi.NetworkFirst{Result: efi.OrderIgnored, First: &first, Before: before, Wrote: slices.Clone(n.State.Order),
			Text: fmt.Sprintf("The boot order %s, which was written on %s, did not stay. It was again %s, and was written once more. "+
				"Either the firmware ignores it, and then its own setup has to put the network first, or a system on a disk has set it back.",
				efi.Numbers(n.State.Order), at.AddDate(0, 0, -1).UTC().Format(time.RFC3339), efi.Numbers(before))}
	}
	return n
}

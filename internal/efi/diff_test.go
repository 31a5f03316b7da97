package efi

import (
	"slices"
	"strings"
	"testing"
)

const (
	esp1 = "00000000-0000-0000-0000-000000000001"
	esp2 = "00000000-0000-0000-0000-000000000002"
)

// booted is a state with the entries that most boxes have.
func booted() *State {
	return &State{Kind: UEFI, Bits: 64, Vendor: "Maker", Version: "1.0", Date: "01/02/2026", SecureBoot: "on", Order: []Number{2, 3},
		Entries: []Entry{
			{Number: 0, Name: "Setup", Active: true, Kind: FirmwareEntry, Path: "FvFile(1)"},
			{Number: 2, Name: "UEFI PXEv4", Active: true, Kind: NetworkEntry, MAC: "52:54:00:00:00:01"},
			{Number: 3, Name: "debian", Active: true, Kind: DiskEntry, File: `\EFI\debian\shimx64.efi`, Partition: &Partition{Number: 1, GUID: esp1, Disk: "sda"}},
		},
		Variables: []Variable{{Name: "dbx", Size: 4, SHA256: strings.Repeat("a", 64)}, {Name: "SecureBoot", Size: 1, Value: "01"}},
		NVMe: []Namespace{{Disk: "nvme0n1", Serial: "S1", ID: 1, Active: []uint32{1}, Blocks: 1000, Format: 1,
			Formats: []LBAFormat{{Block: 512}, {Block: 4096, Metadata: 8}, {}}}}}
}

func texts(list []Change) (all []string) {
	for _, c := range list {
		all = append(all, c.String())
	}
	return all
}

func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *State)
		want   []string
	}{
		"nothing": {func(*State) {}, nil},
		"which entry has booted, and kernel names": {func(s *State) {
			s.Current, s.Entries[2].Partition.Disk, s.NVMe[0].Disk = &s.Entries[1].Number, "sdb", "nvme1n1"
		}, nil},
		"numbers of the firmware's own entries": {func(s *State) {
			s.Entries[1].Number, s.Entries[0].Number, s.Order = 9, 8, []Number{9, 3}
		}, nil},
		"kind": {func(s *State) { s.Kind, s.Bits = BIOS, 0 }, []string{"firmware was UEFI, 64 bits, is BIOS"}},
		"version": {func(s *State) { s.Version = "1.1" },
			[]string{"version of the firmware was Maker 1.0 of 01/02/2026, is Maker 1.1 of 01/02/2026"}},
		"Secure Boot": {func(s *State) { s.SecureBoot, s.Variables[1].Value = "off", "00" }, []string{"Secure Boot was on, is off"}},
		"order": {func(s *State) { s.Order = []Number{3, 2} },
			[]string{"boot order was 0002 UEFI PXEv4, 0003 debian, is 0003 debian, 0002 UEFI PXEv4"}},
		"an entry is gone": {func(s *State) { s.Entries, s.Order = s.Entries[:2], []Number{2} },
			[]string{`boot entry 0003 debian is gone: \EFI\debian\shimx64.efi, partition 1 of sda (` + esp1 + `)`,
				"boot order was 0002 UEFI PXEv4, 0003 debian, is 0002 UEFI PXEv4"}},
		"an entry is new": {func(s *State) { s.Entries = append(s.Entries, Entry{Number: 4, Kind: OtherEntry, Path: "x"}) },
			[]string{"boot entry 0004 is new: x, not active"}},
		"an entry has another partition": {func(s *State) { s.Entries[2].Partition = &Partition{Number: 1, GUID: esp2} },
			[]string{`boot entry 0003 was debian: \EFI\debian\shimx64.efi, partition 1 of sda (` + esp1 +
				`), is debian: \EFI\debian\shimx64.efi, partition 1 with the id ` + esp2 + `, which no disk has`}},
		"an entry is passed over": {func(s *State) { s.Entries[1].Active = false },
			[]string{"boot entry 0002 was UEFI PXEv4: network, card 52:54:00:00:00:01, is UEFI PXEv4: network, card 52:54:00:00:00:01, not active"}},
		"the next boot": {func(s *State) { s.Next = &s.Entries[2].Number }, []string{"entry for the next boot alone is new: 0003 debian"}},
		"a variable": {func(s *State) { s.Variables[0].SHA256 = strings.Repeat("b", 64) },
			[]string{"variable dbx was 4 bytes, SHA-256 aaaaaaaaaaaa..., is 4 bytes, SHA-256 bbbbbbbbbbbb..."}},
		"a format": {func(s *State) { s.NVMe[0].Format = 0 },
			[]string{"namespace 1 of the disk S1 was 1000 blocks, format 4096+8 bytes, can have 512 bytes, " +
				"is 1000 blocks, format 512 bytes, can have 4096+8 bytes"}},
		"a namespace is gone": {func(s *State) { s.NVMe = nil },
			[]string{"namespace 1 of the disk S1 is gone: 1000 blocks, format 4096+8 bytes, can have 512 bytes"}},
	} {
		s := booted()
		c.change(s)
		if got := texts(Changes(booted(), s)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := Changes(&State{}, &State{}); len(got) != 0 {
		t.Errorf("nothing differs from nothing: %v", got)
	}
}

// Two entries that are alike are two entries.
func TestChangesOfTwins(t *testing.T) {
	s := booted()
	twin := s.Entries[2]
	twin.Number = 7
	s.Entries = append(s.Entries, twin)
	if got := texts(Changes(booted(), s)); len(got) != 1 || !strings.HasPrefix(got[0], "boot entry 0007 debian is new") {
		t.Errorf("%q", got)
	}
	if got := texts(Changes(s, booted())); len(got) != 1 || !strings.HasPrefix(got[0], "boot entry 0007 debian is gone") {
		t.Errorf("%q", got)
	}
}

func TestTexts(t *testing.T) {
	s := booted()
	if got := s.Firmware(); got != "UEFI, 64 bits, Maker 1.0 of 01/02/2026" {
		t.Error(got)
	}
	if got := (&State{Kind: BIOS}).Firmware(); got != "BIOS" {
		t.Error(got)
	}
	var all []string
	for _, e := range append(s.Ordered(), s.Unordered()...) {
		all = append(all, e.String())
	}
	want := []string{"0002 UEFI PXEv4: network, card 52:54:00:00:00:01", `0003 debian: \EFI\debian\shimx64.efi, partition 1 of sda (` + esp1 + ")",
		"0000 Setup: a program of the firmware"}
	if !slices.Equal(all, want) {
		t.Errorf("%q", all)
	}
	if got := s.NVMe[0].String(); got != "namespace 1 of nvme0n1 (S1): 1000 blocks, format 4096+8 bytes, can have 512 bytes" {
		t.Error(got)
	}
	for _, r := range []Result{OrderKept, OrderRepaired, OrderIgnored, OrderFailed, OrderNone} {
		if n := (NetworkFirst{Result: r}); (r.Means() != "") != n.Bad() || (r.Do() != "") != n.Bad() {
			t.Errorf("of %s it is said: %s %s", r, r.Means(), r.Do())
		}
	}
	if got := s.Variables[1].String(); got != "SecureBoot: 01" {
		t.Error(got)
	}
}

package bootcfg

import (
	"slices"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
)

// TestLoadersOf: GRUB starts what the firmware would start from a disk.
func TestLoadersOf(t *testing.T) {
	at := func(volume string) *efi.Partition { return &efi.Partition{GUID: "g", Volume: volume} }
	s := &efi.State{Order: []efi.Number{1, 5, 3, 4, 6, 9}, Entries: []efi.Entry{
		{Number: 1, Active: true, Kind: efi.NetworkEntry, File: `\a`, Partition: at("0000-0001")},
		{Number: 2, Active: true, Kind: efi.DiskEntry, File: `\not in the order`, Partition: at("0000-0002")},
		{Number: 3, Active: true, Kind: efi.DiskEntry, Name: "Windows", File: `\EFI\Microsoft\Boot\bootmgfw.efi`, Partition: at("0000-0003")},
		{Number: 4, Kind: efi.DiskEntry, File: `\not active`, Partition: at("0000-0004")},
		{Number: 5, Active: true, Kind: efi.DiskEntry, Name: "debian", File: `EFI\debian\shimx64.efi`, Partition: at("0000-0005")},
		{Number: 6, Active: true, Kind: efi.DiskEntry, File: `\file system not found`, Partition: at("")},
	}}
	want := []LocalLoader{{"0000-0005", "/EFI/debian/shimx64.efi", "debian"}, {"0000-0003", "/EFI/Microsoft/Boot/bootmgfw.efi", "Windows"}}
	if got := LoadersOf(s); !slices.Equal(got, want) {
		t.Errorf("loaders %v", got)
	}
	if _, left := MarshalLoaders(LoadersOf(s)); left != nil {
		t.Error(left)
	}
}

// TestTellsLoaders: a wrecked box that waits for its restore does not say what GRUB
// starts.
func TestTellsLoaders(t *testing.T) {
	for _, c := range []struct {
		action   box.Action
		kind     string
		restored bool
		want     bool
	}{
		{box.Backup, efi.UEFI, false, true}, {box.BackupAgain, efi.UEFI, false, true}, {box.RefreshInfo, efi.UEFI, false, true},
		{box.Backup, efi.BIOS, false, false}, {box.Restore, efi.UEFI, false, false}, {box.Restore, efi.UEFI, true, true},
		{box.Verify, efi.UEFI, false, false}, {box.Rescue, efi.UEFI, false, false}, {box.Restore, efi.BIOS, true, false},
	} {
		n := &efi.Note{State: efi.State{Kind: c.kind, Order: []efi.Number{1}, Entries: []efi.Entry{{Number: 1, Kind: efi.DiskEntry, Active: true,
			File: `\EFI\a.efi`, Partition: &efi.Partition{Volume: "1A2B-3C4D"}}}}}
		if c.restored {
			n.PutBack = &efi.PutBack{}
		}
		if got := TellsLoaders(n, c.action); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		n.State.Order = nil // such as where the variables could not be read
		if TellsLoaders(n, c.action) {
			t.Errorf("%+v: nothing is told, and that replaces what is known", c)
		}
	}
}

package bootcfg

import (
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
)

// TellsLoaders reports whether the loaders of a note are those of the box's own systems.
// While a box waits for its restore, they may be those of a system that is damaged, or
// none. A note without loaders tells nothing, since the variables could not be read, or the firmware
// has lost its entries, and those that are known start only what is still there. a is the action in
// which the note was made.
func TellsLoaders(n *efi.Note, a box.Action) bool {
	if len(LoadersOf(&n.State)) == 0 {
		return false
	}
	switch a {
	case box.Backup, box.BackupAgain, box.RefreshInfo:
		return n.State.Kind == efi.UEFI
	case box.Restore:
		return n.State.Kind == efi.UEFI && n.PutBack != nil
	}
	return false
}

// LoadersOf returns the loaders that the boot entries of a firmware start from disks,
// in the order in which the firmware tries them. Entries that are not active, and
// those whose file system was not found, are left out.
func LoadersOf(s *efi.State) []LocalLoader {
	var list []LocalLoader
	for _, e := range s.Ordered() {
		if e.Kind != efi.DiskEntry || !e.Active || e.File == "" || e.Partition == nil || e.Partition.Volume == "" {
			continue
		}
		path := "/" + strings.TrimLeft(strings.ReplaceAll(e.File, `\`, "/"), "/")
		list = append(list, LocalLoader{Volume: e.Partition.Volume, Path: path, Name: e.Name})
	}
	return list
}

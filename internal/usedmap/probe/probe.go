// Package probe says which known things announce themselves on a volume: file
// systems, encryption, RAID and volume managers, partition tables.
//
// A file system is believed only if nothing else announces itself on the same
// volume. A BSD or a ZFS that was put over an old ext4 leaves a superblock of
// the ext4 that is valid in every byte; whoever trusts it calls the new data
// free. So the list of signatures is long, and each of them follows two rules:
// whatever its own driver would accept matches, also when it is old or damaged
// elsewhere; and nothing that a healthy volume of another kind may have at the
// same place matches, be it boot code, a boot loader's core or file data.
package probe

import (
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

// Match is something that announced itself.
type Match struct {
	Name string // as blkid has it; "ext" is ext2, 3, 4 and their external journals
	Off  int64  // of the magic, in bytes
}

// Find lists all that announce themselves on a volume that is no partitioned
// disk, one Match for each name, at the first place, in a fixed order. The
// partition tables "dos" and "gpt" are among the names: a disk of a virtual
// machine may lie on a logical volume.
func Find(v *volume.Volume) ([]Match, error) {
	return find(newWindow(v, v.Size(), v.Size()), slices.Concat(formats, containers, tables, nestedTables))
}

// FindDisk lists all that announce themselves on a disk whose partitions lie
// between the bytes first and end, beside its partition table. Only what lies
// wholly before the first or after the last partition counts: a partition that
// starts at sector 63 has its own superblock where a UFS, a Btrfs or a LUKS
// of the whole disk would have one, one at 1 MiB where a VMFS has it, and the
// RAID superblock at the end of the last partition is often at the very place
// of one for the whole disk.
func FindDisk(v *volume.Volume, first, end int64) ([]Match, error) {
	return find(newWindow(v, first, end), slices.Concat(formats, containers, tables))
}

func find(w *window, signatures []signature) ([]Match, error) {
	var out []Match
	for _, s := range signatures {
		known := func(m Match) bool { return m.Name == s.name || m.Name == s.unless }
		if slices.ContainsFunc(out, known) {
			continue
		}
		off, err := s.search(w)
		if err != nil {
			return nil, err
		}
		if off >= 0 {
			out = append(out, Match{s.name, off})
		}
	}
	return out, nil
}

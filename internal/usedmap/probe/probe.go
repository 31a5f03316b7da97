// Package probe finds the signatures that a volume has. It knows signatures of
// file systems, encryption, RAID, volume managers and partition tables.
//
// A file system is believed only if the volume has no other signature. If a BSD or
// a ZFS is put over an old ext4, the superblock of the ext4 can stay valid in every
// byte. Whoever trusts it calls the new data free. So the list of signatures is
// long, and each signature follows two rules. First, it matches everything that
// its own driver would accept, even if that is old, or damaged at other places.
// Second, it matches nothing that a healthy volume of another kind may have at the
// same place, such as boot code, a boot loader or file data.
package probe

import (
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

// Match is a signature that was found.
type Match struct {
	Name string // as blkid has it, but "ext" stands for ext2, ext3, ext4 and their external journals
	Off  int64  // of the magic, in bytes
}

// Find lists the signatures of a volume that is not a partitioned disk. It gives
// one Match for each name, at the first place, in a fixed order. The partition
// tables "dos" and "gpt" are among the names, since the disk of a virtual machine
// may lie on a logical volume.
func Find(v *volume.Volume) ([]Match, error) {
	return find(newWindow(v, v.Size(), v.Size()), slices.Concat(formats, containers, tables, nestedTables))
}

// FindDisk lists the signatures that a partitioned disk has beside its partition
// table. Its partitions lie between the bytes first and end. Only signatures that
// lie completely before the first or behind the last partition count. Those in a
// partition can be at the very place where the whole disk would have one. A
// partition that starts at sector 63 has its superblock where a UFS, a Btrfs or a
// LUKS of the whole disk would have it. A partition at 1 MiB has it where a VMFS
// would. The RAID superblock at the end of the last partition is often where that
// of the whole disk would be.
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

// Package fat maps FAT12, FAT16 and FAT32.
//
// The source is Microsoft's "FAT: General Overview of On-Disk Format"
// (fatgen103, also published as "FAT32 File System Specification", 1.03). Names
// like BPB_FATSz16 are from this paper. Where systems differ from it, Linux
// fs/fat and Windows' fastfat (published as a driver sample) were compared.
//
// Only the table of clusters (FAT) says what is free. There are no checksums,
// and no feature flags but these:
//
//	FATs            all are compared, and a difference makes doubt
//	BPB_ExtFlags    bit 7 says that only one FAT is kept up to date, which
//	                makes doubt
//	BPB_FSVer       makes doubt if it is not 0.0
//	FAT[1]          has marks for a clean shutdown and for no disk errors
//	                (bits 15 and 14, or 27 and 26)
//	state byte      at 0x25 or 0x41, has marks for dirty (1) and for a surface to
//	                be tested (2)
//	BPB_FSInfo      has signatures that are checked; its count of free clusters
//	                is ignored, since it is only a hint, and often wrong
//	BPB_BkBootSec   a second boot sector, which must have the same layout
//
// Many devices write a FAT and never set a dirty mark. So the table is checked
// for contradictions (no chain goes into a free cluster, outside, or into
// another chain), and compared with the folders (no file begins at a free
// cluster).
package fat

import (
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Read maps the FAT on v.
func Read(v *volume.Volume) (*volume.Found, error) {
	sector, err := v.Bytes(0, bootSize)
	if err != nil {
		return nil, err
	}
	g, err := parse(sector)
	if err != nil {
		return nil, err
	}
	found := &volume.Found{FS: fmt.Sprintf("fat%d", g.bits), Size: g.total * g.sector}
	found.Label, found.UUID = g.name(sector)
	free, label, notes, err := read(v, g, sector)
	if label != "" {
		found.Label = label
	}
	if err != nil {
		return found, err
	}
	found.Free, found.Notes = free, notes
	return found, nil
}

// read returns what is free, and the label in the root directory.
func read(v *volume.Volume, g *geometry, sector []byte) (free *volume.Free, label string, notes []string, err error) {
	if err := g.trust(v, sector); err != nil {
		return nil, "", nil, err
	}
	t := &table{v: v, g: g, named: newSet(g.clusters)}
	if err := t.scan(); err != nil {
		return nil, "", nil, err
	}
	w := &walk{v: v, g: g, free: t.free.Ranges(), seen: t.named}
	clear(w.seen)
	if err := w.all(); err != nil {
		return nil, w.label, nil, err
	}
	if w.partly {
		notes = append(notes, fmt.Sprintf("it has many folders: only the first of them were held against the FAT (%d reads)", maxReads))
	}
	return &t.free, w.label, notes, nil
}

// set has one bit for every cluster, at the cluster's number.
type set []uint64

func newSet(clusters int64) set { return make(set, (clusters+firstCluster)/64+1) }

// add adds c, and reports whether it was there already.
func (s set) add(c int64) bool {
	was := s[c/64]>>(c%64)&1 != 0
	s[c/64] |= 1 << (c % 64)
	return was
}

// any reports whether one of the n clusters from c on is in the set.
func (s set) any(c, n int64) bool {
	for end := c + n; c < end; {
		word := s[c/64] >> (c % 64)
		if left := end - c; left < 64-c%64 {
			word &= 1<<left - 1
		}
		if word != 0 {
			return true
		}
		c += 64 - c%64
	}
	return false
}

// Package fat says what a FAT12, FAT16 or FAT32 does not use.
//
// Sources: Microsoft, "FAT: General Overview of On-Disk Format" (fatgen103,
// also published as "FAT32 File System Specification", 1.03); where systems
// and the paper differ, Linux fs/fat and Windows' fastfat (published as a
// driver sample) were compared. Names like BPB_FATSz16 are the paper's.
//
// The table of clusters (FAT) is the only place that says what is free: there
// are no checksums and no feature flags but those here.
//
//	FATs            all are compared; a difference is doubt
//	BPB_ExtFlags    only one FAT is kept up to date (bit 7): doubt
//	BPB_FSVer       not 0.0: doubt
//	FAT[1]          clean shutdown, no hard error (bits 15, 14 or 27, 26)
//	state byte      0x25 or 0x41: dirty (1), surface to be tested (2)
//	BPB_FSInfo      its signatures; its count of free clusters is a hint that
//	                healthy file systems have wrong, so it is not looked at
//	BPB_BkBootSec   must say the same of the layout as the first one
//
// Many devices write a FAT without ever setting a dirty mark. So the table is
// held against itself (no chain runs into a free cluster, outside, or into
// another chain) and against the folders (no file begins at a free cluster).
package fat

import (
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Read says what the FAT on v does not use.
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

// read is what is free, and the label in the root directory.
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

// set is a bit for every cluster, by its number.
type set []uint64

func newSet(clusters int64) set { return make(set, (clusters+firstCluster)/64+1) }

// add reports whether c was there already.
func (s set) add(c int64) bool {
	was := s[c/64]>>(c%64)&1 != 0
	s[c/64] |= 1 << (c % 64)
	return was
}

// any reports whether there is one of the n clusters from c on.
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

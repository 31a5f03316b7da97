package ext

import (
	"cmp"
	"fmt"
	"slices"
)

// The layout of block groups is described in
// Documentation/filesystems/ext4/blockgroup.rst and special_inodes.rst. The odd
// cases are from descriptor_loc in fs/ext4/super.c and ext4_bg_num_gdb in
// fs/ext4/balloc.c.

// groupStart is the first block of a group.
func (s *super) groupStart(g int) uint64 { return s.first + uint64(g)*s.perGroup }

// groupBlocks is how many blocks a group has. The last group may be shorter.
func (s *super) groupBlocks(g int) uint64 { return min(s.perGroup, s.blocks-s.groupStart(g)) }

// groupClusters is how many bits of a group's bitmap belong to a cluster.
func (s *super) groupClusters(g int) int64 {
	return int64((s.groupBlocks(g) + s.ratio - 1) / s.ratio)
}

func (s *super) descsPerBlock() int { return int(s.blockSize) / int(s.descSize) }

// descBlocks is how many blocks the descriptors of all groups take.
func (s *super) descBlocks() uint64 {
	per := s.descsPerBlock()
	return uint64((s.groups + per - 1) / per)
}

// superBlock is the block that holds the superblock of group 0.
func (s *super) superBlock() uint64 {
	if s.blockSize == 1024 {
		return 1
	}
	return 0
}

// descBlock is where the i-th block of descriptors is.
func (s *super) descBlock(i uint64) uint64 {
	if !s.metaBG(i) {
		return s.superBlock() + 1 + i
	}
	g := int(i) * s.descsPerBlock()
	at := s.groupStart(g)
	if g == 0 {
		return s.superBlock() + 1
	}
	if s.hasSuper(g) {
		at++
	}
	return at
}

// metaBG reports whether the i-th block of descriptors lies in the groups that
// it describes, instead of behind the superblock.
func (s *super) metaBG(i uint64) bool {
	return s.incompat&incompatMetaBG != 0 && i >= s.firstMetaBG
}

// hasSuper reports whether a group has a copy of the superblock.
func (s *super) hasSuper(g int) bool {
	switch {
	case g == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return uint32(g) == s.backups[0] || uint32(g) == s.backups[1]
	case g == 1 || !s.has(roSparseSuper):
		return true
	}
	return powerOf(g, 3) || powerOf(g, 5) || powerOf(g, 7)
}

func powerOf(n, base int) bool {
	for n%base == 0 {
		n /= base
	}
	return n == 1
}

// headBlocks is how many blocks at its start a group keeps for copies of the
// superblock and of descriptors.
func (s *super) headBlocks(g int) uint64 {
	n := uint64(0)
	if s.hasSuper(g) {
		n = 1
		if g == 0 {
			n += s.superBlock() - s.first // the boot block, if it belongs to group 0
		}
	}
	per := s.descsPerBlock()
	set := g / per
	switch {
	case s.metaBG(uint64(set)):
		// The first, the second and the last group of a set have a copy.
		if in := g % per; in == 0 || in == 1 || in == per-1 {
			n++
		}
	case n > 0 && s.incompat&incompatMetaBG != 0:
		n += s.firstMetaBG
	case n > 0:
		n += s.descBlocks() + s.reservedGDT
	}
	return n
}

// span is a run of blocks.
type span struct{ at, n uint64 }

func (s span) end() uint64 { return s.at + s.n }

// spans are runs of blocks that were added in any order.
type spans []span

func (l *spans) add(at, n uint64) {
	if last := len(*l) - 1; last >= 0 && (*l)[last].end() == at {
		(*l)[last].n += n
	} else if n > 0 {
		*l = append(*l, span{at, n})
	}
}

func (l spans) sort() {
	slices.SortFunc(l, func(a, b span) int { return cmp.Compare(a.at, b.at) })
}

// metadata returns the places of the file system's own structures, in order. It
// fails if two of them overlap.
func (f *fsys) metadata() (spans, error) {
	var heads, blocks, inodes, tables spans
	for g := range f.sb.groups {
		n := f.sb.headBlocks(g)
		if n > f.sb.groupBlocks(g) {
			return nil, fmt.Errorf("group %d is too small for its descriptors", g)
		}
		heads.add(f.sb.groupStart(g), n)
		blocks.add(f.groups[g].blockBitmap, 1)
		inodes.add(f.groups[g].inodeBitmap, 1)
		tables.add(f.groups[g].inodeTable, f.sb.tableBlocks())
	}
	all := append(append(append(heads, blocks...), inodes...), tables...)
	all.sort()
	out := all[:0]
	for _, m := range all {
		last := len(out) - 1
		if last >= 0 && out[last].end() > m.at {
			return nil, fmt.Errorf("two of its structures are in block %d", m.at)
		}
		out.add(m.at, m.n)
	}
	return out, nil
}

// tableBlocks is the length of a group's inode table.
func (s *super) tableBlocks() uint64 {
	return (uint64(s.inodesPerGroup)*uint64(s.inodeSize) + uint64(s.blockSize) - 1) / uint64(s.blockSize)
}

package xfs

import (
	"fmt"
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	agfMagic  = 0x58414746 // "XAGF"
	agiMagic  = 0x58414749 // "XAGI"
	agflMagic = 0x5841464c // "XAFL"
	nullBlock = 1<<32 - 1  // NULLAGBLOCK
)

// agf is struct xfs_agf, the free space of a group. The last fields are only
// valid in version 5, with their features.
type agf struct {
	Magic, Version, Number, Length    uint32
	BnoRoot, CntRoot, RMapRoot        uint32
	BnoLevels, CntLevels, RMapLevels  uint32
	_                                 [3]uint32 // first, last and number in the AGFL
	FreeBlocks, Longest               uint32
	_                                 uint32
	UUID                              [16]byte
	_, _, RefcountRoot, RefcountLevel uint32
}

const agfUUID, agfCRC = 64, 216

// agi is the start of struct xfs_agi, the inodes of a group.
type agi struct {
	Magic, Version, Number, Length uint32
	Count, Root, Level             uint32
}

const agiUUID, agiCRC, agiFreeRoot = 296, 312, 328

// agfl is the start of struct xfs_agfl in version 5. It lists blocks that are
// reserved for the growth of the trees. They are in no tree of free space, so
// they are used.
type agfl struct{ Magic, Number uint32 }

const agflUUID, agflCRC = 8, 32

// group is an allocation group.
type group struct {
	*superblock
	v    *volume.Volume
	no   uint32
	free *volume.Free

	length uint32 // blocks
	start  []byte // content of its first blocks
	agf    agf
}

// read adds the free space of the group.
//
// In a clean file system AGF and trees have the same count, with one exception.
// In a group that the log fills, mkfs may count blocks before the log that are
// in no tree (xfsprogs 6.1 with a stripe unit). sb_fdblocks of the superblock
// is not compared. On many real file systems it is wrong by a few blocks, and
// Linux accepts that. The places in the AGFL are not compared either, since old
// kernels of 32 and 64 bits disagree on them.
func (g *group) read() error {
	g.length = g.groupLength(g.no)
	// mkfs puts the roots of the trees directly behind the header.
	n := min((g.headerBlocks()+4), g.length) * g.BlockSize
	var err error
	if g.start, err = g.v.Bytes(g.groupOffset(g.no), int(n)); err != nil {
		return err
	}
	taken, err := g.header()
	if err != nil {
		return err
	}
	cnt := &tree{group: g, name: "tree of free extents by size", magics: [2]uint32{0x41425443, 0x41423343}, root: g.agf.CntRoot,
		levels: g.agf.CntLevels}
	bno := &tree{group: g, name: "tree of free extents by place", magics: [2]uint32{0x41425442, 0x41423342}, root: g.agf.BnoRoot,
		levels: g.agf.BnoLevels}
	bySize, byPlace := &tally{}, &tally{}
	for _, t := range []*tree{cnt, bno} {
		if err := t.descend(); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	if err := cnt.records(bySize.size); err != nil {
		return fmt.Errorf("%s: %w", cnt.name, err)
	}
	taken = append(append(taken, cnt.blocks...), bno.blocks...)
	slices.Sort(taken)
	space := &space{group: g, taken: taken, end: g.headerBlocks()}
	err = bno.records(func(r extent) error {
		byPlace.add(r)
		return space.add(r)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", bno.name, err)
	}
	bySize.last = byPlace.last // the only field that depends on the order
	if *bySize != *byPlace {
		return fmt.Errorf("its two trees of free extents differ")
	}
	if byPlace.blocks > uint64(g.agf.FreeBlocks) || byPlace.longest != g.agf.Longest {
		return fmt.Errorf("%d blocks are free, %d of them in one piece; it says %d and %d",
			byPlace.blocks, byPlace.longest, g.agf.FreeBlocks, g.agf.Longest)
	}
	return nil
}

// header checks the four sectors at the group's start. It returns blocks of the
// group that are certainly in use.
func (g *group) header() (taken []uint32, err error) {
	sector := func(i int) block { return block{g.superblock, g.start[i*int(g.SectorSize):][:g.SectorSize]} }
	if g.no > 0 {
		if err := g.isCopy(sector(0)); err != nil {
			return nil, err
		}
	}
	var inodes agi
	for i, s := range []struct {
		name      string
		to        any
		uuid, crc int
	}{{"AGF", &g.agf, agfUUID, agfCRC}, {"AGI", &inodes, agiUUID, agiCRC}} {
		b := sector(1 + i)
		if err = b.decode(s.to); err == nil {
			err = b.sealed(s.crc, s.uuid)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	f := &g.agf
	switch {
	case f.Magic != agfMagic, f.Version != 1, f.Number != g.no, f.Length != g.length:
		return nil, fmt.Errorf("its AGF is not one")
	case inodes.Magic != agiMagic, inodes.Version != 1, inodes.Number != g.no, inodes.Length != g.length:
		return nil, fmt.Errorf("its AGI is not one")
	}
	if err := g.freeList(sector(3)); err != nil {
		return nil, err
	}
	return g.roots(&inodes, sector(2)), nil
}

func (g *group) freeList(b block) error {
	if !g.v5() {
		return nil // it only has block numbers, and nothing to check
	}
	var l agfl
	if err := b.decode(&l); err != nil {
		return err
	}
	if l.Magic != agflMagic || l.Number != g.no {
		return fmt.Errorf("its AGFL is not one")
	}
	if err := b.sealed(agflCRC, agflUUID); err != nil {
		return fmt.Errorf("AGFL: %w", err)
	}
	return nil
}

// roots are the root blocks of the other trees of the group, and the block of
// the root inode if that is in this group.
func (g *group) roots(inodes *agi, b block) []uint32 {
	taken := []uint32{inodes.Root}
	if no, at := g.locate(g.RootInode >> g.InodesLog); no == g.no {
		taken = append(taken, at)
	}
	if !g.v5() {
		return taken
	}
	if g.ROCompat&roCompatFInobt != 0 {
		var root uint32
		if (block{g.superblock, b.b[agiFreeRoot:]}).decode(&root) == nil {
			taken = append(taken, root)
		}
	}
	if g.ROCompat&roCompatRMap != 0 {
		taken = append(taken, g.agf.RMapRoot)
	}
	if g.ROCompat&roCompatReflink != 0 {
		taken = append(taken, g.agf.RefcountRoot)
	}
	return taken
}

// extent is struct xfs_alloc_rec.
type extent struct{ start, n uint32 }

// tally has what must be equal for the extents of both trees.
type tally struct {
	count, blocks, mix uint64
	longest            uint32
	last               extent
}

func (t *tally) add(r extent) {
	t.count++
	t.blocks += uint64(r.n)
	t.longest = max(t.longest, r.n)
	t.last = r
	// mix is a hash that does not depend on the order, and hardly ever is equal
	// for other extents.
	x := uint64(r.start)<<32 | uint64(r.n)
	x = (x ^ x>>31) * 0x9e3779b97f4a7c15
	t.mix += x ^ x>>29
}

// size adds an extent, and fails if it is not in the order of size.
func (t *tally) size(r extent) error {
	if t.count > 0 && (r.n < t.last.n || r.n == t.last.n && r.start <= t.last.start) {
		return fmt.Errorf("it is not in order")
	}
	t.add(r)
	return nil
}

// space collects the free extents in the order of place.
type space struct {
	*group
	taken []uint32 // blocks that may not be free, in order
	end   uint32   // end of the previous extent
}

func (p *space) add(r extent) error {
	end := uint64(r.start) + uint64(r.n)
	// Two extents that touch are only untidy.
	if r.n == 0 || r.start < p.end || end > uint64(p.length) {
		return fmt.Errorf("%d free blocks at block %d of %d, behind block %d, cannot be", r.n, r.start, p.length, p.end)
	}
	for len(p.taken) > 0 && p.taken[0] < r.start {
		p.taken = p.taken[1:]
	}
	if len(p.taken) > 0 && uint64(p.taken[0]) < end {
		return fmt.Errorf("block %d is free and in use", p.taken[0])
	}
	if no, from := p.locate(p.LogStart); no == p.no && uint64(from) < end && r.start < from+p.LogBlocks {
		return fmt.Errorf("a part of the log is free")
	}
	p.end = uint32(end)
	p.free.Add(p.groupOffset(p.no)+int64(r.start)*int64(p.BlockSize), int64(r.n)*int64(p.BlockSize))
	return nil
}

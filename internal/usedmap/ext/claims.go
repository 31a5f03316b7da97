package ext

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/words"
)

// If an inode has a block that its bitmap calls free, e2fsck gives the block
// back to the file. So no such block may be free in the map. All inodes that
// e2fsck checks are checked, with one limit. The inode tables, or the blocks
// that name further blocks (of extents, or indirect ones), may be so many that
// it would take noticeable time. Then a note of the map says what was not
// checked.

const (
	maxTables = 1 << 30 // bytes of inode tables that are read
	maxTree   = 1 << 14 // blocks of extents and indirect blocks that are read
)

// Inodes with numbers of their own (special_inodes.rst).
const (
	badInode   = 1  // has the bad blocks, but neither mode nor links
	lastSystem = 11 // lost+found, in any file system that mke2fs made
)

// Fields of an inode's i_flags (0x20).
const (
	flagExtents = 0x80000
	flagInline  = 0x10000000
)

// claims compares inodes with what is free.
type claims struct {
	f      *fsys
	free   []image.Range // in order
	queue  []node        // blocks still to be read, which name further blocks
	seen   int           // how many blocks were ever queued
	unseen int           // blocks that were not queued, so that their inodes are not checked completely
}

// node is a block that names further blocks of an inode.
type node struct {
	block  uint64
	depth  int // of extents: depth of the node itself; else levels of blocks below
	inode  uint32
	seed   uint32 // of the inode's checksums
	extent bool
}

// checkClaims fails if an inode has a block that is free.
func (f *fsys) checkClaims(free *volume.Free, found *volume.Found) error {
	if f.log != nil && f.log.final == nil {
		found.Note("its journal is so full that the blocks of files were not held against its bitmaps")
		return nil
	}
	c := &claims{f: f, free: free.Ranges()}
	tables := uint64(0)
	for g := range f.groups {
		tables += f.tableInodes(g) * uint64(f.sb.inodeSize)
	}
	some := tables > maxTables || int64(tables) > f.v.Left()/2
	if some {
		found.Note("its inode tables are so large that only the blocks of its own inodes (journal, resize, quota) were held against its " +
			"bitmaps, not those of files")
	}
	if err := c.walk(some); err != nil {
		return err
	}
	if err := c.drain(); err != nil {
		return err
	}
	if c.unseen > 0 {
		found.Note("of %s in many pieces not all blocks were held against its bitmaps", words.Count(c.unseen, "inode"))
	}
	return nil
}

// tableInodes is how many inodes of a group's table may ever have been in use.
func (f *fsys) tableInodes(g int) uint64 {
	n := uint64(f.sb.inodesPerGroup)
	if !f.sb.hasDescSums() {
		return n
	}
	if f.groups[g].inodeUninit {
		return 0
	}
	return n - min(n, uint64(f.groups[g].unusedInodes))
}

// walk checks all inodes, or only the file system's own if some is set.
func (c *claims) walk(some bool) error {
	if !some {
		for g := range c.f.groups {
			if err := c.table(g, 0, c.f.tableInodes(g)); err != nil {
				return err
			}
		}
		return nil
	}
	own := []uint32{c.f.sb.u32(0x240), c.f.sb.u32(0x244), c.f.sb.u32(0x26C), c.f.sb.u32(0x280)} // quotas, orphan file
	for n := uint32(1); n <= lastSystem; n++ {
		own = append(own, n)
	}
	for _, n := range own {
		if n == 0 || n > c.f.sb.inodes {
			continue
		}
		g, in := int((n-1)/c.f.sb.inodesPerGroup), uint64((n-1)%c.f.sb.inodesPerGroup)
		if in < c.f.tableInodes(g) {
			if err := c.table(g, in, in+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// table checks the inodes [from, to) of a group.
func (c *claims) table(g int, from, to uint64) error {
	size, bs := uint64(c.f.sb.inodeSize), uint64(c.f.sb.blockSize)
	per := bs / size
	some := uint64(volume.MaxRead) / bs
	for from < to {
		first := from / per
		n := min(some, (to+per-1)/per-first)
		data, err := c.f.fresh(c.f.groups[g].inodeTable+first, n)
		if err != nil {
			return err
		}
		for ; from < to && from < (first+n)*per; from++ {
			raw := data[(from-first*per)*size:][:size:size]
			number := uint32(uint64(g)*uint64(c.f.sb.inodesPerGroup) + from + 1)
			if err := c.inode(number, raw); err != nil {
				return fmt.Errorf("inode %d: %w", number, err)
			}
		}
	}
	return nil
}

// inode checks the blocks of an inode.
func (c *claims) inode(number uint32, raw []byte) error {
	if le.Uint16(raw[0x1A:]) == 0 && number != badInode { // i_links_count
		return nil
	}
	sb := c.f.sb
	n := &inode{raw: raw}
	if sb.has(roMetadataCsum) {
		n.seed = crc32c(crc32c(sb.seed, le.AppendUint32(nil, number)), raw[0x64:0x68])
		if number != badInode && !n.checkSum() {
			return errors.New("its checksum is wrong")
		}
	}
	acl := uint64(le.Uint32(raw[0x68:]))
	if sb.incompat&incompat64bit != 0 && sb.u32(0x48) == 0 { // s_creator_os: Linux
		acl |= uint64(le.Uint16(raw[0x76:])) << 32
	}
	if acl != 0 && number != badInode {
		if err := c.has(acl, 1); err != nil {
			return err
		}
	}
	flags := le.Uint32(raw[0x20:])
	switch kind := le.Uint16(raw) & 0xF000; {
	case number != badInode && kind != 0x8000 && kind != 0x4000 && kind != 0xA000: // devices, pipes and sockets have no blocks
	case flags&flagInline != 0:
	case flags&flagExtents != 0:
		return c.extents(raw[0x28:0x64], node{depth: -1, inode: number, seed: n.seed, extent: true})
	case kind == 0xA000 && n.size() < 60: // a symbolic link whose text is in the inode itself
	default:
		for i := range 15 {
			if err := c.pointer(uint64(le.Uint32(raw[0x28+4*i:])), node{depth: max(0, i-11), inode: number}); err != nil {
				return err
			}
		}
	}
	return nil
}

// has checks that n blocks of an inode are in use.
func (c *claims) has(at, n uint64) error {
	sb := c.f.sb
	if at < sb.first || at >= sb.blocks || n > sb.blocks-at {
		return fmt.Errorf("it has a block %d, which points outside", at)
	}
	from, end := int64(at)*sb.blockSize, int64(at+n)*sb.blockSize
	i, _ := slices.BinarySearchFunc(c.free, from+1, func(r image.Range, at int64) int { return cmp.Compare(r.End(), at) })
	if i < len(c.free) && c.free[i].Off < end {
		return fmt.Errorf("its bitmap calls block %d free, which the inode has", max(from, c.free[i].Off)/sb.blockSize)
	}
	return nil
}

// pointer checks a pointer of ext2, to a block of data or to a block of further
// pointers.
func (c *claims) pointer(at uint64, n node) error {
	if at == 0 {
		return nil // a hole
	}
	if err := c.has(at, 1); err != nil || n.depth == 0 {
		return err
	}
	n.block = at
	c.add(n)
	return nil
}

// extents checks a node of an extent tree. above.depth is the depth of the node
// that names it, or -1 for the node in the inode.
func (c *claims) extents(b []byte, above node) error {
	count, most, depth := int(le.Uint16(b[2:])), int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if le.Uint16(b) != 0xF30A || count > most || 12+12*most > len(b) || depth > maxDepth || above.depth >= 0 && depth != above.depth-1 {
		return errors.New("its extent tree is broken")
	}
	for i := range count {
		e := b[12+12*i:]
		if depth == 0 {
			n := uint64(le.Uint16(e[4:]))
			if n > 32768 { // allocated, but not written yet
				n -= 32768
			}
			if err := c.has(uint64(le.Uint16(e[6:]))<<32|uint64(le.Uint32(e[8:])), n); err != nil {
				return err
			}
			continue
		}
		n := above
		n.depth, n.block = depth, uint64(le.Uint16(e[8:]))<<32|uint64(le.Uint32(e[4:]))
		if err := c.has(n.block, 1); err != nil {
			return err
		}
		c.add(n)
	}
	return nil
}

// add queues a block to be read.
func (c *claims) add(n node) {
	if c.seen++; c.seen > maxTree {
		c.unseen++
		return
	}
	c.queue = append(c.queue, n)
}

// drain reads the blocks in the queue in the order of the disk, level by level.
func (c *claims) drain() error {
	for len(c.queue) > 0 {
		level := c.queue
		c.queue = nil
		slices.SortFunc(level, func(a, b node) int { return cmp.Compare(a.block, b.block) })
		for _, n := range level {
			if err := c.node(n); err != nil {
				return fmt.Errorf("inode %d: %w", n.inode, err)
			}
		}
	}
	return nil
}

// node checks the blocks that a queued block names.
func (c *claims) node(n node) error {
	b, err := c.f.fresh(n.block, 1)
	if err != nil {
		return err
	}
	if n.extent {
		if c.f.sb.has(roMetadataCsum) && !extentSum(n.seed, b) {
			return errors.New("the checksum of its extents is wrong")
		}
		return c.extents(b, n)
	}
	below := n
	below.depth--
	for i := 0; i < len(b); i += 4 {
		if err := c.pointer(uint64(le.Uint32(b[i:])), below); err != nil {
			return err
		}
	}
	return nil
}

// extentSum checks the checksum at the end of a block of extents.
func extentSum(seed uint32, b []byte) bool {
	tail := 12 + 12*int(le.Uint16(b[4:]))
	return tail+4 <= len(b) && crc32c(seed, b[:tail]) == le.Uint32(b[tail:])
}

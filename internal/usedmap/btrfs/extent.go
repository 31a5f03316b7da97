package btrfs

import (
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// Flags of a struct btrfs_extent_item (BTRFS_EXTENT_FLAG_*).
const (
	extentIsData  = 1 << 0
	extentIsBlock = 1 << 1
)

// extents goes through the chunks together with the extent tree, which has the
// same order. Gaps between extents are free.
type extents struct {
	f    *fs
	free *volume.Free
	log  []image.Range // logical addresses, in order; used, but not in the extent tree yet
	keep uint64        // chunks of these types are used completely
	i    int           // current chunk
	at   int64         // end of the last extent in the current chunk
}

// extentLimit is how many bytes of the extent tree are read on a disk of so
// many bytes. It is enough for millions of extents. They take seconds of a
// processor, but minutes of a spinning disk. The rest, half of the volume's
// budget, is for gaps between blocks that are read at once.
func extentLimit(disk int64) int64 { return min(96<<20+disk/80, 1<<30) }

// readExtents adds to free the bytes of chunks that are in no extent.
func (f *fs) readExtents(free *volume.Free, rs *roots, log []image.Range) error {
	e := &extents{f: f, free: free, log: log}
	if rs.halfDeleted {
		e.keep = forMetadata
	}
	e.enter()
	t := tree{name: "extent tree", owner: extentTree, limit: f.limit, newest: f.sb.generation}
	t.item = func(k key, data []byte) error {
		switch k.kind {
		case extentItem, metadataItem:
			return e.extent(k, data)
		case treeBlockRef, extentDataRef, sharedBlock, sharedData:
			return nil // these say who uses the extent before them
		case blockGroup:
			if rs.groups.at == 0 {
				return f.group(k, data)
			}
		}
		return t.unknown(k)
	}
	if err := f.walk(&t, rs.extent); err != nil {
		return err
	}
	for e.i < len(f.chunks) {
		e.leave()
	}
	if err := f.readGroups(rs.groups); err != nil {
		return err
	}
	return f.checkGroups()
}

// extent handles an item of the extent tree. The key has the extent's address
// and length. In a METADATA_ITEM it has the level instead of the length, which
// is that of a block.
func (e *extents) extent(k key, data []byte) error {
	if len(data) < 24 {
		return fmt.Errorf("the extent at %d cannot be read", k.object)
	}
	flags, n := le64(data[16:]), k.offset
	if k.kind == metadataItem {
		n = uint64(e.f.sb.node)
	}
	isBlock := flags&extentIsBlock != 0
	switch {
	case k.kind == metadataItem && (e.f.sb.inc&incSkinny == 0 || k.offset > maxLevel || !isBlock):
		return fmt.Errorf("the block at %d has an item that cannot be", k.object)
	case isBlock == (flags&extentIsData != 0) || isBlock && n != uint64(e.f.sb.node):
		return fmt.Errorf("the extent at %d is neither data nor a block of a tree", k.object)
	case n == 0 || n > maxAddress || k.object > maxAddress || (k.object|n)%uint64(e.f.sb.sector) != 0:
		return fmt.Errorf("the extent at %d has %d bytes", k.object, n)
	}
	return e.used(int64(k.object), int64(n))
}

// used advances to an extent, and frees the gap before it.
func (e *extents) used(start, n int64) error {
	for e.i < len(e.f.chunks) && e.f.chunks[e.i].end() <= start {
		e.leave()
	}
	if e.i == len(e.f.chunks) || start < e.f.chunks[e.i].start || n > e.f.chunks[e.i].end()-start {
		return fmt.Errorf("the extent at %d lies in no chunk", start)
	}
	if start < e.at {
		return fmt.Errorf("the extent at %d overlaps another", start)
	}
	e.gap(start)
	e.at = start + n
	e.f.chunks[e.i].used += n
	return nil
}

// leave ends the current chunk and enters the next one.
func (e *extents) leave() {
	e.gap(e.f.chunks[e.i].end())
	e.i++
	e.enter()
}

func (e *extents) enter() {
	if e.i < len(e.f.chunks) {
		e.at = e.f.chunks[e.i].start
	}
}

// gap frees the bytes from e.at to end, without those that the log uses.
func (e *extents) gap(end int64) {
	at := e.at
	for len(e.log) > 0 && e.log[0].Off < end {
		r := e.log[0]
		e.add(at, min(r.Off, end))
		at = max(at, r.End())
		if at > end {
			break // r may reach into the next gap
		}
		e.log = e.log[1:]
	}
	e.add(at, end)
}

// add frees a part of the current chunk, in all its places on the device.
func (e *extents) add(from, to int64) {
	c := &e.f.chunks[e.i]
	if c.kind&e.keep != 0 {
		return
	}
	for _, off := range c.copies() {
		e.free.Add(off+from-c.start, to-from)
	}
}

// readGroups reads the block groups if they have a tree of their own.
func (f *fs) readGroups(root pointer) error {
	if root.at == 0 {
		return nil
	}
	t := tree{name: "block group tree", owner: blockGroupTree, limit: 64 << 20, newest: f.sb.generation}
	t.item = func(k key, data []byte) error {
		if k.kind != blockGroup {
			return t.unknown(k)
		}
		return f.group(k, data)
	}
	return f.walk(&t, root)
}

// group handles a struct btrfs_block_group_item. Linux does not mount if it
// differs from its chunk (check_chunk_block_group_mappings).
func (f *fs) group(k key, data []byte) error {
	if k.object > maxAddress || len(data) < 24 {
		return fmt.Errorf("the block group at %d cannot be read", k.object)
	}
	i := f.find(int64(k.object))
	if i < 0 || k.offset != uint64(f.chunks[i].length) || (le64(data[16:])^f.chunks[i].kind)&forMask != 0 {
		return fmt.Errorf("the block group at %d has no such chunk", k.object)
	}
	c := &f.chunks[i]
	if c.grouped || le64(data) > uint64(c.length) {
		return fmt.Errorf("the block group at %d has %d bytes used, or is there twice", k.object, le64(data))
	}
	c.grouped, c.says = true, int64(le64(data))
	return nil
}

// checkGroups compares the used bytes of each block group with the sum of its
// extents. One commit writes both.
func (f *fs) checkGroups() error {
	for _, c := range f.chunks {
		if !c.grouped {
			return fmt.Errorf("the chunk at %d has no block group", c.start)
		}
		if c.used != c.says {
			return fmt.Errorf("the block group at %d counts %d bytes as used, its extents have %d", c.start, c.says, c.used)
		}
	}
	return nil
}

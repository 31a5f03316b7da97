package btrfs

import (
	"cmp"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Numbers of trees (BTRFS_*_TREE_OBJECTID).
const (
	rootTree, extentTree, chunkTree, devTree = 1, 2, 3, 4
	blockGroupTree                           = 11
	logTree                                  = ^uint64(5) // -6
)

// Types of items (BTRFS_*_KEY).
const (
	extentData    = 108
	rootItem      = 132
	extentItem    = 168
	metadataItem  = 169
	treeBlockRef  = 176
	extentDataRef = 178
	sharedBlock   = 182
	sharedData    = 184
	blockGroup    = 192
	devExtent     = 204
	devItem       = 216
	chunkItem     = 228
	devReplace    = 250
)

const (
	chunkObject = 256 // key.object of all chunks
	keySize     = 17  // struct btrfs_disk_key
	headerSize  = 101 // struct btrfs_header
	itemSize    = 25  // struct btrfs_item
	ptrSize     = 33  // struct btrfs_key_ptr

	readLeaves = volume.MaxRead // bytes of leaves that are read at once
	readInner  = 256 << 10      // bytes of other blocks; each level keeps so much in memory
)

// key is struct btrfs_disk_key. Trees are sorted by its fields, in this order.
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

func parseKey(b []byte) key { return key{le64(b), b[8], le64(b[9:])} }

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

// pointer names a block of a tree, and has what the block must contain.
type pointer struct {
	at         uint64 // logical
	generation uint64
	level      uint8
	child      bool // not a root, so the block is not empty and starts with first
	first      key
}

// tree is a tree that is being read.
type tree struct {
	name   string
	owner  uint64
	limit  int64  // bytes of blocks that may still be read
	newest uint64 // the latest generation that a block may have
	item   func(k key, data []byte) error
	block  func(at uint64) // called for each block, if not nil

	began bool
	last  key
}

// unknown is the error for an item of a type that the tree should not have.
func (t *tree) unknown(k key) error {
	return fmt.Errorf("its %s has items of the unknown type %d", t.name, k.kind)
}

// walk calls t.item for all items of a tree, in the order of their keys.
func (f *fs) walk(t *tree, root pointer) error { return f.walkAll(t, []pointer{root}) }

// walkAll is walk for several blocks of the same level. A block's level is one
// less than that of its parent, so no block can be its own ancestor.
func (f *fs) walkAll(t *tree, ptrs []pointer) error {
	for len(ptrs) > 0 {
		n := readInner / f.sb.node
		if ptrs[0].level == 0 {
			n = readLeaves / f.sb.node
		}
		batch := ptrs[:min(int64(len(ptrs)), n)]
		ptrs = ptrs[len(batch):]
		blocks, err := f.blocks(t, batch)
		if err != nil {
			return err
		}
		for i, p := range batch {
			if err := f.visit(t, p, blocks[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit checks a block and walks the blocks below it.
func (f *fs) visit(t *tree, p pointer, b []byte) error {
	if err := f.checkBlock(t, p, b); err != nil {
		return fmt.Errorf("a block of its %s (at %d): %w", t.name, p.at, err)
	}
	if t.block != nil {
		t.block(p.at)
	}
	if p.level == 0 {
		return f.items(t, p, b)
	}
	children := make([]pointer, le32(b[96:]))
	for i := range children {
		k := b[headerSize+ptrSize*i:]
		children[i] = pointer{le64(k[keySize:]), le64(k[keySize+8:]), p.level - 1, true, parseKey(k)}
	}
	return f.walkAll(t, children)
}

// items calls t.item for the items of a leaf. The data of the items is at the
// end of the leaf, in the opposite order and without gaps.
func (f *fs) items(t *tree, p pointer, b []byte) error {
	n := int(le32(b[96:]))
	end := uint32(len(b) - headerSize)
	for i := range n {
		it := b[headerSize+itemSize*i:]
		k, off, size := parseKey(it), le32(it[keySize:]), le32(it[keySize+4:])
		if t.began && k.compare(t.last) <= 0 {
			return fmt.Errorf("a block of its %s (at %d): its keys are not in order", t.name, p.at)
		}
		if size > end || off != end-size || off < uint32(n*itemSize) {
			return fmt.Errorf("a block of its %s (at %d): its items overlap", t.name, p.at)
		}
		if err := t.item(k, b[headerSize+off:headerSize+off+size]); err != nil {
			return err
		}
		t.began, t.last, end = true, k, off
	}
	return nil
}

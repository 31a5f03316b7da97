package xfs

import (
	"encoding/binary"
	"fmt"
)

const (
	// maxLevels is XFS_BTREE_MAXLEVELS, which no tree of free space reaches.
	maxLevels = 9
	// maxTreeBlocks bounds the memory for a group. In a group of 1 TiB with
	// blocks of 4 KiB, of which every other one is free, the tree has half as
	// many blocks.
	maxTreeBlocks = 1 << 20
	// maxRun is how many bytes of consecutive blocks are read at once.
	maxRun = 256 << 10
)

// tree is a tree of free extents. It is read level by level, so that the
// neighbours that each block names can be checked. That also ends every loop,
// because a block that occurs twice would have two left neighbours.
type tree struct {
	*group
	name         string
	magics       [2]uint32 // of version 4 and 5
	root, levels uint32

	blocks []uint32 // all blocks, level by level from the root
	leaves []uint32 // blocks of the lowest level
}

// treeBlock is the start of struct xfs_btree_block in its short form.
type treeBlock struct {
	Magic         uint32
	Level, Number uint16
	Left, Right   uint32

	// The rest is only in version 5.
	Address uint64 // in basic blocks of the disk
	_       uint64
	UUID    [16]byte
	Group   uint32
	CRC     uint32
}

const treeUUID, treeCRC = 32, 52

// headerSize is the length of a tree block's header.
func (t *tree) headerSize() uint32 {
	if t.v5() {
		return 56
	}
	return 16
}

// descend finds all blocks of the tree, and reads all but the lowest level.
func (t *tree) descend() error {
	if t.levels < 1 || t.levels > maxLevels {
		return fmt.Errorf("it has %d levels", t.levels)
	}
	level := []uint32{t.root}
	t.blocks = level
	for l := t.levels - 1; l > 0; l-- {
		var next []uint32
		err := t.each(level, l, func(b []byte, n uint32) error {
			// The pointers come behind the room for all keys of 8 bytes.
			at := t.headerSize() + (t.BlockSize-t.headerSize())/12*8
			for i := range n {
				next = append(next, binary.BigEndian.Uint32(b[at+4*i:]))
			}
			if len(t.blocks)+len(next) > maxTreeBlocks {
				return fmt.Errorf("it has too many blocks")
			}
			return nil
		})
		if err != nil {
			return err
		}
		t.blocks = append(t.blocks, next...)
		level = next
	}
	t.leaves = level
	return nil
}

// records reads the lowest level, in the order of the tree.
func (t *tree) records(do func(extent) error) error {
	return t.each(t.leaves, 0, func(b []byte, n uint32) error {
		for i := range n {
			rec := b[t.headerSize()+8*i:]
			if err := do(extent{binary.BigEndian.Uint32(rec), binary.BigEndian.Uint32(rec[4:])}); err != nil {
				return err
			}
		}
		return nil
	})
}

// each reads and checks the blocks of a level, and calls do with each. n is how
// many entries the block has.
func (t *tree) each(level []uint32, l uint32, do func(b []byte, n uint32) error) error {
	size := int(t.BlockSize)
	for i := 0; i < len(level); {
		run := 1
		for i+run < len(level) && level[i+run] == level[i]+uint32(run) && (run+1)*size <= maxRun {
			run++
		}
		b, err := t.bytes(level[i], run)
		if err != nil {
			return err
		}
		for ; run > 0; run, i, b = run-1, i+1, b[size:] {
			n, err := t.check(b[:size], level, i, l)
			if err == nil {
				err = do(b[:size], n)
			}
			if err != nil {
				return fmt.Errorf("block %d: %w", level[i], err)
			}
		}
	}
	return nil
}

// bytes reads n blocks of the group. Often they are among the first ones, which
// were read already.
func (t *tree) bytes(at uint32, n int) ([]byte, error) {
	if at < t.headerBlocks() || uint64(at)+uint64(n) > uint64(t.length) {
		return nil, fmt.Errorf("it points to block %d of %d", at, t.length)
	}
	from, size := int64(at)*int64(t.BlockSize), n*int(t.BlockSize)
	if from+int64(size) <= int64(len(t.start)) {
		return t.start[from : from+int64(size)], nil
	}
	return t.v.Bytes(t.groupOffset(t.no)+from, size)
}

// check checks block i of a level.
func (t *tree) check(b []byte, level []uint32, i int, l uint32) (entries uint32, err error) {
	var h treeBlock
	blk := block{t.superblock, b}
	if err := blk.decode(&h); err != nil {
		return 0, err
	}
	if err := blk.sealed(treeCRC, treeUUID); err != nil {
		return 0, err
	}
	left, right := uint32(nullBlock), uint32(nullBlock)
	if i > 0 {
		left = level[i-1]
	}
	if i < len(level)-1 {
		right = level[i+1]
	}
	entries, entry, magic := uint32(h.Number), uint32(8), t.magics[0]
	if l > 0 {
		entry = 12
	}
	if t.v5() {
		magic = t.magics[1]
		at := uint64(t.groupOffset(t.no)+int64(level[i])*int64(t.BlockSize)) / basicBlock
		if h.Address != at || h.Group != t.no {
			return 0, fmt.Errorf("it belongs elsewhere")
		}
	}
	switch {
	case h.Magic != magic, uint32(h.Level) != l, entries > (t.BlockSize-t.headerSize())/entry:
		return 0, fmt.Errorf("it is not a block of level %d", l)
	case h.Left != left, h.Right != right:
		return 0, fmt.Errorf("its neighbours are not those of its level")
	case entries == 0 && t.levels > 1:
		return 0, fmt.Errorf("it is empty")
	}
	return entries, nil
}

// Package ext maps ext2, ext3 and ext4.
//
// The format is described in Documentation/filesystems/ext4 of Linux
// (super.rst, group_descr.rst, blockgroup.rst, bitmaps.rst, mmp.rst,
// journal.rst). What is not described there follows the behaviour of fs/ext4
// and fs/jbd2. Where kernel and e2fsck differ, the map must be right for both,
// or there is doubt.
//
// The block bitmaps say what is free. They are believed if all redundant data
// agrees:
//
//   - checksums, where the file system has them
//   - the free count of each bitmap with that of its descriptor, and their sum
//     with that of the superblock
//   - the places of the file system's own structures with the bits for them
//   - a backup superblock with the first one
//   - the blocks of inodes with what is free
//
// A file system whose power failed needs recovery. Its journal is then replayed
// in memory, and all checks are made with the result. See log.go.
package ext

import (
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

var errNone = errors.New("no ext superblock")

// fsys is a file system that is being read.
type fsys struct {
	v      *volume.Volume
	sb     *super
	groups []group
	log    *replay // nil if there is nothing to replay
}

// Read maps a volume.
func Read(v *volume.Volume) (*volume.Found, error) {
	raw, err := v.Bytes(superAt, superSize)
	if err != nil {
		return nil, err
	}
	sb := parseSuper(raw)
	if sb == nil {
		return nil, errNone
	}
	found := &volume.Found{FS: sb.kind(), Label: sb.label(), UUID: volume.UUID(sb.uuid)}
	if err := sb.check(v.Size()); err != nil {
		return found, err
	}
	found.Size = int64(sb.blocks) * sb.blockSize
	f := &fsys{v: v, sb: sb}
	free, err := f.read(found)
	if err != nil {
		return found, err
	}
	found.Free = free
	return found, nil
}

func (f *fsys) read(found *volume.Found) (*volume.Free, error) {
	if err := f.checkBackup(); err != nil {
		return nil, err
	}
	if err := f.loadGroups(); err != nil {
		return nil, err
	}
	if err := f.checkMMP(); err != nil {
		return nil, err
	}
	var used spans
	if f.sb.incompat&incompatMMP != 0 {
		used.add(f.sb.mmpBlock, 1)
	}
	if f.sb.journalInode != 0 {
		j, err := f.openJournal()
		if err != nil {
			return nil, fmt.Errorf("its journal: %w", err)
		}
		used = append(used, j.places...)
		if err := f.recover(j, found); err != nil {
			return nil, fmt.Errorf("its journal: %w", err)
		}
	}
	free, err := f.mapFree()
	if err != nil {
		return nil, err
	}
	if err := checkUsed(free, used, f.sb.blockSize); err != nil {
		return nil, err
	}
	return free, f.checkClaims(free, found)
}

// checkUsed fails if the journal or the multi-mount block is in a free block.
// Like the blocks of files, they have no fixed place.
func checkUsed(free *volume.Free, used spans, blockSize int64) error {
	used.sort()
	ranges := free.Ranges()
	for _, p := range used {
		at, end := int64(p.at)*blockSize, int64(p.end())*blockSize
		for len(ranges) > 0 && ranges[0].End() <= at {
			ranges = ranges[1:]
		}
		if len(ranges) > 0 && ranges[0].Off < end {
			return fmt.Errorf("its bitmaps have its journal or its multi-mount block as free")
		}
	}
	return nil
}

// blocks reads blocks of the map (see matter) as they are after a replay, or
// from the disk if there is none.
func (f *fsys) blocks(at, n uint64) ([]byte, error) {
	data, err := f.v.Bytes(int64(at)*f.sb.blockSize, int(n)*int(f.sb.blockSize))
	if err != nil || f.log == nil {
		return data, err
	}
	return data, f.log.overlay(data, at)
}

// fresh reads any blocks as they are after a replay of the journal. blocks only
// does so for the blocks that the map is made of (see matter).
func (f *fsys) fresh(at, n uint64) ([]byte, error) {
	data, err := f.v.Bytes(int64(at)*f.sb.blockSize, int(n)*int(f.sb.blockSize))
	if err != nil || f.log == nil {
		return data, err
	}
	for i := range n {
		v, ok := f.log.final[at+i]
		if !ok {
			continue
		}
		b, err := f.log.read(v)
		if err != nil {
			return nil, err
		}
		copy(data[int64(i)*f.sb.blockSize:], b)
	}
	return data, nil
}

// checkBackup checks one copy of the superblock. Copies are not kept up to
// date, but the layout in them is valid. If a copy is missing, something else
// was written to its place.
func (f *fsys) checkBackup() error {
	for g := 1; g < f.sb.groups; g++ {
		if !f.sb.hasSuper(g) {
			continue
		}
		raw, err := f.v.Bytes(int64(f.sb.groupStart(g))*f.sb.blockSize, superSize)
		if err != nil {
			return err
		}
		s := parseSuper(raw)
		if s == nil || s.blockLog != f.sb.blockLog || s.perGroup != f.sb.perGroup ||
			s.inodesPerGroup != f.sb.inodesPerGroup || s.first != f.sb.first {
			return fmt.Errorf("its backup superblock in group %d is overwritten or of another file system", g)
		}
		break
	}
	return nil
}

// checkMMP checks the block by which computers that share a disk notice each
// other (mmp.rst). If another one had mounted the file system, it only needs
// recovery. But a repair that did not end may have left anything.
func (f *fsys) checkMMP() error {
	if f.sb.incompat&incompatMMP == 0 {
		return nil
	}
	const magic, fsck, sumAt = 0x004D4D50, 0xE24D4D50, 0x3FC
	if f.sb.mmpBlock < f.sb.first || f.sb.mmpBlock >= f.sb.blocks {
		return fmt.Errorf("its multi-mount block is block %d", f.sb.mmpBlock)
	}
	b, err := f.v.Bytes(int64(f.sb.mmpBlock)*f.sb.blockSize, 1024)
	switch {
	case err != nil:
		return err
	case le.Uint32(b) != magic:
		return fmt.Errorf("its multi-mount block has no magic")
	case f.sb.has(roMetadataCsum) && crc32c(f.sb.seed, b[:sumAt]) != le.Uint32(b[sumAt:]):
		return fmt.Errorf("the checksum of its multi-mount block is wrong")
	case le.Uint32(b[4:]) == fsck:
		return fmt.Errorf("e2fsck was running on it")
	}
	return nil
}

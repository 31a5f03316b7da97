// Package ext maps ext2, ext3 and ext4.
//
// The format is that of Documentation/filesystems/ext4 of Linux (super.rst,
// group_descr.rst, blockgroup.rst, bitmaps.rst, mmp.rst, journal.rst); what it
// does not tell is from fs/ext4 and fs/jbd2 as they behave. Where kernel and
// e2fsck differ, both must be right, or there is doubt.
//
// What is free is what the block bitmaps say. They are believed when all that
// is redundant agrees: checksums where the file system has them, each bitmap's
// free count with its descriptor's, all of them with the superblock's, the
// places of the file system's own structures with the bits for them, a backup
// superblock with the first, and what inodes have with what is free.
//
// A file system whose power failed needs recovery: the journal is then replayed
// in memory, and all checks are made of what comes out. See log.go.
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
	log    *replay // nil: there is nothing to be replayed
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

// checkUsed wants what the file system keeps in blocks like those of files in
// use: its journal, and its multi-mount block.
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

// blocks reads blocks as they are on the disk, or after the replay.
func (f *fsys) blocks(at, n uint64) ([]byte, error) {
	data, err := f.v.Bytes(int64(at)*f.sb.blockSize, int(n)*int(f.sb.blockSize))
	if err != nil || f.log == nil {
		return data, err
	}
	return data, f.log.overlay(data, at)
}

// fresh reads any blocks as they are after a replay of the journal. blocks does so
// only for those that the map is made of (see matter).
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

// checkBackup looks at one copy of the superblock. Copies are not kept up to
// date, but the shape is theirs too; where there is none, something else was
// written there.
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

// checkMMP looks at the block by which computers that share a disk see each
// other (mmp.rst). That one had it mounted means no more than that it needs
// recovery; but a repair that did not end may have left anything.
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

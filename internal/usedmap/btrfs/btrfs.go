// Package btrfs maps Btrfs file systems of one device.
//
// The format is from the "On-disk format" page of btrfs.readthedocs.io, and
// from the structures of include/uapi/linux/btrfs_tree.h and btrfs.h of Linux.
// Comments name structures as these headers do. All numbers are little endian.
//
// Btrfs allocates its device in two steps. Chunks map runs of a logical address
// space to one place of the device ("single") or to two ("dup"). Bytes that are
// in no chunk are free. Inside the chunks, the extent tree lists at logical
// addresses all that is used: data extents and the blocks of all trees.
//
// A file system that was not unmounted needs no special care, except for its
// log. The blocks that the last written superblock reaches are not overwritten
// before the next superblock is on the disk. The extent tree among them counts
// them all: snapshots, subvolumes and relocations that are half deleted or half
// done, preallocated space, the free space cache's files, the extent tree
// itself. Only the log of fsync, and the data that it names, are in no extent
// tree (see log.go).
//
// The superblock also names backup roots, which are older generations for
// rescue mounts. Their blocks may be free, on a running system and in the map.
package btrfs

import (
	"errors"
	"fmt"
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

// errLarge means that a tree is too large to be read completely.
var errLarge = errors.New("a tree has more blocks than are read of it")

// fs is a file system that is being read.
type fs struct {
	v      *volume.Volume
	sb     *super
	limit  int64   // bytes of the extent tree that are read
	chunks []chunk // sorted by logical address; at first only those of the superblock
	needed []int64 // bytes of the device where blocks of trees are, which must not be free
}

// Read maps the volume.
func Read(v *volume.Volume) (*volume.Found, error) { return readLimited(v, extentLimit(v.Size())) }

func readLimited(v *volume.Volume, limit int64) (*volume.Found, error) {
	found, sb, err := readSuper(v)
	if err != nil {
		return found, err
	}
	f := &fs{v: v, sb: sb, limit: limit}
	if err := f.read(found); err != nil {
		found.Free = nil
		return found, err
	}
	return found, nil
}

func (f *fs) read(found *volume.Found) error {
	if err := f.readChunks(); err != nil {
		return err
	}
	roots, err := f.readRoots()
	if err != nil {
		return err
	}
	if err := f.matchDevExtents(roots.dev); err != nil {
		return err
	}
	found.Free = f.unallocated()
	log, err := f.readLog()
	if err == nil {
		err = f.readExtents(found.Free, roots, log)
	}
	switch {
	case errors.Is(err, errLarge):
		found.Free = f.unallocated()
		found.Note("all of its block groups count as used: its extent tree or its log is too large to be read")
	case err != nil:
		return err
	case f.sb.logRoot != 0:
		found.Note("it was not cleanly unmounted: what its log names counts as used")
	}
	found.Free.Cut(0, reserved)
	if roots.halfDeleted {
		found.Note("its block groups of metadata count as used: a subvolume is half deleted")
	}
	for _, off := range superblocks {
		found.Free.Cut(off, superblockRoom)
	}
	return f.keepsNeeded(found.Free)
}

// unallocated returns the bytes that are in no chunk. The first MiB is used, by
// boot loaders and the superblock (BTRFS_DEVICE_RANGE_RESERVED).
func (f *fs) unallocated() *volume.Free {
	free := &volume.Free{}
	at := int64(reserved)
	for _, s := range f.stripes() {
		free.Add(at, s.off-at)
		at = max(at, s.off+s.length)
	}
	free.Add(at, f.sb.size-at)
	return free
}

// need records that a tree has a block at this logical address. Then none of
// its copies on the device may be free.
func (f *fs) need(at uint64) error {
	c, err := f.chunkOf(at, f.sb.node)
	if err != nil {
		return err
	}
	for _, off := range c.copies() {
		f.needed = append(f.needed, off+int64(at)-c.start)
	}
	return nil
}

// keepsNeeded fails if the map calls a block free that is certainly in use: one
// that was read to make the map, or the root of another tree (see need).
func (f *fs) keepsNeeded(free *volume.Free) error {
	slices.Sort(f.needed)
	ranges := free.Ranges()
	for _, off := range f.needed {
		for len(ranges) > 0 && ranges[0].End() <= off {
			ranges = ranges[1:]
		}
		if len(ranges) > 0 && ranges[0].Off < off+f.sb.node {
			return fmt.Errorf("its extent tree says that a block of a tree (at byte %d) is free", off)
		}
	}
	return nil
}

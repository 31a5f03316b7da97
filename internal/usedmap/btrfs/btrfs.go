// Package btrfs reads which bytes a Btrfs file system of one device uses.
//
// Format: the "On-disk format" page of btrfs.readthedocs.io, and the structures
// of include/uapi/linux/btrfs_tree.h and btrfs.h of Linux, whose names the
// comments here give. All numbers are little endian.
//
// Btrfs gives its device away in two steps. Chunks map runs of a logical
// address space to one place of the device ("single") or to two ("dup"); what
// no chunk has is free. Inside the chunks the extent tree lists all that is
// used, at logical addresses: data extents and the blocks of all trees.
//
// A file system that was not unmounted needs no special care, but for its log.
// Nothing that the last written superblock reaches is overwritten before the
// next one is on the disk, and the extent tree that it reaches counts all of
// it: snapshots, subvolumes and relocations that are half deleted or half done,
// preallocated room, the free space cache's files, the extent tree itself. Only
// the log of fsync is in no extent tree, nor is the data that it names: see
// log.go.
//
// The superblock also names backup roots, older generations for rescue mounts.
// Their blocks may be free, on a running system as in the map.
package btrfs

import (
	"errors"
	"fmt"
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

// errLarge is a tree that is too large to be read whole.
var errLarge = errors.New("a tree has more blocks than are read of it")

// fs is a file system that is being read.
type fs struct {
	v      *volume.Volume
	sb     *super
	limit  int64   // bytes of the extent tree that are read
	chunks []chunk // by their logical addresses, first those of the superblock alone
	needed []int64 // where on the device blocks of trees lie that the map must keep
}

// Read says what of the volume is free.
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

// unallocated is what no chunk has. The first MiB belongs to boot loaders and
// to the superblock (BTRFS_DEVICE_RANGE_RESERVED).
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

// need notes that a tree has a block at this logical address, so that none of its
// copies on the device may be called free.
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

// keepsNeeded is an error if the map calls a block free that surely is in use: one
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

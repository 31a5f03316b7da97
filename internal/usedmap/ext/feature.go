package ext

import "fmt"

// The features that the code asks for, by their names in mke2fs(8) and ext4(5).
const (
	compatJournal      = 0x4
	compatSparseSuper2 = 0x200
	compatFastCommit   = 0x400

	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompatExtents  = 0x40
	incompat64bit    = 0x80
	incompatMMP      = 0x100
	incompatFlexBG   = 0x200
	incompatCsumSeed = 0x2000

	roSparseSuper  = 0x1
	roGdtCsum      = 0x10
	roBigalloc     = 0x200
	roMetadataCsum = 0x400
)

// feature is what a feature flag means for the map.
type feature struct {
	bit  uint32
	name string
	// doubt is the reason why there is no map. It is "" for a feature that is
	// handled here, or that does not change which blocks are used.
	doubt string
}

// The flags of s_feature_compat, s_feature_incompat and s_feature_ro_compat
// (superblock 0x5C, 0x60, 0x64), from the kernel's fs/ext4/ext4.h,
// Documentation/filesystems/ext4/super.rst and e2fsprogs' lib/ext2fs/ext2_fs.h.
// Features that concern the content of a file and the way to its blocks
// (extents, inline_data, encrypt, verity, casefold, ea_inode, large_dir, quota,
// ...) make no doubt, since all its blocks are marked in the bitmaps.
var (
	compatFeatures = []feature{
		{0x1, "dir_prealloc", ""},
		{0x2, "imagic_inodes", ""},
		{compatJournal, "has_journal", ""},
		{0x8, "ext_attr", ""},
		{0x10, "resize_inode", ""},
		{0x20, "dir_index", ""},
		{0x40, "lazy_bg", "groups without bitmaps and checksums"},
		{0x80, "exclude_inode", "snapshots of Next3"},
		{0x100, "exclude_bitmap", "snapshots of Next3"},
		{compatSparseSuper2, "sparse_super2", ""},
		{compatFastCommit, "fast_commit", ""},
		{0x800, "stable_inodes", ""},
		{0x1000, "orphan_file", ""},
	}
	incompatFeatures = []feature{
		{0x1, "compression", "a feature that no kernel has"},
		{0x2, "filetype", ""},
		{incompatRecover, "needs_recovery", ""},
		{0x8, "journal_dev", "the journal of another file system"},
		{incompatMetaBG, "meta_bg", ""},
		{incompatExtents, "extents", ""},
		{incompat64bit, "64bit", ""},
		{incompatMMP, "mmp", ""},
		{incompatFlexBG, "flex_bg", ""},
		{0x400, "ea_inode", ""},
		{0x1000, "dirdata", ""},
		{incompatCsumSeed, "metadata_csum_seed", ""},
		{0x4000, "large_dir", ""},
		{0x8000, "inline_data", ""},
		{0x10000, "encrypt", ""},
		{0x20000, "casefold", ""},
	}
	roFeatures = []feature{
		{roSparseSuper, "sparse_super", ""},
		{0x2, "large_file", ""},
		{0x4, "btree_dir", ""},
		{0x8, "huge_file", ""},
		{roGdtCsum, "uninit_bg", ""},
		{0x20, "dir_nlink", ""},
		{0x40, "extra_isize", ""},
		{0x80, "has_snapshot", "snapshots of Next3"},
		{0x100, "quota", ""},
		{roBigalloc, "bigalloc", ""},
		{roMetadataCsum, "metadata_csum", ""},
		{0x800, "replica", "a feature that no kernel has"},
		{0x1000, "read-only", ""},
		{0x2000, "project", ""},
		{0x4000, "shared_blocks", ""},
		{0x8000, "verity", ""},
		{0x10000, "orphan_present", ""},
	}
)

func (s *super) checkFeatures() error {
	for _, kind := range []struct {
		name  string
		flags uint32
		known []feature
	}{
		{"compatible", s.compat, compatFeatures},
		{"incompatible", s.incompat, incompatFeatures},
		{"read-only compatible", s.roCompat, roFeatures},
	} {
		left := kind.flags
		for _, f := range kind.known {
			if left&f.bit != 0 && f.doubt != "" {
				return fmt.Errorf("it has the feature %s (%s)", f.name, f.doubt)
			}
			left &^= f.bit
		}
		if left != 0 {
			return fmt.Errorf("it has the unknown %s feature %#x", kind.name, left)
		}
	}
	if s.rev == 0 && s.compat|s.incompat|s.roCompat != 0 {
		return fmt.Errorf("it is of revision 0, which has no features, and has some")
	}
	return nil
}

// kind is the type as blkid names it. ext2 and ext3 are the file systems that
// their old drivers can read and write.
func (s *super) kind() string {
	const ext2Incompat, ext2RO = 0x2 | incompatMetaBG, roSparseSuper | 0x2 | 0x4
	journal := s.compat&compatJournal != 0
	switch {
	case s.incompat&^(ext2Incompat|incompatRecover) != 0 || s.roCompat&^ext2RO != 0:
		return "ext4"
	case journal:
		return "ext3"
	case s.incompat&incompatRecover != 0:
		return "ext4"
	}
	return "ext2"
}

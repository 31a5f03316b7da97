package btrfs

import "fmt"

// Incompatible features (BTRFS_FEATURE_INCOMPAT_*) that change how the map is
// read.
const (
	incMixedBackref = 1 << 0  // extent items in the form of 2009 and later
	incSkinny       = 1 << 8  // METADATA_ITEMs
	incMetadataUUID = 1 << 10 // blocks of trees have another UUID than the superblock
)

// incKnown are the incompatible features that the map understands. Those
// without a name above do not matter for it. They change how files, names and
// references are written, or which sizes and profiles are possible.
const incKnown = incMixedBackref |
	1<<1 | // DEFAULT_SUBVOL
	1<<2 | // MIXED_GROUPS, data and blocks of trees in the same chunks
	1<<3 | // COMPRESS_LZO, where an extent's length is that on the disk
	1<<4 | // COMPRESS_ZSTD
	1<<5 | // BIG_METADATA, blocks of trees larger than a page
	1<<6 | // EXTENDED_IREF
	1<<7 | // RAID56
	incSkinny |
	1<<9 | // NO_HOLES
	incMetadataUUID |
	1<<11 | // RAID1C34
	1<<16 // SIMPLE_QUOTA, one more inline reference in extent items

// roKnown are the features that forbid only writing (COMPAT_RO_*).
const (
	roBlockGroupTree = 1 << 3 // block groups have a tree of their own

	roKnown = 1<<0 | // FREE_SPACE_TREE, which repeats what the extent tree says
		1<<1 | // FREE_SPACE_TREE_VALID
		1<<2 | // VERITY, whose hashes are items of trees
		roBlockGroupTree
)

// Features and states (BTRFS_SUPER_FLAG_*) that are known and make doubt.
var (
	incDoubtful = map[uint64]string{
		1 << 12: "it is made for zoned devices",
		1 << 13: "it has several extent trees (extent-tree-v2)",
		1 << 14: "its data is found by a tree of RAID stripes (raid-stripe-tree)",
		1 << 15: "it is encrypted",
		1 << 17: "its chunks may be remapped (remap-tree)",
	}
	flagDoubtful = map[uint64]string{
		1 << 2:  "it had an error",
		1 << 32: "it is the seed of other file systems",
		1 << 33: "it is a copy of the metadata alone",
		1 << 34: "it is a copy of the metadata alone",
		1 << 35: "the change of its UUID was interrupted",
		1 << 36: "the change of its UUID was interrupted",
		1 << 38: "the change of its block group tree was interrupted",
		1 << 39: "the change of its checksums was interrupted",
		1 << 40: "the change of its checksums was interrupted",
	}
)

// flagKnown are flags that every superblock may have: that the block was
// written and, from some tools, that it was relocated (BTRFS_HEADER_FLAG_*).
const flagKnown = 1<<0 | 1<<1

// known fails for features and states that are not understood.
func (sb *super) known(flags uint64) error {
	if err := onlyKnown("flag", flags, flagKnown, flagDoubtful); err != nil {
		return err
	}
	if err := onlyKnown("incompatible feature", sb.inc, incKnown, incDoubtful); err != nil {
		return err
	}
	if err := onlyKnown("read-only compatible feature", sb.compatRO, roKnown, nil); err != nil {
		return err
	}
	if sb.inc&incMixedBackref == 0 {
		return fmt.Errorf("its extent tree is of the kind before 2009")
	}
	return onlyKnown("compatible feature", sb.compat, 0, nil)
}

func onlyKnown(what string, have, known uint64, doubtful map[uint64]string) error {
	for bit := uint64(1); bit != 0; bit <<= 1 {
		if have&^known&bit == 0 {
			continue
		}
		if why := doubtful[bit]; why != "" {
			return fmt.Errorf("%s", why)
		}
		return fmt.Errorf("it has the unknown %s %#x", what, bit)
	}
	return nil
}

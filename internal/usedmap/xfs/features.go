package xfs

import "fmt"

// Bits of sb_versionnum (XFS_SB_VERSION_*). What they change beside the
// directory format is in inodes and in the log.
const (
	versionNumber   = 0x000f
	versionAttr     = 0x0010
	versionNlink    = 0x0020 // inodes of version 2
	versionQuota    = 0x0040
	versionAlign    = 0x0080
	versionDAlign   = 0x0100
	versionLogV2    = 0x0400
	versionSector   = 0x0800
	versionExtFlag  = 0x1000 // unwritten extents
	versionDirV2    = 0x2000
	versionBorg     = 0x4000 // names without regard to case
	versionMoreBits = 0x8000 // sb_features2 counts
	// Not known: 0x0200, SHAREDBIT, which Linux refuses as well.
	versionKnown = versionNumber | versionAttr | versionNlink | versionQuota | versionAlign | versionDAlign | versionLogV2 |
		versionSector | versionExtFlag | versionDirV2 | versionBorg | versionMoreBits
)

// Bits of sb_features2 (XFS_SB_VERSION2_*). PARENTBIT (0x10) is of IRIX.
const (
	features2Lazy    = 0x002 // counters are brought up to date at unmount only
	features2Attr2   = 0x008
	features2ProjID  = 0x080
	features2CRC     = 0x100
	features2FType   = 0x200
	features2Known   = features2Lazy | features2Attr2 | features2ProjID | features2CRC | features2FType
	roCompatFInobt   = 0x1 // a tree of free inodes: AGI
	roCompatRMap     = 0x2 // a tree of the owners of blocks: AGF
	roCompatReflink  = 0x4 // a tree of shared blocks: AGF
	roCompatInobtCnt = 0x8 // counters in the AGI
	roCompatKnown    = roCompatFInobt | roCompatRMap | roCompatReflink | roCompatInobtCnt
)

// Bits of sb_features_incompat (XFS_SB_FEAT_INCOMPAT_*).
const (
	incompatFType       = 0x001
	incompatSparse      = 0x002 // inode chunks with holes: the holes are free or files, as the trees say
	incompatMetaUUID    = 0x004 // metadata keeps the UUID from before it was changed
	incompatBigTime     = 0x008
	incompatNeedsRepair = 0x010
	incompatNRExt64     = 0x020
	incompatExchange    = 0x040
	incompatParent      = 0x080
	incompatMetaDir     = 0x100 // metadata inodes in a directory; more for realtime devices only
	// Not known: ZONED (0x200) and ZONE_GAPS (0x400), which have a realtime
	// part on the same disk.
	incompatKnown = incompatFType | incompatSparse | incompatMetaUUID | incompatBigTime | incompatNRExt64 |
		incompatExchange | incompatParent | incompatMetaDir
)

// logIncompatXattrs marks a log that may hold attribute intents. A clean log
// holds none, whether or not the bit was taken back.
const logIncompatXattrs = 0x1

func (s *superblock) checkFeatures() error {
	words := []struct {
		name        string
		bits, known uint32
	}{
		{"version", uint32(s.Version), versionKnown},
		// Linux takes both words together.
		{"second", s.Features2 | s.BadFeatures2, features2Known},
	}
	if s.v5() {
		words = append(words, []struct {
			name        string
			bits, known uint32
		}{
			{"compatible", s.Compat, 0},
			{"read-only compatible", s.ROCompat, roCompatKnown},
			{"incompatible", s.Incompat &^ incompatNeedsRepair, incompatKnown},
			{"log", s.LogIncompat, logIncompatXattrs},
		}...)
	}
	for _, w := range words {
		if unknown := w.bits &^ w.known; unknown != 0 {
			return fmt.Errorf("it has the unknown %s feature %#x", w.name, unknown)
		}
	}
	switch {
	case s.v5() && s.Incompat&incompatNeedsRepair != 0:
		return fmt.Errorf("it says that it must be repaired")
	case s.Version&versionDirV2 == 0:
		return fmt.Errorf("it has directories of version 1, of IRIX")
	}
	return nil
}

// logV2 reports whether log records may be larger than 32 KiB.
func (s *superblock) logV2() bool { return s.v5() || s.Version&versionLogV2 != 0 }

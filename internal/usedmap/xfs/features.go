package xfs

import "fmt"

// Bits of sb_versionnum (XFS_SB_VERSION_*). Except for the directory format,
// they only change inodes and the log.
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
	versionBorg     = 0x4000 // names that ignore case
	versionMoreBits = 0x8000 // sb_features2 is valid
	// SHAREDBIT (0x0200) is not known here, since Linux refuses it as well.
	versionKnown = versionNumber | versionAttr | versionNlink | versionQuota | versionAlign | versionDAlign | versionLogV2 |
		versionSector | versionExtFlag | versionDirV2 | versionBorg | versionMoreBits
)

// Bits of sb_features2 (XFS_SB_VERSION2_*). PARENTBIT (0x10) is only known to
// IRIX.
const (
	features2Lazy    = 0x002 // counters are only up to date after an unmount
	features2Attr2   = 0x008
	features2ProjID  = 0x080
	features2CRC     = 0x100
	features2FType   = 0x200
	features2Known   = features2Lazy | features2Attr2 | features2ProjID | features2CRC | features2FType
	roCompatFInobt   = 0x1 // a tree of free inodes, in the AGI
	roCompatRMap     = 0x2 // a tree of the owners of blocks, in the AGF
	roCompatReflink  = 0x4 // a tree of shared blocks, in the AGF
	roCompatInobtCnt = 0x8 // counters in the AGI
	roCompatKnown    = roCompatFInobt | roCompatRMap | roCompatReflink | roCompatInobtCnt
)

// Bits of sb_features_incompat (XFS_SB_FEAT_INCOMPAT_*).
const (
	incompatFType       = 0x001
	incompatSparse      = 0x002 // inode chunks with holes, whose blocks the trees list like others
	incompatMetaUUID    = 0x004 // the UUID was changed, and metadata keeps the old one
	incompatBigTime     = 0x008
	incompatNeedsRepair = 0x010
	incompatNRExt64     = 0x020
	incompatExchange    = 0x040
	incompatParent      = 0x080
	incompatMetaDir     = 0x100 // metadata inodes are in a directory; other changes only concern realtime devices
	// ZONED (0x200) and ZONE_GAPS (0x400) are not known here. With them the
	// file system has a realtime part on the same disk.
	incompatKnown = incompatFType | incompatSparse | incompatMetaUUID | incompatBigTime | incompatNRExt64 |
		incompatExchange | incompatParent | incompatMetaDir
)

// logIncompatXattrs marks a log that may have attribute intents. A clean log
// has none, even if the bit is still set.
const logIncompatXattrs = 0x1

func (s *superblock) checkFeatures() error {
	words := []struct {
		name        string
		bits, known uint32
	}{
		{"version", uint32(s.Version), versionKnown},
		// Linux combines both words too.
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

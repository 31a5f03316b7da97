package xfs

import (
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	superblockMagic = 0x58465342 // "XFSB"
	superblockCRC   = 224        // sb_crc
	minGroupBlocks  = 64         // XFS_MIN_AG_BLOCKS
	maxGroupBytes   = 1 << 40    // XFS_MAX_AG_BYTES
	maxLogBytes     = 1 << 31    // XFS_MAX_LOG_BYTES
	maxLogUnit      = 256 << 10  // XLOG_MAX_RECORD_BSIZE
	basicBlock      = 512        // BBSIZE, the unit of the log and of disk addresses
)

// superblock is struct xfs_dsb, with all fields in their order.
type superblock struct {
	Magic      uint32
	BlockSize  uint32
	Blocks     uint64 // of the data device
	RTBlocks   uint64
	RTExtents  uint64
	UUID       [16]byte
	LogStart   uint64 // file system block, 0 if the log is on another device
	RootInode  uint64
	_          [2]uint64 // bitmap and summary inodes of the realtime device
	_          uint32    // realtime extent size
	GroupSize  uint32    // blocks of a group; the last group may have fewer
	Groups     uint32
	_          uint32 // blocks of the realtime bitmap
	LogBlocks  uint32
	Version    uint16 // number and feature bits
	SectorSize uint16
	InodeSize  uint16
	_          uint16 // inodes per block
	Label      [12]byte

	BlockLog, SectorLog, InodeLog, InodesLog, GroupLog uint8 // base 2 logarithms
	_                                                  uint8
	InProgress                                         uint8
	_                                                  uint8

	_             [4]uint64 // counters, which are not needed (see group.read)
	_             [2]uint64 // quota inodes
	_             uint16
	_             uint8
	SharedVersion uint8
	_             [3]uint32 // alignment
	_             uint8
	_             uint8 // logarithm of the log's sector
	LogSector     uint16
	LogUnit       uint32 // stripe unit of the log in bytes, 0 or 1 if there is none
	Features2     uint32
	BadFeatures2  uint32 // some machines wrote Features2 here

	// The rest is only in version 5.
	Compat, ROCompat, Incompat, LogIncompat uint32
	_                                       uint32 // checksum
	_                                       uint32
	_                                       [2]uint64
	MetaUUID                                [16]byte // the UUID in all other metadata, with the feature META_UUID
}

// v5 reports whether metadata has checksums.
func (s *superblock) v5() bool { return s.Version&versionNumber == 5 }

// metaUUID is the UUID in all metadata except superblocks and log.
func (s *superblock) metaUUID() [16]byte {
	if s.Incompat&incompatMetaUUID != 0 {
		return s.MetaUUID
	}
	return s.UUID
}

// readSuperblock reads the first sector, in the sector size that it states
// itself.
func readSuperblock(v *volume.Volume) (block, error) {
	b, err := v.Bytes(0, basicBlock)
	if err != nil {
		return block{}, err
	}
	first := block{&superblock{}, b}
	if err := first.decode(first.superblock); err != nil {
		return block{}, err
	}
	if first.Magic != superblockMagic {
		return block{}, fmt.Errorf("it has no superblock of XFS")
	}
	first.b, err = v.Bytes(0, max(basicBlock, int(first.SectorSize)))
	return first, err
}

// check checks the geometry. After it, products of block numbers cannot
// overflow, and all of the file system is inside the volume.
func (s *superblock) check(size int64) error {
	switch n := s.Version & versionNumber; {
	case n != 4 && n != 5:
		return fmt.Errorf("it has version %d of the format", n)
	case s.InProgress != 0:
		return fmt.Errorf("it was not made to the end")
	case !isLog(s.BlockSize, s.BlockLog, 512, 64<<10), !isLog(uint32(s.SectorSize), s.SectorLog, 512, 32<<10),
		!isLog(uint32(s.InodeSize), s.InodeLog, 256, 2048), s.SectorSize > 512 && uint32(s.SectorSize) > s.BlockSize,
		s.InodeLog > s.BlockLog, s.InodesLog != s.BlockLog-s.InodeLog:
		return fmt.Errorf("its blocks of %d bytes, sectors of %d and inodes of %d cannot be", s.BlockSize, s.SectorSize, s.InodeSize)
	case s.Blocks > uint64(size)/uint64(s.BlockSize):
		return fmt.Errorf("it has %d blocks of %d bytes, the volume only %d bytes", s.Blocks, s.BlockSize, size)
	case s.GroupSize < minGroupBlocks, uint64(s.GroupSize)*uint64(s.BlockSize) > maxGroupBytes,
		s.GroupLog > 31, s.GroupSize > 1<<s.GroupLog, s.GroupSize <= 1<<s.GroupLog/2,
		s.Groups == 0, s.Blocks > uint64(s.Groups)*uint64(s.GroupSize),
		s.Blocks < uint64(s.Groups-1)*uint64(s.GroupSize)+minGroupBlocks:
		return fmt.Errorf("its %d blocks cannot be in %d groups of %d", s.Blocks, s.Groups, s.GroupSize)
	case s.RTBlocks != 0 || s.RTExtents != 0:
		return fmt.Errorf("it has a realtime device: it is on more than one disk")
	case s.LogStart == 0:
		return fmt.Errorf("its log is on another device, which cannot be looked at")
	case s.SharedVersion != 0:
		return fmt.Errorf("it has version %d of shared file systems", s.SharedVersion)
	}
	no, from := s.locate(s.LogStart)
	bytes := uint64(s.LogBlocks) * uint64(s.BlockSize)
	if no >= s.Groups || uint64(from)+uint64(s.LogBlocks) > uint64(s.groupLength(no)) ||
		from < s.headerBlocks() || bytes == 0 || bytes > maxLogBytes || s.LogUnit > maxLogUnit {
		return fmt.Errorf("its log cannot be %d blocks at block %d", s.LogBlocks, s.LogStart)
	}
	return nil
}

// isLog reports whether size is 2^log and inside its limits.
func isLog(size uint32, log uint8, least, most uint32) bool {
	return size >= least && size <= most && log < 32 && size == 1<<log
}

// locate is the group of a file system block, and the block's number in that
// group (XFS_FSB_TO_AGNO and XFS_FSB_TO_AGBNO). The lowest GroupLog bits are
// the number in the group, even if a group has fewer blocks.
func (s *superblock) locate(block uint64) (no, at uint32) {
	return uint32(min(block>>s.GroupLog, 1<<32-1)), uint32(block & (1<<s.GroupLog - 1))
}

func (s *superblock) groupLength(no uint32) uint32 {
	return uint32(min(uint64(s.GroupSize), s.Blocks-uint64(no)*uint64(s.GroupSize)))
}

// groupOffset is where a group begins in bytes.
func (s *superblock) groupOffset(no uint32) int64 {
	return int64(no) * int64(s.GroupSize) * int64(s.BlockSize)
}

// headerBlocks is how many blocks the four sectors at a group's start take.
func (s *superblock) headerBlocks() uint32 {
	return (4*uint32(s.SectorSize) + s.BlockSize - 1) / s.BlockSize
}

// isCopy compares the superblock of another group with the first. A copy is
// only written when the file system is made, grown or renamed. So its counters,
// features, quota and even the number of groups may be old. (The number is, if
// a growth was interrupted after its transaction.) The fields that no tool
// changes must be equal.
func (s *superblock) isCopy(b block) error {
	var other superblock
	if err := b.decode(&other); err != nil {
		return err
	}
	if other.Magic != superblockMagic || other.Version&versionNumber != s.Version&versionNumber || other.UUID != s.UUID ||
		other.BlockSize != s.BlockSize || other.SectorSize != s.SectorSize || other.InodeSize != s.InodeSize ||
		other.GroupSize != s.GroupSize || other.GroupLog != s.GroupLog ||
		other.LogStart != s.LogStart || other.LogBlocks != s.LogBlocks {
		return fmt.Errorf("its copy of the superblock contradicts the first")
	}
	if err := b.sealed(superblockCRC, -1); err != nil {
		return fmt.Errorf("copy of the superblock: %w", err)
	}
	return nil
}

package ext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
)

const (
	superAt   = 1024
	superSize = 1024
	superSum  = 0x3FC // s_checksum, the last field

	// maxGroups bounds the memory. It allows 64 TiB in groups of 128 MiB.
	maxGroups = 1 << 19
)

// State bits of s_state (0x3A).
const (
	stateValid  = 0x1
	stateError  = 0x2
	stateOrphan = 0x4 // orphan inodes were being removed, which only frees blocks
)

var le = binary.LittleEndian

// super is struct ext4_super_block (Documentation/filesystems/ext4/super.rst),
// as far as it is needed here.
type super struct {
	raw                        []byte
	rev                        uint32
	compat, incompat, roCompat uint32
	state                      uint16
	errors                     uint32
	uuid                       []byte
	seed                       uint32 // of all metadata checksums

	blockLog         uint32
	blockSize        int64
	blocks           uint64
	freeBlocks       uint64
	first            uint64 // s_first_data_block
	perGroup         uint64 // blocks
	clustersPerGroup uint64
	ratio            uint64 // blocks in a cluster, 1 without bigalloc
	inodes           uint32
	inodesPerGroup   uint32
	inodeSize        uint32
	descSize         uint32
	reservedGDT      uint64
	firstMetaBG      uint64
	backups          [2]uint32 // the groups of sparse_super2

	journalInode, journalDev uint32
	mmpBlock                 uint64

	groups int // set by checkGeometry
}

func (s *super) u16(at int) uint16 { return le.Uint16(s.raw[at:]) }
func (s *super) u32(at int) uint32 { return le.Uint32(s.raw[at:]) }

// both is a number in two halves. The upper half is elsewhere, and is only
// valid with the feature 64bit.
func (s *super) both(low, high int) uint64 {
	n := uint64(s.u32(low))
	if s.incompat&incompat64bit != 0 {
		n |= uint64(s.u32(high)) << 32
	}
	return n
}

// parseSuper reads a superblock. It returns nil if there is no magic.
func parseSuper(raw []byte) *super {
	s := &super{raw: raw}
	if s.u16(0x38) != 0xEF53 {
		return nil
	}
	s.rev, s.state, s.errors = s.u32(0x4C), s.u16(0x3A), s.u32(0x194)
	s.compat, s.incompat, s.roCompat = s.u32(0x5C), s.u32(0x60), s.u32(0x64)
	s.uuid = raw[0x68:0x78]
	s.blocks, s.freeBlocks = s.both(0x4, 0x150), s.both(0xC, 0x158)
	s.first, s.blockLog = uint64(s.u32(0x14)), s.u32(0x18)
	s.perGroup, s.inodesPerGroup, s.inodes = uint64(s.u32(0x20)), s.u32(0x28), s.u32(0)
	s.ratio, s.clustersPerGroup = 1, s.perGroup
	if s.has(roBigalloc) {
		s.clustersPerGroup = uint64(s.u32(0x24))
	}
	s.inodeSize, s.descSize = 128, 32
	if s.rev > 0 {
		s.inodeSize = uint32(s.u16(0x58))
		s.reservedGDT = uint64(s.u16(0xCE))
	}
	if s.incompat&incompat64bit != 0 {
		s.descSize = uint32(s.u16(0xFE))
	}
	if s.incompat&incompatMetaBG != 0 {
		s.firstMetaBG = uint64(s.u32(0x104))
	}
	if s.compat&compatSparseSuper2 != 0 {
		s.backups = [2]uint32{s.u32(0x24C), s.u32(0x250)}
	}
	if s.compat&compatJournal != 0 {
		s.journalInode, s.journalDev = s.u32(0xE0), s.u32(0xE4)
	}
	s.mmpBlock = le.Uint64(raw[0x168:])
	if s.seed = crc32c(^uint32(0), s.uuid); s.incompat&incompatCsumSeed != 0 {
		s.seed = s.u32(0x270)
	}
	return s
}

// has reports whether it has a read-only compatible feature.
func (s *super) has(ro uint32) bool { return s.roCompat&ro != 0 }

func (s *super) needsRecovery() bool { return s.incompat&incompatRecover != 0 }

func (s *super) label() string {
	return strings.TrimRight(string(s.raw[0x78:0x88]), "\x00")
}

// check fails if the superblock cannot be trusted, or if such a file system
// cannot be mapped. size is that of the volume.
func (s *super) check(size int64) error {
	if s.rev > 1 {
		return fmt.Errorf("it has the unknown revision %d", s.rev)
	}
	if err := s.checkFeatures(); err != nil {
		return err
	}
	if s.has(roMetadataCsum) {
		if kind := s.raw[0x175]; kind != 1 { // s_checksum_type: crc32c
			return fmt.Errorf("it has the unknown checksum type %d", kind)
		}
		if crc32c(^uint32(0), s.raw[:superSum]) != s.u32(superSum) {
			return fmt.Errorf("its superblock's checksum is wrong")
		}
	} else if s.incompat&incompatCsumSeed != 0 {
		return fmt.Errorf("it has a checksum seed and no checksums")
	}
	if s.u32(0x160)&0x10 != 0 { // s_flags: EXT2_FLAGS_IS_SNAPSHOT
		return fmt.Errorf("it is a snapshot of another file system")
	}
	if err := s.checkState(); err != nil {
		return err
	}
	if err := s.checkGeometry(size); err != nil {
		return err
	}
	return s.checkJournal()
}

// checkState fails for a state in which a mount would warn. After a power
// failure the state of a file system with a journal is still valid, and it
// needs recovery.
func (s *super) checkState() error {
	switch {
	case s.state&stateError != 0 || s.errors != 0:
		return fmt.Errorf("errors were found in it, and it was not checked since")
	case s.state&stateValid == 0:
		return fmt.Errorf("it was not cleanly unmounted (no journal, or its valid bit is clear)")
	case s.state&^(stateValid|stateOrphan) != 0:
		return fmt.Errorf("its state %#x is unknown", s.state)
	}
	return nil
}

func (s *super) checkJournal() error {
	journal := s.compat&compatJournal != 0
	switch {
	case !journal && s.needsRecovery():
		return fmt.Errorf("it needs recovery and has no journal")
	case journal && (s.journalInode == 0) == (s.journalDev == 0):
		return fmt.Errorf("its superblock does not say where its one journal is")
	case s.journalInode > s.inodes:
		return fmt.Errorf("its journal is inode %d of %d", s.journalInode, s.inodes)
	case s.journalDev != 0 && s.needsRecovery():
		return fmt.Errorf("it was not cleanly unmounted, and its journal is on another disk")
	}
	return nil
}

// checkGeometry checks all sizes, so that later calculations with them cannot
// overflow.
func (s *super) checkGeometry(size int64) error {
	bad := func(what string, n uint64) error { return fmt.Errorf("its superblock says %s %d", what, n) }
	if s.blockLog > 6 {
		return bad("block size 1024 <<", uint64(s.blockLog))
	}
	s.blockSize = 1024 << s.blockLog
	if s.incompat&incompat64bit == 0 && s.u32(0x150)|s.u32(0x158) != 0 {
		return fmt.Errorf("it has more than 2^32 blocks without the feature 64bit")
	}
	if s.blocks == 0 || s.blocks > uint64(size/s.blockSize) {
		return fmt.Errorf("it is larger than its volume: %d blocks of %d bytes in %d bytes", s.blocks, s.blockSize, size)
	}
	if err := s.checkClusters(); err != nil {
		return err
	}
	max := uint64(8 * s.blockSize)
	switch {
	case s.clustersPerGroup == 0 || s.clustersPerGroup > max || s.clustersPerGroup%8 != 0:
		return bad("clusters per group", s.clustersPerGroup)
	case s.perGroup != s.clustersPerGroup*s.ratio:
		return bad("blocks per group", s.perGroup)
	case s.first >= s.blocks:
		return bad("first block", s.first)
	case s.inodeSize < 128 || int64(s.inodeSize) > s.blockSize || bits.OnesCount32(s.inodeSize) != 1:
		return bad("inode size", uint64(s.inodeSize))
	case s.inodesPerGroup == 0 || uint64(s.inodesPerGroup) > max:
		return bad("inodes per group", uint64(s.inodesPerGroup))
	}
	return s.checkGroups()
}

func (s *super) checkClusters() error {
	clusterLog := s.u32(0x1C)
	if s.has(roBigalloc) {
		if clusterLog < s.blockLog || clusterLog > 20 {
			return fmt.Errorf("its superblock says cluster size 1024 << %d", clusterLog)
		}
		s.ratio = 1 << (clusterLog - s.blockLog)
	} else if clusterLog != s.blockLog {
		return fmt.Errorf("its clusters are not its blocks, without the feature bigalloc")
	}
	// The superblock is at byte 1024 whatever the block size is, and must
	// belong to a group. With clusters the boot block belongs to that group
	// too.
	want := uint64(0)
	if s.blockSize == 1024 && s.ratio == 1 {
		want = 1
	}
	if s.first != want {
		return fmt.Errorf("its superblock says first block %d", s.first)
	}
	return nil
}

func (s *super) checkGroups() error {
	is64 := s.incompat&incompat64bit != 0
	if is64 && s.descSize < 64 || s.descSize > 1024 || bits.OnesCount32(s.descSize) != 1 {
		return fmt.Errorf("its superblock says descriptor size %d", s.descSize)
	}
	groups := (s.blocks - s.first + s.perGroup - 1) / s.perGroup
	if groups > maxGroups {
		return fmt.Errorf("it has %d block groups, more than are looked at", groups)
	}
	s.groups = int(groups)
	if groups*uint64(s.inodesPerGroup) != uint64(s.inodes) {
		return fmt.Errorf("its %d groups of %d inodes are not %d inodes", groups, s.inodesPerGroup, s.inodes)
	}
	meta := s.incompat&incompatMetaBG != 0
	if meta && (s.reservedGDT != 0 || s.firstMetaBG > s.descBlocks()) {
		return fmt.Errorf("it has the feature meta_bg, %d blocks for descriptors, and %d in reserve", s.firstMetaBG, s.reservedGDT)
	}
	if s.reservedGDT > uint64(s.blockSize/4) { // one block of pointers of the resize inode must have room for them
		return fmt.Errorf("its superblock says %d reserved descriptor blocks", s.reservedGDT)
	}
	return nil
}

// sameShape reports whether another version of the superblock has the same
// layout and the same kind of checksums.
func (s *super) sameShape(o *super) bool {
	const compat = compatJournal | compatSparseSuper2 | 0x10 // resize_inode
	const incompat = incompatMetaBG | incompat64bit | incompatFlexBG | incompatCsumSeed | incompatMMP
	const ro = roSparseSuper | roGdtCsum | roBigalloc | roMetadataCsum
	return s.blocks == o.blocks && s.blockLog == o.blockLog && s.first == o.first && s.perGroup == o.perGroup &&
		s.clustersPerGroup == o.clustersPerGroup && s.ratio == o.ratio && s.inodes == o.inodes &&
		s.inodesPerGroup == o.inodesPerGroup && s.inodeSize == o.inodeSize && s.descSize == o.descSize &&
		s.reservedGDT == o.reservedGDT && s.firstMetaBG == o.firstMetaBG && s.backups == o.backups &&
		s.journalInode == o.journalInode && s.journalDev == o.journalDev && s.seed == o.seed && bytes.Equal(s.uuid, o.uuid) &&
		(s.compat^o.compat)&compat|(s.incompat^o.incompat)&incompat|(s.roCompat^o.roCompat)&ro == 0
}

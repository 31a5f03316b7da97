package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// superblocks are the places of the superblock and its copies
// (btrfs_sb_offset). Each has 4 KiB. The 64 KiB from its place on are never
// given to extents.
var superblocks = []int64{64 << 10, 64 << 20, 256 << 30}

const (
	superblockSize = 4096
	superblockRoom = 64 << 10
	reserved       = 1 << 20
	maxLevel       = 7
	maxSysChunks   = 2048
)

var magic = []byte("_BHRfS_M")

// super is struct btrfs_super_block.
type super struct {
	fsid                  [16]byte // of the file system
	nodeID                [16]byte // the UUID in blocks of trees
	generation            uint64
	root, chunkRoot       pointer
	logRoot               uint64
	logLevel              uint8
	size                  int64 // of its device, in bytes
	sector, node          int64
	compat, compatRO, inc uint64
	sum                   checksum
	devid                 uint64
	devUUID               [16]byte
	sysChunks             []byte
}

// readSuper reads the superblock and compares its copies with it.
func readSuper(v *volume.Volume) (*volume.Found, *super, error) {
	b, err := v.Bytes(superblocks[0], superblockSize)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(b[64:72], magic) {
		return nil, nil, fmt.Errorf("it has no btrfs superblock")
	}
	found := &volume.Found{FS: "btrfs"}
	sb, err := parseSuper(b, superblocks[0])
	if err != nil {
		return found, nil, err
	}
	label, _, _ := bytes.Cut(b[299:555], []byte{0})
	found.Label = string(label)
	found.UUID = volume.UUID(b[32:48])
	found.Size = int64(min(le64(b[201+8:]), 1<<62))
	if err := sb.known(le64(b[56:])); err != nil {
		return found, nil, err
	}
	if err := sb.geometry(b, v.Size()); err != nil {
		return found, nil, err
	}
	return found, sb, sb.copiesAgree(v)
}

// parseSuper checks that b is a superblock for the place off, and reads the
// fields that the map needs.
func parseSuper(b []byte, off int64) (*super, error) {
	sum, ok := checksums[le16(b[196:])]
	switch {
	case !bytes.Equal(b[64:72], magic):
		return nil, fmt.Errorf("it has no superblock at byte %d", off)
	case !ok:
		return nil, fmt.Errorf("it has the unknown checksum type %d", le16(b[196:]))
	case !sum.matches(b):
		return nil, fmt.Errorf("its superblock at byte %d has a wrong checksum", off)
	case le64(b[48:]) != uint64(off):
		return nil, fmt.Errorf("its superblock at byte %d was written for byte %d", off, le64(b[48:]))
	}
	sb := &super{
		fsid: [16]byte(b[32:]), nodeID: [16]byte(b[32:]), generation: le64(b[72:]),
		root:      pointer{at: le64(b[80:]), level: b[198]},
		chunkRoot: pointer{at: le64(b[88:]), level: b[199], generation: le64(b[164:])},
		logRoot:   le64(b[96:]), logLevel: b[200],
		compat: le64(b[172:]), compatRO: le64(b[180:]), inc: le64(b[188:]),
		sum: sum, devid: le64(b[201:]), devUUID: [16]byte(b[201+66:]),
	}
	sb.root.generation = sb.generation
	if sb.inc&incMetadataUUID != 0 {
		sb.nodeID = [16]byte(b[571:])
	}
	return sb, nil
}

// geometry reads and checks the sizes in the superblock b.
func (sb *super) geometry(b []byte, volume int64) error {
	sector, node := le32(b[144:]), le32(b[148:])
	size, sys := le64(b[201+8:]), le32(b[160:])
	switch {
	case le64(b[136:]) != 1:
		return fmt.Errorf("it is one of %d devices of a file system", le64(b[136:]))
	case sector < 512 || sector > 64<<10 || sector&(sector-1) != 0:
		return fmt.Errorf("its superblock says that a sector has %d bytes", sector)
	case node < max(sector, 4096) || node > 64<<10 || node&(node-1) != 0:
		return fmt.Errorf("its superblock says that a block of a tree has %d bytes", node)
	case size > uint64(volume):
		return fmt.Errorf("the file system has %d bytes, the volume only %d", size, volume)
	case size < reserved:
		return fmt.Errorf("its superblock says that the device has %d bytes", size)
	case sys > maxSysChunks:
		return fmt.Errorf("its superblock says that it has %d bytes of system chunks", sys)
	case [16]byte(b[201+82:]) != sb.nodeID:
		return fmt.Errorf("its superblock is of one file system, its device of another")
	case sb.root.level > maxLevel || sb.chunkRoot.level > maxLevel || sb.logLevel > maxLevel:
		return fmt.Errorf("its superblock names a tree of more than %d levels", maxLevel)
	}
	sb.sector, sb.node, sb.size = int64(sector), int64(node), int64(size)
	sb.sysChunks = b[811 : 811+sys]
	return nil
}

// copiesAgree checks the superblock's copies. A commit writes them all, but
// fsync writes only the first superblock. So a copy may be older. If one is
// newer, another system wrote there.
func (sb *super) copiesAgree(v *volume.Volume) error {
	for _, off := range superblocks[1:] {
		if off+superblockSize > sb.size {
			return nil
		}
		b, err := v.Bytes(off, superblockSize)
		if err != nil {
			return err
		}
		mirror, err := parseSuper(b, off)
		switch {
		case err != nil:
			return err
		case mirror.fsid != sb.fsid || mirror.nodeID != sb.nodeID || mirror.devUUID != sb.devUUID:
			return fmt.Errorf("the copy of its superblock at byte %d is of another file system", off)
		case mirror.generation > sb.generation:
			return fmt.Errorf("the copy of its superblock at byte %d is newer than the first", off)
		}
	}
	return nil
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }

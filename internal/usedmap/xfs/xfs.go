// Package xfs maps XFS: what the free space trees of its allocation groups
// hold is free, all else is used.
//
// The format is that of "XFS Filesystem Structure" (the xfs_filesystem_structure
// document of xfs-documentation) and of the headers of Linux 6.18,
// fs/xfs/libxfs/xfs_format.h and xfs_log_format.h, whose names of structures
// stand in the comments here. Everything on the disk is big-endian but
// checksums, which are CRC-32C and little-endian.
//
//	a group:  superblock | AGF | AGI | AGFL | trees, inodes, files ...
//	          a sector each, a copy of the first superblock in all but group 0
//
// The trees are right only when nothing waits in the log. So the log must end
// in an unmount record, found as the kernel finds it (log.go).
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"testbox-imaging/internal/usedmap/volume"
)

// Read reads the volume's free space.
func Read(v *volume.Volume) (*volume.Found, error) {
	first, err := readSuperblock(v)
	if err != nil {
		return nil, err
	}
	s := first.superblock
	found := &volume.Found{FS: "xfs", Label: string(bytes.TrimRight(s.Label[:], "\x00")), UUID: volume.UUID(s.UUID[:])}
	if err := s.check(v.Size()); err != nil {
		return found, err
	}
	found.Size = int64(s.Blocks) * int64(s.BlockSize)
	if err := first.sealed(superblockCRC, -1); err != nil {
		return found, fmt.Errorf("superblock: %w", err)
	}
	if err := s.checkFeatures(); err != nil {
		return found, err
	}
	if err := s.checkLog(v); err != nil {
		return found, err
	}
	free := &volume.Free{}
	for no := range s.Groups {
		g := &group{superblock: s, v: v, no: no, free: free}
		if err := g.read(); err != nil {
			return found, fmt.Errorf("allocation group %d: %w", no, err)
		}
	}
	found.Free = free
	return found, nil
}

// block is a piece of metadata as it was read, which in version 5 has a
// checksum over all of it and says which file system it belongs to.
type block struct {
	*superblock
	b []byte
}

// decode reads a big-endian structure from the block's start.
func (b block) decode(to any) error {
	_, err := binary.Decode(b.b, binary.BigEndian, to)
	return err
}

// sealed checks the checksum at crc, and the UUID at uuid unless that is -1.
func (b block) sealed(crc, uuid int) error {
	if !b.v5() {
		return nil
	}
	if got := checksum(b.b, crc); got != binary.LittleEndian.Uint32(b.b[crc:]) {
		return fmt.Errorf("the checksum is wrong")
	}
	if want := b.metaUUID(); uuid >= 0 && !bytes.Equal(b.b[uuid:uuid+16], want[:]) {
		return fmt.Errorf("it belongs to another file system")
	}
	return nil
}

// checksum is that of b with the four bytes at the place of the checksum zero.
func checksum(b []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:at])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, b[at+4:])
}

// Package xfs maps XFS. Everything in the free space trees of the allocation
// groups is free, and everything else is used.
//
// The format is that of "XFS Filesystem Structure" (the
// xfs_filesystem_structure document of xfs-documentation) and of the headers of
// Linux 6.18, fs/xfs/libxfs/xfs_format.h and xfs_log_format.h. Comments name
// structures as these headers do. Everything on the disk is big-endian, except
// for checksums, which are little-endian CRC-32C.
//
//	a group:  superblock | AGF | AGI | AGFL | trees, inodes, files ...
//	          a sector each; group 0 has the superblock, the others have copies
//
// The trees are only right when the log has no changes that still wait. So the
// log must end in an unmount record, found as the kernel finds it (log.go).
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"testbox-imaging/internal/usedmap/volume"
)

// Read maps an XFS volume.
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

// block is a piece of metadata as it was read. In version 5 it has a checksum,
// and the UUID of its file system.
type block struct {
	*superblock
	b []byte
}

// decode reads a big-endian structure from the block's start.
func (b block) decode(to any) error {
	_, err := binary.Decode(b.b, binary.BigEndian, to)
	return err
}

// sealed checks the checksum at byte crc, and the UUID at byte uuid unless that
// is -1. In version 4 there is nothing to check.
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

// checksum is the checksum of b, with zeros in place of the four bytes at at.
func checksum(b []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:at])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, b[at+4:])
}

package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"os"
	"unicode/utf16"
)

// gptPart is a partition of a disk with a GPT. From and size are in bytes.
type gptPart struct {
	kind       guid
	id         guid
	from, size int64
	name       string
}

// guid is a GUID as it is on a disk: its first three numbers are little-endian.
type guid [16]byte

// The types of partitions (UEFI specification 5.3.3, and the Discoverable Partitions Specification).
var (
	espType  = guid{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	rootType = guid{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4} // Linux data
)

// guidOf makes a GUID from a name, always the same.
func guidOf(name string) guid {
	sum := sha256.Sum256([]byte(name))
	g := guid(sum[:16])
	g[7], g[8] = g[7]&0x0f|0x40, g[8]&0x3f|0x80 // as a random one, RFC 9562
	return g
}

const (
	gptEntries   = 128
	gptEntrySize = 128
)

// writeGPT writes the partition table of a disk image (UEFI specification 5.3). sfdisk cannot do it, because for
// an image it knows sectors of 512 bytes only.
func writeGPT(path string, size, sector int64, id guid, parts []gptPart) error {
	table := make([]byte, gptEntries*gptEntrySize)
	le := binary.LittleEndian
	for i, p := range parts {
		e := table[i*gptEntrySize:]
		copy(e, p.kind[:])
		copy(e[16:], p.id[:])
		le.PutUint64(e[32:], uint64(p.from/sector))
		le.PutUint64(e[40:], uint64((p.from+p.size)/sector-1))
		for j, c := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(e[56+2*j:], c)
		}
	}
	last := size/sector - 1
	tableSectors := (int64(len(table)) + sector - 1) / sector
	header := func(self, other, entries int64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(self))
		le.PutUint64(h[32:], uint64(other))
		le.PutUint64(h[40:], uint64(2+tableSectors))
		le.PutUint64(h[48:], uint64(last-1-tableSectors))
		copy(h[56:], id[:])
		le.PutUint64(h[72:], uint64(entries))
		le.PutUint32(h[80:], gptEntries)
		le.PutUint32(h[84:], gptEntrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sector)
	copy(mbr[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(mbr[458:], uint32(min(last, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa

	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	first := bytes.Join([][]byte{mbr, header(1, last, 2), table}, nil)
	if _, err := f.WriteAt(first, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(table, (last-tableSectors)*sector); err != nil {
		return err
	}
	if _, err := f.WriteAt(header(last, 1, last-tableSectors), last*sector); err != nil {
		return err
	}
	return f.Close()
}

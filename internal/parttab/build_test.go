package parttab

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// table is a GPT disk to be built for a test, by the letter of the
// specification and not by the code under test.
type table struct {
	sector     int
	sectors    uint64
	count      uint32 // entries
	parts      []span
	mbrSectors uint32 // of the protective entry; 0: as the specification says
	reserve    uint64 // sectors left free between the last usable one and the backup
}

func (t table) entryLen() uint64 {
	s := uint64(t.sector)
	return (uint64(t.count)*128 + s - 1) / s
}

// disk is the whole disk; every sector that no table has tells its own number.
func (t table) disk() []byte {
	b := make([]byte, t.sectors*uint64(t.sector))
	for i := uint64(0); i < t.sectors; i++ {
		binary.LittleEndian.PutUint64(b[i*uint64(t.sector):], i^0xA5A5A5A5A5A5)
	}
	clear(b[:512])
	b[450], b[454], b[510], b[511] = 0xEE, 1, 0x55, 0xAA
	n := t.mbrSectors
	if n == 0 {
		n = uint32(t.sectors - 1)
	}
	binary.LittleEndian.PutUint32(b[458:], n)

	entries := make([]byte, t.entryLen()*uint64(t.sector))
	for i, p := range t.parts {
		e := entries[i*128:]
		copy(e, bytes.Repeat([]byte{0xAF}, 16))
		copy(e[16:], bytes.Repeat([]byte{byte(i + 1)}, 16))
		binary.LittleEndian.PutUint64(e[32:], p.first)
		binary.LittleEndian.PutUint64(e[40:], p.last)
	}
	last := t.sectors - 1
	copy(b[2*t.sector:], entries)
	copy(b[t.sector:], t.headerAt(1, last, 2, entries))
	copy(b[(last-t.entryLen())*uint64(t.sector):], entries)
	copy(b[last*uint64(t.sector):], t.headerAt(last, 1, last-t.entryLen(), entries))
	return b
}

func (t table) headerAt(my, alternate, entriesLBA uint64, entries []byte) []byte {
	le := binary.LittleEndian
	h := make([]byte, t.sector)
	copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	le.PutUint64(h[24:], my)
	le.PutUint64(h[32:], alternate)
	le.PutUint64(h[40:], 2+t.entryLen())
	le.PutUint64(h[48:], t.sectors-2-t.entryLen()-t.reserve)
	copy(h[56:], "sixteen bytes ID")
	le.PutUint64(h[72:], entriesLBA)
	le.PutUint32(h[80:], t.count)
	le.PutUint32(h[84:], 128)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries[:t.count*128]))
	sign(h)
	return h
}

// sign makes a header's checksum right.
func sign(h []byte) {
	binary.LittleEndian.PutUint32(h[16:], 0)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
}

// small is a disk of 4 MiB with three partitions.
func small() table {
	return table{sector: 512, sectors: 8192, count: 128, parts: []span{{2048, 4095}, {34, 99}, {8000, 8158}}}
}

// ends are an image's head and tail as the restore has them.
func ends(b []byte) (head, tail []byte) {
	const mib = 1 << 20
	head = b[:min(len(b), mib)]
	return head, b[max(len(head), len(b)-mib):]
}

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// parsePrimary reads the table at the start of a disk of n sectors, whose
// first bytes are head.
func parsePrimary(head []byte, sector int, n uint64) (*gpt, error) {
	return disk{bytes.NewReader(head), sector, n}.primary()
}

// parseBackup reads the table at the end of a disk, whose last bytes are tail.
func parseBackup(tail []byte, sector int, n uint64) (*gpt, error) {
	return disk{edges{tail: tail, size: int64(n) * int64(sector)}, sector, n}.backup(n - 1)
}

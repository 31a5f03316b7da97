package parttab

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// These are the offsets of the header's fields in bytes (UEFI 5.3.2). The numbers
// are little-endian.
const (
	gptRevision    = 8  // 0x00010000
	gptHeaderSize  = 12 // bytes that the header's checksum covers
	gptHeaderCRC   = 16
	gptReserved    = 20
	gptMyLBA       = 24
	gptAlternate   = 32
	gptFirstUsable = 40
	gptLastUsable  = 48
	gptDiskGUID    = 56
	gptEntriesLBA  = 72
	gptEntryCount  = 80
	gptEntrySize   = 84
	gptEntriesCRC  = 88
	gptMinHeader   = 92
)

const gptSignature = "EFI PART"

// damage is an error of a GPT that an accident can cause. The GPT is missing, or a
// checksum is wrong. The other copy then counts. A GPT whose checksums are right
// but whose numbers cannot be true is not damage, and the other copy does not
// count then.
type damage string

func (e damage) Error() string { return string(e) }

func isDamage(err error) bool {
	var e damage
	return errors.As(err, &e)
}

// errNoGPT says that there is no GPT. Its text also follows "its partition table
// is left as in the image".
const errNoGPT = damage("it is no GPT")

// maxEntries bounds the array of entries, in bytes. The usual array has 16384
// bytes, and sfdisk makes up to 128 KiB. A longer array than maxEntries would not
// fit into an image's first MiB, and Fit does not see more.
const maxEntries = 1<<20 - 8192

// gpt is one of a disk's two tables, checked by itself.
type gpt struct {
	sector                 int
	header                 []byte // one sector
	entries                []byte // all entries, without the unused rest of the last sector
	my, alternate          uint64 // LBAs
	firstUsable, last      uint64 // LBAs of the first and the last usable sector
	entriesLBA             uint64
	count, entrySize, size uint32 // number of entries, bytes of one entry, bytes that the header's checksum covers
}

func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func le64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// entrySectors is how many sectors the entries fill.
func (g *gpt) entrySectors() uint64 {
	return (uint64(g.count)*uint64(g.entrySize) + uint64(g.sector) - 1) / uint64(g.sector)
}

// parseHeader checks a header. The header must say that it stands at LBA my. disk
// is the number of sectors of the disk. With an error, the header is nil unless
// its checksum is right.
func parseHeader(b []byte, sector int, my, disk uint64) (*gpt, error) {
	if len(b) < sector || string(b[:8]) != gptSignature {
		return nil, errNoGPT
	}
	g := &gpt{
		sector: sector, header: slices.Clone(b[:sector]), size: le32(b, gptHeaderSize),
		my: le64(b, gptMyLBA), alternate: le64(b, gptAlternate), firstUsable: le64(b, gptFirstUsable), last: le64(b, gptLastUsable),
		entriesLBA: le64(b, gptEntriesLBA), count: le32(b, gptEntryCount), entrySize: le32(b, gptEntrySize),
	}
	switch {
	case g.size < gptMinHeader || g.size > uint32(sector):
		return nil, damage(fmt.Sprintf("the GPT's header says that it has %d bytes", g.size))
	case headerSum(g.header, g.size) != le32(b, gptHeaderCRC):
		return nil, damage("the checksum of the GPT's header is wrong")
	case le32(b, gptRevision) != 0x00010000:
		return g, fmt.Errorf("the GPT has the unknown revision %#08x", le32(b, gptRevision))
	case le32(b, gptReserved) != 0:
		return g, errors.New("the GPT's header has something in a reserved field")
	case g.my != my:
		return g, fmt.Errorf("the GPT's header at sector %d says that it stands at %d", my, g.my)
	}
	return g, g.checkPlaces(disk)
}

// checkPlaces checks that the header's numbers agree with each other and with the
// size of the disk.
func (g *gpt) checkPlaces(disk uint64) error {
	array := uint64(g.count) * uint64(g.entrySize)
	switch {
	case g.entrySize < 128 || g.entrySize > 4096 || g.entrySize&(g.entrySize-1) != 0:
		return fmt.Errorf("the GPT's entries have %d bytes each", g.entrySize)
	case array == 0 || array > maxEntries:
		return fmt.Errorf("the GPT has %d entries", g.count)
	case g.alternate >= disk || g.alternate == g.my || g.entriesLBA >= disk || g.entrySectors() > disk-g.entriesLBA:
		return &beyondError{"the GPT's parts lie outside the disk"}
	case g.firstUsable < 2 || g.firstUsable > g.last || g.last >= disk:
		return fmt.Errorf("the GPT says that sectors %d to %d are usable", g.firstUsable, g.last)
	}
	return nil
}

// headerSum is the checksum of a header. The field of the checksum itself counts as
// zero.
func headerSum(header []byte, size uint32) uint32 {
	b := slices.Clone(header[:size])
	clear(b[gptHeaderCRC : gptHeaderCRC+4])
	return crc32.ChecksumIEEE(b)
}

// setEntries sets the entries, and checks their checksum. The partitions must lie
// in the usable sectors, and must not overlap.
func (g *gpt) setEntries(b []byte) error {
	g.entries = b
	if crc32.ChecksumIEEE(b) != le32(g.header, gptEntriesCRC) {
		return damage("the checksum of the GPT's entries is wrong")
	}
	parts := g.partitions()
	for i, p := range parts {
		switch {
		case p.first > p.last || p.first < g.firstUsable || p.last > g.last:
			return fmt.Errorf("a GPT partition has the sectors %d to %d, outside the usable ones", p.first, p.last)
		case i > 0 && p.first <= parts[i-1].last:
			return fmt.Errorf("two GPT partitions share sector %d", p.first)
		}
	}
	return nil
}

// gptPart is a partition of a GPT.
type gptPart struct {
	span
	slot int // index of the entry, from 0
	kind [16]byte
	id   [16]byte
	name [gptNameUnits]uint16
}

// These are the offsets of an entry's fields in bytes (UEFI 5.3.3). Entries may be
// longer than the usual 128 bytes.
const (
	entryType    = 0
	entryGUID    = 16
	entryFirst   = 32
	entryLast    = 40
	entryName    = 56 // UTF-16
	gptNameUnits = 36
)

// partitions lists the partitions of used entries, in the order of the disk. An
// entry whose type is zero is not used.
func (g *gpt) partitions() []gptPart {
	var parts []gptPart
	slot := 0
	for e := range slices.Chunk(g.entries, int(g.entrySize)) {
		p := gptPart{span: span{le64(e, entryFirst), le64(e, entryLast)}, slot: slot,
			kind: [16]byte(e[entryType:]), id: [16]byte(e[entryGUID:])}
		for i := range p.name {
			p.name[i] = binary.LittleEndian.Uint16(e[entryName+2*i:])
		}
		if p.kind != [16]byte{} {
			parts = append(parts, p)
		}
		slot++
	}
	slices.SortFunc(parts, func(a, b gptPart) int { return cmp.Compare(a.first, b.first) })
	return parts
}

// header reads and checks the header that should stand at a sector. With an error,
// the header is nil unless its checksum is right.
func (d disk) header(at uint64) (*gpt, error) {
	if at >= d.sectors {
		return nil, errNoGPT
	}
	b, err := d.read(at, d.sector)
	if err != nil {
		return nil, err
	}
	return parseHeader(b, d.sector, at, d.sectors)
}

// primary reads the table at a disk's start.
func (d disk) primary() (*gpt, error) {
	g, err := d.header(1)
	switch {
	case err != nil:
		return g, err
	case g.entriesLBA < 2 || g.entriesLBA+g.entrySectors() > g.firstUsable:
		return g, errors.New("the GPT's entries lie on its header or on partitions")
	}
	return g, d.entries(g)
}

// backup reads the table whose header stands at a sector behind the partitions.
func (d disk) backup(at uint64) (*gpt, error) {
	g, err := d.header(at)
	switch {
	case err != nil:
		return g, err
	case g.entriesLBA <= g.last || g.entriesLBA+g.entrySectors() > at:
		return g, errors.New("the backup GPT's entries do not lie between the partitions and its header")
	}
	return g, d.entries(g)
}

func (d disk) entries(g *gpt) error {
	b, err := d.read(g.entriesLBA, int(g.count*g.entrySize))
	if err != nil {
		return err
	}
	return g.setEntries(b)
}

// agrees reports whether two copies of a GPT have the same disk, usable sectors and
// entries. Entries are compared by their checksum, since those of a damaged copy
// cannot be read.
func (g *gpt) agrees(b *gpt) bool {
	same := func(from, to int) bool { return bytes.Equal(g.header[from:to], b.header[from:to]) }
	return b.alternate == g.my && same(gptFirstUsable, gptEntriesLBA) && same(gptEntryCount, gptMinHeader)
}

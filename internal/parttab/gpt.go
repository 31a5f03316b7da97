package parttab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// The header's fields (UEFI 5.3.2), little-endian, at these offsets in bytes.
const (
	gptRevision    = 8  // 0x00010000
	gptHeaderSize  = 12 // bytes that the header's checksum covers
	gptHeaderCRC   = 16
	gptReserved    = 20
	gptMyLBA       = 24
	gptAlternate   = 32
	gptFirstUsable = 40
	gptLastUsable  = 48
	gptEntriesLBA  = 72
	gptEntryCount  = 80
	gptEntrySize   = 84
	gptEntriesCRC  = 88
	gptMinHeader   = 92
)

const gptSignature = "EFI PART"

// maxEntries bounds the array of entries, in bytes. The usual one has 16384;
// sfdisk makes up to 128 KiB, and more lies outside an image's first MiB.
const maxEntries = 1<<20 - 8192

// gpt is one of a disk's two tables, checked by itself.
type gpt struct {
	sector                 int
	header                 []byte // one sector
	entries                []byte // all entries, without the rest of their last sector
	my, alternate          uint64 // LBAs
	firstUsable, last      uint64 // LBAs, both usable
	entriesLBA             uint64
	count, entrySize, size uint32 // entries, bytes of one, bytes that the header's checksum covers
}

func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func le64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// entrySectors is how many sectors the entries fill.
func (g *gpt) entrySectors() uint64 {
	return (uint64(g.count)*uint64(g.entrySize) + uint64(g.sector) - 1) / uint64(g.sector)
}

// parseHeader checks a header, which must say that it stands at LBA my of a
// disk of so many sectors.
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
	case le32(b, gptRevision) != 0x00010000:
		return nil, fmt.Errorf("the GPT has the unknown revision %#08x", le32(b, gptRevision))
	case g.size < gptMinHeader || g.size > uint32(sector):
		return nil, fmt.Errorf("the GPT's header says that it has %d bytes", g.size)
	case headerSum(g.header, g.size) != le32(b, gptHeaderCRC):
		return nil, errors.New("the checksum of the GPT's header is wrong")
	case le32(b, gptReserved) != 0:
		return nil, errors.New("the GPT's header has something in a reserved field")
	case g.my != my:
		return nil, fmt.Errorf("the GPT's header at sector %d says that it stands at %d", my, g.my)
	}
	return g, g.checkPlaces(disk)
}

// checkPlaces holds the header's numbers against each other and the disk.
func (g *gpt) checkPlaces(disk uint64) error {
	array := uint64(g.count) * uint64(g.entrySize)
	switch {
	case g.entrySize < 128 || g.entrySize > 4096 || g.entrySize&(g.entrySize-1) != 0:
		return fmt.Errorf("the GPT's entries have %d bytes each", g.entrySize)
	case array == 0 || array > maxEntries:
		return fmt.Errorf("the GPT has %d entries", g.count)
	case g.alternate >= disk || g.alternate == g.my || g.entriesLBA >= disk || g.entrySectors() > disk-g.entriesLBA:
		return errors.New("the GPT's parts lie outside the disk")
	case g.firstUsable > g.last || g.last >= disk:
		return fmt.Errorf("the GPT says that sectors %d to %d are usable", g.firstUsable, g.last)
	}
	return nil
}

// headerSum is the checksum of a header, whose own field counts as zero.
func headerSum(header []byte, size uint32) uint32 {
	b := slices.Clone(header[:size])
	clear(b[gptHeaderCRC : gptHeaderCRC+4])
	return crc32.ChecksumIEEE(b)
}

// setEntries takes the entries and checks them: their checksum, and that the
// partitions lie in the usable sectors and not on each other.
func (g *gpt) setEntries(b []byte) error {
	g.entries = b
	if crc32.ChecksumIEEE(b) != le32(g.header, gptEntriesCRC) {
		return errors.New("the checksum of the GPT's entries is wrong")
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

// span is a partition's sectors, both its own.
type span struct{ first, last uint64 }

// partitions lists what is used, in the order of the disk. An entry whose type
// is zero is not used.
func (g *gpt) partitions() []span {
	var parts []span
	for e := range slices.Chunk(g.entries, int(g.entrySize)) {
		if !bytes.Equal(e[:16], make([]byte, 16)) {
			parts = append(parts, span{le64(e, 32), le64(e, 40)})
		}
	}
	slices.SortFunc(parts, func(a, b span) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return parts
}

// parsePrimary reads the table at a disk's start; head is its first bytes.
func parsePrimary(head []byte, sector int, disk uint64) (*gpt, error) {
	if len(head) < 2*sector {
		return nil, errNoGPT
	}
	g, err := parseHeader(head[sector:], sector, 1, disk)
	if err != nil {
		return nil, err
	}
	end := (g.entriesLBA + g.entrySectors()) * uint64(sector)
	switch {
	case g.entriesLBA < 2 || g.entriesLBA+g.entrySectors() > g.firstUsable:
		return nil, errors.New("the GPT's entries lie on its header or on partitions")
	case end > uint64(len(head)):
		return nil, errors.New("the GPT's entries are not all in the disk's first MiB")
	}
	at := int(g.entriesLBA) * sector
	return g, g.setEntries(head[at : at+int(g.count*g.entrySize)])
}

// parseBackup reads the table at a disk's end; tail is its last bytes.
func parseBackup(tail []byte, sector int, disk uint64) (*gpt, error) {
	if len(tail) < 2*sector {
		return nil, errNoGPT
	}
	g, err := parseHeader(tail[len(tail)-sector:], sector, disk-1, disk)
	if err != nil {
		return nil, err
	}
	fromEnd := (disk - g.entriesLBA) * uint64(sector)
	if g.entriesLBA+g.entrySectors() > disk-1 || fromEnd > uint64(len(tail)) {
		return nil, errors.New("the backup GPT's entries do not lie before its header")
	}
	at := len(tail) - int(fromEnd)
	return g, g.setEntries(tail[at : at+int(g.count*g.entrySize)])
}

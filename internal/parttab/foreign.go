package parttab

import (
	"encoding/binary"
	"slices"
)

// foreignMagics are the marks of tables that are not understood. The sources are
// the systems' own headers, as Linux has them in block/partitions. They count even
// beside a boot record. Some disks have both, such as a stick with a boot CD, or a
// BSD's "dangerously dedicated" disk. Then neither table tells everything.
var foreignMagics = []struct {
	name  string
	off   int
	magic string
}{
	{"SGI", 0, "\x0B\xE5\xA9\x41"},
	{"AIX", 0, "\xC9\xC2\xD4\xC1"},
	{"PC-98", 4, "IPL1"},
	{"SysV68", 248, "MOTOROLA"},
	{"BSD", 64, bsdMagic}, // Alpha
	{"Solaris x86", 512 + 12, "\xEE\xDE\x0D\x60"},
}

// bsdMagic is d_magic of a BSD disklabel. The label begins at the second sector, or
// 64 bytes behind its start.
const bsdMagic = "\x57\x45\x56\x82"

// foreignTable names the partition table of another kind that a disk has, or
// returns "". A long magic is enough. For a table with a short magic, other fields
// are checked too.
func foreignTable(head []byte, sector int) string {
	at := func(off int, magic string) bool {
		return off+len(magic) <= len(head) && string(head[off:off+len(magic)]) == magic
	}
	for _, f := range foreignMagics {
		if at(f.off, f.magic) {
			return f.name
		}
	}
	switch {
	case at(512, bsdMagic) || at(512+64, bsdMagic) || at(sector, bsdMagic) || at(sector+64, bsdMagic):
		return "BSD"
	case isApple(head):
		return "Apple"
	case isSun(head):
		return "Sun"
	case isAmiga(head):
		return "Amiga"
	case isAtari(head):
		return "Atari"
	}
	return ""
}

// isApple looks for the first entry of the partition map, which has "PM" and the
// number of entries. It stands in the second block, and blocks can have several
// sizes.
func isApple(head []byte) bool {
	for _, block := range []int{512, 1024, 2048, 4096} {
		if len(head) < block+8 || string(head[block:block+2]) != "PM" {
			continue
		}
		if n := binary.BigEndian.Uint32(head[block+4:]); n >= 1 && n <= 256 {
			return true
		}
	}
	return false
}

// isSun looks for the magic at the sector's end. The exclusive or of all 16-bit
// words of the sector must be zero.
func isSun(head []byte) bool {
	if len(head) < 512 || string(head[508:510]) != "\xDA\xBE" {
		return false
	}
	sum := uint16(0)
	for b := range slices.Chunk(head[:512], 2) {
		sum ^= binary.BigEndian.Uint16(b)
	}
	return sum == 0
}

// isAmiga looks for a rigid disk block in the first 16 blocks. The block says how
// many 32-bit words it has, and their sum must be zero.
func isAmiga(head []byte) bool {
	for b := range slices.Chunk(head[:min(len(head), 16*512)], 512) {
		if len(b) < 512 || string(b[:4]) != "RDSK" {
			continue
		}
		be, sum := binary.BigEndian, uint32(0)
		for w := range slices.Chunk(b[:4*min(be.Uint32(b[4:]), 128)], 4) {
			sum += be.Uint32(w)
		}
		if sum == 0 {
			return true
		}
	}
	return false
}

// isAtari looks for a used entry of a known kind among the four entries of an AHDI
// root sector. Such a sector has no magic.
func isAtari(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	for e := range slices.Chunk(head[454:502], 12) {
		known := slices.Contains([]string{"GEM", "BGM", "XGM", "RAW", "LNX", "SWP", "UNX", "MIX", "F32"}, string(e[1:4]))
		if e[0]&1 != 0 && known {
			return true
		}
	}
	return false
}

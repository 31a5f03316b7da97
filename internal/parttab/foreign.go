package parttab

import (
	"encoding/binary"
	"slices"
)

// Tables that are not understood are known by these bytes. The sources are the
// systems' own headers, as Linux has them in block/partitions. They count
// beside a boot record too: some disks have both (boot CDs on a stick, a BSD's
// "dangerously dedicated" disk), and then neither tells all.
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

// bsdMagic is d_magic of a BSD disklabel, which is in the second sector, or 64
// bytes into it.
const bsdMagic = "\x57\x45\x56\x82"

// foreignTable names the partition table of another kind that a disk has, or
// is "". A long magic is enough; where it is short, the rest must fit.
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

// isApple looks for the map's first entry: "PM", and how many entries there
// are. It stands in the second block, whatever size a block has.
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

// isSun looks for the magic at the sector's end; the exclusive or of all its
// 16-bit words is zero.
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

// isAmiga looks for a rigid disk block in the first 16 blocks; the sum of as
// many 32-bit words as it says is zero.
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

// isAtari looks for a used entry of a known kind among the four of an AHDI
// root sector, which has no magic.
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

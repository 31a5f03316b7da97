package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"testbox-imaging/internal/usedmap/volume"
)

// bootSize is how many bytes of the boot sector are read. The signature is at
// byte 510 whatever the sector size is.
const bootSize = 512

// firstCluster is the number of the first cluster. The entries 0 and 1 of a FAT
// belong to no cluster.
const firstCluster = 2

// geometry is the layout, from the BIOS parameter block. Lengths are in sectors
// unless noted.
type geometry struct {
	sector, cluster int64 // bytes
	reserved        int64
	fats, fatSize   int64
	rootEntries     int64
	total           int64
	bits            int // of a FAT entry: 12, 16 or 32
	clusters        int64
	root            int64 // first cluster of the root directory, only FAT32
	info, backup    int64 // sectors of FSInfo and the second boot sector, only FAT32
	media           byte
}

func (g *geometry) rootStart() int64 { return g.reserved + g.fats*g.fatSize }
func (g *geometry) heap() int64      { return g.rootStart() + g.rootEntries*32/g.sector }

// at is the byte where a cluster begins.
func (g *geometry) at(c int64) int64 { return g.heap()*g.sector + (c-firstCluster)*g.cluster }

// is reports whether c is the number of a cluster.
func (g *geometry) is(c int64) bool { return c >= firstCluster && c < firstCluster+g.clusters }

// parse reads the boot sector. It fails if that is not the boot sector of a
// FAT.
func parse(b []byte) (*geometry, error) {
	if err := recognize(b); err != nil {
		return nil, err
	}
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	long := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	g := &geometry{
		sector: word(0x0B), reserved: word(0x0E), fats: int64(b[0x10]), rootEntries: word(0x11),
		total: word(0x13), media: b[0x15], fatSize: word(0x16),
	}
	g.cluster = g.sector * int64(b[0x0D])
	if big := long(0x20); g.total == 0 {
		g.total = big
	} else if big != 0 && big != g.total {
		return nil, fmt.Errorf("it says both that it has %d and %d sectors", g.total, big)
	}
	// Windows and Linux recognize a FAT32 by this field alone. The paper
	// decides by the count of clusters alone. But mkfs.fat -F 32, with which
	// many EFI partitions are made, also makes a FAT32 with fewer clusters than
	// the paper wants.
	if g.fatSize == 0 {
		g.bits, g.fatSize, g.root, g.info, g.backup = 32, long(0x24), long(0x2C), word(0x30), word(0x32)
	}
	return g, g.check()
}

// recognize checks what all FATs have in common.
func recognize(b []byte) error {
	power := func(n, low, high int) bool { return n >= low && n <= high && n&(n-1) == 0 }
	switch sector := int(binary.LittleEndian.Uint16(b[0x0B:])); {
	case b[510] != 0x55 || b[511] != 0xAA:
		return errors.New("it is no FAT: the signature of the boot sector is missing")
	case b[0] != 0xEB && b[0] != 0xE9: // a disk of an Atari has 0x60
		return errors.New("it is no FAT of a PC: it does not begin with a jump")
	case !power(sector, 512, 4096):
		return fmt.Errorf("it is no FAT: sectors of %d bytes", sector)
	case !power(int(b[0x0D]), 1, 128):
		return fmt.Errorf("it is no FAT: clusters of %d sectors", b[0x0D])
	case b[0x0E] == 0 && b[0x0F] == 0:
		return errors.New("it is no FAT: no reserved sectors")
	case b[0x10] == 0:
		return errors.New("it is no FAT: no table of clusters")
	case b[0x15] != 0xF0 && b[0x15] < 0xF8:
		return fmt.Errorf("it is no FAT: media byte %#x", b[0x15])
	}
	return nil
}

// check counts the clusters, which decides between FAT12 and FAT16. It fails if
// the parts of the file system do not fit into its size.
func (g *geometry) check() error {
	if g.bits == 32 && g.rootEntries != 0 {
		return errors.New("it is a FAT32 with a root directory as of a FAT16")
	}
	if g.bits == 0 && g.rootEntries == 0 {
		return errors.New("it has no root directory")
	}
	if g.rootEntries*32%g.sector != 0 { // Linux refuses this, others round up
		return errors.New("its root directory ends inside of a sector")
	}
	if g.fatSize == 0 || g.heap() >= g.total {
		return fmt.Errorf("its tables (%d FATs of %d sectors) have no room in %d sectors", g.fats, g.fatSize, g.total)
	}
	g.clusters = (g.total - g.heap()) / (g.cluster / g.sector)
	if err := g.decide(); err != nil {
		return err
	}
	if need := ((g.clusters+firstCluster)*int64(g.bits) + 7) / 8; need > g.fatSize*g.sector {
		return fmt.Errorf("its FAT of %d sectors is too small for %d clusters", g.fatSize, g.clusters)
	}
	return nil
}

// decide sets how many bits a FAT entry has.
func (g *geometry) decide() error {
	switch n := g.clusters; {
	case n == 0:
		return errors.New("it has no clusters")
	case g.bits == 32 && n > 0x0FFFFFF5, g.bits != 32 && n > 65524:
		return fmt.Errorf("it has more clusters (%d) than a FAT of its type can have", n)
	case g.bits == 32:
	case n < 4085:
		g.bits = 12
	case n < 4087: // the paper and Linux say FAT16, Windows says FAT12
		return fmt.Errorf("with %d clusters systems do not agree whether it is FAT12 or FAT16", n)
	default:
		g.bits = 16
	}
	return nil
}

// extended is where the extended boot record begins, at BS_DrvNum. The next
// byte, BS_Reserved1, is the state byte.
func (g *geometry) extended() int {
	if g.bits == 32 {
		return 0x40
	}
	return 0x24
}

// name returns the label and the serial number of the boot sector.
func (g *geometry) name(b []byte) (label, uuid string) {
	b = b[g.extended():]
	if b[2] == 0x28 || b[2] == 0x29 {
		n := binary.LittleEndian.Uint32(b[3:])
		uuid = fmt.Sprintf("%04X-%04X", n>>16, n&0xFFFF)
	}
	if b[2] == 0x29 {
		label = text(b[7:18])
	}
	if label == "NO NAME" {
		label = ""
	}
	return label, uuid
}

func text(b []byte) string {
	return strings.ToValidUTF8(strings.TrimRight(string(b), " \x00"), "?")
}

// bitLockerToGo is in the boot sector of a stick that Windows encrypted. What
// looks like a FAT there has the ciphertext in any place. The value is GUID
// 4967d63b-2e29-4ad8-8399-f6a339e3d001, from libyal's libbde, "BitLocker Drive
// Encryption format", 3.3.
const bitLockerToGo = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"

// trust fails if anything in the reserved sectors makes doubt.
func (g *geometry) trust(v *volume.Volume, b []byte) error {
	oem, kind := string(b[3:11]), string(b[g.extended()+18:][:5])
	switch {
	case g.total*g.sector > v.Size():
		return fmt.Errorf("it has %d bytes, more than the %d here", g.total*g.sector, v.Size())
	case oem == "NTFS    " || oem == "EXFAT   " || oem == "-FVE-FS-": // -FVE-FS- is BitLocker
		return fmt.Errorf("its boot sector is that of another file system (%q)", oem)
	case bytes.Contains(b, []byte(bitLockerToGo)):
		return errors.New("it is encrypted (BitLocker To Go)")
	case b[g.extended()+2] == 0x29 && (kind == "FAT12" || kind == "FAT16" || kind == "FAT32") && kind[3:] != fmt.Sprint(g.bits):
		return fmt.Errorf("it says that it is %s, and has the clusters of a FAT%d", kind, g.bits)
	case b[g.extended()+2] == 0x29 && kind == "HPFS ":
		return errors.New("its boot sector is that of another file system (HPFS)")
	case b[g.extended()+1]&3 != 0:
		return fmt.Errorf("it was not cleanly unmounted (state %#x in the boot sector)", b[g.extended()+1])
	}
	if g.bits == 32 {
		return g.trust32(v, b)
	}
	return nil
}

// trust32 is the part of trust that is only for FAT32.
func (g *geometry) trust32(v *volume.Volume, b []byte) error {
	flags, version := binary.LittleEndian.Uint16(b[0x28:]), binary.LittleEndian.Uint16(b[0x2A:])
	switch {
	case flags != 0:
		return fmt.Errorf("its FATs are not kept equal, or it has an unknown flag (BPB_ExtFlags %#x)", flags)
	case version != 0:
		return fmt.Errorf("it has the unknown version %#x", version)
	case !g.is(g.root):
		return fmt.Errorf("its root directory is at cluster %d of %d", g.root, g.clusters)
	}
	if info, err := g.reservedSector(v, g.info); err != nil {
		return fmt.Errorf("FSInfo: %w", err)
	} else if info != nil && (string(info[:4]) != "RRaA" || string(info[484:488]) != "rrAa") {
		return errors.New("the signatures of its FSInfo sector are wrong")
	}
	second, err := g.reservedSector(v, g.backup)
	if err != nil {
		return fmt.Errorf("the second boot sector: %w", err)
	}
	// Only the layout is compared. Programs change label, serial number, boot
	// code, hidden sectors, disk geometry and state only in the first boot
	// sector.
	if second != nil && !(bytes.Equal(b[0x0B:0x18], second[0x0B:0x18]) && bytes.Equal(b[0x20:0x34], second[0x20:0x34])) {
		return errors.New("its two boot sectors differ")
	}
	return nil
}

// reservedSector reads one of the reserved sectors, or returns nil if n means
// that there is none.
func (g *geometry) reservedSector(v *volume.Volume, n int64) ([]byte, error) {
	if n == 0 || n == 0xFFFF {
		return nil, nil
	}
	if n >= g.reserved {
		return nil, fmt.Errorf("it is at sector %d, outside of the %d reserved", n, g.reserved)
	}
	return v.Bytes(n*g.sector, bootSize)
}

package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What is on healthy volumes at the places of the signatures, and announces
// nothing.

// formula is a disk whose bytes follow from their offset.
type formula func(off int64) byte

func (f formula) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = f(off + int64(i))
	}
	return len(p), nil
}

func TestPatternsAnnounceNothing(t *testing.T) {
	patterns := map[string]formula{}
	for c := range 256 {
		patterns[fmt.Sprintf("filled with %#02x", c)] = func(int64) byte { return byte(c) }
	}
	text := "The quick brown fox jumps over the lazy dog.\r\n"
	patterns["text"] = func(off int64) byte { return text[off%int64(len(text))] }
	for _, unit := range []int64{1, 2, 4, 8, 512, 4096} {
		for _, add := range []int64{0, 1, 0xEF53, 0x11954} {
			patterns[fmt.Sprintf("counts %d bytes, little endian, plus %d", unit, add)] = func(off int64) byte {
				return byte((off/unit + add) >> (off % unit % 8 * 8))
			}
			patterns[fmt.Sprintf("counts %d bytes, big endian, plus %d", unit, add)] = func(off int64) byte {
				return byte((off/unit + add) >> (7 - off%unit%8) * 8)
			}
		}
	}
	for name, p := range patterns {
		sizes := []int64{700, 80 << 10}
		if strings.HasSuffix(name, "plus 0") {
			sizes = append(sizes, 3<<20)
		}
		for _, size := range sizes {
			if got := mustFind(t, p, size); got != nil {
				t.Errorf("%s, %d bytes: found %v", name, size, got)
			}
		}
	}
}

func TestNoiseAnnouncesNothing(t *testing.T) {
	b := make([]byte, 300<<10)
	for seed := range uint64(300) {
		rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		rnd.Read(b)
		if got := mustFind(t, bytes.NewReader(b), int64(len(b))); got != nil {
			t.Errorf("noise %d: found %v", seed, got)
		}
	}
}

// A magic of two bytes is met every day. With noise around it nearly none
// passes for a superblock; those with a sum of 16 bits do now and then.
func TestShortMagicsInNoise(t *testing.T) {
	const tries = 20000
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, s := range slices.Concat(formats, containers, tables, nestedTables) {
		short := s.find == nil && (s.magic == nil || len(slices.MinFunc(s.magic, func(a, b string) int { return len(a) - len(b) })) <= 3)
		if !short {
			continue
		}
		hits := 0
		b := make([]byte, max(s.size, s.at+8)+8)
		for range tries {
			for i := 0; i+8 <= len(b); i += 8 {
				binary.LittleEndian.PutUint64(b[i:], rnd.Uint64())
			}
			if s.magic != nil {
				copy(b[s.at:], s.magic[rnd.IntN(len(s.magic))])
			}
			if s.matches(structure{b: b, size: 1 << 40}) {
				hits++
			}
		}
		if hits > tries/2000 {
			t.Errorf("%s: %d of %d with its magic in noise match", s.name, hits, tries)
		}
	}
}

// A FAT of 12 or 16 bits starts in sector 1, so that its entries are where
// others have their superblocks: files in one piece, at all cluster numbers.
func TestFATsAnnounceNothingElse(t *testing.T) {
	var boot []byte
	for _, s := range samples() {
		if s.name == "fat" {
			boot = make([]byte, 512)
			s.disk().ReadAt(boot, 0)
			break
		}
	}
	b := make([]byte, 160<<10)
	for delta := range 1 << 16 {
		if delta > 200 && delta%61 != 0 && delta != 0xEF53-284 {
			continue
		}
		copy(b, boot)
		for i := 512; i+4 <= 8<<10; i += 4 {
			if delta%2 == 0 {
				binary.LittleEndian.PutUint16(b[i:], uint16((i-512)/2+delta))
				binary.LittleEndian.PutUint16(b[i+2:], uint16((i-512)/2+1+delta))
			} else {
				binary.LittleEndian.PutUint32(b[i:], uint32((i-512)/4+delta))
			}
		}
		if got := mustFind(t, bytes.NewReader(b[:8<<10]), 8<<10); len(got) > 1 {
			t.Fatalf("a FAT with chains from %d on: found %v", delta, got)
		}
	}
	if got := mustFind(t, bytes.NewReader(b), int64(len(b))); len(got) != 1 || got[0].Name != "fat" {
		t.Errorf("found %v: this proves nothing", got)
	}
}

// The counters of an ext4 are where a minix has its magic.
func TestCountersOfExtAnnounceNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	magics := []uint16{0x137F, 0x138F, 0x2468, 0x2478, 0x7F13, 0x8F13, 0x6824, 0x7824}
	for range 5000 {
		b := make([]byte, 8<<10)
		sb := b[1024:]
		put := func(at int, n uint32) { binary.LittleEndian.PutUint32(sb[at:], n) }
		groups := 1 + rnd.Uint32N(3000)
		put(0, groups*8192)
		put(4, groups*32768-rnd.Uint32N(32768))
		put(8, groups*rnd.Uint32N(3)*819) // -m 0 and others
		put(12, rnd.Uint32N(groups*32768))
		put(16, rnd.Uint32N(groups*8192)&^0xFFFF|uint32(magics[rnd.IntN(len(magics))]))
		put(24, 2)
		put(32, 32768)
		put(40, 8192)
		put(56, 0xEF53)
		put(76, 1)
		if got := mustFind(t, bytes.NewReader(b), int64(len(b))); !slices.Equal(got, []Match{{"ext", 1080}}) {
			t.Fatalf("found %v in %x", got, sb[:96])
		}
		w := newWindow(volumeOf(bytes.NewReader(b), 8<<10), 8<<10, 8<<10)
		for _, s := range formats {
			if off, _ := s.search(w); s.name == "minix" && off >= 0 {
				t.Errorf("a minix in %x: only that there is an ext keeps it out", sb[:96])
			}
		}
	}
}

// What boot loaders write into the boot sector of a file system that leaves
// it free.
func TestBootSectorsAreNotFAT(t *testing.T) {
	for name, head := range map[string]string{
		// GRUB's boot.img and lilo leave the BIOS parameter block as they find it: zeros.
		"GRUB": "eb639000000000000000000000000000000000000000000000000000000000000000000000000000000000",
		// extlinux fills one in, but for the fields that only a FAT has.
		"extlinux": "eb589053 59534c49 4e555800 02000000 00000000 00000000 20004000 00000000 00800c00",
		// Windows' master boot record is code from the first byte on.
		"Windows": "33c08ed0bc007c8ec08ed8be007cbf0006b90002fcf3a450681c06cbfbb90400bdbe07807e00007c0b0f850e01",
		"FreeBSD": "eb3c9000000000000000000000 02 00000000000000000000 1200 0200 00000000",
		"NTFS":    "eb52904e54465320202020 0002 08 0000 00 0000 0000 f8 0000 3f00 ff00 00080000 00000000 80008000",
		"exFAT":   "eb7690455846415420202000000000000000000000000000000000000000000000000000000000000000000000",
		"ReFS":    "000000526546530000000000000000 004653525300",
	} {
		p := sample{size: 1 << 30, at: parts{0: head, 510: "55aa"}}.disk()
		for _, m := range mustFind(t, p, p.size) {
			if m.Name == "fat" || m.Name == "dos" || m.Name == "gpt" {
				t.Errorf("the boot sector of %s: found %v", name, m)
			}
		}
	}
}

// guids are the types of partitions that Windows, Linux and the Mac make, and
// of those whose first bytes come near to a magic.
var guids = []string{
	"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "e3c9e316-0b5c-4db8-817d-f92df00215ae",
	"0fc63daf-8483-4772-8e79-3d69d8477de4", "21686148-6449-6e6f-744e-656564454649", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
	"e6d6d379-f507-44c2-a23c-238f2a3df928", "de94bba4-06d1-4d40-a16a-bfd50179d6ac", "48465300-0000-11aa-aa11-00306543ecac",
	"7c3457ef-0000-11aa-aa11-00306543ecac", "516e7cb4-6ecf-11d6-8ff8-00022d09712b", "6a898cc3-1dd2-11b2-99a6-080020736631",
	"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad", "a19d880f-05fc-4d3b-a006-743f0f84911e",
	"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "024dee41-33e7-11d3-9d69-0008c781f39f", "fe3a2a5d-4f32-41a7-b725-accc3285a309",
}

// diskGUID is a GUID as a GPT has it: the first three numbers little-endian.
func diskGUID(text string) []byte {
	var a uint32
	var b, c, d uint16
	var e uint64
	fmt.Sscanf(strings.ReplaceAll(text, "-", " "), "%x %x %x %x %x", &a, &b, &c, &d, &e)
	out := binary.LittleEndian.AppendUint32(nil, a)
	out = binary.LittleEndian.AppendUint16(out, b)
	out = binary.LittleEndian.AppendUint16(out, c)
	out = binary.BigEndian.AppendUint16(out, d)
	return append(out, binary.BigEndian.AppendUint64(nil, e)[2:]...)
}

// The entries of a GPT are where file systems have their superblocks, with
// 16 bytes of noise each, the partition's own GUID.
func TestEntriesOfGPTAnnounceNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var short []signature
	for _, s := range formats {
		if s.magic != nil && len(s.magic[0]) == 2 {
			short = append(short, s)
		}
	}
	for range 1500 {
		p := &disk{size: 64 << 20}
		p.put(512, []byte("EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00"))
		for i := range 1 + rnd.IntN(10) {
			e := diskGUID(guids[rnd.IntN(len(guids))])
			for range 2 {
				e = binary.LittleEndian.AppendUint64(e, rnd.Uint64())
			}
			s := short[rnd.IntN(len(short))]
			copy(e[16:], s.magic[rnd.IntN(len(s.magic))]) // where minix has it
			copy(e[24:], "\x5a\x4d")
			e = binary.LittleEndian.AppendUint64(e, uint64(2048+i*1000))
			e = binary.LittleEndian.AppendUint64(e, uint64(2047+(i+1)*1000))
			e = append(e, make([]byte, 8)...)
			for _, c := range "EFI system partition"[:rnd.IntN(20)] {
				e = append(e, byte(c), 0)
			}
			p.put(1024+int64(i)*128, e)
		}
		if got := mustFindDisk(t, p, p.size, 20<<10, 64<<20); got != nil {
			t.Fatalf("found %v in %x", got, p.spots)
		}
	}
}

// An old disk's first partition starts at sector 63, a new one's at 1 MiB: the
// superblocks of its file system are at places where others look for theirs.
func TestPartitionsAreNotTheDisk(t *testing.T) {
	table := parts{446: "80202100 83feffff 3f000000 00000100", 510: "55aa"}
	for _, start := range []int64{63 * 512, 1 << 20} {
		for _, s := range places() {
			p := sample{size: 32<<20 + s.size, at: table}.disk()
			p.over(s.disk(), start)
			if got := mustFindDisk(t, p, p.size, start, start+s.size); got != nil {
				t.Errorf("%v in a partition at %d: found %v", s, start, got)
			}
			if start == 1<<20 { // the same bytes as before
				continue
			}
			if got := mustFind(t, io.NewSectionReader(p, start, s.size), s.size); !slices.Equal(got, []Match{{s.name, s.off}}) {
				t.Errorf("%v in a partition at %d: the partition has %v", s, start, got)
			}
		}
	}
	// The last partition goes up to the last whole 64 KiB of the disk: the
	// superblock of its RAID would also be that of a RAID of whole disks.
	const size, start = 64<<20 + 8<<10, 1 << 20
	p := sample{size: size, at: parts{64<<20 - 64<<10: "fc4e2ba9 00000000 5a000000"}}.disk()
	want := []Match{{"linux_raid_member", 63<<20 - 64<<10}}
	if got := mustFind(t, io.NewSectionReader(p, start, 63<<20), 63<<20); !slices.Equal(got, want) {
		t.Errorf("the last partition has %v", got)
	}
	if got := mustFindDisk(t, p, size, start, 64<<20); got != nil {
		t.Errorf("the disk has %v", got)
	}
	want[0].Off += start
	if got := mustFind(t, p, size); !slices.Equal(got, want) {
		t.Errorf("without the partitions the disk has %v: this proves nothing", got)
	}
}

package ntfs

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

var le = binary.LittleEndian

// change is a volume that was changed, and what the reader is to say: "" for
// no doubt, and a map as before.
type change struct {
	name string
	do   func(*img)
	want string
}

// try runs changes on copies of a volume.
func try(t *testing.T, seed string, changes []change) {
	base := load(t, seed)
	before, err := base.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		i := base.clone()
		c.do(i)
		found, err := i.read()
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s, %s: %v; want %q", seed, c.name, err, c.want)
		case c.want == "" && err != nil:
			t.Errorf("%s, %s: %v", seed, c.name, err)
		case c.want == "" && !slices.Equal(found.Free.Ranges(), before.Free.Ranges()):
			t.Errorf("%s, %s: the map is another", seed, c.name)
		}
	}
}

func put16(at int, v uint16) func(*img) { return func(i *img) { le.PutUint16(i.b[at:], v) } }
func put32(at int, v uint32) func(*img) { return func(i *img) { le.PutUint32(i.b[at:], v) } }
func put64(at int, v uint64) func(*img) { return func(i *img) { le.PutUint64(i.b[at:], v) } }
func put8(at int, v byte) func(*img)    { return func(i *img) { i.b[at] = v } }

func TestFound(t *testing.T) {
	i := load(t, "plain")
	put64(0x48, 0x0123456789abcdef)(i)
	found, err := i.read()
	if err != nil {
		t.Fatal(err)
	}
	if found.FS != "ntfs" || found.Label != "seed plain" || found.UUID != "0123456789ABCDEF" || found.Size != int64(len(i.b)) {
		t.Errorf("%+v", found)
	}
	// About half of the volume is files.
	if n := found.Free.Bytes(); n < 2<<20 || n > 4<<20 {
		t.Errorf("%d bytes are free", n)
	}
	// What is known stands beside a doubt as well.
	i.editAttr(fileVolume, typeVolumeInfo, "", func(a []byte) { a[0x18+10] = 1 })
	if found, err := i.read(); err == nil || found == nil || found.Label != "seed plain" || found.UUID == "" || found.Free != nil {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestBootSector(t *testing.T) {
	size := 6291456
	try(t, "plain", []change{
		{"as Windows writes it", func(i *img) {
			put32(0x1c, 206848)(i)     // hidden_sectors
			put32(0x24, 0x00800080)(i) // physical_drive
			put16(0x18, 63)(i)
			put16(0x1a, 255)(i)
			copy(i.b[0x54:0x1f0], "\xfa\x33\xc0\x8e\xd0 BOOTMGR is missing")
		}, ""},
		{"another name", func(i *img) { copy(i.b[3:], "-FVE-FS-") }, "no NTFS"},
		{"no mark at the end", put8(510, 0), "no NTFS"},
		{"reserved sectors", put16(0x0e, 1), "of FAT"},
		{"FATs", put8(0x10, 2), "of FAT"},
		{"root entries", put16(0x11, 512), "of FAT"},
		{"sectors of FAT", put16(0x13, 1000), "of FAT"},
		{"sectors per FAT", put16(0x16, 1), "of FAT"},
		{"large sectors", put32(0x20, 1), "of FAT"},
		{"sectors of 128 bytes", put16(0x0b, 128), "sectors have 128"},
		{"sectors of 8192 bytes", put16(0x0b, 8192), "sectors have 8192"},
		{"sectors of 768 bytes", put16(0x0b, 768), "sectors have 768"},
		{"clusters of 3 sectors", put8(0x0d, 3), "clusters have 3"},
		{"clusters of no sectors", put8(0x0d, 0), "clusters have 0"},
		{"clusters of 4 MiB", put8(0x0d, 0xf3), "clusters have 8192"},
		{"clusters of another size", put8(0x0d, 0x10), "begins at cluster 767 of 767"},
		{"smaller clusters", put8(0x0d, 4), "$MFT"},
		{"clusters of 144 sectors", put8(0x0d, 0x90), "clusters have 144"},
		{"records of 2 GiB", put8(0x40, 0xe1), "MFT records"},
		{"records of no bytes", put8(0x40, 0), "MFT records"},
		{"records of 512 bytes", put8(0x40, 0xf7), "$MFT"},
		{"records of 4096 bytes", put8(0x40, 1), "$MFT"},
		{"no sectors", put64(0x28, 0), "it has 0 sectors"},
		{"too many sectors", put64(0x28, uint64(size/512+1)), "sectors of 512 bytes, its volume"},
		{"a negative number of sectors", put64(0x28, 1<<63), "sectors of 512 bytes, its volume"},
		{"all of the sectors", put64(0x28, uint64(size/512)), ""}, // the bits behind the last cluster are set,
		{"MFT at cluster 0", put64(0x30, 0), "begins at cluster 0"},
		{"MFT outside", put64(0x30, 1<<62), "begins at cluster"},
		{"MFT elsewhere", put64(0x30, 5), "$MFT"},
		{"mirror outside", put64(0x38, 1<<63), "begins at cluster"},
		{"mirror elsewhere", put64(0x38, 700), "$MFTMirr"},
		// The copy.
		{"no copy", func(i *img) { clear(i.b[size-512:]) }, ""},
		{"a garbled copy", func(i *img) { copy(i.b[size-512:], "XXX") }, ""},
		{"a copy with another serial", put64(size-512+0x48, 1), ""},
		{"a copy with other clusters", put8(size-512+0x0d, 16), "copy contradicts"},
		{"a copy with other sectors", put64(size-512+0x28, 1000), "copy contradicts"},
		{"a copy that makes no sense", put16(size-512+0x0b, 1), "copy contradicts"},
	})
}

// A volume that ends at its last sector, without the copy, is whole; one that
// ends before is not.
func TestCutShort(t *testing.T) {
	i := load(t, "plain")
	before, err := i.read()
	if err != nil {
		t.Fatal(err)
	}
	whole := len(i.b)
	i.b = i.b[:whole-512]
	found, err := i.read()
	if err != nil || !slices.Equal(found.Free.Ranges(), before.Free.Ranges()) {
		t.Errorf("without its last sector: %v", err)
	}
	for n := 0; n < whole-512; n += 4093 {
		i.b = i.b[:n]
		if found, err := i.read(); err == nil {
			t.Fatalf("cut to %d bytes: %+v", n, found)
		}
		i.b = i.b[:whole]
	}
	// More room than it has is used.
	i.b = append(i.b, make([]byte, 1<<20)...)
	found, err = i.read()
	if err != nil || !subset(found.Free.Ranges(), before.Free.Ranges()) {
		t.Errorf("in a larger volume: %v", err)
	}
}

// The middle of the volume, where NT 3.51 keeps the copy of the boot sector,
// is never free, nor is anything behind the last cluster.
func TestCopiesAreUsed(t *testing.T) {
	kept := 0
	for _, name := range seeds {
		i := load(t, name)
		f := i.open()
		middle := f.sectors / 2 * f.sector
		s, err := f.stream(fileBitmap, typeData, "")
		if err != nil {
			t.Fatal(err)
		}
		bit := middle / f.cluster
		byteAt := f.place(s, bit/8)
		was := i.b[byteAt]
		i.b[byteAt] &^= 1 << (bit % 8) // as on a volume that has nothing there
		found, err := i.read()
		if err != nil { // a file is there
			i.b[byteAt] = was
			found, err = i.read()
		} else {
			kept++
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found.Free.Ranges() {
			if r.Off <= middle && middle < r.End() {
				t.Errorf("%s: the middle is free: %v", name, r)
			}
			if r.Off < 8192 || r.End() > f.clusters*f.cluster {
				t.Errorf("%s: %v is free", name, r)
			}
		}
	}
	if kept == 0 {
		t.Error("all seeds have a file in the middle: this proves nothing")
	}
}

func TestVolume(t *testing.T) {
	info := func(major, minor byte, flags uint16) func(*img) {
		return func(i *img) {
			i.editAttr(fileVolume, typeVolumeInfo, "", func(a []byte) {
				a[0x18+8], a[0x18+9] = major, minor
				le.PutUint16(a[0x18+10:], flags)
			})
		}
	}
	try(t, "plain", []change{
		{"NT 4", info(1, 2, 0), ""},
		{"Windows 2000", info(3, 0, 0), ""},
		{"version 2.1", info(2, 1, 0), "unknown version 2.1"},
		{"version 3.2", info(3, 2, 0), "unknown version 3.2"},
		{"dirty", info(3, 1, 1), "dirty"},
		{"resize log", info(3, 1, 2), "resized"},
		{"upgrade", info(3, 1, 4), "upgraded"},
		{"mounted on NT 4", info(3, 1, 8), ""},
		{"delete change journal", info(3, 1, 0x10), ""},
		{"repair object IDs", info(3, 1, 0x20), "object IDs"},
		{"flag 0x40", info(3, 1, 0x40), "unknown flag 0x40"},
		{"flag 0x80", info(3, 1, 0x80), ""},
		{"flag 0x100", info(3, 1, 0x100), "unknown flag 0x100"},
		{"chkdsk underway", info(3, 1, 0x4000), "chkdsk"},
		{"modified by chkdsk", info(3, 1, 0x8000), "chkdsk"},
		{"dirty and harmless", info(3, 1, 0x99), "dirty"},
		{"no information", func(i *img) {
			i.editAttr(fileVolume, typeVolumeInfo, "", func(a []byte) { a[0] = 0x71 })
		}, "missing"},
		{"short information", func(i *img) {
			i.editAttr(fileVolume, typeVolumeInfo, "", func(a []byte) { a[0x10] = 11 })
		}, "11 bytes"},
		{"no label", func(i *img) {
			i.editAttr(fileVolume, typeVolumeName, "", func(a []byte) { a[0x10] = 0 })
		}, ""},
		{"not in use", func(i *img) {
			i.edit(fileVolume, func(r record) { r[0x16] = 0 })
		}, "not in use"},
	})
}

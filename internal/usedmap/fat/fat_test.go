package fat

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// disk is one of the packed disks of testdata (realfs.Pack): made by mkfs.fat
// 4.2 ("floppy": by mformat 4.0.32), with /a2, /dir/a3, "/dir/a long name" and
// /dir/sub/b, after /a1 and /b2 were deleted.
type disk struct {
	*realfs.Packed
	g *geometry
	t *testing.T
}

func open(t *testing.T, name string) disk {
	t.Helper()
	d := disk{realfs.Unpack(realfs.Seed(t, name), 1<<40), nil, t}
	sector := make([]byte, bootSize)
	d.ReadAt(sector, 0)
	var err error
	if d.g, err = parse(sector); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d disk) read() (*volume.Found, error) {
	return Read(volume.New(context.Background(), d, d.Size, 512, nil))
}

// put changes bytes.
func (d disk) put(off int64, b ...byte) { d.WriteAt(b, off) }

// fat is where the entry of a cluster is in one of the FATs.
func (d disk) fat(i, c int64) int64 {
	return (d.g.reserved+i*d.g.fatSize)*d.g.sector + c*int64(d.g.bits)/8
}

// set writes the entry of a cluster into all FATs.
func (d disk) set(c int64, e uint32) {
	for i := range d.g.fats {
		b := make([]byte, 4)
		d.ReadAt(b, d.fat(i, c))
		switch d.g.bits {
		case 12:
			shift := c % 2 * 4
			was := binary.LittleEndian.Uint16(b) &^ (0xFFF << shift)
			binary.LittleEndian.PutUint16(b, was|uint16(e&0xFFF)<<shift)
			b = b[:2]
		case 16:
			binary.LittleEndian.PutUint16(b, uint16(e))
			b = b[:2]
		case 32:
			binary.LittleEndian.PutUint32(b, e)
		}
		d.WriteAt(b, d.fat(i, c))
	}
}

// get is the entry of a cluster, as wide as for FAT32.
func (d disk) get(c int64) int64 {
	b := make([]byte, 8)
	d.ReadAt(b, d.fat(0, c&^1))
	return d.g.entry(b, c%2)
}

// entry is where the n-th entry of 32 bytes in the root directory is.
func (d disk) entry(n int64) int64 {
	if d.g.bits == 32 {
		return d.g.at(d.g.root) + 32*n
	}
	return d.g.rootStart()*d.g.sector + 32*n
}

// named is where the entry of a short name in the root directory is.
func (d disk) named(name string) int64 {
	for n := range int64(16) {
		b := make([]byte, 11)
		d.ReadAt(b, d.entry(n))
		if strings.TrimSpace(string(b)) == name {
			return d.entry(n)
		}
	}
	d.t.Fatalf("no %s in the root directory", name)
	return 0
}

// first is the first cluster of a file in the root directory.
func (d disk) first(name string) int64 {
	b := make([]byte, 2)
	d.ReadAt(b, d.named(name)+26)
	return int64(binary.LittleEndian.Uint16(b))
}

var disks = []string{"fat12", "fat16", "fat32", "fat32-4096", "floppy"}

// What is free is known to the byte: every cluster whose entry is 0.
func TestRead(t *testing.T) {
	for _, name := range disks {
		d := open(t, name)
		found, err := d.read()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var want volume.Free
		for c := int64(2); c < d.g.clusters+2; c++ {
			if d.get(c) == 0 {
				want.Add(d.g.at(c), d.g.cluster)
			}
		}
		if !equal(found.Free, &want) || want.Bytes() == 0 || found.FS != strings.Split(strings.Replace(name, "floppy", "fat12", 1), "-")[0] {
			t.Errorf("%s: %s, free %v, not %v", name, found.FS, found.Free.Ranges(), want.Ranges())
		}
	}
	found, _ := open(t, "fat32").read()
	if found.Label != "THIRTYTWO" || len(found.UUID) != 9 || found.Size != 34<<20 || len(found.Notes) != 0 {
		t.Errorf("%+v", found)
	}
}

func equal(a, b *volume.Free) bool {
	as, bs := a.Ranges(), b.Ranges()
	for i := range as {
		if i >= len(bs) || as[i] != bs[i] {
			return false
		}
	}
	return len(as) == len(bs)
}

// Everything that makes doubt.
func TestDoubt(t *testing.T) {
	for _, c := range []struct {
		disks string // "" is all
		what  string
		spoil func(d disk)
		want  string
	}{
		{"", "signature", func(d disk) { d.put(510, 0) }, "signature"},
		{"", "jump", func(d disk) { d.put(0, 0x60) }, "jump"},
		{"", "zeros", func(d disk) { d.put(0, make([]byte, 512)...) }, "no FAT"},
		{"", "sector size 0", func(d disk) { d.put(0x0B, 0, 0) }, "sectors of"},
		{"", "sector size 3 KiB", func(d disk) { d.put(0x0B, 0, 12) }, "sectors of"},
		{"", "sector size 8 KiB", func(d disk) { d.put(0x0B, 0, 32) }, "sectors of"},
		{"", "cluster size 0", func(d disk) { d.put(0x0D, 0) }, "clusters of"},
		{"", "cluster size 3", func(d disk) { d.put(0x0D, 3) }, "clusters of"},
		{"", "nothing reserved", func(d disk) { d.put(0x0E, 0, 0) }, "reserved"},
		{"", "no FAT", func(d disk) { d.put(0x10, 0) }, "no table"},
		{"", "media", func(d disk) { d.put(0x15, 0xF1) }, "media"},
		{"", "media of the FAT", func(d disk) { d.put(d.fat(d.g.fats-1, 0), 0xF5) }, "media"},
		{"", "no sectors", func(d disk) { d.put(0x13, 0, 0); d.put(0x20, 0, 0, 0, 0) }, "no room"},
		{"", "two sizes", func(d disk) { d.put(0x13, 1, 2); d.put(0x20, 3, 4, 0, 0) }, "both"},
		{"", "cut short", func(d disk) { d.Packed.Size = d.g.total*d.g.sector - 1 }, "more than"},
		{"", "FAT larger than the volume", func(d disk) { d.put(0x16, 0xFF, 0xFF) }, ""},
		{"fat32 fat32-4096", "no size of the FAT", func(d disk) { d.put(0x24, 0, 0, 0, 0) }, "no room"},
		{"fat32 fat32-4096", "huge FAT", func(d disk) { d.put(0x24, 0xFF, 0xFF, 0xFF, 0xFF) }, "no room"},
		{"fat32 fat32-4096", "small FAT", func(d disk) { d.put(0x24, byte(d.g.fatSize-1)) }, ""},
		{"fat12 fat16", "small FAT", func(d disk) { d.put(0x16, byte(d.g.fatSize)/2) }, "too small"},
		{"fat32", "root directory of a FAT16", func(d disk) { d.put(0x11, 16) }, "root directory"},
		{"fat12 fat16 floppy", "no root directory", func(d disk) { d.put(0x11, 0, 0) }, "root directory"},
		{"fat12 fat16 floppy", "root directory of 33 entries", func(d disk) { d.put(0x11, 33, 0) }, "inside of a sector"},
		{"fat32 fat32-4096", "dirty", func(d disk) { d.put(0x41, 1) }, "unmounted"},
		{"fat12 fat16 floppy", "dirty", func(d disk) { d.put(0x25, 1) }, "unmounted"},
		{"fat12 fat16 floppy", "surface to be tested", func(d disk) { d.put(0x25, 2) }, "unmounted"},
		{"fat32 fat32-4096", "dirty in the FAT", func(d disk) { d.set(1, 0x07FFFFFF) }, "unmounted"},
		{"fat32 fat32-4096", "hard error", func(d disk) { d.set(1, 0x0BFFFFFF) }, "errors"},
		{"fat32", "dirty in the second FAT", func(d disk) { d.put(d.fat(1, 1)+3, 0x07) }, "unmounted"},
		{"fat16", "dirty in the FAT", func(d disk) { d.set(1, 0x7FFF) }, "unmounted"},
		{"fat16", "hard error", func(d disk) { d.set(1, 0xBFFF) }, "errors"},
		{"fat12 fat32 fat32-4096 floppy", "FATs differ", func(d disk) { d.put(d.fat(1, d.g.clusters-10), 5) }, "differ"},
		{"fat32 fat32-4096", "only one FAT is kept", func(d disk) { d.put(0x28, 0x80) }, "equal"},
		{"fat32 fat32-4096", "version", func(d disk) { d.put(0x2A, 1) }, "version"},
		{"fat32 fat32-4096", "root outside", func(d disk) { d.put(0x2C, 1) }, "root directory is at"},
		{"fat32 fat32-4096", "root outside", func(d disk) { d.put(0x2C, 0, 0, 0, 0x10) }, "root directory is at"},
		{"fat32 fat32-4096", "root free", func(d disk) { d.set(d.g.root, 0) }, "free"},
		{"fat32 fat32-4096", "FSInfo", func(d disk) { d.put(d.g.info*d.g.sector, 'X') }, "FSInfo"},
		{"fat32 fat32-4096", "FSInfo", func(d disk) { d.put(d.g.info*d.g.sector+484, 'X') }, "FSInfo"},
		{"fat32 fat32-4096", "FSInfo outside", func(d disk) { d.put(0x30, 200) }, "FSInfo"},
		{"fat32 fat32-4096", "second boot sector outside", func(d disk) { d.put(0x32, 200) }, "second boot"},
		{"fat32 fat32-4096", "second boot sector", func(d disk) { d.put(d.g.backup*d.g.sector+0x0D, 64) }, "boot sectors differ"},
		{"fat32 fat32-4096", "second boot sector", func(d disk) { d.put(d.g.backup*d.g.sector+0x2C, 64) }, "boot sectors differ"},
		{"fat32 fat32-4096", "called FAT16", func(d disk) { d.put(0x52, []byte("FAT16")...) }, "FAT16"},
		{"fat16", "called FAT12", func(d disk) { d.put(0x36, []byte("FAT12")...) }, "FAT12"},
		{"fat16", "HPFS", func(d disk) { d.put(0x36, []byte("HPFS ")...) }, "HPFS"},
		{"", "NTFS", func(d disk) { d.put(3, []byte("NTFS    ")...) }, "NTFS"},
		{"", "BitLocker", func(d disk) { d.put(3, []byte("-FVE-FS-")...) }, "-FVE-FS-"},
		{"", "BitLocker To Go", func(d disk) { d.put(0x1A8, []byte(bitLockerToGo)...) }, "encrypted"},
		{"fat12 fat16 fat32 fat32-4096 floppy", "a file is free", func(d disk) { d.set(d.first("A2"), 0) }, "free"},
		{"", "a folder is free", func(d disk) { d.set(d.first("DIR"), 0) }, "free"},
		{"", "two folders in one place", func(d disk) { d.put(d.named("A2")+11, 0x10); d.put(d.named("A2")+26, byte(d.first("DIR"))) }, "share"},
		{"", "a file outside", func(d disk) {
			d.put(d.named("A2")+26, byte(d.g.clusters+2), byte((d.g.clusters+2)>>8))
			d.put(d.named("A2")+20, byte((d.g.clusters+2)>>16))
		}, "begins at"},
		{"", "a folder of noise", func(d disk) { d.put(d.g.at(d.first("DIR"))+64, bytes.Repeat([]byte("noise"), 20)...) }, "begins at"},
		{"", "a chain into nothing", func(d disk) { d.set(d.first("A2"), uint32(d.g.clusters)) }, "runs into"},
		{"", "a chain outside", func(d disk) { d.set(d.first("A2"), uint32(d.g.clusters+2)) }, "comes after"},
		{"", "a cluster that is being linked", func(d disk) { d.set(d.first("A2"), 1) }, "comes after"},
		{"fat12 fat16 fat32 floppy", "a chain into itself", func(d disk) { c := d.first("A2"); d.set(c+1, uint32(c+1)) }, ""},
		{"fat12 fat16 fat32 floppy", "two chains meet", func(d disk) { d.set(d.g.clusters+1, uint32(d.first("A2")+1)) }, "meet"},
	} {
		on := strings.Fields(c.disks)
		if c.disks == "" {
			on = disks
		}
		for _, name := range on {
			d := open(t, name)
			c.spoil(d)
			found, err := d.read()
			if err == nil || !strings.Contains(err.Error(), c.want) || found != nil && found.Free != nil {
				t.Errorf("%s, %s: %v, %v", name, c.what, found, err)
			}
		}
	}
}

// What healthy file systems have in other ways than the paper's examples.
func TestNoDoubt(t *testing.T) {
	for _, c := range []struct {
		disks  string
		what   string
		change func(d disk)
	}{
		{"fat32 fat32-4096", "a wrong count of free clusters", func(d disk) { d.put(d.g.info*d.g.sector+488, 1, 2, 3, 4, 5, 6) }},
		{"fat32 fat32-4096", "label, state and hidden sectors of the second boot sector", func(d disk) {
			at := d.g.backup * d.g.sector
			d.put(at+3, []byte("MSWIN4.1")...)
			d.put(at+0x18, 63, 0, 255, 0, 63)
			d.put(at+0x41, 1)
			d.put(at+0x43, []byte("1234another")...)
			d.put(at+0x5A, []byte("boot code")...)
		}},
		{"fat32 fat32-4096", "no FSInfo", func(d disk) { d.put(0x30, 0xFF, 0xFF); d.put(d.g.backup*d.g.sector+0x30, 0xFF, 0xFF) }},
		{"fat32 fat32-4096", "no second boot sector", func(d disk) { d.put(0x32, 0, 0) }},
		{"fat32 fat32-4096", "FAT[1] of other programs", func(d disk) { d.set(1, 0xFFFFFFF8) }},
		{"fat32", "FAT[1] of only one FAT", func(d disk) { d.put(d.fat(0, 1)+3, 0xFF) }},
		{"fat32 fat32-4096", "high bits of an entry", func(d disk) { d.set(d.first("A2"), 0xF0000000|uint32(d.get(d.first("A2")))) }},
		{"fat32 fat32-4096", "high bits of a free entry", func(d disk) { d.set(d.g.clusters, 0xF0000000) }},
		{"fat12 fat16 floppy", "no extended boot record", func(d disk) { d.put(0x26, 0) }},
		{"", "another name", func(d disk) { d.put(3, []byte("WINIMAGE")...) }},
		{"", "a name that says nothing", func(d disk) { d.put(int64(d.g.extended())+18, []byte("FAT     ")...) }},
		{"", "a larger volume", func(d disk) { d.Packed.Size += 12345 }},
		{"", "garbage behind the end of a folder", func(d disk) {
			d.put(d.g.at(d.first("DIR"))+d.g.cluster-32, bytes.Repeat([]byte{0xAA}, 32)...)
		}},
		{"", "an empty file with a cluster", func(d disk) {
			d.put(d.named("A2")+28, 0, 0, 0, 0)
			d.set(d.g.clusters, 0)
			d.put(d.named("A2")+26, byte(d.g.clusters))
		}},
		{"fat12 fat16 floppy", "extended attributes of OS/2", func(d disk) { d.put(d.named("A2")+20, 0x34, 0x12) }},
	} {
		on := strings.Fields(c.disks)
		if c.disks == "" {
			on = disks
		}
		for _, name := range on {
			d := open(t, name)
			before, _ := d.read()
			c.change(d)
			if found, err := d.read(); err != nil || !equal(found.Free, before.Free) {
				t.Errorf("%s, %s: %v", name, c.what, err)
			}
		}
	}
}

// Bad, reserved and lost clusters are used.
func TestUsedMarks(t *testing.T) {
	for _, name := range disks {
		for _, e := range []uint32{0xFFFFFF7, 0xFFFFFF0, 0xFFFFFF6, 0xFFFFFF8, 0xFFFFFFF} {
			d := open(t, name)
			before, _ := d.read()
			c := d.g.clusters - 3
			d.set(c, e)
			found, err := d.read()
			if err != nil {
				t.Fatal(name, err)
			}
			before.Free.Cut(d.g.at(c), d.g.cluster)
			if !equal(found.Free, before.Free) {
				t.Errorf("%s: %#x counts as free", name, e)
			}
		}
	}
}

// The count of clusters decides, but where systems do not agree.
func TestType(t *testing.T) {
	for _, c := range []struct {
		clusters int
		fat32    bool
		bits     int
	}{
		{1, false, 12}, {4084, false, 12}, {4085, false, 0}, {4086, false, 0}, {4087, false, 16}, {65524, false, 16}, {65525, false, 0},
		{1, true, 32}, {4085, true, 32}, {65524, true, 32}, {65525, true, 32}, {0x0FFFFFF5, true, 32}, {0x0FFFFFF6, true, 0}, {0, true, 0},
	} {
		b := make([]byte, bootSize)
		copy(b, "\xEB\x3C\x90mkfs.fat\x00\x02\x01\x01\x00\x01")
		b[0x15], b[510], b[511] = 0xF8, 0x55, 0xAA
		need := (c.clusters + 2 + 127) / 128
		total := 1 + need + c.clusters
		if c.fat32 {
			binary.LittleEndian.PutUint32(b[0x24:], uint32(need))
		} else {
			b[0x11] = 16
			total++
			binary.LittleEndian.PutUint16(b[0x16:], uint16(need))
		}
		binary.LittleEndian.PutUint32(b[0x20:], uint32(total))
		g, err := parse(b)
		if c.bits == 0 && err == nil || c.bits != 0 && (err != nil || g.bits != c.bits || g.clusters != int64(c.clusters)) {
			t.Errorf("%d clusters, FAT32 %v: %+v, %v", c.clusters, c.fat32, g, err)
		}
	}
}

// A disk with very many folders is not read for hours, and not in doubt.
func TestWalkIsBounded(t *testing.T) {
	for reads, partly := range map[int]bool{0: false, maxReads - 1: true} {
		d := open(t, "fat32")
		d.set(d.firstIn("DIR"), 0) // of the file in the folder
		v := volume.New(context.Background(), d, d.Size, 512, nil)
		tab := &table{v: v, g: d.g, named: newSet(d.g.clusters)}
		if err := tab.scan(); err != nil {
			t.Fatal(err)
		}
		w := &walk{v: v, g: d.g, free: tab.free.Ranges(), seen: newSet(d.g.clusters), reads: reads}
		if err := w.all(); (err == nil) != partly || w.partly != partly {
			t.Errorf("after %d reads: partly %v, %v", reads, w.partly, err)
		}
	}
}

// firstIn is the first cluster of the first file in a folder: its third entry
// may be a piece of a long name.
func (d disk) firstIn(folder string) int64 {
	for at := d.g.at(d.first(folder)) + 64; ; at += 32 {
		e := make([]byte, 32)
		d.ReadAt(e, at)
		if e[0] == 0 {
			d.t.Fatal("the folder is empty")
		}
		if e[11] == 0x20 {
			return int64(binary.LittleEndian.Uint16(e[26:]))
		}
	}
}

func TestSet(t *testing.T) {
	s := newSet(300)
	for _, c := range []int64{3, 64, 191, 299} {
		if s.add(c) || !s.add(c) {
			t.Errorf("%d was there before, or not after", c)
		}
	}
	for from := int64(0); from < 302; from++ {
		for n := int64(0); from+n <= 302; n++ {
			want := false
			for _, c := range []int64{3, 64, 191, 299} {
				want = want || c >= from && c < from+n
			}
			if s.any(from, n) != want {
				t.Fatalf("%d clusters from %d: not %v", n, from, want)
			}
		}
	}
}

// holds reports whether a byte is among free ranges.
func holds(free []image.Range, off int64) bool {
	for _, r := range free {
		if off >= r.Off && off < r.End() {
			return true
		}
	}
	return false
}

package exfat

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// disk is one of the packed disks of testdata (realfs.Pack): made by
// mkfs.exfat 1.2.0 and filled by exfat-fuse 1.3.0, with /whole in one piece,
// "/piece 1" and "/folder/piece 2" in several, and four more files in /folder.
type disk struct {
	*realfs.Packed
	g *geometry
	t *testing.T
}

var disks = []string{"small", "large", "sector-4096"}

func open(t *testing.T, name string) disk {
	t.Helper()
	d := disk{realfs.Unpack(realfs.Seed(t, name), 1<<40), nil, t}
	var err error
	if d.g, err = parse(d.bytes(0, bootSize)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d disk) read() (*volume.Found, error) {
	return Read(volume.New(context.Background(), d, d.Size, 512, nil))
}

func (d disk) bytes(off, n int64) []byte {
	b := make([]byte, n)
	d.ReadAt(b, off)
	return b
}

func (d disk) put(off int64, b ...byte) { d.WriteAt(b, off) }

// boot changes the boot sectors of both regions, with their checksums.
func (d disk) boot(off int64, b ...byte) {
	for region := range int64(2) {
		d.put(region*regionSectors*d.g.sector+off, b...)
		sum(d.Packed, region*regionSectors*d.g.sector, d.g.sector)
	}
}

// sum repairs the checksum of a boot region.
func sum(p *realfs.Packed, off, sector int64) {
	body := make([]byte, 11*sector)
	p.ReadAt(body, off)
	word := binary.LittleEndian.AppendUint32(nil, checksum(0, body, []int{106, 107, 112}))
	p.WriteAt(bytes.Repeat(word, int(sector/4)), off+11*sector)
}

// root is where the n-th entry of the root directory is, which has one cluster.
func (d disk) root(n int64) int64 { return d.g.at(d.g.root) + 32*n }

// find is the number of the first entry of a type in the root directory whose
// set has a word in a name (in any, for "").
func (d disk) find(kind byte, name string) int64 {
	for n := range d.g.cluster / 32 {
		e := d.bytes(d.root(n), 96)
		if e[0] == kind && strings.Contains(strings.ReplaceAll(string(e), "\x00", ""), name) {
			return n
		}
	}
	d.t.Fatalf("no entry %#x %s", kind, name)
	return 0
}

// file changes the stream entry of a file in the root directory.
func (d disk) file(name string, off int64, b ...byte) {
	n := d.find(typeFile, name)
	d.put(d.root(n+1)+off, b...)
	d.sumSet(n)
}

// sumSet repairs the checksum of a file's entries.
func (d disk) sumSet(n int64) {
	count := int64(d.bytes(d.root(n)+1, 1)[0])
	set := setChecksum(d.bytes(d.root(n), 32*(1+count)))
	d.put(d.root(n)+2, byte(set), byte(set>>8))
}

// firstOf is a file's first cluster.
func (d disk) firstOf(name string) int64 {
	return int64(binary.LittleEndian.Uint32(d.bytes(d.root(d.find(typeFile, name)+1)+20, 4)))
}

func (d disk) fatAt(c int64) int64 { return d.g.fat*d.g.sector + 4*c }

func (d disk) link(c, to int64) {
	d.put(d.fatAt(c), binary.LittleEndian.AppendUint32(nil, uint32(to))...)
}

// mark sets or clears the bit of a cluster.
func (d disk) mark(c int64, used bool) {
	bitmap := d.root(d.find(typeBitmap, ""))
	at := d.g.at(int64(binary.LittleEndian.Uint32(d.bytes(bitmap+20, 4)))) + (c-2)/8
	b := d.bytes(at, 1)[0] &^ (1 << ((c - 2) % 8))
	if used {
		b |= 1 << ((c - 2) % 8)
	}
	d.put(at, b)
}

// end is the number of the first entry of the root directory that is not in use.
func (d disk) end() int64 {
	for n := range d.g.cluster / 32 {
		if d.bytes(d.root(n), 1)[0] < typeInUse {
			return n
		}
	}
	d.t.Fatal("the root directory is full")
	return 0
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

func TestRead(t *testing.T) {
	for _, name := range disks {
		d := open(t, name)
		found, err := d.read()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var want volume.Free
		e := d.bytes(d.root(d.find(typeBitmap, "")), 32)
		bitmap := d.bytes(d.g.at(int64(binary.LittleEndian.Uint32(e[20:]))), (d.g.clusters+7)/8)
		for c := range d.g.clusters {
			if bitmap[c/8]>>(c%8)&1 == 0 {
				want.Add(d.g.at(c+2), d.g.cluster)
			}
		}
		if !equal(found.Free, &want) || want.Bytes() < d.Size/4 || found.FS != "exfat" || len(found.UUID) != 9 || found.Size != d.Size {
			t.Errorf("%s: %+v, free %v, not %v", name, found, found.Free.Ranges(), want.Ranges())
		}
		if label := map[string]string{"small": "SMALL", "sector-4096": "4K"}[name]; found.Label != label {
			t.Errorf("%s: label %q", name, found.Label)
		}
	}
}

// Everything that makes doubt.
func TestDoubt(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(d disk)
		want  string
	}{
		{"name", func(d disk) { d.boot(3, 'N') }, "no exFAT"},
		{"jump", func(d disk) { d.boot(0, 0xE9) }, "jump"},
		{"signature", func(d disk) { d.boot(510, 0) }, "signature"},
		{"fields of a FAT", func(d disk) { d.boot(11, 0, 2) }, "fields"},
		{"sector size", func(d disk) { d.boot(108, 13) }, "sectors of"},
		{"cluster size", func(d disk) { d.boot(109, 17) }, "clusters of"},
		{"size", func(d disk) { d.boot(79, 1) }, "sectors"},
		{"size", func(d disk) { d.boot(79, 0x80) }, "sectors"},
		{"a sector too large", func(d disk) { d.Packed.Size -= 1 }, "more than"},
		{"no sectors", func(d disk) { d.boot(72, 0, 0, 0, 0) }, "no room"},
		{"FAT in the boot regions", func(d disk) { d.boot(80, 23, 0, 0, 0) }, "no room"},
		{"FAT in the clusters", func(d disk) { d.boot(84, 0xFF, 0xFF, 0xFF, 0xFF) }, "no room"},
		{"small FAT", func(d disk) { d.boot(84, 0, 0, 0, 0) }, "too small"},
		{"no clusters", func(d disk) { d.boot(92, 0, 0, 0, 0) }, "no room"},
		{"too many clusters", func(d disk) { d.boot(92, 0xF5, 0xFF, 0xFF, 0xFF) }, "no room"},
		{"root directory", func(d disk) { d.boot(96, 1) }, "root directory"},
		{"root directory", func(d disk) { d.boot(99, 0xFF) }, "root directory"},
		{"revision", func(d disk) { d.boot(105, 2) }, "revision"},
		{"two FATs", func(d disk) { d.boot(110, 2) }, "TexFAT"},
		{"second FAT", func(d disk) { d.boot(106, 1) }, "TexFAT"},
		{"dirty", func(d disk) { d.boot(106, 2) }, "unmounted"},
		{"media failure", func(d disk) { d.boot(106, 4) }, "errors"},
		{"unknown flag", func(d disk) { d.boot(106, 0x10) }, "unknown flags"},
		{"unknown flag", func(d disk) { d.boot(107, 0x80) }, "unknown flags"},
		{"checksum", func(d disk) { d.put(113, 1) }, "boot region: its checksum"},
		{"boot code", func(d disk) { d.put(10*d.g.sector, 1) }, "boot region: its checksum"},
		{"one word of the checksum", func(d disk) { d.put(12*d.g.sector-1, 1) }, "boot region: its checksum"},
		{"second checksum", func(d disk) { d.put(13*d.g.sector, 1) }, "second boot region: its checksum"},
		{"second region", func(d disk) { d.put(12*d.g.sector+96, 9); sum(d.Packed, 12*d.g.sector, d.g.sector) }, "differ"},
		{"head of the FAT", func(d disk) { d.put(d.fatAt(0), make([]byte, 8)...) }, "FAT begins"},
		{"root directory in a ring", func(d disk) {
			d.put(d.root(0), bytes.Repeat([]byte{5}, int(d.g.cluster))...)
			d.link(d.g.root, d.g.root)
		}, "without an end"},
		{"root directory goes on nowhere", func(d disk) {
			d.put(d.root(d.end()), bytes.Repeat([]byte{5}, int(d.g.cluster-32*d.end()))...)
			d.link(d.g.root, 0)
		}, "goes on"},
		{"root directory free", func(d disk) { d.mark(d.g.root, false) }, "free"},
		{"no bitmap", func(d disk) { d.put(d.root(d.find(typeBitmap, "")), 1) }, "no allocation bitmap"},
		{"second bitmap", func(d disk) { d.put(d.root(d.end()), d.bytes(d.root(d.find(typeBitmap, "")), 32)...) }, "second"},
		{"TexFAT's bitmap", func(d disk) { d.put(d.root(d.find(typeBitmap, ""))+1, 1) }, "unknown one"},
		{"bitmap free", func(d disk) { d.mark(2, false) }, "free"},
		{"short bitmap", func(d disk) { d.put(d.root(d.find(typeBitmap, ""))+24, 1, 0, 0) }, "bytes for"},
		{"huge bitmap", func(d disk) { d.put(d.root(d.find(typeBitmap, ""))+31, 0x7F) }, "bitmap"},
		{"bitmap of -1", func(d disk) { d.put(d.root(d.find(typeBitmap, ""))+24, bytes.Repeat([]byte{0xFF}, 8)...) }, "bitmap"},
		{"bitmap outside", func(d disk) { d.put(d.root(d.find(typeBitmap, ""))+22, 0xFF) }, "bitmap"},
		{"bitmap without a chain", func(d disk) { d.link(2, 0) }, "one piece"},
		{"bitmap in pieces", func(d disk) { d.link(2, 9) }, "one piece"},
		{"no up-case table", func(d disk) { d.put(d.root(d.find(typeUpcase, "")), 2) }, "up-case"},
		{"up-case table", func(d disk) { d.put(d.root(d.find(typeUpcase, ""))+4, 1) }, "checksum"},
		{"long up-case table", func(d disk) { d.put(d.root(d.find(typeUpcase, ""))+27, 1) }, "up-case"},
		{"TexFAT padding", func(d disk) { d.put(d.root(d.end()), typePadding) }, "TexFAT"},
		{"unknown critical entry", func(d disk) { d.put(d.root(d.end()), 0x86) }, "0x86"},
		{"entry 0x80", func(d disk) { d.put(d.root(d.end()), 0x80) }, "0x80"},
		{"file free", func(d disk) { d.mark(d.firstOf("whole"), false) }, "free"},
		{"piece of a file free", func(d disk) {
			c := d.firstOf("piece")
			if d.g.cluster > 2100 {
				d.mark(c, false)
				return
			}
			d.mark(int64(binary.LittleEndian.Uint32(d.bytes(d.fatAt(c), 4))), false)
		}, "free"},
		{"folder free", func(d disk) { d.mark(d.firstOf("folder"), false) }, "free"},
		{"file outside", func(d disk) { d.file("whole", 23, 0x7F) }, " from 0x7f0000"},
		{"long file", func(d disk) { d.file("whole", 31, 0x7F) }, "bytes"},
		{"file of -1", func(d disk) { d.file("whole", 31, 0xFF) }, "bytes"},
		{"long folder", func(d disk) { d.file("folder", 27, 0x20) }, ""},
		{"folder twice", func(d disk) {
			c := d.firstOf("folder")
			n := d.find(typeFile, "whole")
			d.put(d.root(n)+4, 0x10)
			d.file("whole", 20, byte(c), byte(c>>8))
			d.file("whole", 24, d.bytes(d.root(d.find(typeFile, "folder")+1)+24, 8)...)
			d.file("whole", 1, d.bytes(d.root(d.find(typeFile, "folder")+1)+1, 1)...)
		}, "share"},
		{"checksum of a file", func(d disk) { d.put(d.root(d.find(typeFile, "whole"))+8, 1, 2, 3) }, "checksum"},
		{"file without a stream", func(d disk) { d.file("whole", 0, typeName) }, "where it is"},
		{"file with few entries", func(d disk) { d.put(d.root(d.find(typeFile, "whole"))+1, 200) }, "fewer"},
		{"noise in a folder", func(d disk) { d.put(d.g.at(d.firstOf("folder")), 0x99) }, "0x99"},
		{"bitmap in a folder", func(d disk) { d.put(d.g.at(d.firstOf("folder")), typeBitmap) }, "in a folder"},
		{"stray stream of what is free", func(d disk) {
			d.put(d.root(d.end()), d.bytes(d.root(d.find(typeFile, "whole")+1), 32)...)
			d.put(d.root(d.end()-1)+20, byte(d.g.clusters), byte(d.g.clusters>>8))
			d.mark(d.g.clusters, false)
		}, "clusters from"},
	} {
		for _, name := range disks {
			d := open(t, name)
			c.spoil(d)
			found, err := d.read()
			if err == nil || !strings.Contains(err.Error(), c.want) || found != nil && found.Free != nil {
				t.Errorf("%s, %s: %v, %v", name, c.what, found, err)
			}
		}
	}
}

// What healthy file systems of Windows, macOS, cameras and sticks have that
// those of mkfs.exfat have not.
func TestNoDoubt(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(d disk)
	}{
		{"PercentInUse of one region, ClearToZero", func(d disk) { d.put(106, 8); d.put(112, 99) }},
		{"flags in the second region", func(d disk) { d.put(12*d.g.sector+106, 2) }},
		{"serial number, partition and boot code in one region", func(d disk) {
			d.put(64, 1, 2, 3)
			d.put(100, 1, 2, 3, 4)
			d.put(120, 1, 2, 3)
			sum(d.Packed, 0, d.g.sector)
		}},
		{"OEM parameters", func(d disk) { d.boot(9*d.g.sector, bytes.Repeat([]byte("flash"), 40)...) }},
		{"volume GUID", func(d disk) { d.put(d.root(d.end()), bytes.Repeat([]byte{0xA0}, 32)...) }},
		{"entry 0xAA of macOS", func(d disk) { d.put(d.root(d.end()), 0xAA, 1, 2, 3) }},
		{"ACLs of Windows CE", func(d disk) { d.put(d.root(d.end()), 0xA2, 1, 2, 3) }},
		{"stray stream and name", func(d disk) {
			n := d.find(typeFile, "whole")
			d.put(d.root(d.end()), d.bytes(d.root(n+1), 64)...)
		}},
		{"no label", func(d disk) { d.put(d.root(0), 3) }},
		{"some bytes more of bitmap", func(d disk) {
			at := d.root(d.find(typeBitmap, ""))
			d.put(at+24, d.bytes(at+24, 1)[0]+2)
		}},
		{"empty file with a cluster", func(d disk) {
			d.file("whole", 8, make([]byte, 8)...)
			d.file("whole", 24, make([]byte, 8)...)
		}},
		{"a volume larger than the file system", func(d disk) { d.Packed.Size += 12345 }},
		{"deleted entries with old clusters", func(d disk) {
			d.put(d.root(d.end()), 0x05, 2, 0, 0)
			d.put(d.root(d.end()), append([]byte{0x40, 1}, bytes.Repeat([]byte{0x77}, 30)...)...)
		}},
	} {
		for _, name := range disks {
			d := open(t, name)
			before, _ := d.read()
			c.change(d)
			if found, err := d.read(); err != nil || !equal(found.Free, before.Free) {
				t.Errorf("%s, %s: %v", name, c.what, err)
			}
		}
	}
}

// A file may have clusters of a vendor's beside its own.
func TestVendorEntry(t *testing.T) {
	for _, used := range []bool{true, false} {
		d := open(t, "sector-4096")
		n, c := d.end()+3, d.g.clusters-4
		whole := d.find(typeFile, "whole")
		d.put(d.root(n), d.bytes(d.root(whole), 96)...)
		d.put(d.root(n)+1, 3)
		vendor := make([]byte, 32)
		vendor[0], vendor[1], vendor[24] = 0xE1, 3, 7
		binary.LittleEndian.PutUint32(vendor[20:], uint32(c))
		d.put(d.root(n+3), vendor...)
		d.sumSet(n)
		d.mark(c, used)
		if _, err := d.read(); (err == nil) != used {
			t.Errorf("used %v: %v", used, err)
		}
	}
}

// A disk with very many files is not read for hours, and not in doubt.
func TestWalkIsBounded(t *testing.T) {
	for reads, partly := range map[int]bool{0: false, maxReads: true} {
		d := open(t, "large")
		d.mark(d.firstOf("piece"), false)
		f := &fat{v: volume.New(context.Background(), d, d.Size, 512, nil), g: d.g}
		s, err := system(f)
		if err != nil {
			t.Fatal(err)
		}
		free, err := f.bitmap(s.bitmap)
		if err != nil {
			t.Fatal(err)
		}
		w := &walk{f: f, free: free.Ranges(), seen: map[int64]bool{}, reads: reads}
		if err := w.all(); (err == nil) != partly || w.partly != partly {
			t.Errorf("after %d reads: partly %v, %v", reads, w.partly, err)
		}
	}
}

// A root directory in two pieces, as it grows on a full disk.
func TestRootInPieces(t *testing.T) {
	d := open(t, "small")
	c := d.g.clusters - 9
	for n := range d.g.cluster / 32 {
		if d.bytes(d.root(n), 1)[0] == 0 {
			d.put(d.root(n), 0x05)
		}
	}
	d.link(d.g.root, c)
	d.link(c, chainEnd)
	d.put(d.g.at(c), 0x86)
	d.mark(c, true)
	if _, err := d.read(); err == nil || !strings.Contains(err.Error(), "0x86") {
		t.Errorf("the second piece was not read: %v", err)
	}
	d.put(d.g.at(c), 0)
	found, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range found.Free.Ranges() {
		if off := d.g.at(c); off >= r.Off && off < r.End() {
			t.Error("it is free")
		}
	}
	d.mark(c, false)
	if _, err := d.read(); err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("the second piece is free: %v", err)
	}
}

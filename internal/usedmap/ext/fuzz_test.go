package ext

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// The file systems below testdata have maps, with and without a log: those
// without "cut" in the name were unmounted.
func TestBases(t *testing.T) {
	for name, data := range realfs.Seeds(t, "testdata") {
		found, err := readPacked(realfs.Unpack(data, 1<<30))
		if err != nil || found.Free.Bytes() < 100<<10 {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(name, "cut") != (len(found.Notes) > 0) {
			t.Errorf("%s: %v", name, found.Notes)
		}
	}
}

// TestUninitNeedsChecksums: the flag that says that a bitmap means nothing
// counts only where descriptors have checksums. Linux believes it nowhere else.
func TestUninitNeedsChecksums(t *testing.T) {
	p := realfs.Unpack(realfs.Seeds(t, "testdata")["plain"], 1<<30)
	flagged := -1
	for g, d := range opened(t, p).groups {
		if d.uninit {
			flagged = g
		}
	}
	if flagged < 0 {
		t.Fatal("no group has the flag: this proves nothing")
	}
	sb := superOf(p)
	le.PutUint32(sb.raw[0x64:], sb.u32(0x64)&^uint32(roMetadataCsum))
	sb.write(p)
	superOf(p).write(p)
	if found, err := readPacked(p); err == nil {
		t.Errorf("%d bytes are free by a flag that means nothing", found.Free.Bytes())
	} else if !strings.Contains(err.Error(), "the bitmap of group") {
		t.Error(err)
	}
}

// TestMakeBases makes them: EXT_BASES=testdata.
func TestMakeBases(t *testing.T) {
	dir := os.Getenv("EXT_BASES")
	if dir == "" {
		dir = t.TempDir()
	}
	testenv.Root(t)
	for _, b := range []struct {
		name, args string
		kb         int64
		busy       bool
	}{
		{"plain", "-b 1024 -O ^has_journal,^resize_inode -N 64 -g 256", 600, false},
		{"journal", "-b 1024 -N 64 -J size=1 -g 1024 -O ^resize_inode", 3000, false},
		{"bigalloc", "-b 1024 -O bigalloc,^has_journal,^resize_inode -C 4096 -N 64", 3000, false},
		{"crc16", "-b 1024 -O ^has_journal,^metadata_csum,uninit_bg,meta_bg,^resize_inode -N 64 -g 256", 2000, false},
		{"cut-csum3", "-b 1024 -N 64 -J size=1 -g 2048 -O ^resize_inode", 5000, true},
		{"cut-ext3", "-t ext3 -b 1024 -N 64 -J size=1 -O ^resize_inode", 5000, true},
		{"cut-csum1", "-b 1024 -O ^metadata_csum,^resize_inode -N 64 -J size=1", 5000, true},
	} {
		img := realfs.Ext.Make(t, b.kb<<10, strings.Fields(b.args)...)
		if b.busy {
			kind := realfs.Ext
			if b.name == "cut-csum1" {
				kind.Mount = []string{"mount", "-o", "loop,journal_checksum", "IMG", "DIR"}
			}
			cut := img + ".cut"
			kind.Mounted(t, img, func(mnt string) {
				for i := range 4 {
					os.WriteFile(filepath.Join(mnt, fmt.Sprint(i%2)), make([]byte, 9000*i), 0o600)
					if i == 2 {
						os.Remove(filepath.Join(mnt, "1"))
					}
					realfs.Run(t, "sync", "-f", mnt)
				}
				realfs.Run(t, "cp", "--sparse=always", img, cut)
			})
			img = cut
		}
		found, err := realfs.Map(t, img, Read)
		if err != nil || b.busy == (len(found.Notes) == 0) {
			t.Fatalf("%s: %v", b.name, err)
		}
		var zipped bytes.Buffer
		z, _ := gzip.NewWriterLevel(&zipped, 9)
		z.Write(realfs.Pack(t, img))
		z.Close()
		if err := os.WriteFile(filepath.Join(dir, b.name+".packed.gz"), zipped.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// edit changes bytes of the sectors that are not zero: each edit is a place
// (4 bytes) and what is XORed to it.
func edit(p *realfs.Packed, edits []byte) {
	var sectors []int64
	for n := range p.Sectors {
		sectors = append(sectors, n)
	}
	slices.Sort(sectors)
	for ; len(edits) >= 5; edits = edits[5:] {
		at := int(binary.LittleEndian.Uint32(edits)) % (len(sectors) * 512)
		p.Sectors[sectors[at/512]][at%512] ^= edits[4]
	}
}

// repaired makes checksums right again, as far as what they are of can still
// be found.
func repaired(p *realfs.Packed) {
	s := superOf(p)
	if s == nil {
		return
	}
	s.write(p)
	if s.check(p.Size) != nil || s.groups > 100 {
		return
	}
	f := &fsys{v: volume.New(context.Background(), p, p.Size, 512, nil), sb: s, groups: make([]group, s.groups)}
	for i := range s.descBlocks() {
		block, err := f.blocks(s.descBlock(i), 1)
		if err != nil {
			return
		}
		for in := 0; in < s.descsPerBlock() && int(i)*s.descsPerBlock()+in < s.groups; in++ {
			g := int(i)*s.descsPerBlock() + in
			d := block[in*int(s.descSize):][:s.descSize]
			f.groups[g] = s.parseGroup(d)
			f.repairDesc(g, d)
		}
		p.WriteAt(block, int64(s.descBlock(i))*s.blockSize)
	}
	if s.journalInode != 0 {
		f.repairJournal(p)
	}
}

// repairDesc makes a descriptor's checksums and free count right.
func (f *fsys) repairDesc(g int, d []byte) {
	s := f.sb
	bitmap, err := f.v.Bytes(int64(f.groups[g].blockBitmap)*s.blockSize, int(s.blockSize))
	if err == nil && !f.groups[g].uninit {
		le.PutUint16(d[0xC:], uint16(countClear(bitmap, s.groupClusters(g))))
		if s.has(roMetadataCsum) {
			sum := crc32c(s.seed, bitmap[:s.clustersPerGroup/8])
			le.PutUint16(d[0x18:], uint16(sum))
			if len(d) >= 64 {
				le.PutUint16(d[0x38:], uint16(sum>>16))
			}
		}
	}
	number := le.AppendUint32(nil, uint32(g))
	switch le.PutUint16(d[0x1E:], 0); {
	case s.has(roMetadataCsum):
		le.PutUint16(d[0x1E:], uint16(crc32c(crc32c(s.seed, number), d)))
	case s.has(roGdtCsum):
		le.PutUint16(d[0x1E:], crc16(crc16(crc16(crc16(0xFFFF, s.uuid), number), d[:0x1E]), d[0x20:]))
	}
}

// repairJournal makes the checksums of the journal's superblock and of the
// blocks of its log right.
func (f *fsys) repairJournal(p *realfs.Packed) {
	n, err := f.readInode(f.sb.journalInode)
	if err != nil || n.size() < 2048 || n.size() > uint64(p.Size) {
		return
	}
	places, err := f.places(n, n.size()/uint64(f.sb.blockSize))
	if err != nil {
		return
	}
	sb := make([]byte, superSize)
	p.ReadAt(sb, int64(places[0].at)*f.sb.blockSize)
	fixJournalSuper(sb)
	p.WriteAt(sb, int64(places[0].at)*f.sb.blockSize)
	j, err := f.openJournal()
	if err != nil || !j.sums {
		return
	}
	for n := j.first; n < j.last; n++ {
		b, err := j.read(n, 1)
		if err != nil {
			return
		}
		b = bytes.Clone(b)
		kind, sequence, ok := j.header(b)
		if !ok {
			continue
		}
		sum := len(b) - 4
		switch kind {
		case jbdCommit:
			sum = 0x10
		case jbdDescriptor:
			at := n
			for i := range j.tags(b) {
				at = j.next(at, 1)
				data, err := j.read(at, 1)
				if err != nil || j.incompat&jbdCsum3 == 0 || 12+16*i+16 > sum {
					break
				}
				be.PutUint32(b[12+16*i+12:], crc32c(crc32c(j.seed, be.AppendUint32(nil, sequence)), data))
			}
		}
		be.PutUint32(b[sum:], 0)
		be.PutUint32(b[sum:], crc32c(j.seed, b))
		p.WriteAt(b, j.home(n))
	}
}

func FuzzRead(f *testing.F) {
	seeds := realfs.Seeds(f, "testdata")
	names := slices.Sorted(maps.Keys(seeds))
	for i := range names {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i|0x80), []byte{0x60, 0, 0, 0, 4})
	}
	f.Fuzz(func(t *testing.T, base uint8, edits []byte) {
		p := realfs.Unpack(seeds[names[int(base&0x7F)%len(names)]], 1<<30)
		edit(p, edits)
		if base&0x80 != 0 {
			repaired(p)
		}
		if found := realfs.Fuzzed(t, p, Read); found != nil {
			mustBeFree(t, p, found)
		}
	})
}

// mustBeFree checks that nothing is free that can never be.
func mustBeFree(t *testing.T, p *realfs.Packed, found *volume.Found) {
	t.Helper()
	sb := superOf(p)
	if err := sb.check(p.Size); err != nil {
		t.Fatal(err)
	}
	fs := &fsys{v: volume.New(context.Background(), p, p.Size, 512, nil), sb: sb}
	if err := fs.loadGroups(); err != nil {
		t.Fatal(err)
	}
	never := spans{{0, 2048}}
	for _, g := range fs.groups {
		never = append(never, span{g.blockBitmap * uint64(sb.blockSize), uint64(sb.blockSize)},
			span{g.inodeTable * uint64(sb.blockSize), sb.tableBlocks() * uint64(sb.blockSize)})
	}
	for _, r := range found.Free.Ranges() {
		for _, n := range never {
			if uint64(r.Off) < n.end() && n.at < uint64(r.End()) {
				t.Fatalf("%v is free, and the file system's own %v", r, n)
			}
		}
	}
}

package ext

import (
	"bytes"
	"context"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// What tests with real disks find by chance, shown on the seeds in
// milliseconds.

// TestEveryCopyCounts: a replay may end anywhere, so what the bitmap on the
// disk or any copy of it in the log marks is used, also what the last copy
// calls free.
func TestEveryCopyCounts(t *testing.T) {
	freedAgain := 0
	for name, data := range realfs.Seeds(t, "testdata") {
		if !strings.HasPrefix(name, "cut-") {
			continue
		}
		p := realfs.Unpack(data, 1<<30)
		s := walkOf(volume.New(context.Background(), p, p.Size, 512, nil))
		f := s.r.j.f
		marked, last := map[int][]byte{}, map[int][]byte{}
		for _, v := range s.r.versions {
			g := int(s.r.matters[v.matter].group)
			if g < 0 {
				continue
			}
			b, err := s.r.read(v)
			if err != nil {
				t.Fatal(err)
			}
			last[g] = bytes.Clone(b)
			if marked[g] == nil {
				marked[g] = make([]byte, len(b))
			}
			or(marked[g], b)
		}
		for g := range last {
			home := int64(f.groups[g].blockBitmap) * f.sb.blockSize
			for i := range last[g] {
				freedAgain += bits.OnesCount8(marked[g][i] &^ last[g][i])
			}
			// As if what the last transaction wrote home had not got there.
			p.WriteAt(make([]byte, f.sb.blockSize), home)
			mustBeUsed(t, name+", nothing on the disk", p, f, g, marked[g])
			onDisk := bytes.Clone(marked[g])
			i := slices.Index(onDisk, 0)
			onDisk[i] = 1
			p.WriteAt(onDisk, home)
			mustBeUsed(t, name+", more on the disk", p, f, g, onDisk)
		}
	}
	if freedAgain == 0 {
		t.Error("no block is freed in the log: this proves nothing")
	}
}

// mustBeUsed checks that the map has the blocks as used that a bitmap marks.
func mustBeUsed(t *testing.T, what string, p *realfs.Packed, f *fsys, g int, bitmap []byte) {
	t.Helper()
	found, err := readPacked(p)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	want := &volume.Free{}
	f.addFree(want, g, bitmap)
	start, end := int64(f.sb.groupStart(g))*f.sb.blockSize, int64(f.sb.groupStart(g)+f.sb.groupBlocks(g))*f.sb.blockSize
	want.Add(0, start)
	want.Add(end, p.Size-end)
	for _, r := range want.Ranges() {
		found.Free.Cut(r.Off, r.Len)
	}
	if found.Free.Bytes() > 0 {
		t.Errorf("%s: %d bytes of group %d are free that a bitmap has as used", what, found.Free.Bytes(), g)
	}
}

// TestBackupGroups: the groups with a copy of the superblock, as mke2fs prints
// them for a large file system.
func TestBackupGroups(t *testing.T) {
	for name, c := range map[string]struct {
		sb   super
		want []int
	}{
		"sparse_super":      {super{roCompat: roSparseSuper}, []int{0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625, 729, 2187, 2401, 3125}},
		"sparse_super2":     {super{compat: compatSparseSuper2, backups: [2]uint32{1, 3999}}, []int{0, 1, 3999}},
		"sparse_super2 one": {super{compat: compatSparseSuper2, backups: [2]uint32{0, 77}, roCompat: roSparseSuper}, []int{0, 77}},
	} {
		var got []int
		for g := range 4000 {
			if c.sb.hasSuper(g) {
				got = append(got, g)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for g := range 100 {
		if !(&super{}).hasSuper(g) {
			t.Errorf("without sparse_super group %d has none", g)
		}
	}
}

// bitmapOf is a group's bitmap and where it lies.
func bitmapOf(f *fsys, p *realfs.Packed, g int) (b []byte, at int64) {
	at = int64(f.groups[g].blockBitmap) * f.sb.blockSize
	b = make([]byte, f.sb.blockSize)
	p.ReadAt(b, at)
	return b, at
}

// withFree is a seed of which a used block is free, with counters and
// checksums that say the same.
func withFree(t *testing.T, name string, block func(f *fsys) uint64) *realfs.Packed {
	t.Helper()
	p := realfs.Unpack(realfs.Seeds(t, "testdata")[name], 1<<30)
	f := opened(t, p)
	n := block(f) - f.sb.first
	g, bit := int(n/f.sb.perGroup), n%f.sb.perGroup
	b, at := bitmapOf(f, p, g)
	if b[bit/8]>>(bit%8)&1 == 0 {
		t.Fatalf("%s: bit %d of group %d is free", name, bit, g)
	}
	b[bit/8] ^= 1 << (bit % 8)
	p.WriteAt(b, at)
	le.PutUint32(f.sb.raw[0xC:], f.sb.u32(0xC)+1)
	f.sb.write(p)
	repaired(p)
	return p
}

// TestOwnBlocksFree: what the file system keeps for itself must be in use, even
// if everything else agrees that it is not.
func TestOwnBlocksFree(t *testing.T) {
	journal := func(f *fsys) uint64 {
		j, err := f.openJournal()
		if err != nil {
			t.Fatal(err)
		}
		return j.places[0].end() - 1
	}
	for _, c := range []struct {
		seed, want string
		block      func(f *fsys) uint64
	}{
		{"crc16", "own structures", func(f *fsys) uint64 { return f.groups[0].inodeTable }},
		{"crc16", "own structures", func(f *fsys) uint64 { return f.groups[0].inodeBitmap }},
		{"crc16", "own structures", func(f *fsys) uint64 { return f.sb.superBlock() }},
		{"journal", "own structures", func(f *fsys) uint64 { return f.groups[0].blockBitmap }},
		{"journal", "its bitmaps have its journal", journal},
	} {
		if _, err := readPacked(withFree(t, c.seed, c.block)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.seed, err, c.want)
		}
	}
}

// TestBitmapChecksum: a used block and a free one change places, which no
// counter sees.
func TestBitmapChecksum(t *testing.T) {
	p := realfs.Unpack(realfs.Seeds(t, "testdata")["journal"], 1<<30)
	b, at := bitmapOf(opened(t, p), p, 0)
	free := slices.IndexFunc(b, func(c byte) bool { return c != 0xFF })
	used := slices.IndexFunc(b[free:], func(c byte) bool { return c == 0 }) + free
	b[free-1], b[used] = b[used], b[free-1]
	p.WriteAt(b, at)
	if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), "the checksum of group 0's bitmap") {
		t.Error(err)
	}
}

// TestLastClusterIsCut: of a cluster that reaches beyond the end nothing is free.
func TestLastClusterIsCut(t *testing.T) {
	p := realfs.Unpack(realfs.Seeds(t, "testdata")["bigalloc"], 1<<30)
	s := superOf(p)
	le.PutUint32(s.raw[4:], s.u32(4)-1)
	le.PutUint32(s.raw[0xC:], s.u32(0xC)-1)
	s.write(p)
	found, err := readPacked(p)
	if err != nil {
		t.Fatal(err)
	}
	if r := found.Free.Ranges(); r[len(r)-1].End() > found.Size {
		t.Errorf("%v is free of %d bytes", r[len(r)-1], found.Size)
	}
}

// TestFlipsInTheLog: another bit in what was committed before the last
// transaction is seen, unless it is in a copy of a block and there are no
// checksums. No bit that is another makes more free.
func TestFlipsInTheLog(t *testing.T) {
	for name, data := range realfs.Seeds(t, "testdata") {
		if !strings.HasPrefix(name, "cut-") {
			continue
		}
		p := realfs.Unpack(data, 1<<30)
		want, err := readPacked(p)
		if err != nil {
			t.Fatal(err)
		}
		s := walkOf(volume.New(context.Background(), p, p.Size, 512, nil))
		j, seen := s.r.j, 0
		for n := range s.walked {
			at := j.home(j.next(j.start, n))
			head := make([]byte, 12)
			p.ReadAt(head, at)
			_, sequence, isHeader := j.header(head)
			for _, in := range []int64{0, 7, 11, 500} {
				header := isHeader && in < 12
				if name == "cut-ext3" && !header {
					continue
				}
				b := []byte{0}
				p.ReadAt(b, at+in)
				p.WriteAt([]byte{b[0] ^ 1}, at+in)
				found, err := readPacked(p)
				p.WriteAt(b, at+in)
				if err != nil && strings.HasPrefix(err.Error(), "its journal: ") {
					seen++
					continue
				}
				if last := s.sequence - 1; header && sequence != last {
					t.Errorf("%s: with another byte %d, block %d of the log is of transaction %d of %d: %v", name, in, n, sequence, last, err)
				}
				if err != nil {
					continue
				}
				for _, r := range want.Free.Ranges() {
					found.Free.Cut(r.Off, r.Len)
				}
				if found.Free.Bytes() > 0 {
					t.Errorf("%s: with another byte %d of block %d of the log %v is free", name, in, n, found.Free.Ranges())
				}
			}
		}
		if least := map[string]int{"cut-csum1": 120, "cut-csum3": 120, "cut-ext3": 20}[name]; seen < least {
			t.Errorf("%s: only %d other bytes are seen", name, seen)
		}
	}
}

// home is the byte where a block of the journal lies.
func (j *journal) home(n uint32) int64 {
	i, found := slices.BinarySearch(j.starts, n)
	if !found {
		i--
	}
	return (int64(j.places[i].at) + int64(n-j.starts[i])) * j.f.sb.blockSize
}

// TestRevoked: a copy that its own or a later transaction revokes is not what a
// replay leaves; one that comes after the revoke is. Numbers wrap around.
func TestRevoked(t *testing.T) {
	const early = 1<<32 - 1 // and 0 comes after it
	for _, c := range []struct {
		by   uint32
		want []bool // of the copies of transactions early, 0 and 1
	}{
		{early - 1, []bool{false, false, true}},
		{0, []bool{false, false, true}},
		{1, []bool{false, false, false}},
		{2, []bool{false, false, false}},
	} {
		r := &replay{matters: []matter{{block: 7, group: 0}}, revoked: map[uint64]uint32{7: c.by}}
		for _, n := range []uint32{early, 0, 1} {
			v := version{at: n + 10, sequence: n}
			r.versions, r.all = append(r.versions, v), append(r.all, written{7, v})
		}
		r.findFinal()
		r.findAll()
		for i, v := range r.versions {
			if at, ok := r.final[7]; v.final != c.want[i] || (ok && at.at == v.at) != c.want[i] {
				t.Errorf("revoked by %d: the copy of %d is final: %v, %v", c.by, v.sequence, v.final, r.final)
			}
		}
	}
}

// TestFastCommits: a log that has some is doubt, whichever of the two blocks
// they begin in.
func TestFastCommits(t *testing.T) {
	for at, want := range map[int64]bool{19: false, 20: true, 21: true, 22: false} {
		p := &realfs.Packed{Size: 30 << 10, Sectors: map[int64][]byte{}}
		p.WriteAt([]byte{1}, at<<10)
		f := &fsys{v: volume.New(context.Background(), p, p.Size, 512, nil), sb: &super{blockSize: 1024}}
		j := &journal{f: f, places: spans{{0, 30}}, starts: []uint32{0}, incompat: jbdFastCommit, length: 30, first: 1, last: 20}
		if err := j.checkFastCommits(); (err != nil) != want {
			t.Errorf("something in block %d: %v", at, err)
		}
	}
}

// TestSuperblocks: what the superblock and its copy say of themselves.
func TestSuperblocks(t *testing.T) {
	for _, c := range []struct {
		name, seed, want string
		change           func(p *realfs.Packed, s *super)
	}{
		{"checksum", "journal", "superblock's checksum", func(p *realfs.Packed, s *super) { p.WriteAt([]byte{s.raw[0x88] ^ 1}, superAt+0x88) }},
		{"errors", "plain", "errors were found", func(p *realfs.Packed, s *super) { s.raw[0x3A] |= stateError; s.write(p) }},
		{"errors counted", "plain", "errors were found", func(p *realfs.Packed, s *super) { s.raw[0x194] = 1; s.write(p) }},
		{"not unmounted", "plain", "not cleanly unmounted", func(p *realfs.Packed, s *super) { s.raw[0x3A] &^= stateValid; s.write(p) }},
		{"unknown state", "plain", "its state", func(p *realfs.Packed, s *super) { s.raw[0x3A] |= 8; s.write(p) }},
		{"unknown compatible", "plain", "unknown compatible", func(p *realfs.Packed, s *super) { s.raw[0x5F] |= 0x80; s.write(p) }},
		{"unknown incompatible", "crc16", "unknown incompatible", func(p *realfs.Packed, s *super) { s.raw[0x63] |= 0x80; s.write(p) }},
		{"unknown read-only", "crc16", "unknown read-only", func(p *realfs.Packed, s *super) { s.raw[0x67] |= 0x80; s.write(p) }},
		{"no copy", "plain", "backup superblock", func(p *realfs.Packed, s *super) { p.WriteAt(make([]byte, superSize), int64(256+1)<<10) }},
		{"another's copy", "crc16", "backup superblock", func(p *realfs.Packed, s *super) { p.WriteAt([]byte{9}, int64(256+1)<<10+0x28) }},
	} {
		p := realfs.Unpack(realfs.Seeds(t, "testdata")[c.seed], 1<<30)
		c.change(p, superOf(p))
		if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.name, err, c.want)
		}
	}
}

// TestCountersDiffer: a free block more than a counter has is seen by it.
func TestCountersDiffer(t *testing.T) {
	for want, change := range map[string]func(p *realfs.Packed, f *fsys){
		"its descriptor says": func(p *realfs.Packed, f *fsys) {
			at, d := int64(f.sb.descBlock(0))*f.sb.blockSize, make([]byte, f.sb.descSize)
			p.ReadAt(d, at)
			le.PutUint16(d[0xC:], le.Uint16(d[0xC:])-1)
			le.PutUint16(d[0x1E:], 0)
			le.PutUint16(d[0x1E:], uint16(crc32c(crc32c(f.sb.seed, make([]byte, 4)), d)))
			p.WriteAt(d, at)
		},
		"its superblock counts": func(p *realfs.Packed, f *fsys) {
			le.PutUint32(f.sb.raw[0xC:], f.sb.u32(0xC)-1)
			f.sb.write(p)
		},
	} {
		p := realfs.Unpack(realfs.Seeds(t, "testdata")["journal"], 1<<30)
		change(p, opened(t, p))
		if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}

// TestFileIsFree: a folder has a block that everything else has as free.
func TestFileIsFree(t *testing.T) {
	lostFound := func(*fsys) uint64 { return 0x1C + 3 }
	if _, err := readPacked(withFree(t, "plain", lostFound)); err == nil ||
		!strings.Contains(err.Error(), "inode 11: its bitmap calls block 31 free") {
		t.Error(err)
	}
}

// TestMultiMount: the block by which computers see each other says whether a
// repair was under way, and must be in use.
func TestMultiMount(t *testing.T) {
	const clean, fsck = 0xFF4D4D50, 0xE24D4D50
	lostFound := uint64(0x1C + 5) // has nothing in it
	for _, c := range []struct {
		name, want string
		block      uint64
		magic, seq uint32
		sum        uint32 // added to the right one
	}{
		{"unmounted", "", lostFound, 0x4D4D50, clean, 0},
		{"mounted", "", lostFound, 0x4D4D50, 77, 0},
		{"repair", "e2fsck was running", lostFound, 0x4D4D50, fsck, 0},
		{"no magic", "no magic", lostFound, 0x4D4D51, clean, 0},
		{"checksum", "checksum of its multi-mount", lostFound, 0x4D4D50, clean, 1},
		{"free", "multi-mount block as free", 200, 0x4D4D50, clean, 0},
		{"outside", "multi-mount block is block 600", 600, 0x4D4D50, clean, 0},
	} {
		p := realfs.Unpack(realfs.Seeds(t, "testdata")["plain"], 1<<30)
		s := superOf(p)
		le.PutUint32(s.raw[0x60:], s.incompat|incompatMMP)
		le.PutUint64(s.raw[0x168:], c.block)
		s.write(p)
		b := make([]byte, 1024)
		le.PutUint32(b, c.magic)
		le.PutUint32(b[4:], c.seq)
		le.PutUint32(b[0x3FC:], crc32c(s.seed, b[:0x3FC])+c.sum)
		p.WriteAt(b, int64(c.block)<<10)
		if _, err := readPacked(p); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, not %q", c.name, err, c.want)
		}
	}
}

// TestDescriptors: what a group's descriptor says, with a right checksum.
func TestDescriptors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		at         int64
		set        []byte
	}{
		{"an unknown flag", "unknown flags", 0x12, []byte{0x20}},
		{"a bitmap outside", "has its structures in block", 0, []byte{0, 0, 1, 0}},
		{"a table over the end", "has its structures in block 599", 8, []byte{0x57, 2, 0, 0}},
		{"a bitmap in the table", "two of its structures", 0, []byte{21}},
	} {
		p := realfs.Unpack(realfs.Seeds(t, "testdata")["plain"], 1<<30)
		f := opened(t, p)
		if c.name == "a bitmap in the table" {
			c.set[0] = byte(f.groups[0].inodeTable + 1)
		}
		at, d := int64(f.sb.descBlock(0))*f.sb.blockSize, make([]byte, f.sb.descSize)
		p.ReadAt(d, at)
		copy(d[c.at:], c.set)
		le.PutUint16(d[0x1E:], 0)
		le.PutUint16(d[0x1E:], uint16(crc32c(crc32c(f.sb.seed, make([]byte, 4)), d)))
		p.WriteAt(d, at)
		if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.name, err, c.want)
		}
	}
}

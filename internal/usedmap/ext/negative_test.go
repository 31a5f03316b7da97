package ext

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// small makes a file system and gives it packed, so that tests change it
// without a disk.
func small(t testing.TB, size int64, args string) *realfs.Packed {
	t.Helper()
	img := realfs.Ext.Make(t, size, strings.Fields(args)...)
	return realfs.Unpack(realfs.Pack(t, img), size)
}

func readPacked(p *realfs.Packed) (*volume.Found, error) {
	return Read(volume.New(context.Background(), p, p.Size, 512, nil))
}

func (s *super) write(p *realfs.Packed) {
	if s.has(roMetadataCsum) {
		le.PutUint32(s.raw[superSum:], crc32c(^uint32(0), s.raw[:superSum]))
	}
	p.WriteAt(s.raw, superAt)
}

func superOf(p *realfs.Packed) *super {
	raw := make([]byte, superSize)
	p.ReadAt(raw, superAt)
	return parseSuper(raw)
}

// clone is a copy that can be changed.
func clone(p *realfs.Packed) *realfs.Packed {
	c := &realfs.Packed{Size: p.Size, Sectors: map[int64][]byte{}}
	for n, s := range p.Sectors {
		c.Sectors[n] = append([]byte(nil), s...)
	}
	return c
}

// Every feature bit, flipped: an unknown or a hostile one is doubt, and each
// that is doubt is said as such.
func TestFeatureBits(t *testing.T) {
	base := small(t, 24*mib, "-b 1024")
	if _, err := readPacked(base); err != nil {
		t.Fatal(err)
	}
	known := map[int][]feature{0x5C: compatFeatures, 0x60: incompatFeatures, 0x64: roFeatures}
	for at, list := range known {
		for bit := range 32 {
			p := clone(base)
			s := superOf(p)
			le.PutUint32(s.raw[at:], s.u32(at)^1<<bit)
			set := s.u32(at)>>bit&1 == 1
			s.write(p)
			_, err := readPacked(p)
			want := "unknown"
			for _, f := range list {
				if f.bit == 1<<bit {
					if want = ""; f.doubt != "" {
						want = f.name
					}
				}
			}
			if set && want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("bit %d at %#x: %v, not %q", bit, at, err, want)
			}
		}
	}
}

// Broken bytes of metadata are doubt, with what is broken in its text.
func TestBroken(t *testing.T) {
	for _, args := range []string{"-b 1024", "-b 1024 -O ^metadata_csum,uninit_bg", "-b 1024 -O ^metadata_csum", "-b 4096 -O mmp"} {
		base := small(t, 24*mib, args)
		found, err := readPacked(base)
		if err != nil {
			t.Fatal(err)
		}
		f := opened(t, base)
		bs := f.sb.blockSize
		last := f.sb.groups - 1
		bitmap := int64(f.groups[0].blockBitmap) * bs
		desc := int64(f.sb.descBlock(0)) * bs
		type edit struct {
			name string
			at   int64
			flip byte
			want string
			only string // of these options
		}
		edits := []edit{
			{"no magic", superAt + 0x38, 1, "no ext superblock", ""},
			{"a used block free", bitmap, 1, "group 0", ""},
			{"a free block used", bitmap + (f.sb.groupClusters(0)-2)/8, 0x80, "group 0", ""},
			{"free count", desc + 0xC, 1, "group 0", ""},
			{"flags", desc + 0x12, 2, "", ""},
			{"bitmap place", desc, 1, "", ""},
			{"table place", desc + 8, 1, "", ""},
			{"bitmap outside", desc + 3, 0x40, "", ""},
			{"journal inode", int64(f.groups[0].inodeTable)*bs + 7*int64(f.sb.inodeSize) + 1, 0xFF, "journal", ""},
			{"journal extent", int64(f.groups[0].inodeTable)*bs + 7*int64(f.sb.inodeSize) + 0x28, 0xFF, "journal", ""},
			{"the padding free", int64(f.groups[last].blockBitmap)*bs + int64(f.sb.clustersPerGroup)/8 - 1, 0x80, fmt.Sprint("group ", last),
				"-b 1024"},
			{"backup superblock", int64(f.sb.groupStart(1))*bs + 0x38, 1, "backup", "-b 1024"},
			{"mmp magic", int64(f.sb.mmpBlock) * bs, 1, "multi-mount", "-b 4096 -O mmp"},
			{"mmp sum", int64(f.sb.mmpBlock)*bs + 0x3FC, 1, "multi-mount", "-b 4096 -O mmp"},
		}
		for _, e := range edits {
			if !strings.HasPrefix(args, e.only) {
				continue
			}
			p := clone(base)
			b := []byte{0}
			p.ReadAt(b, e.at)
			b[0] ^= e.flip
			p.WriteAt(b, e.at)
			_, err := readPacked(p)
			if e.name == "flags" && err == nil && !f.sb.hasDescSums() {
				continue // they mean nothing then
			}
			if err == nil || !strings.Contains(err.Error(), e.want) {
				t.Errorf("%s, %s: %v, not %q", args, e.name, err, e.want)
			}
		}
		superEdits(t, base, args)
		p := clone(base)
		if p.Size = found.Size - 1; true {
			if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), "larger than its volume") {
				t.Errorf("cut short: %v", err)
			}
		}
	}
}

// superEdits changes fields of the superblock, with its checksum made right.
func superEdits(t *testing.T, base *realfs.Packed, args string) {
	t.Helper()
	for _, e := range []struct {
		name string
		at   int
		set  uint32
		want string
	}{
		{"not valid, errors", 0x3A, 0x00010002, "errors"},
		{"not valid", 0x3A, 0x00010000, "not cleanly unmounted"},
		{"odd state", 0x3A, 0x00010021, "state"},
		{"errors counted", 0x194, 3, "errors"},
		{"free count", 0xC, 77, "counts"},
		{"revision", 0x4C, 2, "revision"},
		{"blocks", 4, 1 << 30, "larger"},
		{"blocks, a few less", 4, 20000, ""},
		{"first block", 0x14, 7, "first block"},
		{"block size", 0x18, 7, ""},
		{"blocks per group", 0x20, 1024, ""},
		{"no blocks per group", 0x20, 0, ""},
		{"odd blocks per group", 0x20, 8191, ""},
		{"inodes per group", 0x28, 8, ""},
		{"inode size", 0x58, 100, ""},
		{"journal inode", 0xE0, 12, "journal"},
		{"journal inode outside", 0xE0, 1 << 30, "journal"},
		{"no journal", 0xE0, 0, "journal"},
		{"two journals", 0xE4, 5, "journal"},
		{"reserved blocks", 0xCC, 0x7000 << 16, ""},
		{"upper half", 0x150, 1, ""},
	} {
		p := clone(base)
		s := superOf(p)
		le.PutUint32(s.raw[e.at:], e.set)
		s.write(p)
		if _, err := readPacked(p); err == nil || !strings.Contains(err.Error(), e.want) {
			t.Errorf("%s, %s: %v, not %q", args, e.name, err, e.want)
		}
	}
	p := clone(base)
	s := superOf(p)
	s.raw[0x175] ^= 8
	p.WriteAt(s.raw, superAt)
	if _, err := readPacked(p); s.has(roMetadataCsum) && err == nil {
		t.Error("the superblock's checksum is not checked")
	}
}

func opened(t testing.TB, p *realfs.Packed) *fsys {
	t.Helper()
	f := &fsys{v: volume.New(context.Background(), p, p.Size, 512, nil), sb: superOf(p)}
	if err := f.sb.check(p.Size); err != nil {
		t.Fatal(err)
	}
	if err := f.loadGroups(); err != nil {
		t.Fatal(err)
	}
	return f
}

// The journal's superblock, changed with its checksum made right, with and
// without the need of recovery.
func TestJournalSuper(t *testing.T) {
	for _, args := range []string{"-b 1024", "-b 1024 -O ^metadata_csum"} {
		base := small(t, 24*mib, args)
		j, err := opened(t, base).openJournal()
		if err != nil {
			t.Fatal(err)
		}
		at := int64(j.places[0].at) * j.f.sb.blockSize
		for _, e := range []struct {
			name    string
			at      int
			set     uint32
			recover bool
			want    string
		}{
			{"empty", 0x1C, 0, true, ""},
			{"log and no need", 0x1C, 1, false, "needs no recovery"},
			{"magic", 0, 1, false, "superblock"},
			{"kind", 4, 1, false, "superblock"},
			{"feature", 0x28, 0x40, false, "unknown feature"},
			{"compatible feature", 0x24, 0x2, false, "unknown feature"},
			{"read-only feature", 0x2C, 0x1, false, "unknown feature"},
			{"two checksums", 0x28, 0x18, false, "checksum"},
			{"block size", 0xC, 2048, false, "blocks"},
			{"length", 0x10, 1 << 30, false, "blocks"},
			{"first", 0x14, 0, false, "log is in"},
			{"start", 0x1C, 1 << 30, true, "log is in"},
			{"error", 0x20, 5, false, "stopped by an error"},
		} {
			p := clone(base)
			if e.recover {
				s := superOf(p)
				le.PutUint32(s.raw[0x60:], s.incompat|incompatRecover)
				s.write(p)
			}
			sb := make([]byte, superSize)
			p.ReadAt(sb, at)
			be.PutUint32(sb[e.at:], e.set)
			fixJournalSuper(sb)
			p.WriteAt(sb, at)
			_, err := readPacked(p)
			if e.want == "" && err != nil || e.want != "" && (err == nil || !strings.Contains(err.Error(), e.want)) {
				t.Errorf("%s, %s: %v, not %q", args, e.name, err, e.want)
			}
		}
	}
}

func fixJournalSuper(sb []byte) {
	if be.Uint32(sb[0x28:])&(jbdCsum2|jbdCsum3) == 0 {
		return
	}
	be.PutUint32(sb[0xFC:], 0)
	be.PutUint32(sb[0xFC:], crc32c(^uint32(0), sb[:superSize]))
}

// Pieces of the journal are broken at random. Either there is doubt, or nothing
// is lost that the broken file system had itself.
func TestBrokenJournal(t *testing.T) {
	dir := reflinks(t)
	for i, args := range []string{"-b 1024 -J size=4", "-t ext3 -b 1024 -J size=4"} {
		t.Run(args, func(t *testing.T) {
			disk := realfs.Ext.Make(t, 48*mib, strings.Fields(args)...)
			on := filepath.Join(dir, fmt.Sprint("disk-", i))
			realfs.Run(t, "cp", disk, on)
			cut := filepath.Join(dir, fmt.Sprint("cut-", i))
			realfs.Ext.Mounted(t, on, func(mnt string) {
				stop := keepBusy(mnt, 3)
				defer stop()
				begin(mnt)
				for len(logOf(t, on)) < 1000 {
				}
				reflink(t, on, cut)
			})
			log := logOf(t, cut)
			s := &score{broken: true}
			n := rounds(10)
			for c := range n {
				broken := filepath.Join(dir, fmt.Sprint("broken-", i, "-", c))
				reflink(t, cut, broken)
				breakLog(t, broken, log, c)
				s.survive(t, broken, false)
				os.Remove(broken)
			}
			t.Logf("%d broken: %d in doubt", n, len(s.doubts))
			// With checksums everything is seen but what lies behind the last
			// commit, or is put where it was.
			if i == 0 && len(s.doubts) < n/2 {
				t.Errorf("only %d of %d are in doubt", len(s.doubts), n)
			}
		})
	}
}

// logOf is the places of the log's blocks from the oldest transaction on.
func logOf(t *testing.T, img string) []int64 {
	t.Helper()
	s, done := walk(t, img)
	defer done()
	if s == nil {
		return nil
	}
	j := s.r.j
	var out []int64
	for n, at := uint32(0), j.start; n < s.walked; n, at = n+1, j.next(at, 1) {
		out = append(out, j.home(at))
	}
	return out
}

// walk goes through the log of a file system that needs recovery; nil: it has
// none, or is being written.
func walk(t *testing.T, img string) (s *scan, done func()) {
	t.Helper()
	file, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	done = func() { file.Close() }
	st, _ := file.Stat()
	return walkOf(volume.New(context.Background(), file, st.Size(), 512, nil)), done
}

// walkOf is walk for a volume.
func walkOf(v *volume.Volume) *scan {
	raw, _ := v.Bytes(superAt, superSize)
	f := &fsys{v: v, sb: parseSuper(raw)}
	if f.sb.check(v.Size()) != nil || f.loadGroups() != nil {
		return nil
	}
	j, err := f.openJournal()
	if err != nil || j.start == 0 {
		return nil
	}
	r := &replay{j: j, revoked: map[uint64]uint32{}}
	r.findMatters()
	s := &scan{r: r, sequence: j.sequence, at: j.start}
	s.run()
	return s
}

// wraps reports whether a log goes around the end of its journal.
func wraps(t *testing.T, img string) bool {
	s, done := walk(t, img)
	defer done()
	return s != nil && uint64(s.r.j.start)+uint64(s.walked) > uint64(s.r.j.last)
}

// breakLog zeroes, noises, moves or flips something of the log.
func breakLog(t *testing.T, img string, log []int64, kind int) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := func() int64 { return log[rand.IntN(len(log))] }
	b := make([]byte, 1024)
	at := block()
	f.ReadAt(b, at)
	switch kind % 4 {
	case 0:
		clear(b)
	case 1:
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
	case 2:
		f.ReadAt(b, block())
	case 3:
		for b = b[:16]; be.Uint32(b) != jbdMagic; { // a header
			at = block()
			f.ReadAt(b, at)
		}
		b[rand.IntN(12)] ^= 1 << rand.IntN(8)
	}
	f.WriteAt(b, at)
}

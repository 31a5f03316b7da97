package usedmap

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/ext"
	"testbox-imaging/internal/usedmap/lvm"
	"testbox-imaging/internal/usedmap/volume"
)

// What tests with real disks show in minutes, on the seeds in milliseconds.

func mapOf(t *testing.T, d joined) *Map {
	t.Helper()
	size := int64(len(d.boot))
	for _, p := range d.parts {
		size += p.Size
	}
	m, err := Read(context.Background(), d, size, 512)
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, m)
	return m
}

// raidAtEnd writes the superblock of an md of version 1.0.
func raidAtEnd(p *realfs.Packed) {
	at := p.Size&^4095 - 8192
	p.WriteAt([]byte("\xFC\x4E\x2B\xA9\x01\x00\x00\x00"), at)
	p.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(at/512)), at+144)
}

// TestTwoSignatures: a file system that is whole counts for nothing beside the
// signature of something else, on a disk of its own and in a partition.
func TestTwoSignatures(t *testing.T) {
	for name, data := range realfs.Seeds(t, "*/testdata") {
		p := realfs.Unpack(data, 1<<40)
		alone := joined{parts: []*realfs.Packed{p}}
		if mapOf(t, alone).FreeBytes() == 0 {
			t.Errorf("%s has no map: this proves nothing", name)
		}
		raidAtEnd(p)
		for _, d := range []joined{alone, {bootRecord(0x83, p.Size), alone.parts}} {
			m := mapOf(t, d)
			doubt := m.Parts[len(m.Parts)-1].Doubt
			if m.FreeBytes() != 0 || !strings.Contains(doubt, " and linux_raid_member") {
				t.Errorf("%s, %d parts: %d bytes are free; doubt: %s", name, len(m.Parts), m.FreeBytes(), doubt)
			}
		}
	}
}

// TestBesideTheTable: a disk with partitions that is also a member of a RAID
// has its content elsewhere.
func TestBesideTheTable(t *testing.T) {
	fs := realfs.Unpack(realfs.Seeds(t, "*/testdata")["ext/plain"], 1<<40)
	rest := &realfs.Packed{Size: 1 << 20, Sectors: map[int64][]byte{}}
	d := joined{bootRecord(0x83, fs.Size), []*realfs.Packed{fs, rest}}
	if m := mapOf(t, d); m.FreeBytes() == 0 {
		t.Fatalf("%+v", m)
	}
	// Its place counts from the disk's end.
	size := int64(len(d.boot)) + fs.Size + rest.Size
	at := size&^4095 - 8192
	rest.WriteAt([]byte("\xFC\x4E\x2B\xA9\x01\x00\x00\x00"), at-size+rest.Size)
	rest.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(at/512)), at-size+rest.Size+144)
	if m := mapOf(t, d); m.FreeBytes() != 0 || !strings.Contains(m.Doubt, "linux_raid_member") {
		t.Errorf("%d bytes are free: %+v", m.FreeBytes(), m)
	}
}

// TestTypesThatContradict: what the table says of a partition must fit what is
// found there.
func TestTypesThatContradict(t *testing.T) {
	seeds := realfs.Seeds(t, "*/testdata")
	for name, kind := range map[string]byte{"ext/plain": 0x82, "xfs/v5": 0x0B, "fat/fat32": 0x82, "swap/mkswap-4k": 0x8E, "lvm/linear": 0x82} {
		p := realfs.Unpack(seeds[name], 1<<40)
		if m := mapOf(t, joined{bootRecord(kind, p.Size), []*realfs.Packed{p}}); m.FreeBytes() != 0 {
			t.Errorf("%s in a partition of the type %#x: %d bytes are free: %+v", name, kind, m.FreeBytes(), m.Parts)
		}
	}
}

// TestLogicalVolumeInPieces: what is free in a logical volume is free where its
// pieces lie on the disk.
func TestLogicalVolumeInPieces(t *testing.T) {
	seeds := realfs.Seeds(t, "*/testdata")
	pv, fs := realfs.Unpack(seeds["lvm/linear"], 1<<40), realfs.Unpack(seeds["ext/cut-csum3"], 1<<40)
	d := joined{bootRecord(0x8E, pv.Size), []*realfs.Packed{pv}}
	before := mapOf(t, d)
	lv := logical(t, before, "a")
	if len(lv.Ranges) != 2 || lv.Ranges[0].Len > fs.Size || lv.Free != 0 {
		t.Fatalf("this proves nothing: %+v", lv)
	}
	onDisk := func(off, n int64) (out []image.Range) {
		for _, r := range lv.Ranges {
			if m := min(n, r.Len-off); m > 0 && off >= 0 {
				out = append(out, image.Range{Off: r.Off + off, Len: m})
				off, n = off+m, n-m
			}
			off -= r.Len
		}
		return out
	}
	for n, sector := range fs.Sectors {
		pv.WriteAt(sector, onDisk(n*512, 512)[0].Off-int64(len(d.boot)))
	}
	found, err := ext.Read(volume.New(context.Background(), fs, fs.Size, 512, nil))
	if err != nil {
		t.Fatal(err)
	}
	group, err := lvm.Read(volume.New(context.Background(), pv, pv.Size, 512, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &volume.Free{}
	for _, r := range group.Free.Ranges() {
		want.Add(int64(len(d.boot))+r.Off, r.Len)
	}
	for _, r := range found.Free.Ranges() {
		for _, at := range onDisk(r.Off, r.Len) {
			want.Add(at.Off, at.Len)
		}
	}
	m := mapOf(t, d)
	got := &volume.Free{}
	for _, r := range m.Free {
		got.Add(r.Off, r.Len)
	}
	if lv := logical(t, m, "a"); lv.Doubt != "" || lv.FS != "ext4" {
		t.Errorf("%+v", lv)
	}
	if got.Bytes() != want.Bytes() {
		t.Errorf("%d bytes are free, not %d", got.Bytes(), want.Bytes())
	}
	for _, r := range want.Ranges() {
		got.Cut(r.Off, r.Len)
	}
	if got.Bytes() > 0 {
		t.Errorf("%v are free and in use", got.Ranges())
	}
}

// with puts another reader in the place of a file system's.
func with(t *testing.T, name string, read func(*volume.Volume) (*volume.Found, error)) {
	t.Helper()
	was := readers[name]
	readers[name] = read
	t.Cleanup(func() { readers[name] = was })
}

// TestWhatOneReaderSaysOfAll: a system that sleeps, or a panic, of one
// partition takes what all others have free.
func TestWhatOneReaderSaysOfAll(t *testing.T) {
	seeds := realfs.Seeds(t, "*/testdata")
	fs, fat := realfs.Unpack(seeds["ext/plain"], 1<<40), realfs.Unpack(seeds["fat/fat32"], 1<<40)
	d := joined{bootRecord(0x83, fs.Size, 0x0C, fat.Size), []*realfs.Packed{fs, fat}}
	if m := mapOf(t, d); m.FreeBytes() == 0 || m.Parts[1].Doubt != "" {
		t.Fatalf("%+v", m)
	}
	with(t, "fat", func(*volume.Volume) (*volume.Found, error) {
		return &volume.Found{FS: "fat32", Suspended: true}, errors.New("it sleeps")
	})
	if m := mapOf(t, d); m.FreeBytes() != 0 || !strings.Contains(m.Parts[1].Doubt, "suspended") {
		t.Errorf("one sleeps: %d bytes are free: %+v", m.FreeBytes(), m.Parts)
	}
	with(t, "fat", func(*volume.Volume) (*volume.Found, error) { panic("as a bug does") })
	if m := mapOf(t, d); m.FreeBytes() != 0 || !strings.Contains(m.Doubt, "a bug") {
		t.Errorf("one panics: %d bytes are free: %+v", m.FreeBytes(), m)
	}
}

// gptPart is a partition of a GPT, in sectors, both included.
type gptPart struct {
	kind        string // its GUID as it stands there
	first, last uint64
}

// gptOf is the first MiB and the end of a disk of so many sectors.
func gptOf(sectors uint64, parts ...gptPart) (start, end []byte) {
	le := binary.LittleEndian
	entries := make([]byte, 32*512)
	for i, p := range parts {
		e := entries[128*i:]
		copy(e, p.kind)
		e[16] = byte(1 + i)
		le.PutUint64(e[32:], p.first)
		le.PutUint64(e[40:], p.last)
	}
	header := func(my, other, at uint64) []byte {
		h := make([]byte, 512)
		copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		for i, n := range []uint64{my, other, 34, sectors - 34} {
			le.PutUint64(h[24+8*i:], n)
		}
		le.PutUint64(h[72:], at)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	start = make([]byte, 1<<20)
	copy(start[446:], "\x00\x00\x02\x00\xEE\xFF\xFF\xFF\x01\x00\x00\x00\xFF\xFF\xFF\xFF")
	start[510], start[511] = 0x55, 0xAA
	copy(start[512:], header(1, sectors-1, 2))
	copy(start[1024:], entries)
	return start, append(entries, header(sectors-1, 1, sectors-33)...)
}

// TestVerityByItsType: a partition whose type says that it holds hashes of
// another one takes what is free there, whatever is found in it.
func TestVerityByItsType(t *testing.T) {
	const linux = "\xAF\x3D\xC6\x0F\x83\x84\x72\x47\x8E\x79\x3D\x69\xD8\x47\x7D\xE4"
	const verity = "\xED\x57\x73\x2C\xD2\xEB\xD9\x46\xAE\xC1\x23\xD4\x37\xEC\x2B\xF5" // of the root of x86-64
	fs := realfs.Unpack(realfs.Seeds(t, "*/testdata")["ext/cut-csum3"], 1<<40)
	for kind, free := range map[string]bool{linux: true, verity: false} {
		rest := &realfs.Packed{Size: 1 << 20, Sectors: map[int64][]byte{}}
		behind := uint64(1<<20+fs.Size) / 512
		start, end := gptOf(behind+2048, gptPart{linux, 2048, behind - 1}, gptPart{kind, behind, behind + 99})
		rest.WriteAt(end, rest.Size-int64(len(end)))
		m := mapOf(t, joined{start, []*realfs.Packed{fs, rest}})
		if m.Table != "gpt" || m.Parts[1].FS != "ext4" || (m.FreeBytes() > 0) != free || strings.Contains(m.Parts[1].Doubt, "verity") == free {
			t.Errorf("free %v: %+v", free, m)
		}
	}
}

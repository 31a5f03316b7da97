package xfs

import (
	"context"
	"encoding/binary"
	"io"
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

// most is the most bytes of a disk under test.
const most = 1 << 32

// seeds are the packed disks below testdata, of which only what Read reads was
// kept. They were made by TestMakeSeeds.
func seeds(t testing.TB) map[string][]byte { return realfs.Seeds(t, "testdata") }

func readPacked(p *realfs.Packed) (*volume.Found, error) {
	return Read(volume.New(context.Background(), p, p.Size, 512, nil))
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	sectors map[int64]bool
	n       int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	c.n += int64(len(b))
	for i := off / 512; c.sectors != nil && i*512 < off+int64(len(b)); i++ {
		c.sectors[i] = true
	}
	return c.ReaderAt.ReadAt(b, off)
}

// TestMakeSeeds makes them, into $XFS_SEEDS or nowhere.
func TestMakeSeeds(t *testing.T) {
	testenv.Root(t)
	into := os.Getenv("XFS_SEEDS")
	if into == "" {
		into = t.TempDir()
	}
	for name, args := range map[string]string{
		"v5": "-m rmapbt=1 -d agcount=2", "v5-two-levels": "-b size=1024 -d agcount=2 -m reflink=0",
		"v4": "-m crc=0 -d agcount=2", "v4-two-levels": "-m crc=0 -b size=512 -l version=1 -d agcount=2",
	} {
		img := realfs.XFS.Make(t, 64*mib, strings.Fields(args)...)
		switch name {
		case "v5": // with a log that was written to
			realfs.XFS.Mounted(t, img, func(dir string) { os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o644) })
		case "v4-two-levels", "v5-two-levels":
			proto, files := protofile(t, 1200)
			img = realfs.XFS.Make(t, 64*mib, append(strings.Fields(args), "-p", proto)...)
			destroySome(t, img, files)
		}
		p := realfs.Unpack(realfs.Pack(t, img), most)
		c := &counting{ReaderAt: p, sectors: map[int64]bool{}}
		if _, err := Read(volume.New(context.Background(), c, p.Size, 512, nil)); err != nil {
			t.Fatal(name, err)
		}
		if err := os.WriteFile(filepath.Join(into, name+".packed"), packRead(p, c.sectors), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// packRead packs the sectors that were read and are not zero.
func packRead(p *realfs.Packed, read map[int64]bool) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(p.Size))
	for _, n := range slices.Sorted(maps.Keys(p.Sectors)) {
		if read[n] {
			out = append(binary.LittleEndian.AppendUint32(out, uint32(n)), p.Sectors[n]...)
		}
	}
	return out
}

// reseal makes the checksums right, as far as the disk says where they are.
func reseal(p *realfs.Packed) {
	get := func(at, n int64) []byte {
		b := make([]byte, n)
		p.ReadAt(b, at)
		return b
	}
	var s superblock
	binary.Decode(get(0, 512), binary.BigEndian, &s)
	if s.BlockSize < 512 || s.BlockSize > 65536 || s.SectorSize < 512 || s.SectorSize > 32768 {
		return
	}
	seal := func(at, n int64, crc int) {
		b := get(at, n)
		binary.LittleEndian.PutUint32(b[crc:], checksum(b, crc))
		p.WriteAt(b[crc:crc+4], at+int64(crc))
	}
	for _, n := range slices.Sorted(maps.Keys(p.Sectors)) {
		if at := n * 512; at < p.Size {
			switch string(p.Sectors[n][:4]) {
			case "XFSB":
				seal(at, int64(s.SectorSize), superblockCRC)
			case "XAGF":
				seal(at, int64(s.SectorSize), agfCRC)
			case "XAGI":
				seal(at, int64(s.SectorSize), agiCRC)
			case "XAFL":
				seal(at, int64(s.SectorSize), agflCRC)
			case "AB3B", "AB3C":
				seal(at, int64(s.BlockSize), treeCRC)
			case "\xfe\xed\xba\xbe":
				p.WriteAt(make([]byte, 4), at+recordCRC)
			}
		}
	}
}

// FuzzRead: whatever is on the disk, Read ends, and what it calls free is on
// the volume and is none of the metadata that it read.
func FuzzRead(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := realfs.Unpack(data, most)
		reseal(p)
		found := realfs.Fuzzed(t, p, Read)
		if found == nil {
			return
		}
		for _, r := range found.Free.Ranges() {
			if r.Off == 0 {
				t.Fatal("the superblock is free")
			}
		}
		noMetadataFree(t, p, found)
	})
}

// noMetadataFree checks that what must be there to read the map again is not
// free: with zeros over all that is free, the map is the same.
func noMetadataFree(t *testing.T, p *realfs.Packed, found *volume.Found) {
	for n := range p.Sectors {
		for _, r := range found.Free.Ranges() {
			if n*512 >= r.Off && n*512 < r.End() {
				delete(p.Sectors, n)
				break
			}
		}
	}
	again, err := readPacked(p)
	if err != nil || !slices.Equal(again.Free.Ranges(), found.Free.Ranges()) {
		t.Fatalf("without what is free, the map is another: %v", err)
	}
}

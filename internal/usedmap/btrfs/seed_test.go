package btrfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

const devStats = 249 // BTRFS_PERSISTENT_ITEM_KEY

// Real file systems, packed, with zeros for data and for what is free. Linux
// 6.18 put a few files, a subvolume and a snapshot into each but dup:
//
//	dup          mkfs.btrfs 6.2 -L label
//	groups-tree  mkfs.btrfs 6.14 -O block-group-tree -m single -n 4096
//	log          mkfs.btrfs 6.2 -m single -n 4096, copied after fsync and before the commit
//	mixed        mkfs.btrfs 6.2 -M -n 4096 --csum xxhash -O ^skinny-metadata,^no-holes
//	             -R ^free-space-tree, mounted with space_cache=v1, and 90 small extents
var seeds = []struct {
	name  string
	used  int64 // bytes, with the first MiB and the room of a superblock's copy
	notes int
}{
	{"dup", 1409024, 0}, {"groups-tree", 2269184, 0}, {"log", 2760704, 1}, {"mixed", 2592768, 0},
}

// disk is a small file system that can be changed.
type disk struct{ *realfs.Packed }

func seed(t testing.TB, name string) disk {
	return disk{realfs.Unpack(realfs.Seed(t, name), 1<<40)}
}

func (d disk) read() (*volume.Found, error) {
	return Read(volume.New(context.Background(), d, d.Size, 512, nil))
}

func (d disk) bytes(off int64, n int) []byte {
	b := make([]byte, n)
	d.ReadAt(b, off)
	return b
}

// set writes a number of so many bytes.
func (d disk) set(off int64, n int, v uint64) {
	b := binary.LittleEndian.AppendUint64(nil, v)
	d.WriteAt(b[:n], off)
}

// places are where on the device blocks may be, by their headers.
func (d disk) places() []int64 {
	var out []int64
	id := d.bytes(superblocks[0]+32, 16)
	for n, s := range d.Sectors {
		if off := n * 512; off%4096 == 0 && off >= reserved && bytes.Equal(s[32:48], id) && !slices.Contains(superblocks, off) {
			out = append(out, off)
		}
	}
	slices.Sort(out)
	return out
}

// block is the place of a tree's block of that level.
func (d disk) block(t testing.TB, owner uint64, level uint8) int64 {
	t.Helper()
	for _, off := range d.places() {
		if h := d.bytes(off, headerSize); le64(h[88:]) == owner && h[100] == level {
			return off
		}
	}
	t.Fatalf("no block of tree %d, level %d", int64(owner), level)
	return 0
}

// leaf is the place of a tree's first leaf with an item of the type.
func (d disk) leaf(t testing.TB, owner uint64, kind uint8) int64 {
	t.Helper()
	for _, off := range d.places() {
		h := d.bytes(off, headerSize)
		for i := range int64(le32(h[96:])) {
			if le64(h[88:]) == owner && h[100] == 0 && d.bytes(off+headerSize+itemSize*i, itemSize)[8] == kind {
				return off
			}
		}
	}
	t.Fatalf("no leaf of tree %d with an item of type %d", int64(owner), kind)
	return 0
}

// item is the places of the key and of the data of the nth item of a type in a leaf.
func (d disk) item(t testing.TB, leaf int64, kind uint8, nth int) (k, data int64) {
	t.Helper()
	n := int64(le32(d.bytes(leaf+96, 4)))
	for i := range n {
		k := leaf + headerSize + itemSize*i
		if b := d.bytes(k, itemSize); b[8] == kind {
			if nth--; nth < 0 {
				return k, leaf + headerSize + int64(le32(b[keySize:]))
			}
		}
	}
	t.Fatalf("no item of type %d", kind)
	return 0, 0
}

// repair makes all checksums right.
func (d disk) repair() {
	super := d.bytes(superblocks[0], superblockSize)
	sum, ok := checksums[le16(super[196:])]
	if !ok {
		return
	}
	fix := func(off int64, n int) {
		if b := d.bytes(off, n); off+int64(n) <= d.Size {
			sum.write(b)
			d.WriteAt(b[:32], off)
		}
	}
	for _, off := range superblocks {
		fix(off, superblockSize)
	}
	if node := int(le32(super[148:])); node >= headerSize && node <= 64<<10 {
		for _, off := range d.places() {
			fix(off, node)
		}
	}
}

// Every seed is understood: in exact numbers here, and by a proof as root.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		found, err := seed(t, s.name).read()
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if used := found.Size - found.Free.Bytes(); used != s.used || len(found.Notes) != s.notes {
			t.Errorf("%s: %d bytes are used, notes %q", s.name, used, found.Notes)
		}
	}
	found, _ := seed(t, "dup").read()
	if found.Label != "label" || len(found.UUID) != 36 || found.Size != 128<<20 {
		t.Errorf("%+v", found)
	}
}

func TestSeedsSurvive(t *testing.T) {
	testenv.Root(t)
	for _, s := range seeds {
		d := seed(t, s.name)
		img := realfs.File(t, d.Size)
		f, err := os.OpenFile(img, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n, b := range d.Sectors {
			f.WriteAt(b, n*512)
		}
		f.Close()
		found, err := realfs.Map(t, img, Read)
		if err != nil {
			t.Fatal(err)
		}
		if s.name == "dup" { // it has no files
			noised := realfs.Copy(t, img)
			realfs.Noise(t, noised, found.Free.Ranges())
			realfs.Btrfs.MustCheck(t, noised)
		} else {
			realfs.Btrfs.MustSurvive(t, img, found.Free.Ranges())
		}
		if want := oracle(t, img, ""); s.notes == 0 && !slices.Equal(want, found.Free.Ranges()) {
			t.Errorf("%s: free is\n%v\nbtrfs-progs says\n%v", s.name, found.Free.Ranges(), want)
		}
	}
}

func (c checksum) write(block []byte) {
	clear(block[:32])
	copy(block, c(block[32:]))
}

package btrfs

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/usedmap/volume"
)

// The values of the specifications, and of the reference program.
func TestChecksums(t *testing.T) {
	for _, c := range []struct {
		in string
		xx uint64
		b2 string
	}{
		{in: "", xx: 0xef46db3751d8e999, b2: "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"},
		{in: "a", xx: 0xd24ec4f1a98c6e5b},
		{in: "abc", xx: 0x44bc2cf5ad770999, b2: "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
		{in: "Nobody inspects the spammish repetition", xx: 0xfbcea83c8a378bf1},
	} {
		if got := checksums[1]([]byte(c.in)); binary.LittleEndian.Uint64(got) != c.xx {
			t.Errorf("XXH64 of %q is %x", c.in, got)
		}
		if got := checksums[3]([]byte(c.in)); c.b2 != "" && hex.EncodeToString(got) != c.b2 {
			t.Errorf("BLAKE2b of %q is %x", c.in, got)
		}
	}
}

// A bit that flips in what is read is found; one that flips elsewhere changes
// nothing.
func TestFlippedBits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, s := range seeds {
		want, err := seed(t, s.name).read()
		if err != nil {
			t.Fatal(err)
		}
		d := seed(t, s.name)
		node := int(le32(d.bytes(superblocks[0]+148, 4)))
		for _, off := range append(d.places(), superblocks[0]) {
			read := s.name != "dup" && slices.Contains([]uint64{rootTree, extentTree, chunkTree, devTree, blockGroupTree, logTree},
				le64(d.bytes(off+88, 8)))
			if off == superblocks[0] {
				read = true
			}
			for range 20 {
				at := off + int64(rnd.IntN(min(node, 4096)))
				old := d.bytes(at, 1)
				d.set(at, 1, uint64(old[0]^1<<rnd.IntN(8)))
				found, err := d.read()
				tail := at-off >= 4 && at-off < 32 // the unused part of a checksum
				switch {
				case err == nil && read && !tail:
					t.Fatalf("%s: a flipped bit of byte %d is not found", s.name, at)
				case err == nil && !reflect.DeepEqual(found, want):
					t.Fatalf("%s: a flipped bit of byte %d changes the map", s.name, at)
				}
				d.set(at, 1, uint64(old[0]))
			}
		}
	}
}

// A volume that is too short, and one that cannot be read somewhere.
func TestShortVolume(t *testing.T) {
	for _, s := range seeds {
		for _, size := range []int64{0, 1000, 64 << 10, 68 << 10, 1 << 20, 10 << 20, seed(t, s.name).Size - 1} {
			d := seed(t, s.name)
			d.Size = size
			if found, err := d.read(); err == nil || found != nil && found.Free != nil {
				t.Errorf("%s, cut to %d bytes: %+v", s.name, size, found)
			}
		}
		d := seed(t, s.name)
		d.Size += 5000
		if found, err := d.read(); err != nil || found.Size != d.Size-5000 || found.Size-found.Free.Bytes() != s.used {
			t.Errorf("%s, in a larger volume: %v", s.name, err)
		}
	}
}

// With an extent tree that is too large to be read, the block groups are used.
func TestGroupsAlone(t *testing.T) {
	for _, s := range seeds {
		d := seed(t, s.name)
		all, err := d.read()
		if err != nil {
			t.Fatal(err)
		}
		part, err := readLimited(volume.New(context.Background(), d, d.Size, 512, nil), 1)
		if err != nil || !strings.Contains(strings.Join(part.Notes, ""), "too large") {
			t.Fatal(err, part.Notes)
		}
		free := part.Free.Bytes()
		if free == 0 || free >= all.Free.Bytes() {
			t.Errorf("%s: %d bytes are free by block groups, %d by extents", s.name, free, all.Free.Bytes())
		}
		for _, r := range all.Free.Ranges() {
			part.Free.Add(r.Off, r.Len)
		}
		if !slices.Equal(part.Free.Ranges(), all.Free.Ranges()) {
			t.Errorf("%s: something is free by block groups, and used by extents", s.name)
		}
	}
}

// A half deleted tree keeps the metadata, by the note and by the bytes.
func TestHalfDeleted(t *testing.T) {
	d := seed(t, "groups-tree")
	_, at := d.item(t, d.leaf(t, rootTree, rootItem), rootItem, 0)
	d.set(at+220, 8, 256)
	d.repair()
	found, err := d.read()
	if err != nil || len(found.Notes) != 1 {
		t.Fatal(err, found.Notes)
	}
	want, _ := seed(t, "groups-tree").read()
	if less := want.Free.Bytes() - found.Free.Bytes(); less < 7<<20 || less > 8<<20 {
		t.Errorf("%d bytes more are used", less)
	}
}

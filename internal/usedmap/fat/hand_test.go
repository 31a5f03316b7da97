package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// Kinds of FAT that mkfs.fat makes and mtools cannot fill, or fsck.fat does
// not know: files are written by hand into all FATs, and read back by hand
// after all that is free became noise.
func TestByHand(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		fs   string
		size int64
		args string
		fsck bool
	}{
		// Few clusters for a FAT32: one by its tables for Windows, Linux and
		// UEFI; mtools and the paper count, and find nothing they could use.
		{"fat32", 1 << 20, "-F 32 -s 1", true},
		{"fat32", 40 << 20, "-F 32 -s 8", true},
		{"fat32", 100 << 20, "-F 32 -s 64 -f 1", true},
		{"fat32", 90 << 20, "-F 32 -S 2048 -s 4", true},
		{"fat32", 130 << 20, "-F 32 -s 128", true},
		{"fat32", 64 << 20, "-F 32 -b 0", false}, // fsck.fat would make a second boot sector
		{"fat32", 64 << 20, "-F 32 -f 3", false},
		{"fat16", 40 << 20, "-F 16 -f 4", false},
		{"fat12", 2 << 20, "-F 12 -f 3", false},
	} {
		t.Run(fmt.Sprintf("%s,%d,%s", c.fs, c.size, c.args), func(t *testing.T) {
			img := realfs.FAT.Make(t, c.size, strings.Fields(c.args)...)
			want := writeFiles(t, img)
			found, err := realfs.Map(t, img, Read)
			if err != nil {
				t.Fatal(err)
			}
			if found.FS != c.fs || found.Free.Bytes() < c.size*2/3 {
				t.Errorf("%s, %d bytes free", found.FS, found.Free.Bytes())
			}
			if c.fs != "fat12" {
				t.Logf("surplus over partclone: %d", realfs.FAT.Surplus(t, img, found.Free.Ranges()))
			}
			realfs.Noise(t, img, found.Free.Ranges())
			if c.fsck {
				realfs.FAT.MustCheck(t, img)
			}
			for off, data := range want {
				if got := readAt(t, img, off, len(data)); !bytes.Equal(got, data) {
					t.Errorf("what was at byte %d is lost", off)
				}
			}
		})
	}
}

func readAt(t *testing.T, img string, off int64, n int) []byte {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

// writeFiles writes a few files of three clusters with gaps between them, and
// gives the bytes that must live, by where they are.
func writeFiles(t *testing.T, img string) map[int64][]byte {
	t.Helper()
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sector := make([]byte, bootSize)
	f.ReadAt(sector, 0)
	g, err := parse(sector)
	if err != nil {
		t.Fatal(err)
	}
	dir := g.rootStart() * g.sector
	if g.bits == 32 {
		dir = g.at(g.root)
	}
	want := map[int64][]byte{0: sector}
	for i := range int64(9) {
		first := g.clusters*(i+1)/10 + i%2
		chain := []int64{first, first + 2, first + 3}
		for j, c := range chain {
			next := int64(entryMask)
			if j < 2 {
				next = chain[j+1]
			}
			for k := range g.fats {
				setEntry(t, f, g, k, c, uint32(next))
			}
			data := bytes.Repeat([]byte{byte(i), byte(j), 'x', 'y'}, int(g.cluster/4))
			f.WriteAt(data, g.at(c))
			want[g.at(c)] = data
		}
		e := make([]byte, 32)
		copy(e, fmt.Sprintf("FILE%d   TXT", i))
		binary.LittleEndian.PutUint16(e[20:], uint16(first>>16))
		binary.LittleEndian.PutUint16(e[26:], uint16(first))
		binary.LittleEndian.PutUint32(e[28:], uint32(3*g.cluster-5))
		f.WriteAt(e, dir+32*i)
		want[dir+32*i] = e
	}
	if g.bits == 32 { // fsck.fat wants the count of free clusters to be right
		f.WriteAt([]byte{0xFF, 0xFF, 0xFF, 0xFF}, g.info*g.sector+488)
	}
	return want
}

// setEntry writes an entry of one FAT.
func setEntry(t *testing.T, f *os.File, g *geometry, fat, c int64, e uint32) {
	t.Helper()
	at := (g.reserved+fat*g.fatSize)*g.sector + c*int64(g.bits)/8
	b := make([]byte, 4)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	was, mask := binary.LittleEndian.Uint32(b), uint32(1<<g.bits-1)
	shift := 0
	if g.bits == 12 {
		shift = int(c % 2 * 4)
	}
	binary.LittleEndian.PutUint32(b, was&^(mask<<shift)|e&mask<<shift)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

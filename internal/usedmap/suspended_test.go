package usedmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
)

// A system that sleeps on a disk goes on with all its file systems as it has
// them in memory, and with what it has in other swap areas.
func TestSuspended(t *testing.T) {
	seeds := realfs.Seeds(t, "*/testdata")
	fat, swap := realfs.Unpack(seeds["fat/fat32"], 1<<40), realfs.Unpack(seeds["swap/mkswap-4k"], 1<<40)
	disk := joined{bootRecord(0x0C, fat.Size, 0x82, swap.Size), []*realfs.Packed{fat, swap}}
	size := int64(len(disk.boot)) + fat.Size + swap.Size
	for _, c := range []struct {
		signature string
		sleeps    bool
	}{{"SWAPSPACE2", false}, {"S1SUSPEND\x00", true}} {
		swap.WriteAt([]byte(c.signature), 4096-10)
		m, err := Read(context.Background(), disk, size, 512)
		if err != nil {
			t.Fatal(err)
		}
		checkMap(t, m)
		if (m.FreeBytes() == 0) != c.sleeps || strings.Contains(m.Parts[1].Doubt, "suspended") != c.sleeps {
			t.Errorf("%q: %d bytes are free: %+v", c.signature, m.FreeBytes(), m.Parts)
		}
	}
}

// bootRecord is the first MiB of a disk with primary partitions behind it, of
// so many bytes each.
func bootRecord(kind byte, size int64, more ...int64) []byte {
	b := make([]byte, 1<<20)
	b[510], b[511] = 0x55, 0xAA
	at := int64(len(b))
	for i, p := range append([]int64{int64(kind), size}, more...) {
		if i%2 == 0 {
			b[446+8*i+4] = byte(p)
			continue
		}
		entry := b[446+8*(i-1):]
		binary.LittleEndian.PutUint32(entry[8:], uint32(at/512))
		binary.LittleEndian.PutUint32(entry[12:], uint32(p/512))
		at += p
	}
	return b
}

// A hash tree of dm-verity covers blocks that a file system calls free.
func TestVerity(t *testing.T) {
	fat := realfs.Unpack(realfs.Seeds(t, "*/testdata")["fat/fat32"], 1<<40)
	tree := &realfs.Packed{Size: 1 << 20, Sectors: map[int64][]byte{}}
	tree.WriteAt([]byte("verity\x00\x00\x01\x00\x00\x00"), 0)
	disk := joined{bootRecord(0x0C, fat.Size, 0x83, tree.Size), []*realfs.Packed{fat, tree}}
	m, err := Read(context.Background(), disk, int64(len(disk.boot))+fat.Size+tree.Size, 512)
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, m)
	if m.FreeBytes() != 0 || !strings.Contains(m.Parts[1].Doubt, "verity") {
		t.Errorf("%d bytes are free: %+v", m.FreeBytes(), m.Parts)
	}
}

// joined is a disk made of pieces.
type joined struct {
	boot  []byte
	parts []*realfs.Packed
}

func (d joined) ReadAt(b []byte, off int64) (int, error) {
	r := []io.ReaderAt{bytes.NewReader(d.boot)}
	sizes := []int64{int64(len(d.boot))}
	for _, p := range d.parts {
		r, sizes = append(r, p), append(sizes, p.Size)
	}
	n, at := 0, int64(0)
	for i := range r {
		if off+int64(n) >= at && off+int64(n) < at+sizes[i] && n < len(b) {
			m, err := r[i].ReadAt(b[n:min(int64(len(b)), at+sizes[i]-off)], off+int64(n)-at)
			if n += m; err != nil && err != io.EOF {
				return n, err
			}
		}
		at += sizes[i]
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

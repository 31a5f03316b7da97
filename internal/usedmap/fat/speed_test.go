package fat

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// A TiB as mkfs.fat makes it.
func TestHuge(t *testing.T) {
	testenv.Root(t)
	img := realfs.FAT.Make(t, 1<<40-1<<20, "-F", "32", "-s", "64")
	start := realfs.ProcessorTime(t)
	found, err := realfs.Map(t, img, Read)
	t.Logf("%.2f s", (realfs.ProcessorTime(t) - start).Seconds())
	if err != nil || found.Free.Bytes() < 1<<40-3<<30 || realfs.ProcessorTime(t)-start > 20*time.Second {
		t.Errorf("%v", err)
	}
}

// The largest FAT there is: empty, of nothing but pieces, and one whose chains
// jump about.
func TestHostile(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		clusters int64
		entry    func(c int64) uint32
	}{
		{0x0FFFFFF5, func(c int64) uint32 { return 0 }},
		{0x0FFFFFF5, func(c int64) uint32 { return uint32(c % 2 * 0x0FFFFFFF) }},
		{0x01FFFFFD, func(c int64) uint32 { return uint32((c*0x9E3779B1)%0x01FFFFFD) + 2 }},
	} {
		d := open(t, "fat32-4096")
		fatSize := c.clusters/1024 + 1
		boot := d.Sectors[0]
		boot[0x0D], boot[0x10] = 8, 1
		binary.LittleEndian.PutUint32(boot[0x20:], uint32(d.g.reserved+fatSize+c.clusters*8))
		binary.LittleEndian.PutUint32(boot[0x24:], uint32(fatSize))
		copy(d.Sectors[d.g.backup*8], boot)
		d.Packed.Size = 16 << 40
		start := realfs.ProcessorTime(t)
		found, err := Read(volume.New(context.Background(), &made{d.Packed, d.g.reserved * 4096, fatSize * 4096, c.entry}, 16<<40, 512, nil))
		took := realfs.ProcessorTime(t) - start
		t.Logf("%d clusters: %.1f s: %v", c.clusters, took.Seconds(), err)
		if took > 40*time.Second || err != nil || found.FS != "fat32" {
			t.Errorf("%v, %+v, %v", took, found, err)
		}
	}
}

// made is a disk whose FAT is made up as it is read.
type made struct {
	*realfs.Packed
	off, n int64
	entry  func(c int64) uint32
}

func (m *made) ReadAt(b []byte, off int64) (int, error) {
	if off < m.off || off >= m.off+m.n {
		return m.Packed.ReadAt(b, off)
	}
	for i := 0; i+4 <= len(b); i += 4 {
		c := (off - m.off + int64(i)) / 4
		e := m.entry(c)
		switch c {
		case 0:
			e = 0x0FFFFFF8
		case 1, 2:
			e = 0x0FFFFFFF
		}
		binary.LittleEndian.PutUint32(b[i:], e)
	}
	return len(b), nil
}

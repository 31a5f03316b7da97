package exfat

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// The largest disks that are asked for, of the smallest clusters that
// mkfs.exfat makes there without writing a GiB of FAT, and of common ones.
func TestHuge(t *testing.T) {
	testenv.Root(t)
	for _, args := range [][]string{{"-c", "128K"}, {"-c", "1M"}} {
		img := realfs.ExFAT.Make(t, 16<<40-4096, args...)
		start := realfs.ProcessorTime(t)
		found, err := realfs.Map(t, img, Read)
		t.Logf("%v: %.2f s: %v", args, (realfs.ProcessorTime(t) - start).Seconds(), err)
		if err != nil || found.Free.Bytes() < 15<<40 || realfs.ProcessorTime(t)-start > 20*time.Second {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// made is a disk whose bitmap is made up as it is read, and whose FAT has one
// chain from the second cluster on.
type made struct {
	*realfs.Packed
	g      *geometry
	bitmap int64 // bytes
}

func (m *made) ReadAt(b []byte, off int64) (int, error) {
	fat := m.g.fat * m.g.sector
	switch bitmap := m.g.at(firstCluster); {
	case off >= fat && off < fat+m.g.fatSize*m.g.sector:
		for i := 0; i+4 <= len(b); i += 4 {
			c := (off - fat + int64(i)) / 4
			next := c + 1
			switch last := firstCluster + m.g.clustersOf(m.bitmap) - 1; c {
			case 0:
				next = 0xFFFFFFF8
			case last, last + 2, last + 3: // the bitmap, two clusters of up-case table, the root directory
				next = chainEnd
			}
			binary.LittleEndian.PutUint32(b[i:], uint32(next))
		}
	case off >= bitmap && off < bitmap+m.bitmap:
		for i := range b {
			b[i] = 0x55
			if off+int64(i)-bitmap < 1<<20 {
				b[i] = 0xFF
			}
		}
	default:
		return m.Packed.ReadAt(b, off)
	}
	return len(b), nil
}

// 2^32 clusters, every other of them free.
func TestHostile(t *testing.T) {
	testenv.Root(t)
	d := open(t, "sector-4096")
	const clusters = 0xFFFFFFF5
	fatSize := uint32(clusters/1024 + 1)
	heap := uint32(d.g.fat) + fatSize
	boot := d.bytes(0, bootSize)
	binary.LittleEndian.PutUint32(boot[84:], fatSize)
	binary.LittleEndian.PutUint32(boot[88:], heap)
	binary.LittleEndian.PutUint32(boot[92:], clusters)
	binary.LittleEndian.PutUint64(boot[72:], uint64(heap)+clusters)
	root, upcase := d.root(0), d.bytes(d.root(d.find(typeUpcase, "")), 32)
	dir, table := d.bytes(root, 4096), d.bytes(d.g.at(int64(binary.LittleEndian.Uint32(upcase[20:]))), 8192)
	bitmap := int64(clusters+7) / 8
	first := uint32(firstCluster + (bitmap+4095)/4096)
	binary.LittleEndian.PutUint32(boot[96:], first+2)
	at := 32 * d.find(typeBitmap, "")
	binary.LittleEndian.PutUint32(dir[at+20:], firstCluster)
	binary.LittleEndian.PutUint64(dir[at+24:], uint64(bitmap))
	at = 32 * d.find(typeUpcase, "")
	binary.LittleEndian.PutUint32(dir[at+20:], first)
	clear(dir[96:])
	d.Packed.Size = 64 << 40
	d.boot(0, boot...)
	g, err := parse(boot)
	if err != nil {
		t.Fatal(err)
	}
	d.put(g.at(int64(first)), table...)
	d.put(g.at(g.root), dir...)
	start := realfs.ProcessorTime(t)
	found, err := Read(volume.New(context.Background(), &made{d.Packed, g, bitmap}, d.Packed.Size, 512, nil))
	took := realfs.ProcessorTime(t) - start
	t.Logf("%d clusters: %.1f s: %v", g.clusters, took.Seconds(), err)
	if took > 40*time.Second || err != nil {
		t.Errorf("%+v, %v", found, err)
	}
}

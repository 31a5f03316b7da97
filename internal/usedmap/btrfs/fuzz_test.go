package btrfs

import (
	"context"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// counted counts what is read.
type counted struct {
	disk
	bytes int64
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	c.bytes += int64(len(b))
	return c.disk.ReadAt(b, off)
}

// Whatever the disk holds, the reader ends without harm: what it calls free
// lies within, apart from the superblocks and from the blocks it read.
func FuzzRead(f *testing.F) {
	for _, s := range seeds {
		f.Add(realfs.Seed(f, s.name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &counted{disk: disk{realfs.Unpack(data, 1<<40)}}
		c.repair()
		v := volume.New(context.Background(), c, c.Size, 512, nil)
		found, err := Read(v)
		if limit := 256<<20 + c.Size/32; c.bytes > limit {
			t.Fatalf("%d bytes were read of %d", c.bytes, c.Size)
		}
		if err != nil {
			if found != nil && found.Free != nil {
				t.Fatal("something is free, in spite of: ", err)
			}
			return
		}
		needed := append([]int64{0}, superblocks...)
		super := c.disk.bytes(superblocks[0], superblockSize)
		fs := &fs{v: v}
		if _, fs.sb, err = readSuper(v); err != nil {
			t.Fatal(err)
		}
		if err := fs.readChunks(); err != nil {
			t.Fatal(err)
		}
		for _, at := range []uint64{le64(super[80:]), le64(super[88:])} {
			c, err := fs.chunkOf(at, fs.sb.node)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range c.copies() {
				needed = append(needed, off+int64(at)-c.start)
			}
		}
		for _, r := range found.Free.Ranges() {
			if r.Off < reserved || r.End() > found.Size || found.Size > c.Size {
				t.Fatalf("%v is free of %d", r, c.Size)
			}
			for _, off := range needed {
				if r.Off < off+superblockSize && off < r.End() {
					t.Fatalf("%v is free, byte %d is needed", r, off)
				}
			}
		}
	})
}

package btrfs

import (
	"context"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// Whatever the disk holds, the reader ends without harm: what it calls free
// lies within, apart from the superblocks and from the blocks it read.
func FuzzRead(f *testing.F) {
	for _, s := range seeds {
		f.Add(realfs.Seed(f, s.name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := disk{realfs.Unpack(data, 1<<40)}
		d.repair()
		found := realfs.Fuzzed(t, d.Packed, Read)
		if found == nil {
			return
		}
		needed := append([]int64{0}, superblocks...)
		super := d.bytes(superblocks[0], superblockSize)
		v := volume.New(context.Background(), d, d.Size, 512, nil)
		fs := &fs{v: v}
		var err error
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
			if r.Off < reserved {
				t.Fatalf("%v is free, and reserved", r)
			}
			for _, off := range needed {
				if r.Off < off+superblockSize && off < r.End() {
					t.Fatalf("%v is free, byte %d is needed", r, off)
				}
			}
		}
	})
}

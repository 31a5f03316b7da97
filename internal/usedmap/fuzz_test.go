package usedmap

import (
	"context"
	"testing"

	"testbox-imaging/internal/realfs"
)

// FuzzRead: whatever is on a disk, there is a map, and it is one (checkMap).
// The seeds are those of the readers, alone and as a partition.
func FuzzRead(f *testing.F) {
	for _, data := range realfs.Seeds(f, "*/testdata") {
		f.Add(data, byte(0))
		for _, kind := range []byte{0x83, 0x07, 0x0C, 0x8E, 0x82} {
			f.Add(data, kind)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		p := realfs.Unpack(data, 512<<20)
		d := joined{parts: []*realfs.Packed{p}}
		if kind != 0 {
			d.boot = bootRecord(kind, p.Size)
		}
		size := int64(len(d.boot)) + p.Size
		if size == 0 {
			return
		}
		m, err := Read(context.Background(), d, size, 512)
		if err != nil {
			t.Fatal(err)
		}
		checkMap(t, m)
		for _, part := range m.Parts {
			if len(part.Doubt) > 1000 {
				t.Fatal("a reason that nobody reads")
			}
		}
		if _, err := m.MarshalJSON(); err != nil {
			t.Fatal(err)
		}
	})
}

package probe

import (
	"encoding/binary"
	"testing"

	"testbox-imaging/internal/realfs"
)

// pack is the sample as realfs packs a disk.
func (s sample) pack() []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(s.size))
	d, done := s.disk(), map[int64]bool{}
	for _, w := range d.spots {
		for n := w.off / 512; n*512 < w.off+int64(len(w.bytes)); n++ {
			if done[n] {
				continue
			}
			done[n] = true
			b := make([]byte, 512)
			d.ReadAt(b, n*512)
			out = append(binary.LittleEndian.AppendUint32(out, uint32(n)), b...)
		}
	}
	return out
}

// Whatever is on a disk: no panic, little is read, each name comes once and
// lies on the volume, and nothing of a disk that touches its partitions.
func FuzzFind(f *testing.F) {
	seen := map[string]bool{}
	for _, s := range samples() {
		if !seen[s.name] {
			seen[s.name] = true
			f.Add(s.pack(), int64(1<<20), s.size-1<<20)
			f.Add(s.pack()[:8+4+512], int64(63*512), s.size)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, first, end int64) {
		p := realfs.Unpack(data, 256<<20)
		c := &counter{ReaderAt: p}
		found := mustFind(t, c, p.Size)
		check(t, found, p.Size)
		names := map[string]bool{}
		for _, m := range found {
			names[m.Name] = true
		}
		ofDisk := mustFindDisk(t, c, p.Size, first, end)
		check(t, ofDisk, p.Size)
		for _, m := range ofDisk {
			if !names[m.Name] && !names["xfs"] && !names["ext"] { // those hide others
				t.Errorf("the disk has %v, as a volume %v", m, found)
			}
			if m.Off >= first && m.Off < end {
				t.Errorf("%v lies in the partitions, %d to %d", m, first, end)
			}
		}
		if c.bytes > 4<<20 {
			t.Errorf("%d bytes were read", c.bytes)
		}
	})
}

func check(t *testing.T, found []Match, size int64) {
	t.Helper()
	names := map[string]bool{}
	for _, m := range found {
		if names[m.Name] || m.Off < 0 || m.Off >= size {
			t.Errorf("%v of a volume of %d bytes: %v", m, size, found)
		}
		names[m.Name] = true
	}
}

package ntfs

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"testbox-imaging/internal/usedmap/volume"
)

// patched is a volume with some pieces changed; the pieces count in order.
type patched struct {
	base   []byte
	pieces []piece
	read   int64
}

type piece struct {
	off int64
	b   []byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, p.base[min(off, int64(len(p.base))):])
	p.read += int64(n)
	for _, c := range p.pieces {
		from, to := max(off, c.off), min(off+int64(n), c.off+int64(len(c.b)))
		if from < to {
			copy(b[from-off:to-off], c.b[from-c.off:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// bytes are the bytes as they are now.
func (p *patched) bytes(off int64, n int) []byte {
	b := make([]byte, n)
	p.ReadAt(b, off)
	return b
}

// bench is a volume of testdata with the places where edits hit something.
type bench struct {
	*img
	f     *fileSystem
	spots []spot
}

// spot is a record or a piece of a volume.
type spot struct {
	off   int64
	n     int
	fixup bool  // it has one, which is repaired after an edit
	copy  int64 // the place of a copy that is edited as well; 0: none
}

func newBench(t testing.TB, name string) *bench {
	i := load(t, name)
	f := i.open()
	b := &bench{i, f, []spot{
		{0, 512, false, 0}, {f.sectors * f.sector, 512, false, 0}, {shadowHeader, 128, false, 0},
	}}
	// Records of NTFS itself twice: they matter more.
	for _, no := range []int64{0, 1, 2, 3, 5, 6, 7, 12, 13, 0, 2, 5, 6} {
		s := spot{off: f.place(f.mft, no*int64(f.record)), n: f.record, fixup: true}
		if no < 4 {
			s.copy = f.mirrLCN*f.cluster + no*int64(f.record)
		}
		b.spots = append(b.spots, s)
	}
	for no := int64(64); no < f.mft.size/int64(f.record); no += 7 {
		b.spots = append(b.spots, spot{f.place(f.mft, no*int64(f.record)), f.record, true, 0})
	}
	log, _ := f.stream(fileLogFile, typeData, "")
	bits, _ := f.stream(fileBitmap, typeData, "")
	index, _ := f.stream(fileRoot, typeIndexBlocks, i30)
	for n := range int64(2) {
		b.spots = append(b.spots, spot{f.place(log, 4096*n), 4096, true, 0}, spot{f.place(index, 4096*n), 4096, true, 0})
	}
	_, _, hiber := i.hiberfil()
	b.spots = append(b.spots, spot{f.place(bits, 0), int(min(bits.size, 512)), false, 0}, spot{f.place(hiber, 0), 512, false, 0})
	return b
}

// edit applies edits: for each the number of a spot, the place in it (2
// bytes), a length and bytes. Fixups are repaired after each.
func (b *bench) edit(data []byte) *patched {
	p := &patched{base: b.b}
	for len(data) >= 5 && len(p.pieces) < 64 {
		s := b.spots[int(data[0])%len(b.spots)]
		at := int(le.Uint16(data[1:])) % s.n
		n := min(int(data[3])%64+1, len(data)-4, s.n-at)
		b := p.bytes(s.off, s.n)
		if s.fixup {
			fixup(b, string(b[:4])) // as far as it goes
		}
		copy(b[at:], data[4:4+n])
		if s.fixup {
			fix(b)
		}
		p.pieces = append(p.pieces, piece{s.off, b})
		if s.copy != 0 {
			p.pieces = append(p.pieces, piece{s.copy, b})
		}
		data = data[4+n:]
	}
	return p
}

// hold fails the test if a map of the edited volume cannot be right. It gives
// the map, nil if there is a doubt.
func (b *bench) hold(t testing.TB, p *patched) *volume.Found {
	size := int64(len(p.base))
	p.read = 0
	found, err := Read(volume.New(context.Background(), p, size, 512, nil))
	if p.read > 256<<20+size/32 {
		t.Fatalf("%d bytes were read of %d", p.read, size)
	}
	if err != nil {
		if found != nil && found.Free != nil {
			t.Fatalf("free in spite of %v", err)
		}
		return nil
	}
	now, err := parseBoot(p.bytes(0, 512), size)
	if err != nil {
		t.Fatalf("a map with a bad boot sector: %v", err)
	}
	used := []piece{{0, make([]byte, 8192)}, {now.mftLCN * now.cluster, make([]byte, 16*now.record)},
		{now.mirrLCN * now.cluster, make([]byte, now.record)}, {now.clusters * now.cluster, make([]byte, size-now.clusters*now.cluster)}}
	end := int64(0)
	for _, r := range found.Free.Ranges() {
		if r.Off < end || r.Len <= 0 || r.End() > size {
			t.Fatalf("%v is free", r)
		}
		end = r.End()
		for _, u := range used {
			if r.Off < u.off+int64(len(u.b)) && u.off < r.End() {
				t.Fatalf("%v is free, %d bytes at %d are used", r, len(u.b), u.off)
			}
		}
	}
	return found
}

// No one changed byte of metadata, with checks repaired, makes anything free
// that is not.
func TestFlips(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, name := range seeds {
		b := newBench(t, name)
		before, err := b.read()
		if err != nil {
			t.Fatal(err)
		}
		passed := 0
		for range 300 {
			spot := rnd.IntN(len(b.spots) - 2) // not the bitmap, which is what it says
			at := rnd.IntN(min(b.spots[spot].n, 512))
			if n := b.spots[spot].n; spot < 3 {
				at = rnd.IntN(min(n, 0x54))
			}
			p := b.edit([]byte{byte(spot), byte(at), byte(at >> 8), 0, byte(rnd.Uint32())})
			found := b.hold(t, p)
			if found == nil {
				continue
			}
			passed++
			if !subset(found.Free.Ranges(), before.Free.Ranges()) {
				t.Fatalf("%s: byte %d of spot %d frees more", name, at, spot)
			}
		}
		if passed < 20 || passed > 280 {
			t.Errorf("%s: %d of 300 changes make no doubt", name, passed)
		}
	}
}

func FuzzRead(f *testing.F) {
	var all []*bench
	for _, name := range seeds {
		all = append(all, newBench(f, name))
	}
	for n, b := range all {
		f.Add([]byte{byte(n)})
		// Restart pages, an attribute list in record 0, other flags.
		page := restart{major: 1, minor: 1, flags: 2}.page()
		unfix(page)
		data := []byte{byte(n)}
		for s, spot := range b.spots {
			if spot.n == 4096 && spot.fixup && bytes.Equal(b.b[spot.off:spot.off+4], []byte{255, 255, 255, 255}) {
				for at := 0; at < 0x100; at += 64 {
					data = append(append(data, byte(s), byte(at), byte(at>>8), 63), page[at:at+64]...)
				}
			}
		}
		f.Add(data)
		list := resident(typeList, "", listOf(entry{typ: typeData}, entry{typ: typeData, lowest: 2, in: 12}))
		f.Add(append([]byte{byte(n), 3, 0x38, 0, byte(len(list) - 1)}, list...))
		f.Add([]byte{byte(n), 6, 0x38, 0, 0, 0x10, 3, 0x14, 0, 1, 0x38, 0})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		b := all[int(data[0])%len(all)]
		b.hold(t, b.edit(data[1:]))
	})
}

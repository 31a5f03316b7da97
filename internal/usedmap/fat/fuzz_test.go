package fat

import (
	"testing"

	"testbox-imaging/internal/realfs"
)

// Whatever a disk says, Read ends, reads no more than it may, and names
// nothing free that is its own or that lies outside.
func FuzzRead(f *testing.F) {
	for _, data := range realfs.Seeds(f, "testdata") {
		f.Add(data, false)
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, mirror bool) {
		p := realfs.Unpack(data, 512<<20) // huge ones are slow, and tested elsewhere
		if mirror {
			repair(p)
		}
		found := realfs.Fuzzed(t, p, Read)
		if found == nil {
			return
		}
		sector := make([]byte, bootSize)
		p.ReadAt(sector, 0)
		g, err := parse(sector)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found.Free.Ranges() {
			if r.Off < g.at(firstCluster) || r.End() > g.at(firstCluster+g.clusters) {
				t.Fatalf("%v is not in the clusters of a volume of %d bytes", r, p.Size)
			}
		}
		if g.bits == 32 && holds(found.Free.Ranges(), g.at(g.root)) {
			t.Fatal("the root directory is free")
		}
	})
}

// repair makes the second FAT as the first, sector by sector, so that the
// fuzzer gets beyond their comparison.
func repair(p *realfs.Packed) {
	sector := make([]byte, bootSize)
	p.ReadAt(sector, 0)
	g, err := parse(sector)
	if err != nil || g.fats != 2 {
		return
	}
	first, size := g.reserved*g.sector/512, g.fatSize*g.sector/512
	for n := range p.Sectors {
		if n >= first+size && n < first+2*size {
			delete(p.Sectors, n)
		}
	}
	for n, s := range p.Sectors {
		if n >= first && n < first+size {
			p.Sectors[n+size] = s
		}
	}
}

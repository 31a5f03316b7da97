package exfat

import (
	"encoding/binary"
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
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		p := realfs.Unpack(data, 512<<20) // huge ones are slow, and tested elsewhere
		if mend {
			repair(p)
		}
		found := realfs.Fuzzed(t, p, Read)
		if found == nil {
			return
		}
		b := make([]byte, bootSize)
		p.ReadAt(b, 0)
		g, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		root := g.at(g.root)
		for _, r := range found.Free.Ranges() {
			if r.Off < g.at(firstCluster) || r.End() > g.at(firstCluster+g.clusters) {
				t.Fatalf("%v is not in the clusters of a volume of %d bytes", r, p.Size)
			}
			if root >= r.Off && root < r.End() {
				t.Fatal("the root directory is free")
			}
		}
	})
}

// repair makes what the fuzzer would hardly guess: the checksums of the boot
// regions and of what the root directory's first cluster holds.
func repair(p *realfs.Packed) {
	b := make([]byte, bootSize)
	p.ReadAt(b, 0)
	g, err := parse(b)
	if err != nil {
		return
	}
	p.WriteAt(b, regionSectors*g.sector)
	sum(p, 0, g.sector)
	sum(p, regionSectors*g.sector, g.sector)
	dir := make([]byte, min(g.cluster, 4096))
	p.ReadAt(dir, g.at(g.root))
	for at := 0; at+32 <= len(dir); at += 32 {
		e := dir[at:]
		switch n := 32 * (1 + int(e[1])); {
		case e[0] == typeFile && n <= len(e):
			binary.LittleEndian.PutUint16(e[2:], setChecksum(e[:n]))
		case e[0] == typeUpcase:
			c, n := int64(binary.LittleEndian.Uint32(e[20:])), binary.LittleEndian.Uint64(e[24:])
			if g.is(c) && n <= 128<<10 {
				table := make([]byte, n)
				p.ReadAt(table, g.at(c))
				binary.LittleEndian.PutUint32(e[4:], checksum(0, table, nil))
			}
		}
	}
	p.WriteAt(dir, g.at(g.root))
}

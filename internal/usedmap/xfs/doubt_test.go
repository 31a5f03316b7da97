package xfs

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
)

// disk is a seed that a test changes.
type disk struct {
	*realfs.Packed
	s superblock
}

func open(t testing.TB, name string) *disk {
	t.Helper()
	d := &disk{Packed: realfs.Unpack(seeds(t)[name], most)}
	b := make([]byte, 512)
	d.ReadAt(b, 0)
	if _, err := binary.Decode(b, binary.BigEndian, &d.s); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) put(at int64, b ...byte) { d.WriteAt(b, at) }
func (d *disk) put32(at int64, n uint32) {
	d.WriteAt(binary.BigEndian.AppendUint32(nil, n), at)
}
func (d *disk) put64(at int64, n uint64) {
	d.WriteAt(binary.BigEndian.AppendUint64(nil, n), at)
}
func (d *disk) get32(at int64) uint32 {
	b := make([]byte, 4)
	d.ReadAt(b, at)
	return binary.BigEndian.Uint32(b)
}

// add adds to the number of n bytes at a place.
func (d *disk) add(at, n int64, by byte) {
	b := make([]byte, n)
	d.ReadAt(b, at)
	b[n-1] += by
	d.WriteAt(b, at)
}

// Places in the first two groups: sectors of 512 bytes.
func (d *disk) group(no uint32) int64 { return d.s.groupOffset(no) }
func (d *disk) block(no, at uint32) int64 {
	return d.group(no) + int64(at)*int64(d.s.BlockSize)
}
func (d *disk) log() int64 {
	no, at := d.s.locate(d.s.LogStart)
	return d.block(no, at)
}

// bno and cnt are the first leaves of the trees of a group.
func (d *disk) bno(no uint32) int64 { return d.leaf(no, d.get32(d.group(no)+512+16)) }
func (d *disk) cnt(no uint32) int64 { return d.leaf(no, d.get32(d.group(no)+512+20)) }
func (d *disk) leaf(no, at uint32) int64 {
	t := &tree{group: &group{superblock: &d.s}}
	for d.get32(d.block(no, at)+4)>>16 > 0 {
		size := int64(t.headerSize())
		at = d.get32(d.block(no, at) + size + (int64(d.s.BlockSize)-size)/12*8)
	}
	return d.block(no, at)
}

func TestSeeds(t *testing.T) {
	for name := range seeds(t) {
		d := open(t, name)
		found, err := readPacked(d.Packed)
		if err != nil || found.Free.Bytes() < 20*mib || found.Size != 64*mib {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		reseal(d.Packed)
		if again, err := readPacked(d.Packed); err != nil || again.Free.Bytes() != found.Free.Bytes() {
			t.Errorf("%s with new checksums: %v", name, err)
		}
	}
}

// Each known feature bit is fine (but those that mean doubt), each other is not.
func TestFeatureBits(t *testing.T) {
	for _, c := range []struct {
		seed  string
		at    int64
		bits  int
		known uint32
	}{
		{"v5", 100, 16, versionKnown &^ versionDirV2}, {"v4", 100, 16, versionKnown &^ versionDirV2},
		{"v5", 200, 32, features2Known}, {"v4", 200, 32, features2Known}, {"v4", 204, 32, features2Known},
		{"v5", 208, 32, 0}, {"v5", 212, 32, roCompatKnown}, {"v5", 216, 32, incompatKnown &^ incompatMetaUUID}, {"v5", 220, 32, 1},
		{"v4", 208, 32, 1<<32 - 1}, // nothing is there in version 4
	} {
		for bit := range c.bits {
			d := open(t, c.seed)
			at := c.at + int64(c.bits-1-bit)/8
			b := make([]byte, 1)
			d.ReadAt(b, at)
			old := b[0]
			if b[0] |= 1 << (bit % 8); c.known>>bit&1 == 0 && b[0] == old {
				b[0] ^= 1 << (bit % 8) // a bit that must be set
			}
			d.put(at, b...)
			reseal(d.Packed)
			_, err := readPacked(d.Packed)
			// The version's number, and features that a made up superblock lacks something for.
			skip := c.at == 100 && bit < 4 || c.at == 212 && b[0] != old
			if want := c.known>>bit&1 == 0; !skip && (err != nil) != want {
				t.Errorf("%s: bit %d of the word at %d: %v", c.seed, bit, c.at, err)
			} else if c.known>>bit&1 == 0 && err == nil {
				t.Errorf("%s: the unknown bit %d of the word at %d is taken", c.seed, bit, c.at)
			}
		}
	}
}

// After a change of its UUID the metadata keeps the old one.
func TestMetaUUID(t *testing.T) {
	d := open(t, "v5")
	for _, at := range []int64{0, d.group(1)} {
		d.WriteAt(d.s.UUID[:], at+248)
		d.put(at+219, byte(d.s.Incompat|incompatMetaUUID))
		d.add(at+32, 16, 1)
	}
	for n, sector := range d.Sectors {
		if at := n * 512; at >= d.log() && at < d.log()+int64(d.s.LogBlocks)*int64(d.s.BlockSize) && sector[0] == 0xfe {
			d.add(at+304, 16, 1)
		}
	}
	reseal(d.Packed)
	if _, err := readPacked(d.Packed); err != nil {
		t.Fatal(err)
	}
	d.add(248, 16, 1)
	reseal(d.Packed)
	if _, err := readPacked(d.Packed); err == nil {
		t.Fatal("metadata of another file system is taken")
	}
}

// Lies, with right checksums.
func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *disk)
		want   string
	}{
		"no magic":                {func(d *disk) { d.put(0, 'Y') }, "no superblock"},
		"version 3":               {func(d *disk) { d.put(101, 3) }, "version 3"},
		"in progress":             {func(d *disk) { d.put(126, 1) }, "not made to the end"},
		"needs repair":            {func(d *disk) { d.put(219, byte(d.s.Incompat)|incompatNeedsRepair) }, "must be repaired"},
		"zoned":                   {func(d *disk) { d.put(218, 2) }, "unknown incompatible feature 0x200"},
		"directories of IRIX":     {func(d *disk) { d.put(100, byte(d.s.Version>>8)&^0x20) }, "version 1, of IRIX"},
		"realtime":                {func(d *disk) { d.put(23, 1) }, "more than one disk"},
		"external log":            {func(d *disk) { d.put(48, make([]byte, 8)...) }, "another device"},
		"larger than volume":      {func(d *disk) { d.Size -= 4096 }, "the volume only"},
		"much larger":             {func(d *disk) { d.put(8, 0xff, 0xff, 0xff, 0xff) }, "the volume only"},
		"more groups":             {func(d *disk) { d.put32(88, 1<<31) }, "groups of"},
		"fewer groups":            {func(d *disk) { d.put32(88, 1) }, "groups of"},
		"no groups":               {func(d *disk) { d.put32(88, 0) }, "groups of"},
		"small groups":            {func(d *disk) { d.put32(84, 8) }, "groups of"},
		"group logarithm":         {func(d *disk) { d.put(124, 31) }, "groups of"},
		"block size":              {func(d *disk) { d.put32(4, 1000) }, "cannot be"},
		"block logarithm":         {func(d *disk) { d.put(120, 255) }, "cannot be"},
		"sector size":             {func(d *disk) { d.put(102, 0xff, 0xff) }, "cannot be"},
		"sector size 0":           {func(d *disk) { d.put(102, 0, 0) }, "cannot be"},
		"inode size":              {func(d *disk) { d.put(104, 0x80, 0) }, "cannot be"},
		"inodes of a block":       {func(d *disk) { d.put(123, 60) }, "cannot be"},
		"shared":                  {func(d *disk) { d.put(179, 1) }, "shared"},
		"log over the end":        {func(d *disk) { d.put32(96, d.s.GroupSize) }, "its log cannot be"},
		"no log blocks":           {func(d *disk) { d.put32(96, 0) }, "its log cannot be"},
		"log in no group":         {func(d *disk) { d.put(48, 1) }, "its log cannot be"},
		"log over the header":     {func(d *disk) { d.put64(48, 1<<d.s.GroupLog) }, "its log cannot be"},
		"log elsewhere":           {func(d *disk) { d.add(48, 8, 1) }, "log: "},
		"copy of another":         {func(d *disk) { d.add(d.group(1)+32, 16, 1) }, "contradicts"},
		"copy is gone":            {func(d *disk) { delete(d.Sectors, d.group(1)/512) }, "contradicts"},
		"AGF is gone":             {func(d *disk) { delete(d.Sectors, d.group(1)/512+1) }, "AGF"},
		"AGI is gone":             {func(d *disk) { delete(d.Sectors, d.group(1)/512+2) }, "AGI"},
		"AGF of another":          {func(d *disk) { d.add(d.group(1)+512+8, 4, 1) }, "AGF is not one"},
		"AGF of another size":     {func(d *disk) { d.add(d.group(1)+512+12, 4, 1) }, "AGF is not one"},
		"AGI of another":          {func(d *disk) { d.add(d.group(1)+1024+8, 4, 1) }, "AGI is not one"},
		"fewer blocks are free":   {func(d *disk) { d.put32(d.group(1)+512+52, 1) }, "it says 1 and"},
		"longest":                 {func(d *disk) { d.add(d.group(1)+512+56, 4, 1) }, "in one piece"},
		"no levels":               {func(d *disk) { d.put32(d.group(0)+512+28, 0) }, "0 levels"},
		"many levels":             {func(d *disk) { d.put32(d.group(0)+512+28, 10) }, "10 levels"},
		"a level more":            {func(d *disk) { d.add(d.group(0)+512+28, 4, 1) }, "not a block of level"},
		"root outside":            {func(d *disk) { d.put32(d.group(0)+512+16, d.s.GroupSize) }, "it points to block"},
		"root in the header":      {func(d *disk) { d.put32(d.group(0)+512+16, 0) }, "it points to block"},
		"root of the other":       {func(d *disk) { d.put32(d.group(0)+512+16, d.get32(d.group(0)+512+20)) }, "not a block of level"},
		"wrong neighbour":         {func(d *disk) { d.put32(d.bno(0)+8, 5) }, "neighbours"},
		"wrong right neighbour":   {func(d *disk) { d.put32(d.lastLeaf(0)+12, 5) }, "neighbours"},
		"tree block of elsewhere": {func(d *disk) { d.add(d.bno(0)+16, 8, 1) }, "belongs elsewhere"},
		"copy with another log":   {func(d *disk) { d.add(d.group(1)+48, 8, 1) }, "contradicts"},
		"too many entries":        {func(d *disk) { d.put(d.bno(0)+6, 0xff) }, "not a block of level"},
		"an entry less":           {func(d *disk) { d.add(d.bno(0)+6, 2, 0xff) }, "differ"},
		"an extent longer":        {func(d *disk) { d.add(d.records(d.bno(0))+4, 4, 1) }, ""},
		"an extent outside":       {func(d *disk) { d.put32(d.records(d.bno(0)), 1<<32-1) }, "cannot be"},
		"an extent too long":      {func(d *disk) { d.put32(d.records(d.bno(0))+4, 1<<32-1) }, "cannot be"},
		"an empty extent":         {func(d *disk) { d.put32(d.records(d.bno(0))+4, 0) }, "cannot be"},
		"header is free":          {func(d *disk) { d.put32(d.records(d.bno(0)), 0) }, "cannot be"},
		"sizes out of order":      {func(d *disk) { d.put32(d.records(d.cnt(0))+4, 1<<20) }, ""},
		"inode tree is free": {func(d *disk) {
			d.put32(d.group(0)+1024+20, d.get32(d.records(d.bno(0))))
		}, "is free and in use"},
		"root inode is free": {func(d *disk) {
			d.put64(56, uint64(d.get32(d.records(d.bno(0))))<<d.s.InodesLog)
		}, "is free and in use"},
		"log is free": {func(d *disk) {
			no, at := d.s.locate(d.s.LogStart)
			d.put32(d.records(d.bno(no)), at+1)
			d.put32(d.records(d.bno(no))+4, 1)
		}, "a part of the log is free"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, seed := range []string{"v5", "v4", "v4-two-levels", "v5-two-levels"} {
				d := open(t, seed)
				if !d.s.v5() && (name == "needs repair" || name == "zoned" || name == "tree block of elsewhere") {
					continue
				}
				c.change(d)
				reseal(d.Packed)
				found, err := readPacked(d.Packed)
				if err == nil || found != nil && found.Free != nil {
					t.Errorf("%s: it is taken", seed)
				} else if !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v", seed, err)
				}
			}
		})
	}
}

// lastLeaf is the last leaf of the tree by place.
func (d *disk) lastLeaf(no uint32) int64 {
	at := d.bno(no)
	for next := d.get32(at + 12); next != nullBlock; next = d.get32(at + 12) {
		at = d.block(no, next)
	}
	return at
}

// records is where the records of a leaf begin.
func (d *disk) records(leaf int64) int64 {
	return leaf + int64((&tree{group: &group{superblock: &d.s}}).headerSize())
}

// What may lag behind in copies of the superblock, and in the AGF what mkfs
// gets wrong, is no doubt.
func TestLags(t *testing.T) {
	for name, change := range map[string]func(d *disk){
		"counters":   func(d *disk) { d.add(128, 8, 1); d.add(144, 8, 1); d.add(d.group(1)+144, 8, 1) },
		"grown":      func(d *disk) { d.add(d.group(1)+8, 8, 0xff); d.add(d.group(1)+88, 4, 1) },
		"quota":      func(d *disk) { d.put(d.group(1)+160, 1); d.put(d.group(1)+177, 1) },
		"being made": func(d *disk) { d.put(d.group(1)+126, 1) },
		"features":   func(d *disk) { d.put(d.group(1)+100, byte(d.s.Version>>8)^0x10); d.put(d.group(1)+219, 0) },
		"root inode": func(d *disk) { d.put(d.group(1)+56, 255, 255, 255, 255, 255, 255, 255, 255) },
		"label":      func(d *disk) { d.put(d.group(1)+108, 'x') },
		"free count": func(d *disk) { d.add(d.group(1)+512+52, 4, 1) },
		"free list":  func(d *disk) { d.add(d.group(1)+512+40, 4, 1); d.add(d.group(1)+512+44, 4, 1) },
	} {
		for seed := range seeds(t) {
			d := open(t, seed)
			change(d)
			reseal(d.Packed)
			if _, err := readPacked(d.Packed); err != nil {
				t.Errorf("%s: %s: %v", seed, name, err)
			}
		}
	}
}

// Any byte of metadata that is another makes doubt, or changes nothing, also
// where the checksums are right all the same.
func TestAnyByte(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for seed, packed := range seeds(t) {
		d := open(t, seed)
		want, err := readPacked(d.Packed)
		if err != nil {
			t.Fatal(err)
		}
		sectors := d.metadata()
		for range 300 {
			d := &disk{realfs.Unpack(packed, most), d.s}
			at := sectors[rnd.IntN(len(sectors))]*512 + rnd.Int64N(512)
			d.add(at, 1, byte(1+rnd.IntN(255)))
			reseal(d.Packed)
			found, err := readPacked(d.Packed)
			if err == nil && !slices.Equal(found.Free.Ranges(), want.Free.Ranges()) {
				t.Fatalf("%s: another map with another byte %d", seed, at)
			}
		}
	}
}

// Every byte of what has a checksum counts, and every structure's is checked.
func TestChecksums(t *testing.T) {
	for _, seed := range []string{"v5", "v5-two-levels"} {
		d := open(t, seed)
		for name, s := range map[string]struct {
			from int64
			crc  int
		}{
			"superblock": {0, superblockCRC}, "copy of the superblock": {d.group(1), superblockCRC}, "AGF": {d.group(1) + 512, agfCRC},
			"AGI": {d.group(1) + 1024, agiCRC}, "AGFL": {d.group(1) + 1536, agflCRC}, "tree by place": {d.bno(1), treeCRC},
			"tree by size": {d.cnt(1), treeCRC},
		} {
			n := int64(512)
			if s.crc == treeCRC {
				n = int64(d.s.BlockSize)
			}
			b := make([]byte, n)
			d.ReadAt(b, s.from)
			if err := (block{&d.s, b}).sealed(s.crc, -1); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for i := range n {
				b[i]++
				if (block{&d.s, b}).sealed(s.crc, -1) == nil {
					t.Errorf("%s: %s: byte %d is taken", seed, name, i)
				}
				b[i]--
			}
			for _, i := range []int64{4, int64(s.crc), 300, n - 1} { // by all of Read
				d.add(s.from+i, 1, 1)
				if _, err := readPacked(d.Packed); err == nil {
					t.Errorf("%s: %s: byte %d is read", seed, name, i)
				}
				d.add(s.from+i, 1, 255)
			}
		}
		if _, err := readPacked(d.Packed); err != nil {
			t.Fatal(err)
		}
	}
}

// metadata are the numbers of the sectors that are there.
func (d *disk) metadata() (out []int64) {
	for n := range d.Sectors {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

package xfs

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// A huge file system costs few reads, however large its log is and however
// many groups it has.
func TestHuge(t *testing.T) {
	for _, c := range []struct {
		args string
		size int64
		most int64 // bytes read
	}{
		{"-l size=64m", 1 << 40, 3 * mib},
		{"-l size=300m", 16 << 40, 4 * mib},
		{"-l size=64m -d agsize=80m", 64 << 30, 24 * mib},
	} {
		img := realfs.XFS.Make(t, c.size, strings.Fields(c.args)...)
		f, _ := realfs.Open(t, img)
		count := &counting{ReaderAt: f}
		start := time.Now()
		found, err := Read(volume.New(context.Background(), count, c.size, 512, nil))
		if err != nil || found.Free.Bytes() < c.size/100*98 {
			t.Fatalf("%s: %v", c.args, err)
		}
		if took := time.Since(start); count.n > c.most || took > time.Minute {
			t.Errorf("%s: it read %d bytes in %v", c.args, count.n, took)
		}
	}
}

// planted is a group with trees of many levels, as they are in memory.
type planted struct {
	*group
	disk []byte
	next uint32 // the block for the next tree block
}

func (p *planted) ReadAt(b []byte, off int64) (int, error) { return copy(b, p.disk[off:]), nil }

// plant writes a tree over entries and gives its root and levels. Blocks are
// filled at random, as after many changes.
func (p *planted) plant(t *rapid.T, magic uint32, all []extent) (root, levels uint32) {
	head := (&tree{group: p.group}).headerSize()
	type entry struct {
		extent
		child uint32
	}
	var level []entry
	for _, e := range all {
		level = append(level, entry{extent: e})
	}
	for l := uint32(0); ; l++ {
		room := (p.BlockSize - head) / 8
		if l > 0 {
			room = (p.BlockSize - head) / 12
		}
		var up []entry
		var blocks []uint32
		for len(level) > 0 || len(blocks) == 0 {
			n := uint32(len(level))
			if n > room {
				n = rapid.Uint32Range(room/2, room).Draw(t, "entries")
			}
			at := p.next
			p.next += rapid.Uint32Range(1, 2).Draw(t, "gap")
			b := p.disk[at*p.BlockSize:]
			binary.BigEndian.PutUint32(b, magic)
			binary.BigEndian.PutUint16(b[4:], uint16(l))
			binary.BigEndian.PutUint16(b[6:], uint16(n))
			for i, e := range level[:n] {
				binary.BigEndian.PutUint32(b[head+8*uint32(i):], e.start)
				binary.BigEndian.PutUint32(b[head+8*uint32(i)+4:], e.n)
				if l > 0 {
					binary.BigEndian.PutUint32(b[head+room*8+4*uint32(i):], e.child)
				}
			}
			if n > 0 {
				up = append(up, entry{level[0].extent, at})
			}
			blocks, level = append(blocks, at), level[n:]
		}
		for i, at := range blocks {
			left, right := uint32(nullBlock), uint32(nullBlock)
			if i > 0 {
				left = blocks[i-1]
			}
			if i < len(blocks)-1 {
				right = blocks[i+1]
			}
			b := p.disk[at*p.BlockSize:]
			binary.BigEndian.PutUint32(b[8:], left)
			binary.BigEndian.PutUint32(b[12:], right)
			if p.v5() {
				binary.BigEndian.PutUint64(b[16:], uint64(at*p.BlockSize/basicBlock))
				copy(b[treeUUID:], p.UUID[:])
				binary.LittleEndian.PutUint32(b[treeCRC:], checksum(b[:p.BlockSize], treeCRC))
			}
		}
		if len(blocks) == 1 {
			return blocks[0], l + 1
		}
		level = up
	}
}

// Trees of many levels give what was put into them.
func TestTreesOfManyLevels(t *testing.T) {
	deepest := uint32(0)
	rapid.Check(t, func(t *rapid.T) {
		s := &superblock{Version: rapid.SampledFrom([]uint16{4, 5}).Draw(t, "version"), BlockSize: 512, SectorSize: 512, GroupSize: 1000,
			Blocks: 1000, UUID: [16]byte{3}}
		p := &planted{group: &group{superblock: s, length: 1000}, disk: make([]byte, 1000*512), next: 5}
		var all []extent
		at := uint32(20000)
		for range rapid.IntRange(0, 5000).Draw(t, "extents") {
			e := extent{at + rapid.Uint32Range(1, 2).Draw(t, "used"), rapid.Uint32Range(1, 3).Draw(t, "free")}
			all, at = append(all, e), e.start+e.n
		}
		p.v = volume.New(context.Background(), p, int64(len(p.disk)), 512, nil)
		magics := [2]uint32{0x41425442, 0x41423342}
		root, levels := p.plant(t, magics[s.Version-4], all)
		deepest = max(deepest, levels)
		tr := &tree{group: p.group, magics: magics, root: root, levels: levels}
		var got []extent
		err := tr.descend()
		if err == nil {
			err = tr.records(func(e extent) error { got = append(got, e); return nil })
		}
		if err != nil || !slices.Equal(got, all) {
			t.Fatalf("%d levels: %v; %d extents of %d", levels, err, len(got), len(all))
		}
		if uint32(len(tr.blocks)) > p.next-5 || !slices.Contains(tr.blocks, root) {
			t.Fatalf("%d blocks", len(tr.blocks))
		}
	})
	if deepest < 3 {
		t.Errorf("the deepest tree had %d levels", deepest)
	}
}

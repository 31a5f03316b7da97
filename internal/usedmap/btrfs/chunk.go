package btrfs

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// Bits of a chunk's type (BTRFS_BLOCK_GROUP_*). They say what the chunk is for,
// and how its bytes are distributed over devices.
const (
	forData, forSystem, forMetadata = 1 << 0, 1 << 1, 1 << 2

	forMask    = forData | forSystem | forMetadata
	raid0      = 1 << 3
	dup        = 1 << 5
	raidOthers = 1<<4 | 1<<6 | 1<<7 | 1<<8 | 1<<9 | 1<<10 // RAID1, 10, 5, 6, 1C3, 1C4
)

// maxAddress bounds logical addresses and lengths, so that sums of them do not
// overflow.
const maxAddress = 1 << 60

// chunk is a run of logical addresses and its places on the device.
type chunk struct {
	start, length int64
	kind          uint64
	places        [2]int64
	n             int // how many of places are used

	used    int64 // bytes of extents
	grouped bool  // its block group was found
	says    int64 // the used bytes by its block group
}

func (c *chunk) end() int64      { return c.start + c.length }
func (c *chunk) copies() []int64 { return c.places[:c.n] }

// readChunks reads the chunk tree. Its own chunks are also in the superblock.
func (f *fs) readChunks() error {
	if err := f.readSysChunks(); err != nil {
		return err
	}
	var all []chunk
	devices := 0
	t := tree{name: "chunk tree", owner: chunkTree, limit: 32 << 20, newest: f.sb.generation}
	t.item = func(k key, data []byte) error {
		switch k.kind {
		case devItem:
			devices++
			return f.checkDevice(k, data)
		case chunkItem:
			c, rest, err := f.parseChunk(k, data)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("the item of the chunk at %d has a wrong length", k.offset)
			}
			all = append(all, c)
			return err
		}
		return t.unknown(k)
	}
	if err := f.walk(&t, f.sb.chunkRoot); err != nil {
		return err
	}
	if devices != 1 {
		return fmt.Errorf("its chunk tree has %d devices", devices)
	}
	system := f.chunks
	f.chunks = all
	if err := f.checkChunks(); err != nil {
		return err
	}
	return f.sameChunks(system)
}

// readSysChunks reads the chunks that the superblock names (sys_chunk_array):
// keys, each with its struct btrfs_chunk.
func (f *fs) readSysChunks() error {
	for b := f.sb.sysChunks; len(b) > 0; {
		if len(b) < keySize {
			return fmt.Errorf("the system chunks of its superblock are cut")
		}
		k := parseKey(b)
		if k.object != chunkObject || k.kind != chunkItem {
			return fmt.Errorf("the system chunks of its superblock are something else")
		}
		c, rest, err := f.parseChunk(k, b[keySize:])
		if err != nil {
			return err
		}
		f.chunks, b = append(f.chunks, c), rest
	}
	return f.checkChunks()
}

// parseChunk reads a struct btrfs_chunk. rest is what follows it in b.
func (f *fs) parseChunk(k key, b []byte) (c chunk, rest []byte, err error) {
	if len(b) < 48+32 {
		return c, nil, fmt.Errorf("the chunk at %d is cut", k.offset)
	}
	length, n := le64(b), int(le16(b[44:]))
	c = chunk{kind: le64(b[24:]), n: n}
	want := 1
	if c.kind&dup != 0 {
		want = 2
	}
	switch profile := c.kind &^ forMask; {
	case profile&raidOthers != 0:
		return c, nil, fmt.Errorf("the chunk at %d has a RAID profile (%#x)", k.offset, profile)
	case profile&^(raid0|dup) != 0 || bits.OnesCount64(profile) > 1 || c.kind&forMask == 0:
		return c, nil, fmt.Errorf("the chunk at %d is of the unknown type %#x", k.offset, c.kind)
	case n != want || len(b) < 48+32*n:
		return c, nil, fmt.Errorf("the chunk at %d has %d places", k.offset, n)
	case length == 0 || length > maxAddress || k.offset > maxAddress || (k.offset|length)%uint64(f.sb.sector) != 0:
		return c, nil, fmt.Errorf("the chunk at %d has %d bytes", k.offset, length)
	}
	c.start, c.length = int64(k.offset), int64(length)
	for i := range n {
		s := b[48+32*i:]
		off := le64(s[8:])
		if le64(s) != f.sb.devid || [16]byte(s[16:32]) != f.sb.devUUID {
			return c, nil, fmt.Errorf("the chunk at %d is on another device", k.offset)
		}
		if off > uint64(f.sb.size) || length > uint64(f.sb.size)-off {
			return c, nil, fmt.Errorf("the chunk at %d lies outside (%d bytes at byte %d of %d)", k.offset, length, off, f.sb.size)
		}
		c.places[i] = int64(off)
	}
	return c, b[48+32*n:], nil
}

// checkChunks sorts the chunks, and fails if two of them overlap in logical
// addresses or on the device.
func (f *fs) checkChunks() error {
	slices.SortFunc(f.chunks, func(a, b chunk) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(f.chunks); i++ {
		if f.chunks[i].start < f.chunks[i-1].end() {
			return fmt.Errorf("the chunk at %d overlaps another", f.chunks[i].start)
		}
	}
	stripes := f.stripes()
	for i := 1; i < len(stripes); i++ {
		if stripes[i].off < stripes[i-1].off+stripes[i-1].length {
			return fmt.Errorf("byte %d of the device belongs to two chunks", stripes[i].off)
		}
	}
	return nil
}

// sameChunks checks that the chunk tree has all chunks of the superblock.
func (f *fs) sameChunks(system []chunk) error {
	for _, s := range system {
		if i := f.find(s.start); i < 0 || f.chunks[i] != s {
			return fmt.Errorf("the system chunk at %d differs in the chunk tree", s.start)
		}
	}
	return nil
}

// find is the index of the chunk that starts at start, or -1.
func (f *fs) find(start int64) int {
	i, ok := slices.BinarySearchFunc(f.chunks, start, func(c chunk, at int64) int { return cmp.Compare(c.start, at) })
	if !ok {
		return -1
	}
	return i
}

// chunkOf is the chunk that contains all n bytes at a logical address.
func (f *fs) chunkOf(at uint64, n int64) (*chunk, error) {
	if at <= maxAddress {
		i, ok := slices.BinarySearchFunc(f.chunks, int64(at), func(c chunk, at int64) int { return cmp.Compare(c.start, at) })
		if !ok {
			i--
		}
		if i >= 0 && n <= f.chunks[i].end()-int64(at) {
			return &f.chunks[i], nil
		}
	}
	return nil, fmt.Errorf("something points at %d bytes of no chunk (at %d)", n, at)
}

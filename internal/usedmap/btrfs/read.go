package btrfs

import (
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/usedmap/volume"
)

// checkBlock compares a block (struct btrfs_header) with the pointer that names
// it.
func (f *fs) checkBlock(t *tree, p pointer, b []byte) error {
	n, each := int64(le32(b[96:])), int64(itemSize)
	if p.level > 0 {
		each = ptrSize
	}
	switch {
	case !f.sb.sum.matches(b):
		return fmt.Errorf("wrong checksum")
	case [16]byte(b[32:]) != f.sb.nodeID:
		return fmt.Errorf("it is of another file system")
	case le64(b[48:]) != p.at:
		return fmt.Errorf("it was written for another place (%d)", le64(b[48:]))
	case le64(b[80:]) != p.generation || p.generation > t.newest:
		return fmt.Errorf("generation %d where %d should be", le64(b[80:]), p.generation)
	case le64(b[88:]) != t.owner:
		return fmt.Errorf("it is of tree %d", int64(le64(b[88:])))
	case b[100] != p.level:
		return fmt.Errorf("level %d where %d should be", b[100], p.level)
	case headerSize+n*each > f.sb.node || n == 0 && (p.child || p.level > 0):
		return fmt.Errorf("it has %d items", n)
	case p.child && parseKey(b[headerSize:]) != p.first:
		return fmt.Errorf("it starts with another key")
	}
	return nil
}

// blocks reads blocks of a tree. Blocks near each other are read at once.
func (f *fs) blocks(t *tree, ptrs []pointer) ([][]byte, error) {
	type place struct {
		off int64
		i   int
	}
	places := make([]place, len(ptrs))
	for i, p := range ptrs {
		if t.limit -= f.sb.node; t.limit < 0 {
			return nil, fmt.Errorf("its %s: %w", t.name, errLarge)
		}
		c, err := f.chunkOf(p.at, f.sb.node)
		if err != nil {
			return nil, err
		}
		if err := f.need(p.at); err != nil {
			return nil, err
		}
		places[i] = place{c.places[0] + int64(p.at) - c.start, i}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.off, b.off) })
	out := make([][]byte, len(ptrs))
	for len(places) > 0 {
		first, n := places[0].off, 1
		for n < len(places) && places[n].off <= places[n-1].off+2*f.sb.node && places[n].off+f.sb.node-first <= volume.MaxRead {
			n++
		}
		b, err := f.v.Bytes(first, int(places[n-1].off+f.sb.node-first))
		if err != nil {
			return nil, err
		}
		for _, p := range places[:n] {
			at := p.off - first
			out[p.i] = b[at : at+f.sb.node : at+f.sb.node]
		}
		places = places[n:]
	}
	return out, nil
}

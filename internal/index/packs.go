package index

import "encoding/binary"

// Pack describes a pack whose objects are in a snapshot.
type Pack struct {
	Number  uint32
	Size    int64  // bytes of the pack
	Objects uint32 // in its table
	Tree    bool   // it holds pages and roots
}

func (p Pack) append(b []byte) []byte {
	var tree uint64
	if p.Tree {
		tree = 1
	}
	b = binary.LittleEndian.AppendUint32(b, p.Number)
	b = binary.LittleEndian.AppendUint32(b, p.Objects)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Size))
	return binary.LittleEndian.AppendUint64(b, tree)
}

func parsePack(b []byte) (p Pack, ok bool) {
	p.Number, p.Objects = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	p.Size = int64(binary.LittleEndian.Uint64(b[8:]))
	tree := binary.LittleEndian.Uint64(b[16:])
	p.Tree = tree == 1
	return p, p.Number <= MaxPack && p.Size >= 0 && tree <= 1
}

// packSet is a set of pack numbers, with one bit for each.
type packSet []uint64

func (s *packSet) add(n uint32) {
	for len(*s) <= int(n/64) {
		*s = append(*s, 0)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

func (s packSet) has(n uint32) bool { return int(n/64) < len(s) && s[n/64]>>(n%64)&1 != 0 }

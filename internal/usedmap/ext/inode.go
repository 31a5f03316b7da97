package ext

import (
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	maxDepth  = 5       // of an extent tree, the same limit as the kernel's
	maxPlaces = 1 << 16 // pieces of a journal
)

// inode is a struct ext4_inode (inodes.rst) that was read and checked.
type inode struct {
	raw  []byte
	seed uint32 // of the checksums of its extent blocks
}

func (n *inode) size() uint64 {
	return uint64(le.Uint32(n.raw[0x4:])) | uint64(le.Uint32(n.raw[0x6C:]))<<32
}

// readInode reads a regular file's inode.
func (f *fsys) readInode(number uint32) (*inode, error) {
	g, in := int((number-1)/f.sb.inodesPerGroup), int64((number-1)%f.sb.inodesPerGroup)
	at := int64(f.groups[g].inodeTable)*f.sb.blockSize + in*int64(f.sb.inodeSize)
	raw, err := f.v.Bytes(at, int(f.sb.inodeSize))
	if err != nil {
		return nil, err
	}
	id := le.AppendUint32(nil, number)
	n := &inode{raw, crc32c(crc32c(f.sb.seed, id), raw[0x64:0x68])} // number, i_generation
	switch {
	case f.sb.has(roMetadataCsum) && !n.checkSum():
		return nil, fmt.Errorf("the checksum of inode %d is wrong", number)
	case le.Uint16(raw)&0xF000 != 0x8000 || le.Uint16(raw[0x1A:]) == 0: // i_mode, i_links_count
		return nil, fmt.Errorf("inode %d is no file", number)
	}
	return n, nil
}

// checkSum checks the inode's checksum. Its lower half is at 0x7C. The upper
// half is at 0x82, in inodes that are long enough. Both count as zero in the
// sum.
func (n *inode) checkSum() bool {
	raw := append([]byte(nil), n.raw...)
	want, mask := uint32(le.Uint16(raw[0x7C:])), uint32(0xFFFF)
	le.PutUint16(raw[0x7C:], 0)
	if len(raw) > 128 && le.Uint16(raw[0x80:]) >= 4 {
		want, mask = want|uint32(le.Uint16(raw[0x82:]))<<16, ^uint32(0)
		le.PutUint16(raw[0x82:], 0)
	}
	return crc32c(n.seed, raw)&mask == want
}

// places returns where the first n blocks of a file are, in the order of the
// file. The file must have no holes.
func (f *fsys) places(n *inode, blocks uint64) (spans, error) {
	p := &placer{f: f, n: n, want: blocks}
	var err error
	if le.Uint32(n.raw[0x20:])&flagExtents != 0 {
		err = p.extents(n.raw[0x28:0x64], maxDepth)
	} else {
		err = p.blockMap(n.raw[0x28:0x64])
	}
	if err == nil && p.have < blocks {
		err = fmt.Errorf("it has %d of %d blocks", p.have, blocks)
	}
	return p.out, err
}

type placer struct {
	f          *fsys
	n          *inode
	have, want uint64
	out        spans
}

func (p *placer) add(at, n uint64) error {
	if at < p.f.sb.first || at >= p.f.sb.blocks || n > p.f.sb.blocks-at {
		return fmt.Errorf("it has a block %d", at)
	}
	p.out.add(at, min(n, p.want-p.have))
	p.have += min(n, p.want-p.have)
	if len(p.out) > maxPlaces {
		return fmt.Errorf("it is in more than %d pieces", maxPlaces)
	}
	return nil
}

// extents reads a node of an extent tree (ifork.rst).
func (p *placer) extents(node []byte, deepest int) error {
	count, max, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[4:])), int(le.Uint16(node[6:]))
	if le.Uint16(node) != 0xF30A || count > max || 12+12*max > len(node) || depth > deepest {
		return fmt.Errorf("its extent tree is broken")
	}
	for i := 0; i < count && p.have < p.want; i++ {
		e := node[12+12*i:]
		if depth == 0 {
			n := uint64(le.Uint16(e[4:]))
			if uint64(le.Uint32(e)) != p.have || n == 0 || n > 32768 { // a longer one was never written
				return fmt.Errorf("it has a hole")
			}
			if err := p.add(uint64(le.Uint16(e[6:]))<<32|uint64(le.Uint32(e[8:])), n); err != nil {
				return err
			}
			continue
		}
		child, err := p.extentBlock(uint64(le.Uint16(e[8:]))<<32 | uint64(le.Uint32(e[4:])))
		if err != nil {
			return err
		}
		if int(le.Uint16(child[6:])) != depth-1 {
			return fmt.Errorf("its extent tree is broken")
		}
		if err := p.extents(child, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func (p *placer) extentBlock(at uint64) ([]byte, error) {
	if at >= p.f.sb.blocks {
		return nil, fmt.Errorf("it has a block %d", at)
	}
	b, err := p.f.v.Bytes(int64(at)*p.f.sb.blockSize, int(p.f.sb.blockSize))
	if err != nil {
		return nil, err
	}
	if p.f.sb.has(roMetadataCsum) {
		if !extentSum(p.n.seed, b) {
			return nil, fmt.Errorf("the checksum of its extents is wrong")
		}
	}
	return b, nil
}

// blockMap reads the 15 pointers of ext2. The first 12 point to blocks of data.
// The others point to trees of pointer blocks that are one, two and three
// levels deep.
func (p *placer) blockMap(pointers []byte) error {
	for i := range 15 {
		if err := p.pointer(uint64(le.Uint32(pointers[4*i:])), max(0, i-11)); err != nil {
			return err
		}
	}
	return nil
}

func (p *placer) pointer(at uint64, depth int) error {
	if p.have >= p.want {
		return nil
	}
	if depth == 0 {
		return p.add(at, 1)
	}
	if at < p.f.sb.first || at >= p.f.sb.blocks {
		return fmt.Errorf("it has a block %d", at)
	}
	b, err := p.f.v.Bytes(int64(at)*p.f.sb.blockSize, min(int(p.f.sb.blockSize), volume.MaxRead))
	if err != nil {
		return err
	}
	for i := 0; i+4 <= len(b) && p.have < p.want; i += 4 {
		if err := p.pointer(uint64(le.Uint32(b[i:])), depth-1); err != nil {
			return err
		}
	}
	return nil
}

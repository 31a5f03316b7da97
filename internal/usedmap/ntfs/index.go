package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	i30         = "$\x00I\x003\x000\x00" // the index of names of a directory
	indexHeader = 0x10                   // INDEX_HEADER, behind 0x10 bytes of INDEX_ROOT or 0x18 of INDEX_BLOCK
	entryHeader = 0x10                   // INDEX_ENTRY
	fileName    = 0x42                   // FILE_NAME_ATTR without its name
	entryLast   = 0x02
)

// lookup returns the references of all entries of a directory with this name,
// which must be in lower case. It reads the whole index. A search in the order
// of the index would have to trust the volume's table of upper case letters
// ($UpCase).
func (f *fileSystem) lookup(dir int64, name string) (refs []uint64, err error) {
	see := func(ref uint64, entry []byte) {
		if matches(entry, name) && len(refs) < 8 {
			refs = append(refs, ref)
		}
	}
	root, err := f.stream(dir, typeIndexRoot, i30)
	if err != nil {
		return nil, err
	}
	b := root.value
	if len(b) < 0x10+indexHeader || binary.LittleEndian.Uint32(b) != 0x30 {
		return nil, errors.New("its index is not one of names")
	}
	block := int64(binary.LittleEndian.Uint32(b[8:]))
	if !powerOfTwo(block, 512, 64<<10) {
		return nil, fmt.Errorf("its index has blocks of %d bytes", block)
	}
	if err := entries(b[0x10:], see); err != nil {
		return nil, err
	}
	blocks, err := f.stream(dir, typeIndexBlocks, i30)
	if errors.Is(err, errNone) && b[0x10+0x0c]&1 == 0 {
		return refs, nil // LARGE_INDEX is not set
	}
	if err != nil {
		return nil, err
	}
	return refs, f.indexBlocks(dir, blocks, block, see)
}

// indexBlocks reads the blocks of an index that are in use. The others have old
// entries.
func (f *fileSystem) indexBlocks(dir int64, s *stream, block int64, see func(uint64, []byte)) error {
	used, err := f.stream(dir, typeBitmap, i30)
	if err != nil {
		return err
	}
	n := s.size / block
	if used.size > volume.MaxRead || n > used.size*8 || s.value != nil || !s.plain() {
		return fmt.Errorf("its index has %d blocks, and a map of %d bytes", n, used.size)
	}
	bits := make([]byte, used.size)
	if err := f.fill(used, bits, 0); err != nil {
		return err
	}
	// The VCNs of an index count sectors of 512 bytes if a block is smaller
	// than a cluster.
	unit := f.cluster
	if unit > block {
		unit = 512
	}
	b := make([]byte, min(s.size, volume.MaxRead)/block*block)
	for at := int64(0); at < n*block; at += int64(len(b)) {
		b = b[:min(int64(len(b)), n*block-at)]
		if err := f.fill(s, b, at); err != nil {
			return err
		}
		for i := int64(0); i < int64(len(b)); i += block {
			no := (at + i) / block
			if bits[no/8]>>(no%8)&1 == 0 {
				continue
			}
			if err := indexBlock(b[i:i+block], (at+i)/unit, see); err != nil {
				return fmt.Errorf("index block %d: %w", no, err)
			}
		}
	}
	return nil
}

func indexBlock(b []byte, vcn int64, see func(uint64, []byte)) error {
	if err := fixup(b, "INDX"); err != nil {
		return err
	}
	if got := int64(binary.LittleEndian.Uint64(b[0x10:])); got != vcn {
		return fmt.Errorf("it says that it has VCN %d", got)
	}
	return entries(b[0x18:], see)
}

// entries calls see with the reference and the key of each entry behind an
// index header.
func entries(b []byte, see func(ref uint64, key []byte)) error {
	le := binary.LittleEndian
	at, end := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if at < indexHeader || end > int64(len(b)) {
		return fmt.Errorf("its entries are bytes %d to %d", at, end)
	}
	for {
		if at > end-entryHeader {
			return errors.New("its entries have no end")
		}
		e := b[at:end]
		n, key, flags := int64(le.Uint16(e[8:])), int64(le.Uint16(e[10:])), le.Uint16(e[12:])
		if flags&entryLast != 0 {
			return nil
		}
		if n < entryHeader || n > int64(len(e)) || key > n-entryHeader {
			return fmt.Errorf("an entry has %d bytes, and a key of %d", n, key)
		}
		see(le.Uint64(e), e[entryHeader:entryHeader+key])
		at += n
	}
}

// matches compares the name in a FILE_NAME_ATTR with name. It ignores case in
// ASCII. No letter outside of ASCII has an ASCII letter as its upper case.
func matches(key []byte, name string) bool {
	if len(key) < fileName || int(key[0x40]) != len(name) || len(key) < fileName+2*len(name) {
		return false
	}
	for i := range len(name) {
		c, high := key[fileName+2*i], key[fileName+2*i+1]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if high != 0 || c != name[i] {
			return false
		}
	}
	return true
}

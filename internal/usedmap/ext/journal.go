package ext

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Journal features (journal.rst, struct journal_superblock_s 0x24, 0x28, 0x2C).
const (
	jbdChecksum    = 0x1 // compatible feature; whole transactions have a CRC-32
	jbdRevoke      = 0x1 // incompatible feature, like all that follow
	jbd64bit       = 0x2
	jbdAsyncCommit = 0x4
	jbdCsum2       = 0x8
	jbdCsum3       = 0x10
	jbdFastCommit  = 0x20
	jbdKnown       = jbdRevoke | jbd64bit | jbdAsyncCommit | jbdCsum2 | jbdCsum3 | jbdFastCommit
)

// Kinds of blocks in the log.
const (
	jbdMagic      = 0xC03B3998
	jbdDescriptor = 1
	jbdCommit     = 2
	jbdSuper1     = 3
	jbdSuper2     = 4
	jbdRevokes    = 5
)

var be = binary.BigEndian

// journal is an open JBD2 journal.
type journal struct {
	f                *fsys
	places           spans
	starts           []uint32 // for each place, the number of its first block in the journal
	compat, incompat uint32
	seed             uint32
	sums             bool // blocks of the log have checksums of version 2 or 3

	length      uint32 // blocks of the file, with the superblock
	first, last uint32 // the log has the blocks [first, last)
	start       uint32 // block where the oldest transaction begins, 0 if the log is empty
	sequence    uint32 // number of the oldest transaction

	window   []byte // blocks that were read ahead, from windowAt on
	windowAt uint32
}

// openJournal reads the journal's superblock and finds its blocks.
func (f *fsys) openJournal() (*journal, error) {
	n, err := f.readInode(f.sb.journalInode)
	if err != nil {
		return nil, err
	}
	size := n.size() / uint64(f.sb.blockSize)
	if size < 2 || size > math.MaxUint32 || size > f.sb.blocks {
		return nil, fmt.Errorf("it has %d blocks", size)
	}
	j := &journal{f: f, length: uint32(size)}
	if j.places, err = f.places(n, size); err != nil {
		return nil, err
	}
	start := uint32(0)
	for _, p := range j.places {
		j.starts = append(j.starts, start)
		start += uint32(p.n)
	}
	sb, err := j.read(0, 1)
	if err != nil {
		return nil, err
	}
	return j, j.parseSuper(sb[:superSize])
}

func (j *journal) parseSuper(sb []byte) error {
	kind := be.Uint32(sb[4:])
	if be.Uint32(sb) != jbdMagic || kind != jbdSuper1 && kind != jbdSuper2 {
		return fmt.Errorf("it has no superblock")
	}
	if kind == jbdSuper2 {
		if err := j.parseFeatures(sb); err != nil {
			return err
		}
	}
	length := be.Uint32(sb[0x10:])
	j.first, j.last = be.Uint32(sb[0x14:]), length
	j.sequence, j.start = be.Uint32(sb[0x18:]), be.Uint32(sb[0x1C:])
	if be.Uint32(sb[0x20:]) != 0 {
		return fmt.Errorf("it was stopped by an error")
	}
	if int64(be.Uint32(sb[0xC:])) != j.f.sb.blockSize || length > j.length {
		return fmt.Errorf("its superblock says %d blocks of %d bytes", length, be.Uint32(sb[0xC:]))
	}
	if j.incompat&jbdFastCommit != 0 {
		// The last blocks are for fast commits, unless the log would be too
		// short then (jbd2_journal_initialize_fast_commit).
		fast := be.Uint32(sb[0x54:])
		if fast == 0 {
			fast = 256
		}
		if fast < length && length-fast >= 1024 {
			j.last -= fast
		}
	}
	if j.first == 0 || j.first >= j.last || j.start != 0 && (j.start < j.first || j.start >= j.last) {
		return fmt.Errorf("its superblock says that the log is in blocks %d to %d, from %d on", j.first, j.last, j.start)
	}
	return nil
}

func (j *journal) parseFeatures(sb []byte) error {
	const sumAt = 0xFC
	j.compat, j.incompat = be.Uint32(sb[0x24:]), be.Uint32(sb[0x28:])
	j.seed = crc32c(^uint32(0), sb[0x30:0x40])
	j.sums = j.incompat&(jbdCsum2|jbdCsum3) != 0
	unknown := j.compat&^jbdChecksum | j.incompat&^jbdKnown | be.Uint32(sb[0x2C:])
	kinds := 0
	for _, has := range []bool{j.compat&jbdChecksum != 0, j.incompat&jbdCsum2 != 0, j.incompat&jbdCsum3 != 0} {
		if has {
			kinds++
		}
	}
	switch {
	case unknown != 0:
		return fmt.Errorf("it has the unknown feature %#x", unknown)
	case kinds > 1:
		return fmt.Errorf("it has two kinds of checksums")
	case j.sums && sb[0x50] != 4: // JBD2_CRC32C_CHKSUM
		return fmt.Errorf("it has the unknown checksum type %d", sb[0x50])
	case j.sums && !sumWithout(^uint32(0), sb, sumAt):
		return fmt.Errorf("the checksum of its superblock is wrong")
	}
	return nil
}

// sumWithout checks a block's checksum, which is in the block and counts as
// zero.
func sumWithout(seed uint32, b []byte, at int) bool {
	crc := crc32c(crc32c(seed, b[:at]), []byte{0, 0, 0, 0})
	return crc32c(crc, b[at+4:]) == be.Uint32(b[at:])
}

// read returns block n of the journal, which is valid until the next read. It
// reads up to ahead blocks at once.
func (j *journal) read(n, ahead uint32) ([]byte, error) {
	size := j.f.sb.blockSize
	if n >= j.windowAt {
		if at := int64(n-j.windowAt) * size; at < int64(len(j.window)) {
			return j.window[at : at+size], nil
		}
	}
	i, found := slices.BinarySearch(j.starts, n)
	if !found {
		i--
	}
	in := uint64(n - j.starts[i])
	if in >= j.places[i].n {
		return nil, fmt.Errorf("it has no block %d", n)
	}
	count := int64(min(j.places[i].n-in, uint64(max(1, ahead))))
	data, err := j.f.v.Bytes(int64(j.places[i].at+in)*size, int(count*size))
	if err != nil {
		return nil, err
	}
	j.window, j.windowAt = data, n
	return data[:size], nil
}

// next is the number of the block that is by blocks behind n in the log, which
// is a ring.
func (j *journal) next(n, by uint32) uint32 {
	size := j.last - j.first
	return j.first + uint32((uint64(n-j.first)+uint64(by))%uint64(size))
}

// header returns the kind of a block of the log and the number of its
// transaction. ok is false if the block has no header.
func (j *journal) header(b []byte) (kind, sequence uint32, ok bool) {
	return be.Uint32(b[4:]), be.Uint32(b[8:]), be.Uint32(b) == jbdMagic
}

// sumOK checks the checksum of a descriptor, revoke or commit block.
func (j *journal) sumOK(kind uint32, b []byte) bool {
	switch {
	case !j.sums:
		return true
	case kind == jbdCommit:
		return sumWithout(j.seed, b, 0x10) // h_chksum[0]
	}
	return sumWithout(j.seed, b, len(b)-4) // struct jbd2_journal_block_tail
}

// tag is what a descriptor block says about one copy.
type tag struct {
	block   uint64 // the block that it is a copy of
	escaped bool   // the block begins with the magic, which is zero in the copy
	sum     uint32
}

// tags reads a descriptor block. It has journal_block_tag_t, or with checksums
// of version 3 journal_block_tag3_t.
func (j *journal) tags(b []byte) []tag {
	const escaped, sameUUID, last = 0x1, 0x2, 0x8
	size, room := 8, len(b)
	switch {
	case j.incompat&jbdCsum3 != 0:
		size = 16
	case j.incompat&jbd64bit != 0:
		size = 12
	}
	if j.incompat&jbdCsum2 != 0 {
		size += 2
	}
	if j.sums {
		room -= 4
	}
	var out []tag
	for at := 12; at+size <= room; {
		t := b[at:]
		flags := be.Uint16(t[6:])
		found := tag{block: uint64(be.Uint32(t)), escaped: flags&escaped != 0}
		if j.incompat&jbd64bit != 0 {
			found.block |= uint64(be.Uint32(t[8:])) << 32
		}
		if j.incompat&jbdCsum3 != 0 {
			found.sum = be.Uint32(t[12:])
		} else {
			found.sum = uint32(be.Uint16(t[4:]))
		}
		out = append(out, found)
		if at += size; flags&sameUUID == 0 {
			at += 16
		}
		if flags&last != 0 {
			break
		}
	}
	return out
}

// tagOK checks a copy by the checksum in its tag.
func (j *journal) tagOK(t tag, sequence uint32, b []byte) bool {
	if !j.sums {
		return true
	}
	sum := crc32c(crc32c(j.seed, be.AppendUint32(nil, sequence)), b)
	if j.incompat&jbdCsum2 != 0 {
		sum &= 0xFFFF
	}
	return sum == t.sum
}

// revokes calls do for each block in a revoke block.
func (j *journal) revokes(b []byte, do func(block uint64)) error {
	end, size, room := int(be.Uint32(b[12:])), 4, len(b)
	if j.incompat&jbd64bit != 0 {
		size = 8
	}
	if j.sums {
		room -= 4
	}
	if end < 16 || end > room {
		return fmt.Errorf("a revoke block has %d bytes", end)
	}
	for at := 16; at+size <= end; at += size {
		if size == 8 {
			do(be.Uint64(b[at:]))
		} else {
			do(uint64(be.Uint32(b[at:])))
		}
	}
	return nil
}

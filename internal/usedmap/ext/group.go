package ext

import (
	"encoding/binary"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Flags of bg_flags.
const (
	bgInodeUninit = 0x1
	bgBlockUninit = 0x2 // the block bitmap on the disk is invalid, and only metadata is used
	bgInodeZeroed = 0x4
	bgTrimmed     = 0x8  // Lustre
	bgFast        = 0x10 // Lustre
	bgKnown       = bgInodeUninit | bgBlockUninit | bgInodeZeroed | bgTrimmed | bgFast
)

// group is struct ext4_group_desc (group_descr.rst), as far as it is needed
// here.
type group struct {
	blockBitmap, inodeBitmap, inodeTable uint64

	free         uint32 // clusters
	unusedInodes uint32 // at the end of the table; valid if descriptors have checksums
	inodeUninit  bool   // bgInodeUninit, if it is valid: no inode was ever in use
	bitmapSum    uint32
	uninit       bool // bgBlockUninit, if it is valid
	wasWritten   bool // the bitmap was valid before the journal was replayed
}

func (s *super) hasDescSums() bool { return s.has(roMetadataCsum | roGdtCsum) }

// parseGroup reads a descriptor.
func (s *super) parseGroup(d []byte) group {
	half := func(low, high int) uint32 {
		n := uint32(le.Uint16(d[low:]))
		if len(d) >= 64 {
			n |= uint32(le.Uint16(d[high:])) << 16
		}
		return n
	}
	place := func(low, high int) uint64 {
		n := uint64(le.Uint32(d[low:]))
		if len(d) >= 64 {
			n |= uint64(le.Uint32(d[high:])) << 32
		}
		return n
	}
	return group{
		blockBitmap: place(0x0, 0x20), inodeBitmap: place(0x4, 0x24), inodeTable: place(0x8, 0x28),
		free: half(0xC, 0x2C), bitmapSum: half(0x18, 0x38),
		uninit:       s.hasDescSums() && le.Uint16(d[0x12:])&bgBlockUninit != 0,
		inodeUninit:  s.hasDescSums() && le.Uint16(d[0x12:])&bgInodeUninit != 0,
		unusedInodes: half(0x1C, 0x32),
	}
}

// checkDesc checks a descriptor's checksum and flags.
func (s *super) checkDesc(g int, d []byte) error {
	const sumAt = 0x1E
	number := binary.LittleEndian.AppendUint32(nil, uint32(g))
	var sum uint16
	switch {
	case s.has(roMetadataCsum):
		crc := crc32c(crc32c(s.seed, number), d[:sumAt])
		crc = crc32c(crc32c(crc, []byte{0, 0}), d[sumAt+2:])
		sum = uint16(crc)
	case s.has(roGdtCsum):
		sum = crc16(crc16(crc16(0xFFFF, s.uuid), number), d[:sumAt])
		sum = crc16(sum, d[sumAt+2:])
	default:
		return nil
	}
	if sum != le.Uint16(d[sumAt:]) {
		return fmt.Errorf("the checksum of group %d's descriptor is wrong", g)
	}
	if flags := le.Uint16(d[0x12:]); flags&^bgKnown != 0 {
		return fmt.Errorf("group %d has the unknown flags %#x", g, flags)
	}
	return nil
}

// checkPlaces checks that a group's structures lie inside the file system.
// Without flex_bg they must lie inside the group.
func (s *super) checkPlaces(g int, d group) error {
	from, to := s.first, s.blocks
	if s.incompat&incompatFlexBG == 0 {
		from = s.groupStart(g)
		to = from + s.groupBlocks(g)
	}
	for _, p := range []span{{d.blockBitmap, 1}, {d.inodeBitmap, 1}, {d.inodeTable, s.tableBlocks()}} {
		if p.at < from || p.at >= to || p.n > to-p.at {
			return fmt.Errorf("group %d has its structures in block %d", g, p.at)
		}
	}
	return nil
}

// readGroups calls do for all descriptors, in order. They are as after a
// replay, or from the disk if there is none.
func (f *fsys) readGroups(do func(g int, desc []byte) error) error {
	per, size := f.sb.descsPerBlock(), int(f.sb.descSize)
	for i, n := uint64(0), f.sb.descBlocks(); i < n; {
		run := uint64(1)
		for i+run < n && run < uint64(volume.MaxRead/f.sb.blockSize) && f.sb.descBlock(i+run) == f.sb.descBlock(i)+run {
			run++
		}
		data, err := f.blocks(f.sb.descBlock(i), run)
		if err != nil {
			return err
		}
		for b := range run {
			block := data[int64(b)*f.sb.blockSize:]
			for in := range per {
				g := int(i+b)*per + in
				if g >= f.sb.groups {
					break
				}
				if err := do(g, block[in*size:][:size:size]); err != nil {
					return err
				}
			}
		}
		i += run
	}
	return nil
}

// loadGroups reads the descriptors that are on the disk. Before a replay their
// checksums may be wrong, since the replay writes them again. Only the places
// in them must be right.
func (f *fsys) loadGroups() error {
	f.groups = make([]group, f.sb.groups)
	return f.readGroups(func(g int, desc []byte) error {
		d := f.sb.parseGroup(desc)
		f.groups[g] = d
		f.groups[g].wasWritten = !d.uninit
		if g == 0 || !f.sb.needsRecovery() {
			if err := f.sb.checkDesc(g, desc); err != nil {
				return err
			}
		}
		return f.sb.checkPlaces(g, d)
	})
}

// reloadGroups reads the descriptors as they are after the replay.
func (f *fsys) reloadGroups() error {
	return f.readGroups(func(g int, desc []byte) error {
		old, d := f.groups[g], f.sb.parseGroup(desc)
		if old.blockBitmap != d.blockBitmap || old.inodeBitmap != d.inodeBitmap || old.inodeTable != d.inodeTable {
			return fmt.Errorf("the journal moves the structures of group %d", g)
		}
		d.wasWritten = old.wasWritten
		f.groups[g] = d
		return f.sb.checkDesc(g, desc)
	})
}

package ntfs

import (
	"encoding/binary"
	"fmt"
)

// Types of attributes.
const (
	typeList        = 0x20
	typeVolumeName  = 0x60
	typeVolumeInfo  = 0x70
	typeData        = 0x80
	typeIndexRoot   = 0x90
	typeIndexBlocks = 0xa0
	typeBitmap      = 0xb0
	typeEnd         = 0xffffffff
)

// Flags of MFT records and of attributes.
const (
	recordInUse     = 0x0001
	attrEncrypted   = 0x4000
	attrCompression = 0x00ff
	attrSparse      = 0x8000
)

// stride is the part of a record that one update sequence number protects,
// whatever the sector size is.
const stride = 512

// Header sizes.
const (
	recordHeader   = 0x2a // MFT_RECORD of NTFS up to 3.0
	residentHeader = 0x18
	streamHeader   = 0x40 // of a non-resident attribute
)

// fixup checks that a record was written completely (NTFS_RECORD). The last two
// bytes of each stride hold the update sequence number. fixup puts the real
// bytes back there.
func fixup(b []byte, magic string) error {
	if string(b[:4]) != magic {
		return fmt.Errorf("instead of %s it begins with %q", magic, b[:4])
	}
	le := binary.LittleEndian
	at, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if count != len(b)/stride+1 || at%2 != 0 || at < 0x1e || at+2*count > stride-2 {
		return fmt.Errorf("its update sequence array has %d entries at byte %d", count, at)
	}
	for i := 1; i < count; i++ {
		end := b[i*stride-2:]
		if end[0] != b[at] || end[1] != b[at+1] {
			return fmt.Errorf("it was not written as a whole")
		}
		copy(end[:2], b[at+2*i:])
	}
	return nil
}

// record is an MFT record (MFT_RECORD) with its fixups done.
type record []byte

func (r record) sequence() uint16 { return binary.LittleEndian.Uint16(r[0x10:]) }
func (r record) inUse() bool      { return binary.LittleEndian.Uint16(r[0x16:])&recordInUse != 0 }
func (r record) used() int        { return int(binary.LittleEndian.Uint32(r[0x18:])) }

// extends reports whether this is an extension record of the file no. A base
// record has 0 as reference, which is not even a reference to $MFT, since
// sequence numbers are never zero.
func (r record) extends(no int64) bool {
	ref := binary.LittleEndian.Uint64(r[0x20:])
	return ref != 0 && number(ref) == no
}

// number is the number of the MFT record in a reference to a file (MREF). The
// upper 16 bits are the sequence number.
func number(ref uint64) int64 { return int64(ref & (1<<48 - 1)) }

// attr is an attribute, or one piece of it (ATTR_RECORD).
type attr struct {
	typ   uint32
	flags uint16
	name  []byte // UTF-16
	value []byte // of a resident attribute, else nil
	pairs []byte // mapping pairs array of a non-resident attribute

	lowest, highest              int64 // VCNs of this piece
	allocated, size, initialized int64 // of the whole attribute; only valid in the piece with lowest 0
}

func (a *attr) is(typ uint32, name string) bool { return a.typ == typ && string(a.name) == name }

// attrs calls do with every attribute of the record.
func (r record) attrs(do func(*attr) error) error {
	le := binary.LittleEndian
	at, end := int(le.Uint16(r[0x14:])), r.used()
	if end > len(r) || at < recordHeader {
		return fmt.Errorf("it says that it has %d bytes, with attributes from byte %d", end, at)
	}
	var a attr
	for {
		if at > end-4 {
			return fmt.Errorf("its attributes have no end")
		}
		if le.Uint32(r[at:]) == typeEnd {
			return nil
		}
		if at > end-residentHeader {
			return fmt.Errorf("its attributes have no end")
		}
		n := int(le.Uint32(r[at+4:]))
		if n < residentHeader || n > end-at {
			return fmt.Errorf("an attribute has %d bytes", n)
		}
		if err := a.parse(r[at : at+n]); err != nil {
			return err
		}
		if err := do(&a); err != nil {
			return err
		}
		at += n
	}
}

func (a *attr) parse(b []byte) error {
	le := binary.LittleEndian
	*a = attr{typ: le.Uint32(b), flags: le.Uint16(b[0x0c:])}
	if n, at := 2*int(b[9]), int(le.Uint16(b[0x0a:])); n > 0 {
		if at > len(b)-n {
			return fmt.Errorf("attribute %#x has a name of %d bytes at byte %d", a.typ, n, at)
		}
		a.name = b[at : at+n]
	}
	if b[8] == 0 {
		n, at := int64(le.Uint32(b[0x10:])), int64(le.Uint16(b[0x14:]))
		if at+n > int64(len(b)) {
			return fmt.Errorf("attribute %#x has %d bytes at byte %d", a.typ, n, at)
		}
		a.value = b[at : at+n : at+n]
		return nil
	}
	if b[8] != 1 || len(b) < streamHeader {
		return fmt.Errorf("attribute %#x has only %d bytes", a.typ, len(b))
	}
	at := int(le.Uint16(b[0x20:]))
	if at < streamHeader || at > len(b) {
		return fmt.Errorf("attribute %#x has its runs at byte %d", a.typ, at)
	}
	a.pairs = b[at:]
	a.lowest, a.highest = int64(le.Uint64(b[0x10:])), int64(le.Uint64(b[0x18:]))
	a.allocated, a.size, a.initialized = int64(le.Uint64(b[0x28:])), int64(le.Uint64(b[0x30:])), int64(le.Uint64(b[0x38:]))
	return nil
}

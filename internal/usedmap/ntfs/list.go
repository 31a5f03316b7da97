package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	listEntry = 0x1a      // ATTR_LIST_ENTRY without its name
	maxList   = 256 << 10 // $AttrDef allows no more
)

// follow adds the pieces of an attribute by the attribute list, which is sorted
// by type, name and VCN.
func (f *fileSystem) follow(s *stream, no int64, r record, list *stream, typ uint32, name string) error {
	if err := f.whole(list); err != nil {
		return fmt.Errorf("attribute list: %w", err)
	}
	if list.size > maxList || !list.plain() {
		return fmt.Errorf("its attribute list has %d bytes", list.size)
	}
	b := make([]byte, list.size)
	if err := f.fill(list, b, 0); err != nil {
		return err
	}
	found := errNone
	for len(b) > 0 {
		e, n, err := parseEntry(b)
		if err != nil {
			return err
		}
		b = b[n:]
		if e.typ != typ || e.name != name {
			continue
		}
		found = nil
		if err := f.piece(s, no, r, e); err != nil {
			return err
		}
	}
	return found
}

// entry is ATTR_LIST_ENTRY, which says what record a piece of an attribute is
// in.
type entry struct {
	typ    uint32
	name   string
	lowest int64
	in     int64
}

func parseEntry(b []byte) (e entry, n int, err error) {
	garbled := errors.New("its attribute list is garbled")
	if len(b) < listEntry {
		return e, 0, garbled
	}
	le := binary.LittleEndian
	n = int(le.Uint16(b[4:]))
	nameLen, nameAt := 2*int(b[6]), int(b[7])
	if n < listEntry || n > len(b) || nameLen > 0 && nameAt+nameLen > n {
		return e, 0, garbled
	}
	e = entry{typ: le.Uint32(b), lowest: int64(le.Uint64(b[8:])), in: number(le.Uint64(b[0x10:]))}
	if nameLen > 0 {
		e.name = string(b[nameAt : nameAt+nameLen])
	}
	return e, n, nil
}

// piece adds the piece of e. It is in the base record r, or in an extension
// record of file no.
func (f *fileSystem) piece(s *stream, no int64, r record, e entry) error {
	if e.in != no {
		var err error
		if r, err = f.readRecord(e.in); err != nil {
			return err
		}
		if !r.extends(no) {
			return fmt.Errorf("record %d is said to extend record %d, and does not", e.in, no)
		}
	}
	err := f.find(s, r, e.typ, e.name, e.lowest)
	if errors.Is(err, errNone) {
		err = fmt.Errorf("record %d has no piece of attribute %#x with VCN %d", e.in, e.typ, e.lowest)
	}
	return err
}

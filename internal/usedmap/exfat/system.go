package exfat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// Entry types, from sections 6.2 and 7. Bit 7 marks an entry that is in use.
// Bit 6 marks a secondary entry, which belongs to the primary one before it.
// Bit 5 marks a benign entry, which a system may ignore.
const (
	typeInUse     = 0x80
	typeSecondary = 0x40
	typeBenign    = 0x20

	typeBitmap  = 0x81
	typeUpcase  = 0x82
	typeLabel   = 0x83
	typeFile    = 0x85
	typePadding = 0xA1 // only in TexFAT
	typeStream  = 0xC0
	typeName    = 0xC1
)

// files are the file system's own files, which the root directory names.
type files struct {
	bitmap, upcase extent
	upcaseSum      uint32
	label          string
}

// system reads the entries of the root directory that describe the file system.
func system(f *fat) (files, error) {
	var s files
	d := &folder{f: f, at: f.g.rootExtent(), root: true}
	for {
		e, err := d.next()
		if err != nil {
			return s, err
		}
		if e == nil {
			break
		}
		if err := s.take(e); err != nil {
			return s, err
		}
	}
	if s.bitmap.first == 0 || s.upcase.first == 0 {
		return s, errors.New("no allocation bitmap, or no up-case table")
	}
	return s, nil
}

func (s *files) take(e []byte) error {
	at := extent{first: int64(binary.LittleEndian.Uint32(e[20:])), length: int64(binary.LittleEndian.Uint64(e[24:]))}
	switch e[0] {
	case typeBitmap:
		if s.bitmap.first != 0 || e[1] != 0 || at.first == 0 || at.length < 0 {
			return errors.New("a second allocation bitmap, or an unknown one")
		}
		s.bitmap = at
	case typeUpcase:
		if s.upcase.first != 0 || at.first == 0 || at.length < 0 {
			return errors.New("a second up-case table, or an unknown one")
		}
		s.upcase, s.upcaseSum = at, binary.LittleEndian.Uint32(e[4:])
	case typeLabel:
		n := min(int(e[1]), 11)
		name := make([]uint16, n)
		for i := range name {
			name[i] = binary.LittleEndian.Uint16(e[2+2*i:])
		}
		s.label = string(utf16.Decode(name))
	case typePadding:
		return errors.New("TexFAT")
	default:
		return known(e[0])
	}
	return nil
}

// known fails for a critical entry of an unknown type.
func known(kind byte) error {
	if kind&typeInUse != 0 && kind&(typeSecondary|typeBenign) == 0 && kind != typeFile {
		return fmt.Errorf("the unknown directory entry %#x", kind)
	}
	return nil
}

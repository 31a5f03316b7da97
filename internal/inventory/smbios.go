package inventory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The SMBIOS structure table is defined in DSP0134 "System Management BIOS
// Reference Specification" (3.x). Linux shows it in /sys/firmware/dmi/tables.
// The structures follow one another. Each has a formatted area, whose second
// byte is its length, and then its strings. A zero byte ends each string, and
// one more zero byte ends the structure. A structure without strings ends with
// two zero bytes.

// Limits that no real table comes near. Big servers have 30 KiB and a few
// hundred structures.
const (
	maxSMBIOS     = 1 << 20
	maxStructures = 8192
)

// structure is one SMBIOS structure. Fields beyond its length read as zero,
// because later versions of the specification only append fields to a type.
type structure struct {
	kind    byte
	data    []byte // the formatted area, header included
	strings [][]byte
}

func (s structure) u8(off int) byte {
	if off < len(s.data) {
		return s.data[off]
	}
	return 0
}

func (s structure) u16(off int) uint16 {
	if off+2 <= len(s.data) {
		return binary.LittleEndian.Uint16(s.data[off:])
	}
	return 0
}

func (s structure) u32(off int) uint32 {
	if off+4 <= len(s.data) {
		return binary.LittleEndian.Uint32(s.data[off:])
	}
	return 0
}

// text is the string whose number is at off. The numbers start at 1, and 0
// means that there is no string.
func (s structure) text(off int) string {
	n := int(s.u8(off))
	if n == 0 || n > len(s.strings) {
		return ""
	}
	return clean(string(s.strings[n-1]))
}

const endOfTable = 127

// parseStructures splits a table. If the table is damaged, the structures
// before the damage are returned with the error.
func parseStructures(table []byte) ([]structure, error) {
	if len(table) > maxSMBIOS {
		return nil, fmt.Errorf("table is larger than %d bytes", maxSMBIOS)
	}
	var all []structure
	for len(table) >= 4 {
		s, rest, err := cutStructure(table)
		if err != nil {
			return all, fmt.Errorf("structure %d: %w", len(all), err)
		}
		if s.kind == endOfTable {
			return all, nil
		}
		if len(all) == maxStructures {
			return all, fmt.Errorf("more than %d structures", maxStructures)
		}
		all, table = append(all, s), rest
	}
	return all, nil // older firmware has no end marker
}

// cutStructure cuts the first structure off a table of at least four bytes, and
// returns it and the rest.
func cutStructure(table []byte) (structure, []byte, error) {
	n := int(table[1])
	switch {
	case n < 4:
		return structure{}, nil, errors.New("its length is shorter than its header")
	case n > len(table):
		return structure{}, nil, errors.New("it ends beyond the table")
	}
	end := bytes.Index(table[n:], []byte{0, 0})
	if end < 0 {
		return structure{}, nil, errors.New("its strings have no end")
	}
	s := structure{kind: table[0], data: table[:n:n]}
	if end > 0 {
		s.strings = bytes.Split(table[n:n+end], []byte{0})
	}
	return s, table[n+end+2:], nil
}

// smbiosVersion is major<<8 | minor.
type smbiosVersion uint16

func (v smbiosVersion) String() string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", v>>8, v&0xff)
}

// parseEntryPoint reads the version from the entry point. "_SM_" has it in
// bytes 6 and 7, "_SM3_" in bytes 7 and 8. It is 0 if the version is not known,
// as with the older "_DMI_" alone.
func parseEntryPoint(b []byte) smbiosVersion {
	switch {
	case bytes.HasPrefix(b, []byte("_SM3_")) && len(b) >= 9:
		return smbiosVersion(b[7])<<8 | smbiosVersion(b[8])
	case bytes.HasPrefix(b, []byte("_SM_")) && len(b) >= 8:
		return smbiosVersion(b[6])<<8 | smbiosVersion(b[7])
	}
	return 0
}

// swapsUUID reports whether the first three fields of a UUID are little-endian.
// Version 2.6 of the specification defined that. In older tables the bytes are
// in order, as the Linux kernel reads them too. Firmware of unknown version is
// treated as current.
func (v smbiosVersion) swapsUUID() bool { return v == 0 || v >= 0x0206 }

// formatUUID returns the canonical spelling of 16 bytes of a table, in lower
// case.
func formatUUID(b []byte, swap bool) string {
	var u [16]byte
	copy(u[:], b)
	if swap {
		u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
		u[4], u[5] = u[5], u[4]
		u[6], u[7] = u[7], u[6]
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

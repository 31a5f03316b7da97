package parttab

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The master boot record is the first 512 bytes of a disk, even if its sectors are
// larger. It ends with four entries of 16 bytes and the signature 55 AA.
const (
	mbrSize      = 512
	mbrEntries   = 446
	mbrEntrySize = 16
	mbrSlots     = 4

	protectiveType = 0xEE
	dynamicType    = 0x42 // of Windows' dynamic disks
)

// errNoMBR says that there is no boot record. Its text follows "its partition table
// is left as in the image".
var errNoMBR = errors.New("there is none")

// mbr is a parsed master boot record.
type mbr [mbrSlots]mbrEntry

// mbrEntry is an entry for a primary partition. An empty entry has the kind 0.
type mbrEntry struct {
	status, kind   byte
	first, sectors uint32 // in logical sectors
}

// parseMBR reads a master boot record. It checks only the signature, which the boot
// sector of a file system has too.
func parseMBR(head []byte) (mbr, error) {
	var m mbr
	if len(head) < mbrSize || head[510] != 0x55 || head[511] != 0xAA {
		return m, errNoMBR
	}
	for i := range m {
		e := head[mbrEntries+i*mbrEntrySize:]
		m[i] = mbrEntry{e[0], e[4], binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])}
	}
	return m, nil
}

// badStatus returns an error if an entry has a status that no partition has. The
// sector may then be no boot record.
func (m mbr) badStatus() error {
	for i, e := range m {
		if e.status&0x7F != 0 {
			return fmt.Errorf("entry %d of the boot record has the status %#02x, which no partition has", i+1, e.status)
		}
	}
	return nil
}

func (m mbr) has(kind byte) bool {
	for _, e := range m {
		if e.kind == kind {
			return true
		}
	}
	return false
}

// empty reports whether no system would find a partition.
func (m mbr) empty() bool {
	for _, e := range m {
		if e.kind != 0 || e.sectors != 0 {
			return false
		}
	}
	return true
}

// plausible reports whether some system could take an entry for a partition.
func (m mbr) plausible(d disk) bool {
	for _, e := range m {
		if e.kind == protectiveType || e.kind != 0 && e.first > 0 && e.sectors > 0 && uint64(e.first)+uint64(e.sectors) <= d.sectors {
			return true
		}
	}
	return false
}

// protective gives the slot of the protective entry, which keeps other systems off
// a GPT disk (UEFI 5.2.3). It is an error if there is no such entry. A boot record
// with other entries beside it is a hybrid. That is an error too, since two systems
// can read it in two ways.
func (m mbr) protective() (slot int, err error) {
	slot = -1
	for i, e := range m {
		switch {
		case e.kind == 0:
		case e.kind != protectiveType:
			err = errors.New("the boot record has other partitions beside the GPT's protective one (a hybrid)")
		case slot >= 0:
			return -1, errors.New("the boot record has two protective partitions")
		default:
			slot = i
		}
	}
	switch {
	case slot < 0:
		return -1, errNoGPT
	case err != nil:
		return -1, err
	case m[slot].first != 1:
		return -1, fmt.Errorf("the protective partition starts at sector %d, not at 1", m[slot].first)
	}
	return slot, nil
}

// protectiveSectors is the length of a protective entry on a disk with so many
// sectors. It is all sectors behind the boot record, but at most the largest number
// of 32 bits.
func protectiveSectors(disk uint64) uint32 { return uint32(min(disk-1, 0xFFFFFFFF)) }

// setSectors writes an entry's length into the bytes of a boot record.
func setSectors(head []byte, slot int, n uint32) {
	binary.LittleEndian.PutUint32(head[mbrEntries+slot*mbrEntrySize+12:], n)
}

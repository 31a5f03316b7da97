package lvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

const (
	sector       = 512 // LVM's sector, whatever the disk's is
	labelSectors = 4   // the label is in one of the first 4 sectors
	extUsed      = 1   // PV_EXT_USED: the physical volume belongs to a group
	extVersions  = 2   // PV_HEADER_EXTENSION_VSN
)

// crc is LVM's checksum (calc_crc in lib/misc/crc.c). It is the common CRC-32,
// but with its own initial value, and without the inversions at start and end.
func crc(b []byte) uint32 {
	const initial = 0xf597a6cf // INITIAL_CRC
	return ^crc32.Update(^uint32(initial), crc32.IEEETable, b)
}

// label is what the label's sector says about the physical volume.
type label struct {
	uuid string
	meta []image.Range // metadata areas
	boot []image.Range // areas for boot loaders
}

// readLabel finds the one label among the first sectors. LVM takes the first
// good label and ignores bad ones. Here any second label makes doubt.
func readLabel(v *volume.Volume) (*label, error) {
	head, err := v.Bytes(0, labelSectors*sector)
	if err != nil {
		return nil, err
	}
	at := -1
	for i := 0; i < len(head); i += sector {
		if !bytes.HasPrefix(head[i:], []byte("LABELONE")) {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("there are LVM labels in sector %d and in sector %d", at/sector, i/sector)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("no LVM label")
	}
	return parseLabel(head[at:at+sector], uint64(at/sector), v.Size())
}

// parseLabel reads struct label_header (lib/label/label.h): id, then sector_xl
// at 8, crc_xl at 16, offset_xl at 20, type at 24. The checksum is of all bytes
// behind it.
func parseLabel(b []byte, number uint64, size int64) (*label, error) {
	le := binary.LittleEndian
	switch {
	case le.Uint64(b[8:]) != number:
		return nil, fmt.Errorf("the LVM label in sector %d says that it is in sector %d", number, le.Uint64(b[8:]))
	case le.Uint32(b[16:]) != crc(b[20:]):
		return nil, fmt.Errorf("the checksum of the LVM label is wrong")
	case string(b[24:32]) != "LVM2 001":
		return nil, fmt.Errorf("the LVM label is of the unknown type %q", b[24:32])
	}
	offset := le.Uint32(b[20:])
	if offset < 32 || offset > sector-40 {
		return nil, fmt.Errorf("the LVM label has its content at byte %d", offset)
	}
	return parseHeader(b[offset:], size)
}

// parseHeader reads struct pv_header (lib/format_text/layout.h): the UUID, then
// device_size_xl at 32. From 40 on there are the data areas and the metadata
// areas, both as lists that end with a zero. The size and the data area are
// those of the time when the volume was made. The current ones are in the
// metadata.
func parseHeader(b []byte, size int64) (l *label, err error) {
	l = &label{}
	if l.uuid, err = formatUUID(b[:32]); err != nil {
		return nil, err
	}
	_, rest, err := locations(b[40:])
	if err != nil {
		return l, err
	}
	meta, rest, err := locations(rest)
	if err != nil {
		return l, err
	}
	if l.meta, err = inside(meta, size); err != nil {
		return l, err
	}
	// struct pv_header_extension has a version, flags, and the list of boot
	// loader areas. LVM from before 2013 has zeros here.
	if len(rest) < 8 {
		return l, nil
	}
	version, flags := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
	switch {
	case version == 0:
		return l, nil
	case version > extVersions || flags&^extUsed != 0:
		return l, fmt.Errorf("the LVM label has the unknown extension %d with the flags %#x", version, flags)
	}
	boot, _, err := locations(rest[8:])
	if err != nil {
		return l, err
	}
	l.boot, err = inside(boot, size)
	return l, err
}

// locn is struct disk_locn.
type locn struct{ off, size uint64 }

// locations reads a list of struct disk_locn up to the entry with offset 0.
func locations(b []byte) (list []locn, rest []byte, err error) {
	for ; len(b) >= 16; b = b[16:] {
		at := locn{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
		if at.off == 0 {
			return list, b[16:], nil
		}
		list = append(list, at)
	}
	return nil, nil, fmt.Errorf("the LVM label has a list without an end")
}

// inside converts a list of areas, and fails if one is not inside the volume.
func inside(list []locn, size int64) (areas []image.Range, err error) {
	for _, a := range list {
		if a.size == 0 || a.off > uint64(size) || a.size > uint64(size)-a.off {
			return nil, fmt.Errorf("the LVM label has an area of %d bytes at byte %d of %d", a.size, a.off, size)
		}
		areas = append(areas, image.Range{Off: int64(a.off), Len: int64(a.size)})
	}
	return areas, nil
}

// formatUUID puts the dashes into a UUID (id_write_format in lib/uuid/uuid.c).
func formatUUID(b []byte) (string, error) {
	var out []byte
	for i, c := range b {
		if !isAlnum(c) && c != '!' && c != '#' {
			return "", fmt.Errorf("the LVM label has no UUID")
		}
		if i >= 6 && i <= 26 && (i-6)%4 == 0 {
			out = append(out, '-')
		}
		out = append(out, c)
	}
	return string(out), nil
}

package lvm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

const (
	areaMagic   = " LVM2 x[5A%r0N*>"
	areaHeader  = 512 // struct mda_header; the ring buffer of texts follows
	rawLocns    = 40  // mda_header.raw_locns
	rawLocn     = 24  // struct raw_locn: offset, size, checksum, flags
	locIgnored  = 1   // RAW_LOCN_IGNORED
	maxMetadata = volume.MaxRead
)

// readMetadata reads the text of the metadata. Every area that is in use must
// hold the same text. LVM writes one text to all of them, one after the other.
// So two that differ mean that a change was interrupted, or that somebody
// restored an old copy.
func readMetadata(v *volume.Volume, l *label) (string, error) {
	var text []byte
	for _, where := range l.meta {
		t, err := readArea(v, where)
		switch {
		case err != nil:
			return "", fmt.Errorf("metadata area at byte %d: %w", where.Off, err)
		case t == nil:
		case text == nil:
			text = t
		case !bytes.Equal(text, t):
			return "", fmt.Errorf("the metadata areas do not say the same")
		}
	}
	if len(text) == 0 {
		return "", fmt.Errorf("there are no LVM metadata: it belongs to no volume group, or to one whose metadata are on other disks")
	}
	return string(text), nil
}

// readArea reads struct mda_header (lib/format_text/layout.h): the checksum of
// the rest, then magic at 4, version at 20, start at 24, size at 32, and the
// list of struct raw_locn. The first location is the committed text. The result
// is nil for an area that is marked as ignored (vgchange --metadatacopies),
// whose text may be old. It is empty, but not nil, for an area that belongs to
// no group.
func readArea(v *volume.Volume, where image.Range) ([]byte, error) {
	if where.Len < 2*areaHeader {
		return nil, fmt.Errorf("it has %d bytes", where.Len)
	}
	b, err := v.Bytes(where.Off, areaHeader)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch {
	case le.Uint32(b) != crc(b[4:]):
		return nil, fmt.Errorf("its checksum is wrong")
	case string(b[4:20]) != areaMagic:
		return nil, fmt.Errorf("it has no magic number")
	case le.Uint32(b[20:]) != 1:
		return nil, fmt.Errorf("it has the unknown version %d", le.Uint32(b[20:]))
	case le.Uint64(b[24:]) != uint64(where.Off) || le.Uint64(b[32:]) != uint64(where.Len):
		return nil, fmt.Errorf("it says that it has %d bytes at byte %d", le.Uint64(b[32:]), le.Uint64(b[24:]))
	}
	committed, more := b[rawLocns:rawLocns+rawLocn], b[rawLocns+rawLocn:]
	if flags := le.Uint32(committed[20:]); flags&^locIgnored != 0 {
		return nil, fmt.Errorf("it has the unknown flags %#x", flags)
	} else if flags == locIgnored {
		return nil, nil
	}
	// The second location is a text that was written but not committed, because
	// a command was interrupted. No known version of LVM writes more locations.
	for ; len(more) >= rawLocn; more = more[rawLocn:] {
		if le.Uint64(more) != 0 && le.Uint64(more[8:]) != 0 {
			return nil, fmt.Errorf("a change of the metadata was begun and not finished")
		}
	}
	if le.Uint64(committed) == 0 {
		return []byte{}, nil
	}
	return readRing(v, where, le.Uint64(committed), le.Uint64(committed[8:]), le.Uint32(committed[16:]))
}

// readRing reads n bytes at off of an area. The text is in a ring buffer: at
// the end of the area it goes on behind the header.
func readRing(v *volume.Volume, where image.Range, off, n uint64, sum uint32) ([]byte, error) {
	size := uint64(where.Len)
	if off < areaHeader || off >= size || n == 0 || n > maxMetadata || n > size-areaHeader {
		return nil, fmt.Errorf("it has %d bytes of text at byte %d of %d", n, off, size)
	}
	first := min(n, size-off)
	text := make([]byte, n)
	if err := v.Fill(text[:first], where.Off+int64(off)); err != nil {
		return nil, err
	}
	if first < n {
		if err := v.Fill(text[first:], where.Off+areaHeader); err != nil {
			return nil, err
		}
	}
	if crc(text) != sum {
		return nil, fmt.Errorf("the checksum of its text is wrong")
	}
	return text, nil
}

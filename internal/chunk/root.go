package chunk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Root describes the image of a disk. The name of the root is the name of the
// image. Two disks with the same root have the same bytes, wherever they are
// used.
type Root struct {
	Size       int64           // bytes of the disk
	SectorSize int             // bytes of a logical sector
	Pages      []object.Name   // page of each region, in order; the last region may be shorter
	Layout     json.RawMessage // what the disk holds, for people and for diff, as the JSON of package copier's Layout; empty if unknown
}

// MaxDisk is the largest disk of an image in bytes, 128 TiB.
const MaxDisk = 1 << 47

// maxLayout limits Root.Layout, in bytes.
const maxLayout = 1 << 20

var rootMagic = []byte("TBXROOT1")

// Marshal returns the root's bytes. All numbers are little-endian.
//
//	"TBXROOT1"
//	u64  size of the disk
//	u32  sector size
//	u32  number of pages: size / 256 MiB, rounded up
//	32 bytes for each page, its name
//	the rest: the layout
func (r *Root) Marshal() []byte {
	b := append([]byte(nil), rootMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Size))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.SectorSize))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Pages)))
	for _, p := range r.Pages {
		b = append(b, p[:]...)
	}
	return append(b, r.Layout...)
}

// ParseRoot parses a root. It accepts only what Marshal writes.
func ParseRoot(b []byte) (*Root, error) {
	r, err := parseRoot(b)
	if err != nil {
		return nil, fmt.Errorf("root is not readable: %w", err)
	}
	return r, nil
}

func parseRoot(b []byte) (*Root, error) {
	if len(b) > object.MaxRoot {
		return nil, fmt.Errorf("it has %d bytes", len(b))
	}
	c := cursor{b: b}
	c.want(rootMagic)
	size := binary.LittleEndian.Uint64(c.bytes(8))
	sector := binary.LittleEndian.Uint32(c.bytes(4))
	pages := binary.LittleEndian.Uint32(c.bytes(4))
	if c.err == nil && (size < 1 || size > MaxDisk || sector > 1<<16 || !image.ValidSectorSize(int(sector)) || size%uint64(sector) != 0) {
		return nil, fmt.Errorf("it has %d bytes in sectors of %d", size, sector)
	}
	if c.err == nil && uint64(pages) != (size+RegionSize-1)/RegionSize {
		return nil, fmt.Errorf("it has %d pages for %d bytes", pages, size)
	}
	r := &Root{Size: int64(size), SectorSize: int(sector)}
	for range min(int(pages), len(c.b)/32+1) {
		r.Pages = append(r.Pages, object.Name(c.bytes(32)))
	}
	if c.err != nil {
		return nil, c.err
	}
	if len(c.b) > 0 {
		r.Layout = json.RawMessage(append([]byte(nil), c.b...))
		if len(r.Layout) > maxLayout || !json.Valid(r.Layout) {
			return nil, errors.New("its layout is not readable")
		}
	}
	return r, nil
}

// Region returns the range of the disk that page i describes.
func (r *Root) Region(i int) image.Range {
	off := int64(i) * RegionSize
	return image.Range{Off: off, Len: min(RegionSize, r.Size-off)}
}

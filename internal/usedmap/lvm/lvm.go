// Package lvm reads the metadata of an LVM2 physical volume. It finds the
// extents that belong to no logical volume, and where the bytes of each logical
// volume lie, so that the file systems in them can be mapped.
//
// The format is that of LVM2's sources. The label and the header of the
// physical volume are in lib/label/label.h, lib/format_text/layout.h and
// text_label.c, the metadata areas in layout.h and format-text.c. The text in
// these areas is written by export.c and the segment types, and read by
// import_vsn1.c. By the rules of the format, whatever an older LVM must not
// touch gets a new status flag or a new segment type. An unknown one of these
// makes doubt here, and so does an unknown section. An unknown plain setting of
// the group or the disk makes none: every LVM ignores it, and hands out the
// free extents.
//
// A volume group is only understood if it has no other physical volume. Two
// logical volumes can share a file system's blocks in ways that the bitmap of
// the file system does not show: blocks that an origin frees still belong to
// its snapshot. So a logical volume is only mapped if it is plain, linear and
// visible, and no other volume names it. All extents of the other volumes count
// as used.
package lvm

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// PV is what the metadata say about a physical volume.
type PV struct {
	UUID string // as LVM spells it
	VG   string // the name of its volume group
	Size int64  // bytes up to the end of the last extent
	// Free are the extents that belong to no logical volume, in bytes of the
	// physical volume. It is nil beside an error. All other bytes are used:
	// label, metadata, and everything before the first extent and behind the
	// last.
	Free  *volume.Free
	LVs   []LV // in the order of the metadata
	Notes []string
}

// LV is a logical volume.
type LV struct {
	Name, UUID string
	Size       int64 // bytes
	// Extents are the bytes of the physical volume that belong to this volume
	// itself. If Why is "" they are in the order of the volume's own addresses.
	// A volume that is made of other volumes has none.
	Extents []image.Range
	// Why is the reason not to examine the content, so that all of it is used.
	// It is "" for a volume that Volume can show.
	Why string

	ends []int64 // end of each of Extents, in the volume's own addresses
}

// Read reads a physical volume. Beside an error the PV has what is known about
// it, or is nil.
func Read(v *volume.Volume) (*PV, error) {
	l, err := readLabel(v)
	if l == nil {
		return nil, err
	}
	pv := &PV{UUID: l.uuid}
	if err != nil {
		return pv, err
	}
	text, err := readMetadata(v, l)
	if err != nil {
		return pv, err
	}
	root, err := parseText(text)
	if err != nil {
		return pv, err
	}
	g, err := readGroup(root, l.uuid)
	if g != nil {
		pv.VG = g.name
	}
	if err != nil {
		return pv, err
	}
	return pv, pv.read(g, l, v.Size())
}

// read fills in the logical volumes and the free extents of the group.
func (pv *PV) read(g *group, l *label, size int64) error {
	if err := g.fits(l, size); err != nil {
		return err
	}
	lvs, err := g.volumes()
	if err != nil {
		return err
	}
	free, err := g.unused()
	if err != nil {
		return err
	}
	pv.Size, pv.LVs, pv.Free = g.start+g.count*g.extent, lvs, free
	if g.exported {
		pv.Notes = append(pv.Notes, "the volume group is exported")
	}
	return nil
}

// Volume returns a logical volume, whose Why must be "", as a volume of its
// own. v is the physical volume.
func (lv *LV) Volume(v *volume.Volume) *volume.Volume {
	return v.Over(lvReader{lv, v}, lv.Size)
}

// Place translates n bytes at off of the logical volume into bytes of the
// physical volume. Bytes beyond the volume's end are left out. If Why is not ""
// the result is empty.
func (lv *LV) Place(off, n int64) []image.Range {
	var out []image.Range
	if lv.Why != "" || off < 0 || n <= 0 || off >= lv.Size {
		return nil
	}
	n = min(n, lv.Size-off)
	for i := sort.Search(len(lv.ends), func(i int) bool { return lv.ends[i] > off }); n > 0; i++ {
		x := lv.Extents[i]
		in := off - (lv.ends[i] - x.Len)
		m := min(n, x.Len-in)
		out = append(out, image.Range{Off: x.Off + in, Len: m})
		off, n = off+m, n-m
	}
	return out
}

// lvReader reads a logical volume from the physical one.
type lvReader struct {
	lv *LV
	v  *volume.Volume
}

func (r lvReader) ReadAt(b []byte, off int64) (n int, err error) {
	for _, at := range r.lv.Place(off, int64(len(b))) {
		if err := r.v.Fill(b[n:n+int(at.Len)], at.Off); err != nil {
			return n, err
		}
		n += int(at.Len)
	}
	if n < len(b) {
		return n, fmt.Errorf("read beyond the logical volume's end")
	}
	return n, nil
}

// fits checks that the extents lie inside the physical volume, and that they do
// not overlap the label, a metadata area or a boot loader area.
func (g *group) fits(l *label, size int64) error {
	switch {
	case g.devSize > size/sector:
		return fmt.Errorf("the physical volume has %d sectors, its disk or partition %d", g.devSize, size/sector)
	case g.start > size || g.count > (size-g.start)/g.extent:
		return fmt.Errorf("the %d extents of %d bytes from byte %d on reach beyond the end", g.count, g.extent, g.start)
	}
	taken := append([]image.Range{{Off: 0, Len: labelSectors * sector}}, l.meta...)
	taken = append(taken, l.boot...)
	if n := g.count * g.extent; n > 0 {
		taken = append(taken, image.Range{Off: g.start, Len: n})
	}
	return apart(taken)
}

// apart sorts the ranges and checks that no two of them have a byte in common.
func apart(ranges []image.Range) error {
	slices.SortFunc(ranges, func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(ranges); i++ {
		if before := ranges[i-1]; ranges[i].Off < before.End() {
			return fmt.Errorf("two LVM areas or extents have the same bytes, from byte %d on", ranges[i].Off)
		}
	}
	return nil
}

// unused are the extents that belong to no logical volume.
func (g *group) unused() (*volume.Free, error) {
	var taken []image.Range
	for _, lv := range g.lvs {
		taken = append(taken, lv.Extents...)
	}
	if err := apart(taken); err != nil {
		return nil, err
	}
	free, at := &volume.Free{}, g.start
	for _, x := range append(taken, image.Range{Off: g.start + g.count*g.extent}) {
		free.Add(at, x.Off-at)
		at = x.End()
	}
	return free, nil
}

package usedmap

import (
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/lvm"
	"testbox-imaging/internal/usedmap/volume"
)

const lvmMember = "LVM2_member"

// physicalVolume maps a volume by LVM's metadata. Extents that belong to no
// logical volume are free. In a logical volume its file system says what is free.
func (m *mapper) physicalVolume(p *Part, v *volume.Volume) error {
	pv, err := lvm.Read(v)
	if pv != nil {
		p.Label, p.UUID, p.Notes = pv.VG, pv.UUID, pv.Notes
	}
	if err == nil && p.Type != "" {
		err = parttab.CheckType(p.Type, lvmMember)
	}
	if err != nil {
		return err
	}
	for _, r := range pv.Free.Ranges() {
		m.free.Add(p.Off()+r.Off, r.Len)
	}
	p.Free = pv.Free.Bytes()
	for i := range pv.LVs {
		lv := m.logicalVolume(p, v, &pv.LVs[i])
		p.Volumes = append(p.Volumes, lv)
		p.Free += lv.Free
	}
	return nil
}

// logicalVolume maps a logical volume of the physical volume p.
func (m *mapper) logicalVolume(p *Part, v *volume.Volume, lv *lvm.LV) Part {
	onDisk := func(ranges []image.Range) []image.Range {
		out := slices.Clone(ranges)
		for i := range out {
			out[i].Off += p.Off()
		}
		return out
	}
	place := func(off, n int64) []image.Range { return onDisk(lv.Place(off, n)) }
	out := Part{Kind: Logical, Name: lv.Name, Ranges: onDisk(lv.Extents)}
	if lv.Why != "" {
		out.Doubt = lv.Why
		return out
	}
	on := lv.Volume(v)
	name, err := m.only(on)
	out.FS = name
	if err == nil {
		err = m.fileSystem(&out, on, name, place)
	}
	out.doubt(err)
	return out
}

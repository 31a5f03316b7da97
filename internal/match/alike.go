package match

import (
	"slices"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// Twins are disks of one box that are built alike, and of which none has a WWN or serial of its own.
type Twins struct {
	Disks  []string // kernel names
	Placed bool     // each has a path of its own, so that they can be told apart while they stay there
}

// Alike returns the disks of a box that the rules cannot tell apart by themselves once they are moved. Only disks count
// that are chosen by themselves.
func Alike(disks []disk.Disk) (all []Twins) {
	disks, _ = single(disks)
	var known []image.Identity
	for _, d := range disks {
		known = append(known, d.Identity)
	}
	type build struct {
		model  string
		size   int64
		sector int
	}
	var order []build
	by := map[build]*Twins{}
	for i, x := range unique(known) {
		if auto, _ := Auto(disks[i]); !auto || x.WWN != "" || x.Serial != "" {
			continue
		}
		is := build{x.Model, x.Size, x.SectorSize}
		if by[is] == nil {
			order, by[is] = append(order, is), &Twins{Placed: true}
		}
		t := by[is]
		t.Disks, t.Placed = append(t.Disks, disks[i].Name), t.Placed && x.Path != ""
	}
	for _, is := range order {
		if t := by[is]; len(t.Disks) > 1 {
			slices.SortFunc(t.Disks, disk.CompareNames)
			all = append(all, *t)
		}
	}
	return all
}

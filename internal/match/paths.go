package match

import (
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/disk"
)

// multipaths has the transports by which one disk can be reached on two ways.
// Disks on any other that have everything in common are two disks that cannot be
// told apart, such as those in cheap USB cases and of virtual machines.
var multipaths = map[string]bool{"sas": true, "scsi": true, "fc": true, "iscsi": true, "nvme": true, "nvme-tcp": true, "nvme-rdma": true,
	"nvme-fc": true}

// samePhysical says by what two disks are known to be one, and "" if they are not.
func samePhysical(a, b disk.Disk) string {
	switch {
	case a.Multipath != "" && a.Multipath == b.Multipath:
		return "dm-multipath stands on both"
	case multipaths[a.Transport] && a.Transport == b.Transport && a.WWN != "" && a.WWN == b.WWN && a.Serial != "" &&
		serialOf(a.Identity) == serialOf(b.Identity) && a.Model == b.Model && a.Size == b.Size && a.SectorSize == b.SectorSize:
		return fmt.Sprintf("same WWN %s, serial %s and size", a.WWN, a.Serial)
	}
	return ""
}

// single returns each disk once, in the order of the kernel's names. The kernel
// shows a disk that it reaches on two ways as two. To write to both would be to
// write two images to one disk. They are one if dm-multipath stands on both, or
// if all that they are known by is the same. The way with the first path by name
// is taken, which does not depend on kernel names. The others are its Others.
func single(disks []disk.Disk) (list []disk.Disk, notes []string) {
	disks = slices.Clone(disks)
	slices.SortFunc(disks, func(a, b disk.Disk) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), disk.CompareNames(a.Name, b.Name))
	})
	is := make([]int, len(disks)) // the first of the disks that are one with this
	how := make([]string, len(disks))
	for i, d := range disks {
		is[i] = i
		for j := range i {
			why := samePhysical(d, disks[j])
			if why == "" || is[i] == is[j] {
				continue
			}
			from, to := max(is[i], is[j]), min(is[i], is[j])
			for k := range i + 1 {
				if is[k] == from {
					is[k] = to
				}
			}
			how[from] = why
		}
	}
	for i, d := range disks {
		if is[i] == i {
			list = append(list, d)
			continue
		}
		at := slices.IndexFunc(list, func(x disk.Disk) bool { return x.Name == disks[is[i]].Name })
		join(&list[at], d)
		notes = append(notes, fmt.Sprintf("disk %s is another path to disk %s (%s): they are one disk, which is used as %s",
			d.Name, list[at].Name, how[i], list[at].Name))
	}
	slices.SortFunc(list, func(a, b disk.Disk) int { return disk.CompareNames(a.Name, b.Name) })
	return list, notes
}

// join adds to a disk the names of another path to it.
func join(to *disk.Disk, path disk.Disk) {
	to.Others = append(slices.Clone(to.Others), append([]string{path.Name}, path.Others...)...)
	to.Links = append(slices.Clone(to.Links), path.Links...)
}

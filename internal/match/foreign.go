package match

import (
	"slices"

	"testbox-imaging/internal/image"
)

// These rules are for images of another machine (Choice.Foreign). No WWN, serial or
// path says which of its disks is which of these. docs/matching.md has them in a table.

// byBuild pairs all images that are left if the box is built like the other machine.
// Then each image has a disk at the same path, of the same size, sector size and model.
// If one image has none, another one that has proves nothing.
func (m *matching) byBuild() {
	pairs := map[int]int{}
	for i := range m.images {
		if !m.openImage(i) {
			continue
		}
		d := slices.IndexFunc(m.dsk, func(d image.Identity) bool { return SamePath(m.img[i], d) && sameSize(m.img[i], d) })
		if d < 0 || !m.openDisk(d) || !m.chosen[d] || m.claimed(i, d) {
			return
		}
		pairs[i] = d
	}
	for i, d := range pairs {
		m.pair(i, d, "the box is built like the other machine, and this is the disk at the path "+m.img[i].Path)
	}
}

// bySize pairs an image and a disk that are the only ones of their size and sector size,
// of all images and disks that are left.
func (m *matching) bySize() {
	for i := range m.images {
		if !m.openImage(i) || m.img[i].SectorSize == 0 {
			continue
		}
		var images, disks []int
		for j := range m.images {
			if m.openImage(j) && sameSize(m.img[i], m.img[j]) {
				images = append(images, j)
			}
		}
		for d := range m.disks {
			if m.openDisk(d) && m.chosen[d] && sameSize(m.img[i], m.dsk[d]) {
				disks = append(disks, d)
			}
		}
		if len(images) == 1 && len(disks) == 1 && !m.claimed(i, disks[0]) {
			m.pair(i, disks[0], "it is the only disk of the image's size")
		}
	}
}

func sameSize(a, b image.Identity) bool { return a.Size == b.Size && a.SectorSize == b.SectorSize }

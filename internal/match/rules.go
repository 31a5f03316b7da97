package match

import (
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// The rules of Pairs, in the order in which they are tried. docs/matching.md
// numbers them: byIdentity is 1, byPath 2, byKernelName 3, lastOnes 4.

// byIdentity pairs what has the same WWN or serial. An image that two disks
// answer to, or a disk that two images do, is not certain.
func (m *matching) byIdentity() {
	images, disks := make([][]int, len(m.images)), make([][]int, len(m.disks))
	for i := range m.images {
		for d := range m.disks {
			if same(m.img[i], m.dsk[d]) != "" && !contradict(m.img[i], m.dsk[d]) {
				images[i] = append(images[i], d)
				disks[d] = append(disks[d], i)
			}
		}
	}
	for i, list := range images {
		switch {
		case len(list) == 1 && len(disks[list[0]]) == 1:
			m.pair(i, list[0], "same "+same(m.img[i], m.dsk[list[0]]))
		case len(list) > 0:
			m.done[i] = true
			m.fail("image %s fits more than one disk, or its disk more than one image, by WWN and serial", m.images[i].Name)
		}
	}
}

// byPath pairs what stands in the same place, unless something known of the
// two says that they differ.
func (m *matching) byPath() {
	for i := range m.images {
		for d := range m.disks {
			a, b := m.img[i], m.dsk[d]
			if m.openImage(i) && m.openDisk(d) && a.Path != "" && a.Path == b.Path &&
				!contradict(a, b) && !otherModel(a, b) && !m.claimed(i, d) {
				m.pair(i, d, "same path "+a.Path)
			}
		}
	}
}

// claimed reports whether another image has the disk's WWN or serial, or
// another disk the image's: then the two do not belong together, whatever else
// speaks for it.
func (m *matching) claimed(i, d int) bool {
	for j := range m.images {
		if j != i && same(m.img[j], m.dsk[d]) != "" {
			return true
		}
	}
	for e := range m.disks {
		if e != d && same(m.img[i], m.dsk[e]) != "" {
			return true
		}
	}
	return false
}

// checkFit looks at the pairs found so far. Those of disks that may not be
// written are given up. Those that do not fit are reasons to refuse.
func (m *matching) checkFit() {
	for i, f := range m.images {
		d := m.disk[i]
		switch {
		case d == none:
		case !m.chosen[d]:
			m.done[i], m.disk[i] = true, none
			m.excluded(f, m.disks[d], m.how[i])
		case !fits(m.img[i], m.dsk[d]):
			m.fail("image %s belongs to disk %s (%s), but %s", f.Name, m.disks[d].Name, m.how[i], misfit(m.img[i], m.dsk[d]))
		}
	}
}

// excluded says that an image belongs to a disk that may not be written. If
// the admin named disks, that is how it was meant; if not, a restore that
// leaves the image out would be incomplete.
func (m *matching) excluded(f image.Label, d disk.Disk, how string) {
	if m.named {
		m.note("image %s is skipped: it belongs to disk %s (%s), which is not among the named ones", f.Name, d.Name, how)
		return
	}
	_, why := Auto(d)
	m.fail("image %s belongs to disk %s (%s), which is not chosen by itself (%s); name the disks in disk-devices.lst", f.Name, d.Name, how,
		why)
}

// byKernelName pairs images and disks of the same name, if the admin named the
// disk by it.
func (m *matching) byKernelName() {
	for i, f := range m.images {
		for d, dk := range m.disks {
			if m.openImage(i) && m.openDisk(d) && m.chosen[d] && baseName(dk.Name) == f.Name &&
				slices.ContainsFunc(m.sel, dk.HasKernelName) && fits(m.img[i], m.dsk[d]) && !m.claimed(i, d) {
				m.pair(i, d, "the admin named disk "+dk.Name)
			}
		}
	}
}

// lastOnes pairs the only image and the only disk large enough that are left:
// a disk that was replaced, or an image without identity.
func (m *matching) lastOnes() {
	m.mayBeExcluded()
	var images, disks []int
	for i := range m.images {
		if m.openImage(i) {
			images = append(images, i)
		}
	}
	if len(images) != 1 {
		return
	}
	i := images[0]
	for d := range m.disks {
		if m.openDisk(d) && m.chosen[d] && fits(m.img[i], m.dsk[d]) {
			disks = append(disks, d)
		}
	}
	if len(disks) == 1 && !m.claimed(i, disks[0]) {
		m.pair(i, disks[0], "only this image and this disk are left")
	}
}

// mayBeExcluded gives up images that could be those of a disk that the admin did
// not name. Else an image without identity could be written to a named disk only
// because its own disk is not named.
func (m *matching) mayBeExcluded() {
	for i, f := range m.images {
		for d, dk := range m.disks {
			if m.openImage(i) && m.openDisk(d) && m.named && !m.chosen[d] && tangible(dk) && possible(m.img[i], m.dsk[d]) {
				m.done[i] = true
				m.note("image %s is skipped: it may be that of disk %s, which is not among the named ones", f.Name, dk.Name)
			}
		}
	}
}

// leftOver refuses for images that found no disk, and notes disks without one.
func (m *matching) leftOver() {
	disksLeft := 0
	for d := range m.disks {
		if m.openDisk(d) && m.chosen[d] {
			disksLeft++
			m.note("disk %s has no image and is left alone", m.disks[d])
		}
	}
	for i, f := range m.images {
		switch {
		case !m.openImage(i):
		case m.named && disksLeft == 0:
			m.note("image %s is skipped: its disk is not among the named ones", f.Name)
		case disksLeft == 0:
			m.fail("image %s has no disk", f.Name)
		default:
			m.fail("image %s: %s", f.Name, m.whyNot(i))
		}
	}
}

// whyNot says why none of the disks left took the image.
func (m *matching) whyNot(i int) string {
	var reasons []string
	fit := 0
	for d, dk := range m.disks {
		if !m.openDisk(d) || !m.chosen[d] {
			continue
		}
		if s := misfit(m.img[i], m.dsk[d]); s != "" {
			reasons = append(reasons, fmt.Sprintf("disk %s: %s", dk.Name, s))
		} else {
			fit++
		}
	}
	if fit > 0 {
		return "it is not certain which disk is its own; if the disks were replaced, name each in disk-devices.lst by the name of its image"
	}
	return strings.Join(reasons, ", ")
}

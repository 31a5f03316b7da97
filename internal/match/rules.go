package match

import (
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// The rules of Pairs follow in the order in which they are tried. In
// docs/matching.md byMap is rule 0, byIdentity 1, byPath 2, byKernelName 3,
// lastOnes 4.

// byIdentity pairs an image and a disk with the same WWN or serial. If an image
// fits two disks, or a disk fits two images, the answer is not certain, and
// Pairs fails.
func (m *matching) byIdentity() {
	images, disks := make([][]int, len(m.images)), make([][]int, len(m.disks))
	for i := range m.images {
		for d := range m.disks {
			if m.openImage(i) && m.openDisk(d) && same(m.img[i], m.dsk[d]) != "" && !contradict(m.img[i], m.dsk[d]) {
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

// byPath pairs an image and a disk with the same path, unless something known
// of the two says that they differ.
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
// another disk has the image's. Then the two do not belong together, whatever
// else suggests it.
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

// checkFit checks the pairs found so far. A pair whose disk may not be written
// is given up. A pair that does not fit is a reason to refuse.
func (m *matching) checkFit() {
	for i, f := range m.images {
		d := m.disk[i]
		switch {
		case d == none:
		case !m.chosen[d]:
			m.done[i], m.disk[i] = true, none
			m.excluded(f, m.disks[d], m.how[i])
		case m.mapped[f.Name] != "": // byMap has checked it
		case !m.fits(i, d):
			m.fail("image %s belongs to disk %s (%s), but %s", f.Name, m.disks[d].Name, m.how[i], m.misfit(i, d))
		}
	}
}

// excluded says that an image belongs to a disk that may not be written. If the
// admin named disks, this is what the admin wanted, and a note is enough. If
// not, a restore without this image would be incomplete, and Pairs fails.
func (m *matching) excluded(f image.Label, d disk.Disk, how string) {
	if m.named {
		m.note("image %s is skipped: it belongs to disk %s (%s), which is not among the named ones", f.Name, d.Name, how)
		return
	}
	_, why := Auto(d)
	m.fail("image %s belongs to disk %s (%s), which is not chosen by itself (%s); name the disks in disk-devices.lst", f.Name, d.Name, how,
		why)
}

// byKernelName pairs an image and a disk of the same name, if the admin named
// the disk by its kernel name.
func (m *matching) byKernelName() {
	for d, dk := range m.disks {
		var images []int
		for i, f := range m.images {
			if m.openImage(i) && m.openDisk(d) && m.chosen[d] && called(dk, f.Name) &&
				slices.ContainsFunc(m.sel, dk.HasKernelName) && m.fits(i, d) && !m.claimed(i, d) {
				images = append(images, i)
			}
		}
		if len(images) == 1 { // a disk with two paths has two kernel names
			m.pair(images[0], d, "the admin named disk "+dk.Name)
		}
	}
}

// called reports whether the kernel calls the disk by the name of an image.
func called(d disk.Disk, name string) bool {
	return baseName(d.Name) == name || slices.ContainsFunc(d.Others, func(s string) bool { return baseName(s) == name })
}

// lastOnes pairs the only image and the only large enough disk that are left.
// This finds a disk that was replaced, and the disk of an image without
// identity.
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
		// Of this machine's own image, a disk that is too small says nothing. Of another
		// machine's, it may be the one that was meant.
		if m.openDisk(d) && m.chosen[d] && (m.other || m.fits(i, d)) {
			disks = append(disks, d)
		}
	}
	if len(disks) == 1 && m.fits(i, disks[0]) && !m.claimed(i, disks[0]) {
		m.pair(i, disks[0], "only this image and this disk are left")
	}
}

// mayBeExcluded gives up images that may belong to a disk that the admin did
// not name. Otherwise an image without identity could be written to a named
// disk only because its own disk is not named.
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

// leftOver refuses if images are left without a disk, and adds a note for each
// disk left without an image.
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

// whyNot says why the image was matched with none of the disks that are left.
func (m *matching) whyNot(i int) string {
	var reasons []string
	fit := 0
	for d, dk := range m.disks {
		if !m.openDisk(d) || !m.chosen[d] {
			continue
		}
		if s := m.misfit(i, d); s != "" {
			reasons = append(reasons, fmt.Sprintf("disk %s: %s", dk.Name, s))
		} else {
			fit++
		}
	}
	if fit > 0 && m.other {
		return "it is of another machine, and it is not certain which disk it is meant for; " +
			"say so, as in --map IMAGE=DISK, or name the disks that are meant"
	}
	if fit > 0 {
		return fmt.Sprintf("it is not certain which disk is its own; if the disks were replaced, say where the images go, as in --map %s=DISK, "+
			"or name each disk in disk-devices.lst by the name of its image", m.images[i].Name)
	}
	return strings.Join(reasons, ", ")
}

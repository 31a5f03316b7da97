package disk

import (
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/image"
)

// Pair is an image and the disk it belongs on.
type Pair struct {
	Image    *image.Facts
	Disk     Disk
	Accepted string // by what the two belong together, for the log
}

// MatchError says why images and disks were not matched, and what was seen.
// Nothing may be written then.
type MatchError struct {
	Why    []string // each a reason
	Images []string // each image as its facts say it
	Disks  []string // each disk as it is now
}

func (e *MatchError) Error() string {
	return fmt.Sprintf("the images cannot be matched with the disks: %s; images: %s; disks: %s",
		strings.Join(e.Why, "; "), orNone(e.Images), orNone(e.Disks))
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// Match says which image belongs on which disk, by the rules of
// docs/matching.md. disks are all that the box has, c those that may be
// written. An image without a sidecar has no identity: its facts are its name
// and, if known, its size. It gives the pairs in the order of the images'
// names, and notes for the log; or a *MatchError, if the answer is not certain or a pair
// does not fit. It changes nothing, and its answer does not depend on the
// order of its arguments.
func Match(images []*image.Facts, disks []Disk, c Choice) ([]Pair, []string, error) {
	m := newMatching(images, disks, c)
	m.checkInput()
	m.byIdentity()
	m.byPath()
	m.checkFit()
	m.byKernelName()
	m.lastOnes()
	m.leftOver()
	if len(m.pairs()) == 0 && len(m.why) == 0 {
		m.fail("no image belongs to a disk that is to be written")
	}
	if len(m.why) > 0 {
		return nil, m.notes, m.refusal()
	}
	return m.pairs(), m.notes, nil
}

// matching is the state of one Match. Images and disks are known by index.
type matching struct {
	images []*image.Facts
	disks  []Disk
	named  bool
	sel    Selection
	chosen []bool           // by disk
	img    []image.Identity // of the images, without identities that two of them have
	dsk    []image.Identity // of the disks, likewise
	disk   []int            // by image: its disk, or none
	image  []int            // by disk: its image, or none
	how    []string         // by image: Pair.Accepted
	done   []bool           // by image: settled without a pair; a note or a reason says so
	notes  []string
	why    []string
}

const none = -1

func newMatching(images []*image.Facts, disks []Disk, c Choice) *matching {
	m := &matching{
		images: slices.Clone(images), disks: slices.Clone(disks), named: c.Named(), sel: c.sel,
		chosen: make([]bool, len(disks)),
		disk:   slices.Repeat([]int{none}, len(images)), image: slices.Repeat([]int{none}, len(disks)),
		how: make([]string, len(images)), done: make([]bool, len(images)),
	}
	slices.SortFunc(m.images, func(a, b *image.Facts) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(m.disks, func(a, b Disk) int { return compareNames(a.Name, b.Name) })
	for i, d := range m.disks {
		m.chosen[i] = slices.ContainsFunc(c.Disks, func(x Disk) bool { return x.Name == d.Name })
	}
	for _, f := range m.images {
		m.img = append(m.img, f.Disk)
	}
	for _, d := range m.disks {
		m.dsk = append(m.dsk, d.Identity)
	}
	m.img, m.dsk = unique(m.img), unique(m.dsk)
	return m
}

func (m *matching) fail(format string, args ...any) {
	m.why = append(m.why, fmt.Sprintf(format, args...))
}
func (m *matching) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

func (m *matching) checkInput() {
	if len(m.images) == 0 {
		m.fail("there is no image")
	}
	for i := 1; i < len(m.images); i++ {
		if m.images[i].Name == m.images[i-1].Name {
			m.fail("two images are called %s", m.images[i].Name)
		}
	}
}

func (m *matching) pair(i, d int, how string) {
	m.disk[i], m.image[d], m.how[i] = d, i, how
}

// open reports whether image and disk are still to be matched.
func (m *matching) openImage(i int) bool { return m.disk[i] == none && !m.done[i] }
func (m *matching) openDisk(d int) bool  { return m.image[d] == none }

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
				!contradict(a, b) && !otherModel(a, b) && fits(a, b) && !m.claimed(i, d) {
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

// checkFit settles the pairs found so far: those of disks that may not be
// written are given up, and those that do not fit are reasons to refuse.
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
func (m *matching) excluded(f *image.Facts, d Disk, how string) {
	if m.named {
		m.note("image %s is skipped: it belongs to disk %s (%s), which is not among the named ones", f.Name, d.Name, how)
		return
	}
	_, why := Auto(d)
	m.fail("image %s belongs to disk %s (%s), which is not chosen by itself (%s); name the disks in disk-devices.lst", f.Name, d.Name, how, why)
}

// byKernelName pairs images and disks of the same name, if the admin named the
// disk by it.
func (m *matching) byKernelName() {
	for i, f := range m.images {
		for d, dk := range m.disks {
			if m.openImage(i) && m.openDisk(d) && m.chosen[d] && baseName(dk.Name) == f.Name &&
				slices.ContainsFunc(m.sel, dk.kernelNamed) && fits(m.img[i], m.dsk[d]) && !m.claimed(i, d) {
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

// mayBeExcluded gives up images that could be those of a disk that the admin
// left out: an image without identity must not end on a named disk because
// its own is not named.
func (m *matching) mayBeExcluded() {
	for i, f := range m.images {
		for d, dk := range m.disks {
			auto, _ := Auto(dk)
			if m.openImage(i) && m.openDisk(d) && m.named && !m.chosen[d] && auto && possible(m.img[i], m.dsk[d]) {
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

func (m *matching) pairs() []Pair {
	var list []Pair
	for i, f := range m.images {
		if d := m.disk[i]; d != none {
			list = append(list, Pair{Image: f, Disk: m.disks[d], Accepted: m.how[i]})
		}
	}
	return list
}

func (m *matching) refusal() error {
	e := &MatchError{Why: m.why}
	for _, f := range m.images {
		e.Images = append(e.Images, fmt.Sprintf("%s (%s)", f.Name, f.Disk))
	}
	for d, dk := range m.disks {
		if auto, _ := Auto(dk); auto || m.chosen[d] {
			e.Disks = append(e.Disks, dk.String())
		}
	}
	return e
}

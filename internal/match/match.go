// Package match says which image belongs on which disk, what images are called,
// and which disks an action uses. It is pure logic on what is known of disks
// and images, and opens no device and no file. docs/matching.md has its rules
// as tables.
package match

import (
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// Pair is an image and the disk it belongs on.
type Pair struct {
	Image    image.Label
	Disk     disk.Disk
	Accepted string // why the two belong together, for the log
}

// Error says why images and disks were not matched, and lists both. Nothing may
// be written then.
type Error struct {
	Why    []string // the reasons
	Images []string // each image, described by what is known of it
	Disks  []string // each disk as it is now
}

func (e *Error) Error() string {
	return fmt.Sprintf("the images cannot be matched with the disks: %s; images: %s; disks: %s",
		strings.Join(e.Why, "; "), orNone(e.Images), orNone(e.Disks))
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// Pairs says which image belongs on which disk, by the rules of
// docs/matching.md. disks are all disks of the box, and c has those that may be
// written. Of an image without a sidecar, only the name and perhaps the size
// are known. Pairs returns the pairs in the order of the images' names, and
// notes for the log. If the answer is not certain, or if a pair does not fit,
// the error is an *Error. The answer does not depend on the order of the
// arguments.
func Pairs(images []image.Label, disks []disk.Disk, c Choice) ([]Pair, []string, error) {
	m := newMatching(images, disks, c)
	m.checkInput()
	m.byMap()
	m.byIdentity()
	if c.Foreign {
		m.byBuild()
		m.bySize()
	} else {
		m.byPath()
	}
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

// matching is the state of one call of Pairs or Names. Images and disks are
// known by index.
type matching struct {
	images []image.Label
	disks  []disk.Disk
	named  bool
	sel    Selection
	other  bool              // the images are another machine's
	mapped map[string]string // Choice.mapped
	shrink bool              // Choice.Shrink
	chosen []bool            // by disk
	img    []image.Identity  // of the images, after unique
	dsk    []image.Identity  // of the disks, after unique
	disk   []int             // by image: its disk, or none
	image  []int             // by disk: its image, or none
	how    []string          // by image: Pair.Accepted
	done   []bool            // by image: it gets no disk, and a note or a reason already says so
	notes  []string
	why    []string
}

const none = -1

func newMatching(images []image.Label, disks []disk.Disk, c Choice) *matching {
	disks, _ = single(disks)
	m := &matching{
		images: slices.Clone(images), disks: disks, named: c.Named(), sel: c.sel, mapped: c.mapped, shrink: c.Shrink, other: c.Foreign,
		chosen: make([]bool, len(disks)),
		disk:   slices.Repeat([]int{none}, len(images)), image: slices.Repeat([]int{none}, len(disks)),
		how: make([]string, len(images)), done: make([]bool, len(images)),
	}
	slices.SortFunc(m.images, func(a, b image.Label) int { return disk.CompareNames(a.Name, b.Name) })
	slices.SortFunc(m.disks, func(a, b disk.Disk) int { return disk.CompareNames(a.Name, b.Name) })
	for i, d := range m.disks {
		m.chosen[i] = slices.ContainsFunc(c.Disks, func(x disk.Disk) bool { return x.Name == d.Name })
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

// openImage and openDisk report whether an image or a disk is still to be
// matched.
func (m *matching) openImage(i int) bool { return m.disk[i] == none && !m.done[i] }
func (m *matching) openDisk(d int) bool  { return m.image[d] == none }

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
	e := &Error{Why: m.why}
	for _, f := range m.images {
		e.Images = append(e.Images, describeImage(f))
	}
	for d, dk := range m.disks {
		if tangible(dk) || m.chosen[d] {
			e.Disks = append(e.Disks, dk.String())
		}
	}
	return e
}

func describeImage(f image.Label) string {
	switch {
	case f.Disk.SectorSize != 0:
		return fmt.Sprintf("%s (%s)", f.Name, f.Disk)
	case f.Disk.Size != 0:
		return fmt.Sprintf("%s (no sidecar, %d bytes)", f.Name, f.Disk.Size)
	}
	return fmt.Sprintf("%s (no sidecar)", f.Name)
}

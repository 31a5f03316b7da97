package match

import (
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// Mapping is the admin's word that an image belongs on a disk, such as
// "sda=nvme0n1".
type Mapping struct {
	Image string // the image's name
	Disk  string // spelled as in disk-devices.lst
}

func (m Mapping) String() string { return m.Image + "=" + m.Disk }

// ParseMap reads items of the form IMAGE=DISK. An image may be there once. That
// two items mean one disk is found only by Choose.
func ParseMap(items []string) ([]Mapping, error) {
	if len(items) > maxListItems {
		return nil, fmt.Errorf("more than %d images are mapped", maxListItems)
	}
	var list []Mapping
	for _, item := range items {
		name, to, ok := strings.Cut(item, "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("%q does not say where the image goes; write IMAGE=DISK, such as sda=nvme0n1", item)
		case !image.ValidName(name):
			return nil, fmt.Errorf("%q is not the name of an image; write IMAGE=DISK, such as sda=nvme0n1", name)
		case slices.ContainsFunc(list, func(m Mapping) bool { return m.Image == name }):
			return nil, fmt.Errorf("image %s is mapped twice", name)
		}
		if err := validItem(to); err != nil {
			return nil, fmt.Errorf("%s: %w", item, err)
		}
		list = append(list, Mapping{name, to})
	}
	return list, nil
}

// resolve finds the disks that a map names. They are added to take, which has
// those that are chosen otherwise, by kernel name. If the admin named disks, a
// map must stay within them, since a disk may be left out because it must not be
// written.
func (c *Choice) resolve(disks []disk.Disk, maps []Mapping, take map[string]bool) error {
	by := map[string]string{} // which image goes to a disk
	c.mapped = map[string]string{}
	for _, m := range maps {
		d, err := find(disks, m.Disk)
		switch {
		case err != nil:
			return fmt.Errorf("the map %s: %w", m, err)
		case d == nil:
			return fmt.Errorf("the map %s: no disk is called %s; the box has %s", m, m.Disk, seen(disks))
		case by[d.Name] != "":
			return fmt.Errorf("the map gives disk %s two images, %s and %s", d.Name, by[d.Name], m.Image)
		case c.Named() && !take[d.Name]:
			return fmt.Errorf("the map %s: disk %s is not among the named ones (%s); name it there too, or name none", m, d.Name,
				strings.Join(c.sel, ", "))
		}
		by[d.Name], c.mapped[m.Image] = m.Image, d.Name
	}
	for name := range by {
		take[name] = true
	}
	return nil
}

// byMap pairs what the admin mapped. That outranks all rules. But a disk that is
// known as the disk of another image is only taken if the admin says where that
// other image goes too, because one of the two would be a mistake otherwise.
func (m *matching) byMap() {
	var given []int
	for name := range m.mapped {
		i := slices.IndexFunc(m.images, func(f image.Label) bool { return f.Name == name })
		d := slices.IndexFunc(m.disks, func(d disk.Disk) bool { return d.Name == m.mapped[name] })
		if i < 0 || d < 0 { // Choose has found the disk
			m.fail("image %s is mapped, and there is no such image", name)
			continue
		}
		m.pair(i, d, "the admin mapped it so")
		given = append(given, i)
	}
	slices.Sort(m.why)
	slices.Sort(given)
	for _, i := range given {
		m.checkMapped(i, m.disk[i])
	}
}

// checkMapped refuses a mapped pair that does not fit, or whose disk is another
// image's.
func (m *matching) checkMapped(i, d int) {
	name, to := m.images[i].Name, m.disks[d].Name
	if why := m.misfit(i, d); why != "" {
		m.fail("image %s is mapped to disk %s, but %s", name, to, why)
	}
	for j, other := range m.images {
		if how := same(m.img[j], m.dsk[d]); j != i && how != "" && m.mapped[other.Name] == "" {
			m.fail("image %s is mapped to disk %s, which is known as the disk of image %s (same %s); if it is meant so, "+
				"say where image %s goes too: --map %s=%s,%s=DISK", name, to, other.Name, how, other.Name, name, to, other.Name)
		}
	}
	for e, own := range m.disks {
		if how := same(m.img[i], m.dsk[e]); e != d && how != "" {
			m.note("image %s goes to disk %s because it is mapped so, although it seems to be of disk %s (same %s)", name, to, own.Name, how)
		}
	}
}

package match

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"testbox-imaging/internal/disk"
)

// Limits of disk-devices.lst.
const (
	maxListSize  = 64 << 10 // bytes
	maxListItems = 256
	maxItem      = 255 // bytes
)

// Selection is the disks that the admin named. Each item is a kernel name, a
// path below /dev, a by-id or by-path link, a serial or a World Wide Name. If
// the Selection is empty, the disks are chosen by the rules of Auto.
type Selection []string

// ParseList reads disk-devices.lst. Blanks, commas or line ends separate its
// items. A '#' at the start of a word starts a comment. The byte order mark
// that some editors put at the beginning is skipped. A list without an item is
// an error, since a full share or an editor that crashed can leave an empty
// file. Only if there is no list at all, all disks are meant.
func ParseList(data []byte) (Selection, error) {
	if len(data) > maxListSize {
		return nil, fmt.Errorf("disk-devices.lst is larger than %d bytes", maxListSize)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var sel Selection
	for i, line := range bytes.Split(data, []byte("\n")) {
		for _, word := range strings.FieldsFunc(string(line), func(r rune) bool { return strings.ContainsRune(" \t\r,", r) }) {
			if word[0] == '#' {
				break
			}
			if err := validItem(word); err != nil {
				return nil, fmt.Errorf("disk-devices.lst, line %d: %w", i+1, err)
			}
			sel = append(sel, word)
		}
	}
	if len(sel) == 0 {
		return nil, errors.New("disk-devices.lst names no disk; write the disks into it, or remove it to have the disks chosen by themselves")
	}
	if len(sel) > maxListItems {
		return nil, fmt.Errorf("disk-devices.lst names more than %d disks", maxListItems)
	}
	return sel, nil
}

// Select makes a Selection of items from the kernel command line, which are
// spelled as in disk-devices.lst.
func Select(items []string) (Selection, error) {
	if len(items) > maxListItems {
		return nil, fmt.Errorf("more than %d disks are named", maxListItems)
	}
	for _, s := range items {
		if err := validItem(s); err != nil {
			return nil, err
		}
	}
	return slices.Clone(items), nil
}

func validItem(s string) error {
	switch {
	case s == "":
		return errors.New("a disk's name is empty")
	case len(s) > maxItem:
		return fmt.Errorf("a disk's name is longer than %d bytes", maxItem)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%q has characters that no disk's name has", s)
	case strings.HasPrefix(s, "/") && (path.Clean(s) != s || !strings.HasPrefix(s, "/dev/")):
		return fmt.Errorf("%s is not the path of a device below /dev", s)
	}
	return nil
}

// Named reports whether the admin named disks.
func (sel Selection) Named() bool { return len(sel) > 0 }

// Choice is the disks that an action takes.
type Choice struct {
	Disks   []disk.Disk // the disks in the order of their kernel names, one that is seen by two paths once
	Notes   []string    // lines for the log, which say what was left out and why
	Missing []string    // items that the admin named and that no disk has, which the result must say
	Foreign bool        // the images are of another machine, whose disks these are not; Choose does not set it
	// Shrink says that a disk may be smaller than its image. Whether nothing gets lost
	// there is for others to prove. Choose does not set it.
	Shrink bool
	sel    Selection
	mapped map[string]string // kernel names of disks, by the name of the image that the admin mapped there
}

// Named reports whether the admin named the disks.
func (c Choice) Named() bool { return c.sel.Named() }

// Choose returns the disks that an action uses. Without a selection, Auto
// chooses them. An item of the selection that no disk has is added to Missing.
// It is an error if an item means two disks, a partition, or a drive without
// medium, and also if no disk is chosen at all. Disks to which the admin maps an
// image are chosen too. The Notes are valid beside an error too.
func Choose(disks []disk.Disk, sel Selection, maps ...Mapping) (Choice, error) {
	c := Choice{sel: sel}
	take := map[string]bool{}
	disks, c.Notes = single(disks)
	if !sel.Named() {
		if err := c.resolve(disks, maps, take); err != nil {
			return c, err
		}
		return c, c.auto(disks, take)
	}
	for _, item := range sel {
		d, err := find(disks, item)
		if err != nil {
			return c, err
		}
		if d == nil {
			c.Missing = append(c.Missing, item)
			c.Notes = append(c.Notes, fmt.Sprintf("no disk is called %s: skipped", item))
			continue
		}
		if take[d.Name] {
			c.Notes = append(c.Notes, fmt.Sprintf("disk %s is named more than once, also as %s", d.Name, item))
		}
		take[d.Name] = true
	}
	if err := c.resolve(disks, maps, take); err != nil {
		return c, err
	}
	for _, d := range disks {
		if take[d.Name] {
			c.Disks = append(c.Disks, d)
		} else if auto, _ := Auto(d); auto {
			c.Notes = append(c.Notes, fmt.Sprintf("disk %s is left alone: other disks are named", d))
		}
	}
	if len(c.Disks) == 0 {
		return c, fmt.Errorf("none of the named disks (%s) is there; the box has %s", strings.Join(sel, ", "), seen(disks))
	}
	return c, nil
}

// auto chooses disks by Auto, and those of take.
func (c *Choice) auto(disks []disk.Disk, take map[string]bool) error {
	for _, d := range disks {
		auto, why := Auto(d)
		switch {
		case auto || take[d.Name]:
			c.Disks = append(c.Disks, d)
		case d.Size > 0: // empty drives and unused loop devices would fill the log
			c.Notes = append(c.Notes, fmt.Sprintf("disk %s is not chosen by itself: %s", d, why))
		}
	}
	if len(disks) == 0 {
		return errors.New("the maintenance system sees no disk: the driver of the box's disk controller is missing, or the box has none")
	}
	if len(c.Disks) == 0 {
		return fmt.Errorf("no disk of the box is chosen by itself (it has %s); name those that are meant in disk-devices.lst", seen(disks))
	}
	return nil
}

// partSuffix matches the end of udev's names of partitions.
var partSuffix = regexp.MustCompile(`-part\d+$`)

// find returns the one disk that item means, or nil if there is none.
func find(disks []disk.Disk, item string) (*disk.Disk, error) {
	var found []disk.Disk
	for _, d := range disks {
		if d.HasName(item) {
			found = append(found, d)
		}
		whole := partSuffix.ReplaceAllString(item, "")
		if slices.Contains(d.Parts, strings.TrimPrefix(item, "/dev/")) || whole != item && d.HasName(whole) {
			return nil, fmt.Errorf("%s is a partition; name its disk, %s", item, d.Name)
		}
	}
	switch {
	case len(found) > 1:
		return nil, fmt.Errorf("%s names more than one disk (%s); use a name that only one has", item, seen(found))
	case len(found) == 0:
		return nil, nil
	case found[0].Size == 0:
		return nil, fmt.Errorf("disk %s is named, but has no medium (size 0)", found[0].Name)
	}
	return &found[0], nil
}

// seen lists disks for a message, without drives that are empty and devices
// that are not hardware.
func seen(disks []disk.Disk) string {
	var s []string
	for _, d := range disks {
		if tangible(d) {
			s = append(s, d.String())
		}
	}
	if len(s) == 0 {
		return "no disks"
	}
	return strings.Join(s, ", ")
}

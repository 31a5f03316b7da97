package lvm

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"testbox-imaging/internal/image"
)

// group is a volume group of one disk.
type group struct {
	name     string
	exported bool
	pv       string // the disk's name in the metadata: "pv0"
	extent   int64  // bytes of an extent
	start    int64  // byte of the first extent
	count    int64  // extents
	devSize  int64  // sectors; 0 if the metadata are older than this field
	text     *section
	lvs      []LV
}

// The known status flags (lib/format_text/flags.c), each with the doubt that it
// means, or "" for none. READ and WRITE are permissions. RESIZEABLE and
// ALLOCATABLE say what commands may do. WRITE_LOCKED keeps an old LVM from
// writing. NOAUTOACTIVATE turns automatic activation off. EXPORTED marks a
// group that is to be moved to another machine, whose volumes stay as they
// were.
var (
	groupFlags = map[string]string{
		"READ": "", "WRITE": "", "RESIZEABLE": "", "EXPORTED": "", "WRITE_LOCKED": "", "NOAUTOACTIVATE": "",
		"CLUSTERED": shared, "SHARED": shared,
		"PVMOVE":  "pvmove is moving extents of the volume group",
		"PARTIAL": "the volume group was written with disks missing",
	}
	pvFlags = map[string]string{
		"ALLOCATABLE": "", "EXPORTED": "",
		"MISSING": "the volume group has marked this disk as missing",
	}
)

// shared is a doubt, since other machines may write to the group while its
// image is made.
const shared = "the volume group is shared with other machines"

// groupSections are the known sections of a group. The historical volumes are
// names of thin volumes that were removed.
var groupSections = []string{"physical_volumes", "logical_volumes", "historical_logical_volumes"}

// readGroup reads the metadata of the group of the physical volume with this
// UUID. Beside an error the group may be there, for its name.
func readGroup(root *section, uuid string) (*group, error) {
	if contents, err := root.str("contents"); err != nil || contents != "Text Format Volume Group" {
		return nil, fmt.Errorf("the metadata have the unknown contents %.40q", contents)
	}
	if version, err := root.num("version", math.MaxInt32); err != nil || version != 1 {
		return nil, fmt.Errorf("the metadata have the unknown version %d", version)
	}
	g := &group{}
	for _, e := range root.entries {
		if e.sub == nil {
			continue
		}
		if g.text != nil {
			return nil, fmt.Errorf("the metadata have the two volume groups %.128q and %.128q", g.name, e.key)
		}
		g.name, g.text = e.key, e.sub
	}
	if g.text == nil {
		return nil, fmt.Errorf("the metadata have no volume group")
	}
	return g, g.read(uuid)
}

func (g *group) read(uuid string) error {
	for _, e := range g.text.entries {
		if e.sub != nil && !slices.Contains(groupSections, e.key) {
			return fmt.Errorf("the volume group has the unknown section %.40q", e.key)
		}
	}
	flags, err := flagsOf(g.text)
	if err != nil {
		return err
	}
	if err := allow("volume group", flags, groupFlags); err != nil {
		return err
	}
	g.exported = slices.Contains(flags, "EXPORTED")
	// A lock type other than "none" is one of lvmlockd, for groups that several
	// machines may use.
	if lock, err := g.text.str("lock_type"); g.text.entry("lock_type") != nil && (err != nil || lock != "none") {
		return errors.New(shared)
	}
	if _, err := g.text.num("seqno", math.MaxUint32); err != nil {
		return err
	}
	sectors, err := g.text.num("extent_size", math.MaxUint32)
	if err != nil || sectors == 0 {
		return fmt.Errorf("the volume group has extents of %d sectors (%v)", sectors, err)
	}
	g.extent = sectors * sector
	return g.readPV(uuid)
}

// flagsOf returns the flags of both lists: first those of "status", which an
// older LVM must understand, then those of "flags", which it may ignore.
func flagsOf(s *section) ([]string, error) {
	status, err := s.strs("status")
	if err != nil || s.entry("flags") == nil {
		return status, err
	}
	flags, err := s.strs("flags")
	return append(status, flags...), err
}

// allow returns an error for the first flag that is unknown or makes doubt.
func allow(what string, flags []string, known map[string]string) error {
	for _, f := range flags {
		if why, ok := known[f]; !ok {
			return fmt.Errorf("the %s has the unknown flag %.40q", what, f)
		} else if why != "" {
			return errors.New(why)
		}
	}
	return nil
}

// readPV reads the one physical volume of the group.
func (g *group) readPV(uuid string) error {
	disks := g.text.section("physical_volumes")
	if disks == nil || len(disks.entries) == 0 {
		return fmt.Errorf("the volume group has no disk")
	}
	if n := len(disks.entries); n > 1 {
		return fmt.Errorf("it is one of the %d disks of a volume group", n)
	}
	g.pv = disks.entries[0].key
	disk := disks.entries[0].sub
	if disk == nil {
		return fmt.Errorf("the metadata have no section of the disk")
	}
	if id, err := disk.str("id"); err != nil || id != uuid {
		return fmt.Errorf("the metadata are those of the physical volume %.40q, this is %q", id, uuid)
	}
	flags, err := flagsOf(disk)
	if err != nil {
		return err
	}
	if err := allow("disk", flags, pvFlags); err != nil {
		return err
	}
	return g.readSizes(disk)
}

func (g *group) readSizes(disk *section) (err error) {
	if disk.entry("dev_size") != nil {
		if g.devSize, err = disk.num("dev_size", math.MaxInt64/sector); err != nil {
			return err
		}
	}
	first, err := disk.num("pe_start", math.MaxInt64/sector)
	if err != nil {
		return err
	}
	g.start = first * sector
	g.count, err = disk.num("pe_count", math.MaxUint32)
	return err
}

// extents returns the bytes of n extents from number first on. It fails if the
// disk does not have them.
func (g *group) extents(first, n int64) (image.Range, error) {
	if n <= 0 || n > g.count-first {
		return image.Range{}, fmt.Errorf("there are no %d extents from extent %d on, the disk has %d", n, first, g.count)
	}
	return image.Range{Off: g.start + first*g.extent, Len: n * g.extent}, nil
}

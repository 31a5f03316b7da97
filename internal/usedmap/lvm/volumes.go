package lvm

import (
	"fmt"
	"slices"
)

// plainFlags are the flags (lib/format_text/flags.c) with which a volume's
// content is still what its blocks say: permissions, a fixed device number,
// visibility, and what keeps it from being activated by itself.
var plainFlags = []string{"READ", "WRITE", "WRITE_LOCKED", "FIXED_MINOR", "VISIBLE", "ACTIVATION_SKIP", "NOAUTOACTIVATE"}

// otherFlags make a volume used: extents that move (LOCKED, PVMOVE), mirrors
// that are not the same (NOTSYNCED, REBUILD, RESHAPE...), pools, caches. A flag
// of neither list is doubt: of the volume if it is among its "flags", which
// every LVM passes over, else of all.
var otherFlags = []string{"PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "WRITEMOSTLY", "ERROR_WHEN_FULL", "CACHE_VOL", "RESHAPE",
	"RESHAPE_DATA_OFFSET", "RESHAPE_DELTA_DISKS_PLUS", "RESHAPE_DELTA_DISKS_MINUS", "REMOVE_AFTER_RESHAPE", "METADATA_FORMAT",
	"CROP_METADATA", "CACHE_USES_CACHEVOL"}

// volumeKeys are the settings that are known to be without meaning for the
// place of a volume's bytes.
var volumeKeys = []string{"id", "status", "flags", "tags", "creation_time", "creation_host", "lock_args", "allocation_policy", "profile",
	"read_ahead", "major", "minor", "segment_count"}

// volumes reads the logical volumes, with the reason for each that is not to
// be looked at.
func (g *group) volumes() ([]LV, error) {
	all := g.text.section("logical_volumes")
	if all == nil {
		if g.text.entry("logical_volumes") != nil {
			return nil, fmt.Errorf("the metadata have no section of the logical volumes")
		}
		return nil, nil
	}
	named := map[string]string{} // volumes that others name, and by whom
	for _, e := range all.entries {
		if e.sub == nil {
			return nil, fmt.Errorf("the logical volume %.128q has no section", e.key)
		}
		for _, set := range e.sub.entries {
			if !slices.Contains(volumeKeys, set.key) {
				g.mentions(set, e.key, all, named)
			}
		}
	}
	for _, e := range all.entries {
		lv, err := g.volume(e.key, e.sub, all)
		if err != nil {
			return nil, fmt.Errorf("logical volume %.128q: %w", e.key, err)
		}
		if by, ok := named[e.key]; ok {
			lv.because(fmt.Sprintf("the logical volume %.128q is made of it, or shares its blocks", by))
		}
		g.lvs = append(g.lvs, *lv)
	}
	return g.lvs, nil
}

// mentions notes the names of other volumes among all strings of a setting or
// a segment, by whatever key: origin, cow_store, merging_store,
// external_origin, pool, metadata, mirror_log, and those that are still to
// come. A type is no name, and in a list of stripes LVM takes the name of a
// disk for the disk.
func (g *group) mentions(e entry, by string, all *section, named map[string]string) {
	if e.sub != nil {
		for _, in := range e.sub.entries {
			g.mentions(in, by, all, named)
		}
	}
	for _, v := range e.values {
		switch {
		case v.number, e.key == "type", v.text == by, e.key == "stripes" && v.text == g.pv:
		case all.entry(v.text) != nil:
			named[v.text] = by
		}
	}
}

// volume reads one logical volume.
func (g *group) volume(name string, s, all *section) (*LV, error) {
	lv := &LV{Name: name}
	var err error
	if lv.UUID, err = s.str("id"); err != nil {
		return nil, err
	}
	if err = lv.flags(s); err != nil {
		return nil, err
	}
	var segments []*section
	for _, e := range s.entries {
		switch {
		case e.sub != nil: // LVM takes all sections for segments
			segments = append(segments, e.sub)
		case !slices.Contains(volumeKeys, e.key):
			lv.because(fmt.Sprintf("it has the unknown setting %.40q", e.key))
		}
	}
	if n, err := s.num("segment_count", maxEntries); err != nil || n != int64(len(segments)) || n == 0 {
		return nil, fmt.Errorf("it has %d segments, and %d by its count (%v)", len(segments), n, err)
	}
	return lv, g.segments(lv, segments, all)
}

// flags gives the reason not to look at a volume that is in its flags.
func (lv *LV) flags(s *section) error {
	flags, err := flagsOf(s)
	if err != nil {
		return err
	}
	status, _ := s.strs("status")
	for i, f := range flags {
		switch {
		case slices.Contains(plainFlags, f):
		case slices.Contains(otherFlags, f):
			lv.because("it is marked as " + f)
		case i < len(status):
			return fmt.Errorf("it has the unknown flag %.40q", f)
		default:
			lv.because(fmt.Sprintf("it has the unknown flag %.40q", f))
		}
	}
	if !slices.Contains(status, "VISIBLE") {
		lv.because("it is hidden")
	}
	return nil
}

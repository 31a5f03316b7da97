package lvm

import (
	"fmt"
	"slices"
)

// plainFlags are the flags (lib/format_text/flags.c) that do not change how a
// volume's content is stored: permissions, a fixed device number, visibility,
// and limits on automatic activation.
var plainFlags = []string{"READ", "WRITE", "WRITE_LOCKED", "FIXED_MINOR", "VISIBLE", "ACTIVATION_SKIP", "NOAUTOACTIVATE"}

// otherFlags make all of a volume used: extents that are being moved (LOCKED,
// PVMOVE), mirrors that differ (NOTSYNCED, REBUILD, RESHAPE...), pools, caches.
// A flag in neither list makes doubt. If it is in the list "flags", which every
// LVM ignores, the doubt is only about the volume, else about the whole group.
var otherFlags = []string{"PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "WRITEMOSTLY", "ERROR_WHEN_FULL", "CACHE_VOL", "RESHAPE",
	"RESHAPE_DATA_OFFSET", "RESHAPE_DELTA_DISKS_PLUS", "RESHAPE_DELTA_DISKS_MINUS", "REMOVE_AFTER_RESHAPE", "METADATA_FORMAT",
	"CROP_METADATA", "CACHE_USES_CACHEVOL"}

// volumeKeys are the settings that do not change where a volume's bytes are.
var volumeKeys = []string{"id", "status", "flags", "tags", "creation_time", "creation_host", "lock_args", "allocation_policy", "profile",
	"read_ahead", "major", "minor", "segment_count"}

// volumes reads the logical volumes. Those that must not be examined get a
// reason in Why.
func (g *group) volumes() ([]LV, error) {
	all := g.text.section("logical_volumes")
	if all == nil {
		if g.text.entry("logical_volumes") != nil {
			return nil, fmt.Errorf("the metadata have no section of the logical volumes")
		}
		return nil, nil
	}
	named := map[string]string{} // from a volume to another one that names it
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

// mentions notes the names of other volumes among all strings of a setting or a
// segment, whatever the key is: origin, cow_store, merging_store,
// external_origin, pool, metadata, mirror_log, and keys of the future. There
// are two exceptions. A type is not a name, and in a list of stripes a name
// that fits both a disk and a volume means the disk, as it does for LVM.
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
		case e.sub != nil: // to LVM every section is a segment
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

// flags sets Why if a flag of the volume is a reason not to examine it.
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

package lvm

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"testbox-imaging/internal/image"
)

// The segment types that can have extents of the disk, as the modules below
// lib/ register them.
const (
	striped = "striped"
	linear  = "linear"
	mirror  = "mirror"
)

// madeOfOthers are the segment types that consist of other logical volumes, or
// of nothing (error, zero).
var madeOfOthers = []string{"error", "zero", "snapshot", "thin", "thin-pool", "cache", "cache-pool", "writecache", "integrity", "vdo",
	"vdo-pool",
	"raid0", "raid0_meta", "raid1", "raid4", "raid5", "raid5_n", "raid5_la", "raid5_ls", "raid5_ra", "raid5_rs", "raid6", "raid6_zr",
	"raid6_nr", "raid6_nc",
	"raid6_n_6", "raid6_la_6", "raid6_ls_6", "raid6_ra_6", "raid6_rs_6", "raid10", "raid10_near"}

// linearKeys are the known settings of a linear segment.
var linearKeys = []string{"start_extent", "extent_count", "type", "tags", "stripe_count", "stripe_size", "stripes"}

// segments reads the segments of a volume, in the order of its addresses.
func (g *group) segments(lv *LV, list []*section, all *section) error {
	type place struct {
		first, n int64
		s        *section
	}
	var places []place
	for _, s := range list {
		first, err := s.num("start_extent", math.MaxUint32)
		if err != nil {
			return err
		}
		n, err := s.num("extent_count", math.MaxUint32)
		if err != nil {
			return err
		}
		places = append(places, place{first, n, s})
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.first, b.first) })
	at := int64(0) // extents
	for _, p := range places {
		if p.first != at || p.n == 0 || p.n > math.MaxUint32-at {
			return fmt.Errorf("it has a segment of %d extents at extent %d where extent %d comes", p.n, p.first, at)
		}
		at += p.n
		if err := g.segment(lv, p.s, p.n, all); err != nil {
			return err
		}
	}
	return lv.setSize(at, g.extent)
}

func (lv *LV) setSize(extents, extent int64) error {
	if extents > math.MaxInt64/extent { // a volume of error or zero segments may be larger than any disk
		return fmt.Errorf("it has %d extents", extents)
	}
	lv.Size = extents * extent
	if lv.Why != "" {
		return nil
	}
	end := int64(0)
	for _, x := range lv.Extents {
		end += x.Len
		lv.ends = append(lv.ends, end)
	}
	if end != lv.Size {
		return fmt.Errorf("it has %d bytes, its segments %d", lv.Size, end)
	}
	return nil
}

// segment adds the extents of a segment to its volume.
func (g *group) segment(lv *LV, s *section, n int64, all *section) error {
	kind, err := s.str("type")
	if err != nil {
		return err
	}
	kind, flags, flagged := strings.Cut(kind, "+") // print_segtype_lvflags in lib/format_text/flags.c
	if flagged {
		for _, f := range strings.Split(flags, "+") {
			if !slices.Contains(otherFlags, f) {
				return fmt.Errorf("it has the unknown flag %.40q", f)
			}
		}
		lv.because("it is marked as " + flags)
	}
	switch {
	case kind == striped || kind == linear:
		return g.stripes(lv, s, n, all)
	case kind == mirror:
		lv.because("it is a mirror")
		return g.areas(lv, s, "mirrors", "mirror_count", n, all)
	case slices.Contains(madeOfOthers, kind):
		lv.because("it is of the type " + kind)
		return g.noExtents(s)
	}
	return fmt.Errorf("it has a segment of the unknown type %.40q", kind)
}

// because sets Why if it is not set yet.
func (lv *LV) because(why string) {
	if lv.Why == "" {
		lv.Why = why
	}
}

// stripes reads a striped segment (lib/striped/striped.c). A linear segment has
// one stripe.
func (g *group) stripes(lv *LV, s *section, n int64, all *section) error {
	count, err := s.num("stripe_count", maxEntries)
	if err != nil {
		return err
	}
	if count == 0 || n%count != 0 {
		return fmt.Errorf("it has %d extents in %d stripes", n, count)
	}
	if count > 1 {
		lv.because(fmt.Sprintf("it has %d stripes", count))
	}
	for _, e := range s.entries {
		if !slices.Contains(linearKeys, e.key) {
			lv.because(fmt.Sprintf("it has the unknown setting %.40q", e.key))
		}
	}
	return g.areas(lv, s, "stripes", "stripe_count", n/count, all)
}

// areas reads a list of areas of n extents each. An area is a pair: the name of
// a disk or of another volume, and the first extent there. A name that fits
// both means the disk (text_import_areas in import_vsn1.c).
func (g *group) areas(lv *LV, s *section, key, countKey string, n int64, all *section) error {
	count, err := s.num(countKey, maxEntries)
	if err != nil {
		return err
	}
	e := s.entry(key)
	if e == nil || count == 0 || int64(len(e.values)) != 2*count {
		return fmt.Errorf("it has no list of %d %s", count, key)
	}
	for i := 0; i < len(e.values); i += 2 {
		first, err := e.values[i+1].num(math.MaxUint32)
		if err != nil {
			return fmt.Errorf("it lies at extent %w", err)
		}
		switch name := e.values[i]; {
		case name.number:
			return fmt.Errorf("it has a number where a disk is named")
		case name.text == g.pv:
			x, err := g.extents(first, n)
			if err != nil {
				return err
			}
			lv.add(x)
		case all.entry(name.text) != nil:
			lv.because("it lies on another logical volume")
		default:
			return fmt.Errorf("it lies on %.128q, which is not there", name.text)
		}
	}
	return nil
}

// add adds extents. Ranges that follow each other on the disk become one.
func (lv *LV) add(x image.Range) {
	if n := len(lv.Extents) - 1; n >= 0 && lv.Extents[n].End() == x.Off {
		lv.Extents[n].Len += x.Len
		return
	}
	lv.Extents = append(lv.Extents, x)
}

// noExtents handles a segment whose type has no extents of its own. It fails if
// the segment has a list that names the disk, since that would claim extents.
func (g *group) noExtents(s *section) error {
	for _, e := range s.entries {
		if e.sub != nil {
			if err := g.noExtents(e.sub); err != nil {
				return err
			}
		}
		for _, v := range e.values {
			if len(e.values) > 1 && !v.number && v.text == g.pv && e.key != "tags" {
				return fmt.Errorf("it has extents of its own in an unknown way (%.40q)", e.key)
			}
		}
	}
	return nil
}

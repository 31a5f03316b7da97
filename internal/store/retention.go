package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/image"
)

// Policy says how many backups of each box are kept. Last is for the newest
// ones. Of the newest Daily days, Weekly weeks (ISO 8601) and Monthly months
// that have a backup, the newest backup of each is kept. Times are in UTC. The zero Policy
// keeps all.
type Policy struct {
	Last, Daily, Weekly, Monthly int
}

// Kept says whether a backup is kept.
type Kept struct {
	Record *image.Record
	Why    []string  // reasons to keep it; it is deleted if there are none
	at     time.Time // the time that it is sorted by
}

// PlanRetention decides about each of the records, in their order. keep says what is kept of a
// box. Pinned
// backups, baselines and the last backup of a box are always kept. Backups whose
// date cannot be right are kept too, and do not count as any day's, week's or
// month's. If the kept backups have only damaged images of a disk, the newest
// backup with an undamaged image of the disk is kept too.
func PlanRetention(records []*image.Record, keep func(box string) Policy, damages Damages, now time.Time) []Kept {
	byBox := map[string][]*image.Record{}
	plan := make([]Kept, len(records))
	of := map[*image.Record]*Kept{}
	for i, r := range records {
		plan[i].Record = r
		of[r] = &plan[i]
		byBox[r.Box] = append(byBox[r.Box], r)
	}
	for name, rs := range byBox {
		var kept []*Kept // the newest first, then those whose place is not known
		for _, d := range slices.Backward(inOrder(rs, now)) {
			of[d.Record].at = d.at
			kept = append(kept, of[d.Record])
		}
		keepOf(kept, keep(name))
		wrong := Misdated(rs, now)
		for _, r := range rs {
			if wrong[r] == "" {
				continue
			}
			if of[r].at.IsZero() {
				kept = append(kept, of[r])
			}
			of[r].Why = append(of[r].Why, wrong[r])
		}
		keepWhole(kept, damages)
	}
	return plan
}

// keepOf decides about a box's backups, which are sorted from the newest.
func keepOf(of []*Kept, p Policy) {
	day := func(t time.Time) string { return t.Format("2006-01-02") }
	week := func(t time.Time) string {
		y, w := t.ISOWeek()
		return fmt.Sprintf("%d week %d", y, w)
	}
	month := func(t time.Time) string { return t.Format("2006-01") }
	for i, k := range of {
		if k.Record.Pinned {
			k.Why = append(k.Why, "pinned")
		}
		if k.Record.Baseline {
			k.Why = append(k.Why, "baseline")
		}
		if i < max(p.Last, 1) {
			k.Why = append(k.Why, "last")
		}
		if p == (Policy{}) {
			k.Why = append(k.Why, "all")
		}
	}
	keepEach(of, "day", p.Daily, day)
	keepEach(of, "week", p.Weekly, week)
	keepEach(of, "month", p.Monthly, month)
}

// keepEach keeps the newest backup of each of the n newest spans.
func keepEach(of []*Kept, what string, n int, span func(time.Time) string) {
	last := ""
	for _, k := range of {
		if this := span(k.at.UTC()); this != last && n > 0 {
			last = this
			n--
			k.Why = append(k.Why, what)
		}
	}
}

// keepWhole looks for disks that have only damaged images in the kept backups.
// For each, it keeps the newest backup with an undamaged image. That can add
// backups with other disks, so it repeats.
func keepWhole(of []*Kept, damages Damages) {
	for {
		wanting := noWhole(of, damages)
		added := false
		for _, k := range of {
			for i := range k.Record.Disks {
				if d := &k.Record.Disks[i]; wanting[d.Name] && damages.Whole(d) {
					wanting[d.Name], added = false, true
					k.Why = append(k.Why, "last whole "+d.Name)
				}
			}
		}
		if !added {
			return
		}
	}
}

// noWhole returns the disks in the kept backups. The value is true if no kept
// image of the disk is undamaged.
func noWhole(of []*Kept, damages Damages) map[string]bool {
	out := map[string]bool{}
	for _, k := range of {
		if len(k.Why) == 0 {
			continue
		}
		for i := range k.Record.Disks {
			d := &k.Record.Disks[i]
			was, seen := out[d.Name]
			out[d.Name] = (was || !seen) && !damages.Whole(d)
		}
	}
	return out
}

// LastWhole returns the disks of a box that would have only damaged backups if
// some backups were deleted, and that have undamaged ones now. It leaves out
// disks that would have no backup at all.
func LastWhole(records []*image.Record, gone func(*image.Record) bool, damages Damages, box string) (out []string) {
	had, has, any := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range records {
		for i := range r.Disks {
			d := &r.Disks[i]
			if r.Box != box {
				continue
			}
			whole := damages.Whole(d)
			had[d.Name] = had[d.Name] || whole
			if !gone(r) {
				has[d.Name] = has[d.Name] || whole
				any[d.Name] = true
			}
		}
	}
	for name := range had {
		if had[name] && !has[name] && any[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (k Kept) String() string {
	what := "delete"
	if len(k.Why) > 0 {
		what = "keep (" + strings.Join(k.Why, ", ") + ")"
	}
	return fmt.Sprintf("%s %s: %s", k.Record.Box, k.Record.ID, what)
}

package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/image"
)

// Policy says how many backups of each box are kept: the last ones, and the
// last one of each of so many days, weeks (ISO 8601) and months that have one.
// Times are UTC.
type Policy struct {
	Last, Daily, Weekly, Monthly int
}

// Kept is what becomes of a backup.
type Kept struct {
	Record *image.Record
	Why    []string  // it is kept; empty: it is to be deleted
	at     time.Time // that counts
}

// PlanRetention says what becomes of each of the records, in their order.
// Pinned ones, baselines and the last backup of a box are always kept; so are
// those whose date cannot be right, which count for nothing else. And of a disk
// that is in backups which are kept, one is whole if any is: the last.
func PlanRetention(records []*image.Record, p Policy, damages Damages, now time.Time) []Kept {
	byBox := map[string][]*image.Record{}
	plan := make([]Kept, len(records))
	of := map[*image.Record]*Kept{}
	for i, r := range records {
		plan[i].Record = r
		of[r] = &plan[i]
		byBox[r.Box] = append(byBox[r.Box], r)
	}
	for _, rs := range byBox {
		var kept []*Kept // the newest first, those whose place is not known last
		for _, d := range slices.Backward(inOrder(rs, now)) {
			of[d.Record].at = d.at
			kept = append(kept, of[d.Record])
		}
		keepOf(kept, p)
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

// keepOf decides on a box's backups, the newest first.
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
	}
	keepEach(of, "day", p.Daily, day)
	keepEach(of, "week", p.Weekly, week)
	keepEach(of, "month", p.Monthly, month)
}

// keepEach keeps the newest of each of the n newest spans.
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

// keepWhole keeps, of each disk of which only damaged images are kept, the
// newest whole one. That can bring in other disks.
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

// noWhole gives the disks that are kept, and whether no whole image of one is.
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

// LastWhole gives the disks of which a box would have only damaged backups if
// some were deleted, though it has whole ones. Of a disk of which nothing would
// be left it says nothing.
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

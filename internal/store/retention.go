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
	Why    []string // it is kept; empty: it is to be deleted
}

// PlanRetention says what becomes of each of the records, in their order.
// Pinned ones, baselines and the last backup of a box are always kept.
func PlanRetention(records []*image.Record, p Policy) []Kept {
	byBox := map[string][]*Kept{}
	plan := make([]Kept, len(records))
	for i, r := range records {
		plan[i].Record = r
		byBox[r.Box] = append(byBox[r.Box], &plan[i])
	}
	for _, of := range byBox {
		slices.SortStableFunc(of, func(a, b *Kept) int { return compareRecords(b.Record, a.Record) })
		keepOf(of, p)
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
		if this := span(k.Record.Time.UTC()); this != last && n > 0 {
			last = this
			n--
			k.Why = append(k.Why, what)
		}
	}
}

func (k Kept) String() string {
	what := "delete"
	if len(k.Why) > 0 {
		what = "keep (" + strings.Join(k.Why, ", ") + ")"
	}
	return fmt.Sprintf("%s %s: %s", k.Record.Box, k.Record.ID, what)
}

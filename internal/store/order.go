package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/image"
)

// maxAhead is how far in the future a backup's date is still believed. Clocks
// that nobody sets differ by minutes, wrong time zones by at least half an
// hour.
const maxAhead = 15 * time.Minute

// birth is a time before the first backup that this program made. A machine
// whose clock has lost its battery starts at an earlier time, in 1970 or in the
// year that it was made.
var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// misdated says why a date cannot be right. It returns "" if the date can be
// right.
func misdated(r *image.Record, now time.Time) string {
	switch {
	case r.Time.After(now.Add(maxAhead)):
		return "dated in the future"
	case r.Time.Before(birth):
		return "dated before there was this program"
	}
	return ""
}

// Misdated returns those of a box's backups whose date cannot be right, and
// whose time of making is not known otherwise. Each has the reason.
func Misdated(of []*image.Record, now time.Time) map[*image.Record]string {
	byID, out := map[string]*image.Record{}, map[*image.Record]string{}
	for _, r := range of {
		byID[r.ID] = r
	}
	for _, r := range of {
		if why := misdated(r, now); why != "" && !isPlaced(r, byID, now, len(of)) {
			out[r] = why
		}
	}
	return out
}

// isPlaced reports whether it is known after which other backup one was made. A
// date in the past does no harm then.
func isPlaced(r *image.Record, byID map[string]*image.Record, now time.Time, left int) bool {
	before := byID[r.After]
	if r.Time.After(now) || before == nil || left == 0 {
		return false
	}
	return misdated(before, now) == "" || isPlaced(before, byID, now, left-1)
}

// InOrder returns a box's backups in the order in which they were made, the oldest
// first. Backups whose date cannot be right are left out, unless all are such.
func InOrder(of []*image.Record, now time.Time) []*image.Record {
	var out []*image.Record
	for _, d := range inOrder(of, now) {
		out = append(out, d.Record)
	}
	return out
}

// dated is a backup with the time that it is sorted by.
type dated struct {
	*image.Record
	at time.Time
}

// inOrder returns a box's backups in the order in which they were made, the
// oldest first. Misdated backups are left out, unless all are misdated, since
// their dates are then the best that is known.
func inOrder(of []*image.Record, now time.Time) (out []dated) {
	wrong := Misdated(of, now)
	byID := map[string]*image.Record{}
	var sound []*image.Record
	for _, r := range of {
		if wrong[r] == "" || len(wrong) == len(of) {
			byID[r.ID] = r
			sound = append(sound, r)
		}
	}
	for _, r := range sound {
		out = append(out, dated{r, madeAt(r, byID, len(sound))})
	}
	slices.SortStableFunc(out, func(a, b dated) int { return cmp.Or(a.at.Compare(b.at), compareRecords(a.Record, b.Record)) })
	return out
}

// madeAt returns a backup's time, moved to just after that of the backup in
// After if it would be earlier.
func madeAt(r *image.Record, byID map[string]*image.Record, left int) time.Time {
	before := byID[r.After]
	if before == nil || left == 0 {
		return r.Time
	}
	at := madeAt(before, byID, left-1).Add(1)
	if r.Time.After(at) {
		return r.Time
	}
	return at
}

// comesAfter returns the id of a box's last backup that is dated later than t,
// or "" if there is none.
func (c *Catalogue) comesAfter(ctx context.Context, box string, t time.Time) (string, error) {
	blobs, err := c.cfg.Blobs.List(ctx, recordPrefix+box+"/")
	if err != nil {
		return "", err
	}
	base := t.Format(idTime)
	later := false
	for i := range blobs {
		blobs[i].Name = strings.TrimPrefix(blobs[i].Name, recordPrefix+box+"/")
		later = later || blobs[i].Name[:min(len(base), len(blobs[i].Name))] > base
	}
	if !later {
		return "", nil
	}
	var of []*image.Record
	for _, b := range blobs {
		var unreadable *RecordError
		r, err := c.Record(ctx, box, b.Name)
		switch {
		case err == nil:
			of = append(of, r)
		case errors.As(err, &unreadable) && isRecordName(box, b.Name):
			of = append(of, standIn(unreadable))
		}
	}
	return lastAfter(of, t), nil
}

// farthest is a time at which no date is in the future.
var farthest = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// lastAfter does the work of comesAfter on the backups of one box.
func lastAfter(of []*image.Record, t time.Time) string {
	if order := inOrder(of, farthest); len(order) > 0 && order[len(order)-1].at.After(t) {
		return order[len(order)-1].ID
	}
	return ""
}

// Near returns the boxes with backups whose names resemble name.
func Near(records []*image.Record, name string) (out []string) {
	for _, r := range records {
		if isNear(strings.ToLower(r.Box), strings.ToLower(name)) {
			out = append(out, r.Box)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// isNear reports whether two names are about the same. They may differ in a
// letter or two, more if they are long, or one may begin with the other.
func isNear(a, b string) bool {
	if len(a) < 3 || len(b) < 3 {
		return false
	}
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) || distance(a, b) <= 1+min(len(a), len(b))/5
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

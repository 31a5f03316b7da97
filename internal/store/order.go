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

// maxAhead is how far a backup may be dated in the future: clocks that nobody
// keeps differ by minutes, wrong time zones by at least half an hour.
const maxAhead = 15 * time.Minute

// birth is when there was no backup of this program yet. A machine whose clock
// lost its battery begins before it, in 1970 or in the year that it was made.
var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// misdated says why a date cannot be right; "" if it can.
func misdated(r *image.Record, now time.Time) string {
	switch {
	case r.Time.After(now.Add(maxAhead)):
		return "dated in the future"
	case r.Time.Before(birth):
		return "dated before there was this program"
	}
	return ""
}

// Misdated gives those of a box's backups of which it is not known when they
// were made, since their date cannot be right, with the reason.
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

// isPlaced reports whether it is known after which backup one was made: then a
// date in the past does no harm.
func isPlaced(r *image.Record, byID map[string]*image.Record, now time.Time, left int) bool {
	before := byID[r.After]
	if r.Time.After(now) || before == nil || left == 0 {
		return false
	}
	return misdated(before, now) == "" || isPlaced(before, byID, now, left-1)
}

// dated is a backup with the time that counts for it.
type dated struct {
	*image.Record
	at time.Time
}

// inOrder gives a box's backups as they were made, the oldest first, without
// those of which that is not known; if that is all of them, their dates are as
// good as right.
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

// madeAt is a backup's time, but not before that of the one that it came after.
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

// comesAfter is the id of the last backup of a box that is dated later than t;
// "" if none is.
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

// lastAfter is comesAfter of a box's backups.
func lastAfter(of []*image.Record, t time.Time) string {
	if order := inOrder(of, farthest); len(order) > 0 && order[len(order)-1].at.After(t) {
		return order[len(order)-1].ID
	}
	return ""
}

// Near gives the boxes with backups whose names are like one that has none.
func Near(records []*image.Record, name string) (out []string) {
	for _, r := range records {
		if isNear(strings.ToLower(r.Box), strings.ToLower(name)) {
			out = append(out, r.Box)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// isNear reports whether two names differ by a letter or two that are missing,
// too many or others, or one is the other's beginning.
func isNear(a, b string) bool {
	if len(a) < 3 || len(b) < 3 {
		return false
	}
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) || distance(a, b) <= 1+min(len(a), len(b))/5
}

// distance is Levenshtein's.
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

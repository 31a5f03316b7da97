package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

// Selector says which backup of a box is meant, and which disk of it.
type Selector struct {
	Box  string
	When string // "", "latest", "latest~N", "baseline", an id, or the beginning of a time; "" is the baseline if there is one, else the latest
	Disk string // image name; "" is all
}

func (s Selector) String() string {
	out := s.Box
	if s.When != "" {
		out += "@" + s.When
	}
	if s.Disk != "" {
		out += ":" + s.Disk
	}
	return out
}

// ParseSelector reads what an admin types: BOX[@WHEN][:DISK]. Times may have
// colons, names of disks do not begin with a digit.
func ParseSelector(text string) (Selector, error) {
	s := Selector{Box: text}
	if i := strings.LastIndexByte(text, ':'); i >= 0 && image.ValidName(text[i+1:]) {
		s.Box, s.Disk = text[:i], text[i+1:]
	}
	var dated bool
	if s.Box, s.When, dated = strings.Cut(s.Box, "@"); dated && s.When == "" {
		return Selector{}, fmt.Errorf("%q: after @ comes latest, latest~1, baseline or a date such as 2026-11-27", text)
	}
	if !image.ValidBox(s.Box) {
		return Selector{}, fmt.Errorf("%q does not begin with a box; it is BOX, BOX@WHEN or BOX@WHEN:DISK, such as 10.40.41.42@latest~1:sda", text)
	}
	if err := s.checkWhen(); err != nil {
		return Selector{}, fmt.Errorf("%q: %w", text, err)
	}
	return s, nil
}

var errWhen = errors.New("after @ comes latest, latest~1, baseline, a date or its beginning (2026-11, 2026-11-27, 2026-11-27T10:04; in UTC), or an id")

func (s Selector) checkWhen() error {
	_, back := s.back()
	if s.When == "" || s.When == "baseline" || back || image.ValidID(s.When) {
		return nil
	}
	if d := digits(s.When); len(d) >= 4 && len(d) <= 14 {
		return nil
	}
	return errWhen
}

// back is N of latest~N.
func (s Selector) back() (n int, ok bool) {
	rest, ok := strings.CutPrefix(s.When, "latest")
	if !ok || rest == "" {
		return 0, ok
	}
	if rest[0] != '~' {
		return 0, false
	}
	n, err := strconv.Atoi(rest[1:])
	return n, err == nil && n >= 0 && strconv.Itoa(n) == rest[1:]
}

// digits are those of a time, "" if it has anything else than separators.
func digits(when string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.Trim(when, "Z")) + strings.Repeat("x", 15*len(strings.Trim(when, "0123456789-:TZ ")))
}

// ErrNoImage is matched by errors that say that there is no such backup.
var ErrNoImage = errors.New("no such image")

// Select gives the backup that a selector means, of records as Records gives
// them. The latest is the one that was made last, as far as can be known: not
// one that is dated in the future.
func Select(records []*image.Record, s Selector, now time.Time) (*image.Record, error) {
	var of []*image.Record
	for _, r := range records {
		if r.Box == s.Box {
			of = append(of, r)
		}
	}
	if len(of) == 0 {
		return nil, NoBackup(records, s.Box)
	}
	r := pick(of, s, now)
	if r == nil {
		return nil, fmt.Errorf("%s has %s, the oldest %s, the newest %s, and none is %s: %w",
			s.Box, words.Count(len(of), "backup"), of[0].ID, of[len(of)-1].ID, s.When, ErrNoImage)
	}
	if s.Disk == "" {
		return r, nil
	}
	var names []string
	for _, d := range r.Disks {
		if d.Name == s.Disk {
			return r, nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("backup %s of %s has no disk %s, but %s: %w", r.ID, r.Box, s.Disk, strings.Join(names, ", "), ErrNoImage)
}

// SelectDamaged gives the damaged records that a selector may mean: that of
// its id, those of its date, or all of a box if it does not say when.
func SelectDamaged(damaged []*RecordError, s Selector) (out []*RecordError) {
	day := digits(s.When)
	for _, d := range damaged {
		dated := day != "" && !image.ValidID(s.When) && strings.HasPrefix(digits(d.ID), day)
		if d.Box == s.Box && (s.When == "" || s.When == d.ID || dated) {
			out = append(out, d)
		}
	}
	return out
}

// NoBackup is the error of a box that has none.
func NoBackup(records []*image.Record, box string) error {
	if near := Near(records, box); len(near) > 0 {
		return fmt.Errorf("%s has no backup (is %s meant?): %w", box, strings.Join(near, " or "), ErrNoImage)
	}
	return fmt.Errorf("%s has no backup: %w", box, ErrNoImage)
}

// pick picks from a box's backups.
func pick(of []*image.Record, s Selector, now time.Time) *image.Record {
	order := inOrder(of, now)
	if n, ok := s.back(); ok {
		if n >= len(order) {
			return nil
		}
		return order[len(order)-1-n].Record
	}
	var found *image.Record
	for _, r := range of {
		switch {
		case s.When == "" || s.When == "baseline":
			if r.Baseline {
				found = r
			}
		case r.ID == s.When:
			return r
		case !image.ValidID(s.When) && strings.HasPrefix(r.Time.UTC().Format("20060102150405"), digits(s.When)):
			found = r
		}
	}
	if found == nil && s.When == "" {
		return order[len(order)-1].Record
	}
	return found
}

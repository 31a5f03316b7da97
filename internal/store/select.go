package store

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
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
		return Selector{}, fmt.Errorf("%q does not begin with a box; "+
			"it is BOX, BOX@WHEN or BOX@WHEN:DISK, such as 10.40.41.42@latest~1:sda", text)
	}
	if err := s.checkWhen(); err != nil {
		return Selector{}, fmt.Errorf("%q: %w", text, err)
	}
	return s, nil
}

var errWhen = errors.New("after @ comes latest, latest~1, baseline, " +
	"a date or its beginning (2026-11, 2026-11-27, 2026-11-27T10:04; in UTC), or an id")

func (s Selector) checkWhen() error {
	_, back := s.back()
	if s.When == "" || s.When == "baseline" || back || image.ValidID(s.When) {
		return nil
	}
	if whenForm.MatchString(s.When) {
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

// whenForm is a time or its beginning. Each part is whole: 2026-1 would be the
// beginning of October, and who types it means January.
var whenForm = regexp.MustCompile(`^\d{4}(-?\d\d(-?\d\d([T -]?\d\d(:?\d\d(:?\d\d)?)?)?)?)?Z?$`)

// digits are those of a time.
func digits(when string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, when)
}

// ErrNoBackup is matched by errors that say that there is no such backup.
var ErrNoBackup = errors.New("no such backup")

// ErrNoImage is matched by errors that say that a backup has no such disk.
var ErrNoImage = errors.New("no such image")

// notThere is an error that matches a sentinel, and says it in words of its own.
type notThere struct {
	text string
	is   error
}

func (e *notThere) Error() string { return e.text }
func (e *notThere) Unwrap() error { return e.is }

// UnreadableError says that a record which cannot be read is that of the backup
// that is meant, or may be.
type UnreadableError struct {
	Sel     Selector
	Records []*RecordError // those that may be meant, the oldest first
	Instead *image.Record  // what would be meant without them; nil: none
}

func (e *UnreadableError) Error() string {
	last := e.Records[len(e.Records)-1]
	text := last.Error()
	if n := len(e.Records) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s cannot be read either)", words.Count(n, "other record"))
	}
	if e.Instead != nil {
		text += fmt.Sprintf("; %s may mean that backup. The one that can be read is named %s@%s", e.Sel, e.Instead.Box, e.Instead.ID)
	}
	return text + "; " + last.Remedy()
}

func (e *UnreadableError) Unwrap() error { return e.Records[len(e.Records)-1] }

// Select gives the backup that a selector means, of records and damaged ones as
// Records gives them. The latest is the one that was made last, as far as can
// be known: not one that is dated in the future. Where a record that cannot be
// read may be that of the backup which is meant, the error is an
// *UnreadableError.
func Select(records []*image.Record, damaged []*RecordError, s Selector, now time.Time) (*image.Record, error) {
	of, broken := ofBox(records, damaged, s.Box)
	if len(of) == 0 {
		return nil, NoBackup(records, s.Box)
	}
	r, hidden := pick(of, broken, s, now)
	if len(hidden) > 0 {
		return nil, &UnreadableError{s, hidden, r}
	}
	if r == nil {
		return nil, &notThere{fmt.Sprintf("%s has %s, the oldest %s, the newest %s, and none is %s",
			s.Box, words.Count(len(of), "backup"), of[0].ID, of[len(of)-1].ID, s.When), ErrNoBackup}
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
	return nil, &notThere{fmt.Sprintf("backup %s of %s has no disk %s, but %s", r.ID, r.Box, s.Disk, strings.Join(names, ", ")), ErrNoImage}
}

// ofBox gives a box's backups, the oldest first. For one whose record cannot be
// read there is a record with what its id says, the time.
func ofBox(records []*image.Record, damaged []*RecordError, box string) (of []*image.Record, broken map[*image.Record]*RecordError) {
	broken = map[*image.Record]*RecordError{}
	for _, r := range records {
		if r.Box == box {
			of = append(of, r)
		}
	}
	for _, d := range damaged {
		if d.Box == box && isRecordName(d.Box, d.ID) {
			r := standIn(d)
			of = append(of, r)
			broken[r] = d
		}
	}
	slices.SortFunc(of, compareRecords)
	return of, broken
}

// standIn is a record with what is known of one that cannot be read.
func standIn(d *RecordError) *image.Record {
	at, _ := time.Parse(idTime, d.ID[:len(idTime)])
	return &image.Record{Box: d.Box, ID: d.ID, Time: at}
}

// NoBackup is the error of a box that has none.
func NoBackup(records []*image.Record, box string) error {
	if near := Near(records, box); len(near) > 0 {
		return &notThere{fmt.Sprintf("%s has no backup (is %s meant?)", box, strings.Join(near, " or ")), ErrNoBackup}
	}
	return &notThere{box + " has no backup", ErrNoBackup}
}

// pick picks from a box's backups that can be read. Hidden are those of the
// others which may be meant.
func pick(of []*image.Record, broken map[*image.Record]*RecordError, s Selector, now time.Time) (
	found *image.Record, hidden []*RecordError) {
	if n, ok := s.back(); ok {
		return pickBack(of, broken, n, now)
	}
	if s.When == "" || s.When == "baseline" {
		for _, r := range of {
			if r.Baseline {
				found = r
			} else if broken[r] != nil { // nobody knows whether it is the baseline
				hidden = append(hidden, broken[r])
			}
		}
		if found != nil {
			return found, nil
		}
		if s.When == "" {
			found, _ = pickBack(of, broken, 0, now)
		}
		return found, hidden
	}
	for _, r := range of {
		switch {
		case r.ID == s.When && broken[r] != nil:
			return nil, []*RecordError{broken[r]}
		case r.ID == s.When:
			return r, nil
		case image.ValidID(s.When) || !strings.HasPrefix(r.Time.UTC().Format("20060102150405"), digits(s.When)):
		case broken[r] != nil:
			hidden = append(hidden, broken[r])
		default: // it is later than what was found so far
			found, hidden = r, nil
		}
	}
	return found, hidden
}

// pickBack picks the one that was made n backups before the last.
func pickBack(of []*image.Record, broken map[*image.Record]*RecordError, n int, now time.Time) (
	found *image.Record, hidden []*RecordError) {
	order := inOrder(of, now)
	after := map[*image.Record]bool{} // those made later than the one that is found
	for i := len(order) - 1; i >= 0 && found == nil; i-- {
		switch r := order[i].Record; {
		case broken[r] != nil:
			after[r] = true
		case n == 0:
			found = r
		default:
			n--
		}
	}
	for _, r := range of {
		// A clock that lost its time tells nothing of when that one was made.
		if broken[r] != nil && (after[r] || r.Time.Before(birth)) {
			hidden = append(hidden, broken[r])
		}
	}
	return found, hidden
}

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

// Selector names a backup of a box, and optionally a disk of it.
type Selector struct {
	Box  string
	When string // "latest", "latest~N", "baseline", an id, or the beginning of a time; "" for the baseline, or the latest if there is none
	Disk string // image name; "" for all
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

// ParseSelector parses what an admin types, in the form BOX[@WHEN][:DISK]. A
// colon may also be part of a time, but names of disks do not begin with a
// digit.
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

// back returns N of latest~N.
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

// whenForm matches a time or its beginning. Each part must be complete. 2026-1
// would match October to December, but the admin means January.
var whenForm = regexp.MustCompile(`^\d{4}(-?\d\d(-?\d\d([T -]?\d\d(:?\d\d(:?\d\d)?)?)?)?)?Z?$`)

// digits returns only the digits of a time.
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

// notThere is an error with its own text that matches a sentinel error.
type notThere struct {
	text string
	is   error
}

func (e *notThere) Error() string { return e.text }
func (e *notThere) Unwrap() error { return e.is }

// UnreadableError says that the selected backup has, or may have, a record that
// cannot be read.
type UnreadableError struct {
	Sel     Selector
	Records []*RecordError // records that may be the selected one, the oldest first
	Instead *image.Record  // what would be selected without them; nil if nothing
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

// Select returns the backup that a selector means. records and damaged are as
// Records returns them. The latest backup is the one that was made last, as far
// as is known. A backup that is dated in the future does not count as the
// latest. If the selected backup may be one whose record cannot be read, the
// error is an *UnreadableError.
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

// ofBox returns a box's backups, the oldest first. For a record that cannot be
// read, it has a stand-in with the time from the id, which is a key of broken.
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

// standIn returns a record with what the id of an unreadable record says.
func standIn(d *RecordError) *image.Record {
	at, _ := time.Parse(idTime, d.ID[:len(idTime)])
	return &image.Record{Box: d.Box, ID: d.ID, Time: at}
}

// NoBackup returns the error for a box without backups.
func NoBackup(records []*image.Record, box string) error {
	if near := Near(records, box); len(near) > 0 {
		return &notThere{fmt.Sprintf("%s has no backup (is %s meant?)", box, strings.Join(near, " or ")), ErrNoBackup}
	}
	return &notThere{box + " has no backup", ErrNoBackup}
}

// pick selects among a box's readable backups. hidden are the unreadable
// records that may be the selected one.
func pick(of []*image.Record, broken map[*image.Record]*RecordError, s Selector, now time.Time) (
	found *image.Record, hidden []*RecordError) {
	if n, ok := s.back(); ok {
		return pickBack(of, broken, n, now)
	}
	if s.When == "" || s.When == "baseline" {
		for _, r := range of {
			if r.Baseline {
				found = r
			} else if broken[r] != nil { // it may be the baseline
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

// pickBack selects the backup that was made n backups before the last.
func pickBack(of []*image.Record, broken map[*image.Record]*RecordError, n int, now time.Time) (
	found *image.Record, hidden []*RecordError) {
	order := inOrder(of, now)
	after := map[*image.Record]bool{} // unreadable records of backups made later than the one that is found
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
		// Its date comes from a clock that was reset, so it may be later than found.
		if broken[r] != nil && (after[r] || r.Time.Before(birth)) {
			hidden = append(hidden, broken[r])
		}
	}
	return found, hidden
}

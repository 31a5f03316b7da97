package ledger

import (
	"strings"
	"time"
	"unicode/utf8"

	"testbox-imaging/internal/problem"
)

// StoreSize is what the store had at a time.
type StoreSize struct {
	Time    time.Time // the key
	Stored  int64     // bytes of its packs
	Data    int64     // bytes that its backups stand for
	Room    int64     // bytes of its file system; 0 if they are not known
	Free    int64     // of these
	Backups int64
}

// How long sizes of the store are kept: all of them, and then the last one of each day
// in UTC. A time that is so far ahead was of a clock that was wrong.
const (
	StoreSizesAll   = 14 * 24 * time.Hour
	StoreSizesDaily = 5 * 366 * 24 * time.Hour
	storeSizesAhead = 24 * time.Hour
)

// MaxStoreSizes is how many sizes of the store are listed at most.
const MaxStoreSizes = 10_000

// AddStoreSize notes what the store has now, and drops what is too old. One of the same
// time is replaced.
func (tx *Tx) AddStoreSize(s StoreSize) error {
	if s.Time.IsZero() || min(s.Stored, s.Data, s.Room, s.Free, s.Backups) < 0 {
		return problem.Wrongf("a size of the store has a time, and no figure is below 0: %+v", s)
	}
	if err := checkTime("the time of a size of the store", s.Time); err != nil {
		return err
	}
	const day = int64(24 * time.Hour)
	now := s.Time.UnixNano()
	if _, err := tx.exec(`DELETE FROM store_sizes WHERE time = ? OR time > ? OR time < ?`, now, now+min(int64(storeSizesAhead),
		latest.UnixNano()-now), now-int64(StoreSizesDaily)); err != nil {
		return err
	}
	if _, err := tx.exec(`INSERT INTO store_sizes (time, stored, data, room, free, backups) VALUES (?, ?, ?, ?, ?, ?)`, now, s.Stored, s.Data,
		s.Room, s.Free, s.Backups); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM store_sizes WHERE time < ? AND EXISTS (SELECT 1 FROM store_sizes AS later
		WHERE later.time > store_sizes.time AND later.time < store_sizes.time - store_sizes.time % ? + ?)`,
		now-int64(StoreSizesAll), day, day)
	return err
}

// StoreSizes lists the sizes of the store since a time, the oldest first. If there are
// more than MaxStoreSizes, the oldest are left out.
func (tx *Tx) StoreSizes(since time.Time) ([]StoreSize, error) {
	if err := checkTime("the beginning", since); err != nil {
		return nil, err
	}
	scan := func(r row) (s StoreSize, err error) {
		return s, r.Scan(instant{&s.Time}, &s.Stored, &s.Data, &s.Room, &s.Free, &s.Backups)
	}
	return many(tx, scan, `SELECT time, stored, data, room, free, backups FROM
		(SELECT * FROM store_sizes WHERE time >= ? ORDER BY time DESC LIMIT ?) AS newest ORDER BY time`, nanos(since), MaxStoreSizes)
}

// StoreWork is how a kind of work on the store has ended last.
type StoreWork struct {
	Work    string // the key
	By      string // who asked for it; "" is the upkeep of each day
	Begun   time.Time
	Ended   time.Time
	Outcome string
	Found   string // what it did or found, or what is wrong, in lines; what is longer than MaxFound is cut off
}

// MaxFound is how many bytes of what work on the store has said are kept.
const MaxFound = 4 << 10

// PutStoreWork notes how work on the store has ended. It replaces what was noted of such
// work before.
func (tx *Tx) PutStoreWork(w StoreWork) error {
	if err := first(checkName("the work", w.Work, MaxWord), checkText("who asked for it", w.By, MaxWho),
		checkText("the outcome", w.Outcome, MaxWord), checkTime("the beginning of the work", w.Begun),
		checkTime("the end of the work", w.Ended)); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM store_work WHERE work = ?`, w.Work)
	if err == nil {
		_, err = tx.exec(`INSERT INTO store_work (work, made_by, begun, ended, outcome, found) VALUES (?, ?, ?, ?, ?, ?)`, w.Work, w.By,
			nanos(w.Begun), nanos(w.Ended), w.Outcome, printableLines(w.Found))
	}
	return err
}

// StoreWorks lists how each kind of work on the store has ended last.
func (tx *Tx) StoreWorks() ([]StoreWork, error) {
	scan := func(r row) (w StoreWork, err error) {
		return w, r.Scan(&w.Work, &w.By, instant{&w.Begun}, instant{&w.Ended}, &w.Outcome, &w.Found)
	}
	return many(tx, scan, `SELECT work, made_by, begun, ended, outcome, found FROM store_work ORDER BY work`)
}

// printableLines makes a text of several lines fit for being kept.
func printableLines(s string) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) && r != '\n' {
			return utf8.RuneError
		}
		return r
	}, s[:min(len(s), 4*MaxFound)])
	if len(s) > MaxFound {
		s = strings.ToValidUTF8(s[:MaxFound], "") + cutOff
	}
	return s
}

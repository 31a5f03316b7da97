package ledger

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/words"
)

// Entry is one line of the audit log.
type Entry struct {
	Number int64 // given by the ledger; later entries have higher ones
	Time   time.Time
	Who    string
	From   string // an address, or "socket"
	What   string
	On     string // a box, a job, a user
	Why    string
}

// AddAudit adds an entry at the end of the audit log, which is never changed.
// Texts from outside must not keep an entry out. So those that are too long are
// cut off, and what cannot be printed becomes U+FFFD.
func (tx *Tx) AddAudit(e Entry) error {
	if e.Time.IsZero() || e.What == "" {
		return problem.Wrongf("an entry of the audit log has at least a time and what was done")
	}
	if err := checkTime("the time of an entry of the audit log", e.Time); err != nil {
		return err
	}
	for _, s := range []*string{&e.Who, &e.From, &e.What, &e.On, &e.Why} {
		*s = printable(*s)
	}
	scan := func(r row) (n int64, err error) { return n, r.Scan(&n) }
	last, _, err := one(tx, scan, `SELECT COALESCE(MAX(number), 0) FROM audit`)
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO audit (number, time, who, origin, what, subject, why) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		last+1, nanos(e.Time), e.Who, e.From, e.What, e.On, e.Why)
	return err
}

const cutOff = "..."

// printable makes a text fit for the audit log.
func printable(s string) string {
	s = s[:min(len(s), 4*MaxText)]
	s = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return utf8.RuneError
		}
		return r
	}, s) // what is no UTF-8 becomes RuneError too
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + cutOff // the cut may be in the middle of a character
	}
	return s
}

// AuditFilter says which entries a list has. Each field that is not empty must be
// met.
type AuditFilter struct {
	Who   string
	What  string
	On    string
	Since time.Time // at this time or later
	Until time.Time // before this time
}

// Audit lists the audit log, the latest entry first. If next is not "", there is
// another page.
func (tx *Tx) Audit(f AuditFilter, p Page) (entries []Entry, next string, err error) {
	if err := first(checkTime("the beginning", f.Since), checkTime("the end", f.Until)); err != nil {
		return nil, "", err
	}
	var w where
	for _, c := range []struct{ term, value string }{{`who = ?`, f.Who}, {`what = ?`, f.What}, {`subject = ?`, f.On}} {
		if c.value != "" {
			w.add(c.term, c.value)
		}
	}
	if !f.Since.IsZero() {
		w.add(`time >= ?`, nanos(f.Since))
	}
	if !f.Until.IsZero() {
		w.add(`time < ?`, nanos(f.Until))
	}
	if p.After != "" {
		n, err := strconv.ParseInt(p.After, 10, 64)
		if err != nil {
			return nil, "", wrongAfter(p.After)
		}
		w.add(`number < ?`, n)
	}
	scan := func(r row) (e Entry, err error) {
		return e, r.Scan(&e.Number, instant{&e.Time}, &e.Who, &e.From, &e.What, &e.On, &e.Why)
	}
	all, err := many(tx, scan, `SELECT number, time, who, origin, what, subject, why FROM audit`+w.String()+` ORDER BY number DESC LIMIT ?`,
		append(w.args, p.limit()+1)...)
	if err != nil {
		return nil, "", err
	}
	entries, next = cut(all, p, func(e Entry) string { return strconv.FormatInt(e.Number, 10) })
	return entries, next, nil
}

// DropAudit removes the entries from before a time, and adds one that says so.
// The caller gives its Time, Who, From and Why; Time must not be before that time.
// It returns how many entries were removed.
func (tx *Tx) DropAudit(before time.Time, by Entry) (int64, error) {
	if before.IsZero() || by.Time.Before(before) {
		return 0, problem.Wrongf("only entries of the past can be removed from the audit log")
	}
	if err := checkTime("the time before which entries are removed", before); err != nil {
		return 0, err
	}
	scan := func(r row) (n int64, err error) { return n, r.Scan(&n) }
	n, _, err := one(tx, scan, `SELECT COUNT(*) FROM audit WHERE time < ?`, nanos(before))
	if err != nil {
		return 0, err
	}
	// The new entry comes first, so that it never gets a number that was used.
	by.What, by.On = "drop audit entries", words.Count(n, "entry", "entries")+" from before "+before.UTC().Format(time.RFC3339)
	if err := tx.AddAudit(by); err != nil {
		return 0, err
	}
	return tx.exec(`DELETE FROM audit WHERE time < ?`, nanos(before))
}

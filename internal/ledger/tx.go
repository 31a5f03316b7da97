package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Tx is what the function of an Update or a View works with, and is used by that
// function alone and only until it returns. Each method does all that it is
// asked for, or nothing. If the database itself fails, the Update fails, even
// when its function does not return the error.
type Tx struct {
	ctx     context.Context
	tx      *sql.Tx
	write   bool
	explain func(error) error
	failed  error             // the first error of the database
	changes map[box.Addr]*Box // boxes that changed; nil is one that was deleted
}

// changedBox notes that a box was put, or deleted if b is nil.
func (tx *Tx) changedBox(a box.Addr, b *Box) {
	if tx.changes == nil {
		tx.changes = map[box.Addr]*Box{}
	}
	tx.changes[a] = b
}

// changedBoxes are the boxes that the transaction has changed.
func (tx *Tx) changedBoxes() (put []Box, gone []box.Addr) {
	for a, b := range tx.changes {
		if b == nil {
			gone = append(gone, a)
		} else {
			put = append(put, *b)
		}
	}
	return put, gone
}

// fail notes an error of the database and explains it.
func (tx *Tx) fail(err error) error {
	if tx.ctx.Err() != nil { // the query was interrupted
		err = context.Cause(tx.ctx)
	} else {
		err = tx.explain(err)
	}
	if tx.failed == nil {
		tx.failed = err
	}
	return err
}

// exec runs a statement and returns how many rows it changed.
func (tx *Tx) exec(query string, args ...any) (int64, error) {
	if !tx.write {
		return 0, errView
	}
	res, err := tx.tx.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return 0, tx.fail(err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, tx.fail(err)
	}
	return n, nil
}

// row is what a scan function reads from.
type row interface{ Scan(...any) error }

// many reads all rows of a query.
func many[T any](tx *Tx, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := tx.tx.QueryContext(tx.ctx, query, args...)
	if err != nil {
		return nil, tx.fail(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, tx.fail(err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, tx.fail(err)
	}
	return all, nil
}

// one reads the only row of a query. There is none if found is false.
func one[T any](tx *Tx, scan func(row) (T, error), query string, args ...any) (v T, found bool, err error) {
	v, err = scan(tx.tx.QueryRowContext(tx.ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, false, nil
	}
	if err != nil {
		return v, false, tx.fail(err)
	}
	return v, true, nil
}

func scanText(r row) (s string, err error) { return s, r.Scan(&s) }

// has reports whether a query has a row. Its first column must be text.
func (tx *Tx) has(query string, args ...any) (bool, error) {
	_, found, err := one(tx, scanText, query, args...)
	return found, err
}

// instant stores a time as nanoseconds since 1970 in UTC, and 0 as no time.
type instant struct{ t *time.Time }

// Scan implements sql.Scanner.
func (i instant) Scan(v any) error {
	n, ok := v.(int64)
	if !ok || n < 0 {
		return fmt.Errorf("%w: %v is no time", ErrDamaged, v)
	}
	*i.t = time.Time{}
	if n != 0 {
		*i.t = time.Unix(0, n).UTC()
	}
	return nil
}

// nanos is how a time is stored. checkTime has passed it before.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// latest is the last time that can be stored, in the year 2262.
var latest = time.Unix(0, math.MaxInt64)

// checkTime refuses times that cannot be stored. The zero time is no time.
func checkTime(what string, t time.Time) error {
	if t.IsZero() || t.After(time.Unix(0, 0)) && !t.After(latest) {
		return nil
	}
	return problem.Wrongf("%s is %s, and must be between 1970 and %d", what, t.UTC().Format(time.RFC3339), latest.UTC().Year())
}

// address stores a box's address in hexadecimal, as the name of its boot file,
// so that addresses sort by number.
type address struct{ a *box.Addr }

// Scan implements sql.Scanner.
func (d address) Scan(v any) error {
	s, _ := v.(string)
	a, err := box.ParseHex(s)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	*d.a = a
	return nil
}

func checkAddress(a box.Addr) error {
	if a.IsZero() {
		return problem.Wrongf("the address of the box is missing")
	}
	return nil
}

// Hash is the hash of a secret. The secret itself is never stored.
type Hash [32]byte

// Scan implements sql.Scanner.
func (h *Hash) Scan(v any) error {
	b, _ := v.([]byte)
	if len(b) != len(h) {
		return fmt.Errorf("%w: a hash of %d bytes", ErrDamaged, len(b))
	}
	*h = Hash(b)
	return nil
}

func checkHash(h Hash) error {
	if h == (Hash{}) {
		return problem.Wrongf("the hash of the secret is missing")
	}
	return nil
}

// where collects the conditions of a query, which must all be met.
type where struct {
	terms []string
	args  []any
}

func (w *where) add(term string, args ...any) {
	w.terms, w.args = append(w.terms, term), append(w.args, args...)
}

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

// MaxPage is how many entries a page has at most.
const MaxPage = 1000

// Page is a part of a long list.
type Page struct {
	After string // what the page before gave as next; "" is the beginning
	Limit int    // at most so many entries; 0 and more than MaxPage mean MaxPage
}

func (p Page) limit() int {
	if p.Limit <= 0 || p.Limit > MaxPage {
		return MaxPage
	}
	return p.Limit
}

var errAfter = errors.New("it was not made by this list")

// wrongAfter is the error for a Page.After that is none.
func wrongAfter(after string) error {
	return problem.Wrongf("%.80q does not say where a page begins: %w", after, errAfter)
}

// cut makes a page of entries that were read with a limit of one more, and says
// where the next page begins.
func cut[T any](all []T, p Page, key func(T) string) (page []T, next string) {
	if n := p.limit(); len(all) > n {
		return all[:n], key(all[n-1])
	}
	return all, ""
}

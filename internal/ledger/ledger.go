// Package ledger keeps what a server must remember besides its store and its
// boot files: boxes, jobs, sessions, users, tokens, groups, schedules, the audit
// log, and how fast things went. Update makes one durable change, View reads one
// consistent state, and the methods of Tx are all that can be done in either.
//
// The queries are plain SQL that several databases understand. What only SQLite
// can do is in sqlite.go, below the interface database. docs/design.md says what
// holds where, and docs/format.md has the tables.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// The errors that a caller may want to tell apart. Errors of package problem say
// that the input was wrong or that the ledger refused it. After both, and after
// each of these but ErrUnsure, nothing has changed.
var (
	ErrNotFound = errors.New("there is no such entry in the ledger")
	ErrExists   = errors.New("there is such an entry in the ledger already")
	ErrInUse    = errors.New("the ledger is in use by another process")
	ErrNewer    = errors.New("the ledger was made by a newer version of this program")
	ErrDamaged  = errors.New("the ledger is damaged")
	ErrForeign  = errors.New("this file is no ledger")
	ErrFull     = errors.New("there is no room left for the ledger")
	ErrReadOnly = errors.New("the ledger cannot be written to")
	ErrClosed   = errors.New("the ledger is closed")
	// ErrUnsure is the error of an Update that was carried out but could not be made
	// durable. Nothing of it is visible now. After a power cut or a kill before the
	// next Update that succeeds, it may be there.
	ErrUnsure = errors.New("it is not known whether the change is durable")
)

// errView is the error of a change in a View.
var errView = errors.New("a View cannot change the ledger")

// database is what differs between kinds of databases.
type database interface {
	// begin starts a transaction. One that writes is begun only while no other one
	// is open.
	begin(ctx context.Context, write bool) (*sql.Tx, error)
	// explain adds to an error of the database what it means and what to do. The
	// result matches the errors of this package.
	explain(err error) error
	// unsure reports whether a failed commit may be durable all the same.
	unsure(err error) bool
	// committed is called after each commit, before the next writer has its turn.
	committed(ctx context.Context)
	copyTo(ctx context.Context, path string) error
	close() error
}

// Ledger is an open ledger. Its methods may be called by several goroutines at
// the same time.
type Ledger struct {
	db    database
	turn  chan struct{} // holds one value while there is a writer; others wait in their order
	reads chan struct{} // holds a value for each View; if it is full, others wait
	boxes func(put []Box, gone []box.Addr)

	mu     sync.Mutex
	idle   sync.Cond // users became 0
	users  int       // calls that are not finished
	closed bool
}

// OnBoxes sets who is told of each change of boxes that is durable, in the order of
// the changes. f gets the boxes as they are stored now, and the addresses of those
// that were deleted. A last sight alone is no change. f must be set before the first
// Update, must not wait, and must not use the ledger.
func (l *Ledger) OnBoxes(f func(put []Box, gone []box.Addr)) { l.boxes = f }

// readers is how many Views there are at the same time.
const readers = 4

func newLedger(db database) *Ledger {
	l := &Ledger{db: db, turn: make(chan struct{}, 1), reads: make(chan struct{}, readers)}
	l.idle.L = &l.mu
	return l
}

func (l *Ledger) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.users++
	return nil
}

func (l *Ledger) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.idle.Broadcast()
	}
}

// Close waits for all calls that are not finished, and ends the use of the
// ledger. Later calls fail with ErrClosed.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.users > 0 {
		l.idle.Wait()
	}
	l.mu.Unlock()
	return l.db.close()
}

// Update runs change and makes all that it did durable as one. If change fails
// or panics, or ctx ends before the commit, nothing of it was done, and Update
// returns the error. Writers have their turn in the order in which they came.
// change must not call Update.
func (l *Ledger) Update(ctx context.Context, change func(*Tx) error) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.turn }()
	return l.do(ctx, true, change)
}

// View runs read over one state of the ledger, which no Update changes
// meanwhile. It waits for no writer, and writers do not wait for it, but for a
// moment now and then. A View that takes long makes the journal grow. read should
// not call View, since many of them could wait for each other.
func (l *Ledger) View(ctx context.Context, read func(*Tx) error) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	select {
	case l.reads <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.reads }()
	return l.do(ctx, false, read)
}

func (l *Ledger) do(ctx context.Context, write bool, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// The end of ctx must not end the transaction by itself. It would do so at any
	// moment, also in the middle of the commit.
	inner, err := l.db.begin(context.WithoutCancel(ctx), write)
	if err != nil {
		return l.db.explain(err)
	}
	defer inner.Rollback() // also if f panics; after a commit it does nothing
	tx := &Tx{ctx: ctx, tx: inner, write: write, explain: l.db.explain}
	err = f(tx)
	if err == nil {
		err = tx.failed
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil || !write {
		return err
	}
	switch err := inner.Commit(); {
	case err == nil:
		if l.boxes != nil && len(tx.changes) > 0 {
			l.boxes(tx.changedBoxes())
		}
		l.db.committed(context.WithoutCancel(ctx))
		return nil
	case l.db.unsure(err):
		return fmt.Errorf("%w: %w", ErrUnsure, l.db.explain(err))
	default:
		return l.db.explain(err)
	}
}

// CopyTo makes a copy of the ledger as it is now, and makes it durable under its
// name only when it is whole and was checked. It replaces an earlier copy of
// that name. Writers go on meanwhile. The copy is a ledger that Open opens.
func (l *Ledger) CopyTo(ctx context.Context, path string) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	if err := l.db.copyTo(ctx, path); err != nil {
		return fmt.Errorf("copy the ledger to %s: %w", path, l.db.explain(err))
	}
	return nil
}

// exists makes the error for a thing that is there already.
func exists(format string, args ...any) error {
	return &problem.Error{Kind: problem.Refused, Err: &known{fmt.Sprintf(format, args...), ErrExists}}
}

// notFound makes the error for a thing that is not there.
func notFound(format string, args ...any) error {
	return &problem.Error{Kind: problem.Wrong, Err: &known{fmt.Sprintf(format, args...), ErrNotFound}}
}

// known is a sentence that matches one of the errors above.
type known struct {
	text string
	is   error
}

func (e *known) Error() string { return e.text }
func (e *known) Unwrap() error { return e.is }

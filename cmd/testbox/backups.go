package main

import (
	"context"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
)

// What commands need of a store. The store of a folder has all of it (storeFolder),
// and so can what speaks to a server.

// catalogue tells which backups there are.
type catalogue interface {
	Records(context.Context) ([]*image.Record, []*store.RecordError, error)
	Record(ctx context.Context, box, id string) (*image.Record, error)
	Damages(context.Context) (store.Damages, error)
}

// reader reads images too.
type reader interface {
	catalogue
	chunk.Images
}

// verifier reads images to find out whether they are whole, and notes it.
type verifier interface {
	reader
	Verify(ctx context.Context, r *image.Record, disk string, workers int, told func(done int64)) (*store.Damage, error)
	Lacking(context.Context) (store.Damages, error)
	NoteVerified(ctx context.Context, whole []object.Name, damaged store.Damages) error
}

// editor changes what is said of backups, and deletes them.
type editor interface {
	catalogue
	SetPinned(ctx context.Context, box, id string, pinned bool) error
	SetNote(ctx context.Context, box, id, note string) error
	SetBaseline(ctx context.Context, box, id string, baseline bool) error
	SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error)
	Delete(context.Context, ...*image.Record) error
	DeleteDamaged(context.Context, ...*store.RecordError) error
	Freed(context.Context, []*image.Record) (int64, error)
}

// saver adds backups.
type saver interface {
	reader
	Begin() chunk.Session
}

// backups is all of it, open until it is closed.
type backups interface {
	verifier
	editor
	saver
	Stats(context.Context) (*store.Stats, error)
	closer
}

// closer ends the use of a store.
type closer interface {
	// NoteFound leaves what was found damaged on the way for all who look at the
	// store.
	NoteFound(ctx context.Context, lost bool) error
	Close() error
}

// storeFolder is the store of a folder.
type storeFolder struct{ *store.Locked }

var _ backups = storeFolder{}

// Begin begins a backup whose objects this process makes itself.
func (f storeFolder) Begin() chunk.Session {
	session := f.Locked.Begin()
	session.Trusted = true
	return session
}

package main

import (
	"context"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
)

// The interfaces in this file are what commands need of a store. storeFolder
// has all of them for the store of a folder. A client of a server can have them
// too.

// catalogue lists the backups of a store.
type catalogue interface {
	Records(context.Context) ([]*image.Record, []*store.RecordError, error)
	Record(ctx context.Context, box, id string) (*image.Record, error)
	Damages(context.Context) (store.Damages, error)
}

// reader also reads images.
type reader interface {
	catalogue
	chunk.Images
}

// verifier also finds out whether images are undamaged, and records that.
type verifier interface {
	reader
	Verify(ctx context.Context, r *image.Record, disk string, workers int, told func(done int64)) (*store.Damage, error)
	Lacking(context.Context) (store.Damages, error)
	NoteVerified(ctx context.Context, whole []object.Name, damaged store.Damages) error
}

// editor changes what is recorded about backups, and deletes them.
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

// saver also adds backups.
type saver interface {
	reader
	Begin() chunk.Session
}

// backups has everything that commands need of an open store.
type backups interface {
	verifier
	editor
	saver
	Stats(context.Context) (*store.Stats, error)
	closer
}

// closer ends the use of a store.
type closer interface {
	// NoteFound records damage that was found by the way, so that later users of
	// the store know of it.
	NoteFound(ctx context.Context, lost bool) error
	Close() error
}

// storeFolder is the store of a folder.
type storeFolder struct{ *store.Locked }

var _ backups = storeFolder{}

// Begin begins a backup whose objects come from this process, so they are
// trusted.
func (f storeFolder) Begin() chunk.Session {
	session := f.Locked.Begin()
	session.Trusted = true
	return session
}

package main

import (
	"context"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// The interfaces in this file are what commands need of a store. storeFolder
// has all of them for the store of a folder. A client of a server can have them
// too.

// boxCatalogue lists the backups of a box.
type boxCatalogue interface {
	RecordsOf(ctx context.Context, box string) ([]*image.Record, []*store.RecordError, error)
}

// catalogue lists the backups of a store.
type catalogue interface {
	boxCatalogue
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
	SetBoot(ctx context.Context, box, id string, result *image.BootTest) error
	Delete(context.Context, ...*image.Record) error
	DeleteDamaged(context.Context, ...*store.RecordError) error
	Freed(context.Context, []*image.Record) (int64, error)
}

// saver adds backups. An upload to a server has it too.
type saver interface {
	boxCatalogue
	// Damages says what images were found to lack, at least those of the boxes whose
	// records were asked for.
	Damages(context.Context) (store.Damages, error)
	// content says what a disk of a backup is known by. It is zero if that cannot be
	// read.
	content(ctx context.Context, r *image.Record, d *image.RecordedDisk) match.Content
	// begin begins the backup of a record, whose Disks are not known yet.
	begin(ctx context.Context, r *image.Record) (chunk.Session, error)
}

// closingSaver is a saver that is closed at the end.
type closingSaver interface {
	saver
	closer
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

// begin begins a backup whose objects come from this process, so they are
// trusted.
func (f storeFolder) begin(context.Context, *image.Record) (chunk.Session, error) {
	session := f.Locked.Begin()
	session.Trusted = true
	return session, nil
}

// content implements saver.
func (f storeFolder) content(ctx context.Context, r *image.Record, d *image.RecordedDisk) (c match.Content) {
	im, err := openImage(ctx, f, r, d)
	if err != nil {
		return c
	}
	defer im.Close()
	view := im.ReaderAt(ctx, viewCache)
	defer view.Close()
	return match.ContentOf(view, view.Size(), d.Disk.SectorSize, usedmap.ParseLayout(im.Root.Layout))
}

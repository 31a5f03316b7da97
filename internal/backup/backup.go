// Package backup makes a backup of disks in a store. All images of one action are
// committed together. The package works over a chunk.Session, so it serves both
// the command line on the store's machine and an agent behind a server.
package backup

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// Disk is a disk to back up.
type Disk struct {
	Name     string         // name of the image
	Kernel   string         // kernel name of the disk, for the record
	Identity image.Identity // with size and sector size
	Source   copier.Source
	Used     *usedmap.Map  // says what is read (nil means the whole disk)
	Bad      []image.Range // unreadable ranges that an imported image names (nil means those that reading finds)
	// Still is asked when everything is read. It returns an error if the disk was changed
	// meanwhile. nil means that nobody knows.
	Still func() error
}

// Bytes is how much of the disk is read.
func (d *Disk) Bytes() int64 {
	if d.Used == nil {
		return d.Identity.Size
	}
	return d.Identity.Size - d.Used.FreeBytes()
}

// DiskError is an error of one disk of a backup.
type DiskError struct {
	Index int    // index in the list of disks
	Name  string // of the image
	Err   error
}

func (e *DiskError) Error() string { return fmt.Sprintf("%s: %v", e.Name, e.Err) }
func (e *DiskError) Unwrap() error { return e.Err }

// ErrUnwanted is matched by the error of a backup that Options.Unless gave up.
var ErrUnwanted = errors.New("the backup is there already")

// Options are the options of a backup. The zero value is valid.
type Options struct {
	copier.Options      // Progress is told of the stage "read"
	TakeFailing    bool // accept disks no matter how much of them cannot be read

	// Reading is called before each disk is read. d.Bytes is the total of the
	// stage that follows. nil means no call.
	Reading func(d *Disk)
	// Again is told why all disks are read once more. nil means no call.
	Again func(why error)
	// Unless is asked when everything is read, before the record is committed.
	// If it returns true, the backup is given up with ErrUnwanted. nil means
	// that the backup is always committed.
	Unless func(*image.Record) bool
}

func (o *Options) source(d *Disk) copier.SourceOptions {
	return copier.SourceOptions{Options: o.Options, SectorSize: d.Identity.SectorSize, TakeFailing: o.TakeFailing}
}

// Probe finds out in seconds whether one of the disks is failing, before any of
// them is read. Errors are DiskErrors. The error of a failing disk matches
// copier.ErrFailing.
func Probe(ctx context.Context, disks []Disk, opt Options) error {
	for i := range disks {
		d := &disks[i]
		if err := copier.Probe(ctx, d.Source, d.Used, opt.source(d)); err != nil {
			return &DiskError{i, d.Name, err}
		}
	}
	return nil
}

// Make reads the disks one after the other into the session, sets Disks of the
// record and commits it. If Make returns nil, the backup is durable in the store.
// If objects got lost on the way, as in a pack that could not be written, Make
// reads all disks once more and sends what is missing. An error of a disk is a
// DiskError, and nothing is committed then. The caller closes the session.
func Make(ctx context.Context, session chunk.Session, r *image.Record, disks []Disk, opt Options) ([]copier.Saved, error) {
	saved, err := try(ctx, session, r, disks, opt)
	if !errors.Is(err, chunk.ErrMissing) {
		return saved, err
	}
	if opt.Again != nil {
		opt.Again(err)
	}
	return try(ctx, session, r, disks, opt)
}

func try(ctx context.Context, session chunk.Session, r *image.Record, disks []Disk, opt Options) ([]copier.Saved, error) {
	r.Disks = nil
	var all []copier.Saved
	for i := range disks {
		d := &disks[i]
		if opt.Reading != nil {
			opt.Reading(d)
		}
		saved, err := copier.Save(ctx, d.Source, session, d.Used, opt.source(d))
		if err != nil {
			return nil, &DiskError{i, d.Name, err}
		}
		saved.Disk.Name, saved.Disk.Kernel, saved.Disk.Disk = d.Name, d.Kernel, d.Identity
		if len(d.Bad) > 0 {
			saved.Disk.Bad = d.Bad
		}
		r.Disks = append(r.Disks, saved.Disk)
		all = append(all, saved)
	}
	for i := range disks {
		if d := &disks[i]; d.Still != nil {
			if err := d.Still(); err != nil {
				return nil, &DiskError{i, d.Name, err}
			}
		}
	}
	if opt.Unless != nil && opt.Unless(r) {
		return nil, ErrUnwanted
	}
	if err := session.Commit(ctx, r); err != nil {
		return nil, err
	}
	return all, nil
}

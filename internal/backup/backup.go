// Package backup makes a backup of disks in a store: all images of one action,
// committed as one. It works over a session, so the command line of a store's
// machine and an agent with a server in between do the same.
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
	Name     string         // of its image
	Kernel   string         // what the kernel calls it, for the record
	Identity image.Identity // with its size and sector size
	Source   copier.Source
	Used     *usedmap.Map  // what of it is read; nil: all
	Bad      []image.Range // known before to be unreadable, of an image that is imported; nil: what is found
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
	Index int    // among the disks
	Name  string // of the image
	Err   error
}

func (e *DiskError) Error() string { return fmt.Sprintf("%s: %v", e.Name, e.Err) }
func (e *DiskError) Unwrap() error { return e.Err }

// ErrUnwanted is matched by the error of a backup that Options.Unless did not
// want.
var ErrUnwanted = errors.New("the backup is there already")

// Options are those of a backup; the zero value works.
type Options struct {
	copier.Options      // Progress is told of the stage "read"
	TakeFailing    bool // take disks however much of them cannot be read

	// Reading is told which disk is read next, and of how many bytes of it the
	// stages are that come; nil: nobody listens.
	Reading func(d *Disk)
	// Again is told why all disks are read once more; nil: nobody listens.
	Again func(why error)
	// Unless is asked when all is read, with the record that is to be
	// committed. True gives the backup up, with ErrUnwanted. nil never does.
	Unless func(*image.Record) bool
}

func (o *Options) source(d *Disk) copier.SourceOptions {
	return copier.SourceOptions{Options: o.Options, SectorSize: d.Identity.SectorSize, TakeFailing: o.TakeFailing}
}

// Probe finds out whether one of the disks is failing, in the seconds before
// the first is read. Errors are DiskErrors; of a failing disk, the error matches
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

// Make reads the disks one after the other into the session, and commits the
// record, whose Disks it sets. After nil the backup is in the store, durably.
// Objects that got lost on the way, as in a pack that could not be written, are
// sent again, once. An error of a disk is a DiskError, after which nothing is
// committed; the session is the caller's to close.
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
	if opt.Unless != nil && opt.Unless(r) {
		return nil, ErrUnwanted
	}
	if err := session.Commit(ctx, r); err != nil {
		return nil, err
	}
	return all, nil
}

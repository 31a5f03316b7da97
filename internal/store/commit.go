package store

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/words"
)

// maxNamed is the number of missing objects that an error names.
const maxNamed = 5

// enoughMissing is the number of missing objects after which a commit looks for no more.
// A root may name one page half a million times, and the page thousands of chunks.
const enoughMissing = 1000

// Commit implements chunk.Session. A zero r.Time is set to now.
func (s *Session) Commit(ctx context.Context, r *image.Record) error {
	done, err := s.beginCommit(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.objects.writable(); err != nil {
		return err
	}
	if err := s.closure(ctx, r); err != nil {
		return err
	}
	return s.catalogue.addRecord(ctx, r)
}

// closure is objects.closure. If objects are missing, and packs with objects of
// this backup could not be written, the error also says why.
func (s *Session) closure(ctx context.Context, r *image.Record) error {
	err := s.objects.closure(ctx, r)
	if !errors.Is(err, chunk.ErrMissing) {
		return err
	}
	s.objects.mu.Lock()
	defer s.objects.mu.Unlock()
	if s.objects.losses == s.losses {
		return err
	}
	return errors.Join(err, s.objects.lost)
}

// closure checks that all objects that a record reaches are stored durably.
// These are the root of each disk, its pages, and their chunks.
func (s *objects) closure(ctx context.Context, r *image.Record) error {
	s.sealAll()
	for {
		before := s.lossesSoFar()
		var missing []object.Key
		for i := range r.Disks {
			if len(missing) >= enoughMissing {
				break
			}
			if err := s.closedRoot(ctx, &r.Disks[i], &missing); err != nil {
				return err
			}
		}
		if len(missing) > 0 {
			count := words.Count(len(missing), "object")
			if len(missing) >= enoughMissing {
				count = fmt.Sprintf("%d or more objects", enoughMissing)
			}
			return fmt.Errorf("%s of the backup, %v first, %s %w", count, missing[:min(len(missing), maxNamed)],
				words.Verb(len(missing), "is", "are"), chunk.ErrMissing)
		}
		// An object that was lost may have been put again by another backup, into a
		// pack that was not durable yet when this loop found it.
		if s.sealAll(); s.lossesSoFar() == before {
			return nil
		}
	}
}

// lossesSoFar counts the packs that could not be written.
func (s *contents) lossesSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.losses
}

// closedRoot looks for all objects of an image, and appends those that do not
// exist to missing, until there are enough. Packs must be sealed before, so that all
// that is found is durable.
func (s *objects) closedRoot(ctx context.Context, d *image.RecordedDisk, missing *[]object.Key) error {
	key := object.Key{Kind: object.Root, Name: d.Root}
	if !s.touch(key) {
		*missing = append(*missing, key)
		return nil
	}
	raw, err := s.raw(ctx, key)
	if IsLost(err) {
		*missing = append(*missing, key)
		return nil
	} else if err != nil {
		return err
	}
	root, err := chunk.ParseRoot(raw)
	if err != nil {
		return wrong(key, err)
	}
	if err := fits(root, d); err != nil {
		return fmt.Errorf("the record of %s %w: %w", d.Name, chunk.ErrWrong, err)
	}
	for i, p := range root.Pages {
		before := len(*missing)
		if before >= enoughMissing {
			return nil
		}
		n, err := s.closedPage(ctx, p, missing)
		switch {
		case err != nil:
			return err
		case n == 0 && len(*missing) == before:
			*missing = append(*missing, object.Key{Kind: object.Page, Name: p})
		case n > 0 && n != root.Region(i).Len:
			return wrong(key, fmt.Errorf("the page of region %d describes %d bytes of %d", i, n, root.Region(i).Len))
		}
	}
	return nil
}

// fits returns an error if an image does not have the size that the record of
// its disk says.
func fits(root *chunk.Root, d *image.RecordedDisk) error {
	if root.Size != d.Disk.Size || root.SectorSize != d.Disk.SectorSize {
		return fmt.Errorf("the image has %d bytes in sectors of %d, its record says %d in sectors of %d",
			root.Size, root.SectorSize, d.Disk.Size, d.Disk.SectorSize)
	}
	return nil
}

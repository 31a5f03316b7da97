package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

const recordPrefix = "records/"

func recordName(box, id string) string { return recordPrefix + box + "/" + id }

// RecordError is a record that cannot be read. It stands for a backup that
// may be good: nothing that it could reach is collected.
type RecordError struct {
	Box, ID string
	Err     error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("the record of backup %s of %s: %v", e.ID, e.Box, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// Remedy says what helps, and what gives the backup up.
func (e *RecordError) Remedy() string {
	if !isRecordName(e.Box, e.ID) {
		return fmt.Sprintf("move %s out of the store", recordName(e.Box, e.ID))
	}
	return fmt.Sprintf("`testbox store copy` from a second copy of the store to this one brings the record back; without a second copy, `testbox image delete %s@%s` gives the backup up", e.Box, e.ID)
}

// isRecordName reports whether there can be such a record.
func isRecordName(box, id string) bool { return image.ValidBox(box) && image.ValidID(id) }

// Records gives all backups, sorted by box and time. Those that cannot be read
// are in damaged; any other error is err.
func (s *Store) Records(ctx context.Context) (records []*image.Record, damaged []*RecordError, err error) {
	blobs, err := s.cfg.Blobs.List(ctx, recordPrefix)
	if err != nil {
		return nil, nil, err
	}
	found, bad := make([]*image.Record, len(blobs)), make([]*RecordError, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, b := range blobs {
		g.Go(func() (err error) {
			box, id, _ := strings.Cut(strings.TrimPrefix(b.Name, recordPrefix), "/")
			found[i], err = s.Record(gctx, box, id)
			if errors.As(err, &bad[i]) || errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i := range blobs {
		if found[i] != nil {
			records = append(records, found[i])
		} else if bad[i] != nil {
			damaged = append(damaged, bad[i])
		}
	}
	slices.SortFunc(records, compareRecords)
	return records, damaged, nil
}

func compareRecords(a, b *image.Record) int {
	return cmp.Or(strings.Compare(a.Box, b.Box), a.Time.Compare(b.Time), cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID))
}

// Record reads one backup's record. What is there and not readable is a
// *RecordError.
func (s *Store) Record(ctx context.Context, box, id string) (*image.Record, error) {
	name := recordName(box, id)
	if !isRecordName(box, id) {
		return nil, &RecordError{box, id, errors.New("it has a name that no record has")}
	}
	body, err := readEnvelope(ctx, s.cfg.Blobs, name, "record", image.MaxRecord)
	switch {
	case errors.Is(err, errEnvelope): // without the name, which stands beside it
		return nil, &RecordError{box, id, errEnvelope}
	case isSpoilt(err):
		return nil, &RecordError{box, id, err}
	case err != nil:
		return nil, err
	}
	r, err := image.ParseRecord(body)
	if err == nil && (r.Box != box || r.ID != id) {
		err = fmt.Errorf("it says that it is %s of %s", r.ID, r.Box)
	}
	if err != nil {
		return nil, &RecordError{box, id, err}
	}
	return r, nil
}

// idTime is the beginning of an id.
const idTime = "20060102-150405"

// addRecord commits a backup under an id of its own.
func (s *Store) addRecord(ctx context.Context, r *image.Record) (err error) {
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	if r.Time.IsZero() {
		r.Time = time.Now().UTC().Truncate(time.Second)
		if r.After, err = s.comesAfter(ctx, r.Box, r.Time); err != nil {
			return err
		}
	}
	r.Time = r.Time.UTC().Truncate(time.Second)
	r.Format = image.RecordFormat
	if r.ID, err = s.freeID(ctx, r.Box, r.Time); err != nil {
		return err
	}
	if err := s.writeRecord(ctx, r); err != nil {
		return err
	}
	s.healedBy(ctx, r)
	return nil
}

// freeID is an id for a backup of a box that no other has.
func (s *Store) freeID(ctx context.Context, box string, at time.Time) (string, error) {
	base := at.Format(idTime)
	id := base
	for n := 2; ; n++ {
		_, err := s.cfg.Blobs.Size(ctx, recordName(box, id))
		if errors.Is(err, fs.ErrNotExist) {
			return id, nil
		} else if err != nil {
			return "", err
		}
		id = fmt.Sprintf("%s-%d", base, n)
	}
}

// SetTime puts the time of a backup right, and gives it with the id that goes
// with that time. For a moment it is there under both.
func (s *Store) SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	r, err := s.Record(ctx, box, id)
	if err != nil {
		return nil, err
	}
	r.Time, r.After = at.UTC().Truncate(time.Second), ""
	if !strings.HasPrefix(id, r.Time.Format(idTime)) {
		if r.ID, err = s.freeID(ctx, box, r.Time); err != nil {
			return nil, err
		}
	}
	if err := s.writeRecord(ctx, r); err != nil {
		return nil, err
	}
	if r.ID == id {
		return r, nil
	}
	return r, s.remove(ctx, box, id)
}

// writeRecord puts a record in the place of the one that it had, at once.
func (s *Store) writeRecord(ctx context.Context, r *image.Record) error {
	if err := r.Check(); err != nil {
		return err
	}
	return writeEnvelope(ctx, s.cfg.Blobs, recordName(r.Box, r.ID), "record", r, image.MaxRecord)
}

// change rewrites a record.
func (s *Store) change(ctx context.Context, box, id string, edit func(*image.Record)) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	return s.changeLocked(ctx, box, id, edit)
}

func (s *Store) changeLocked(ctx context.Context, box, id string, edit func(*image.Record)) error {
	r, err := s.Record(ctx, box, id)
	if err != nil {
		return err
	}
	edit(r)
	return s.writeRecord(ctx, r)
}

// SetPinned says whether retention keeps a backup for good.
func (s *Store) SetPinned(ctx context.Context, box, id string, pinned bool) error {
	return s.change(ctx, box, id, func(r *image.Record) { r.Pinned = pinned })
}

// SetNote gives a backup an admin's words.
func (s *Store) SetNote(ctx context.Context, box, id, note string) error {
	return s.change(ctx, box, id, func(r *image.Record) { r.Note = note })
}

// SetBaseline makes a backup the one that a restore of the box takes by
// itself, in the place of an earlier one.
func (s *Store) SetBaseline(ctx context.Context, box, id string, baseline bool) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	if err := s.changeLocked(ctx, box, id, func(r *image.Record) { r.Baseline = baseline }); err != nil {
		return err
	}
	if !baseline {
		return nil
	}
	// The old one goes after the new one is there: a box is never without.
	records, _, err := s.Records(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Box == box && r.ID != id && r.Baseline {
			if err := s.changeLocked(ctx, box, r.ID, func(r *image.Record) { r.Baseline = false }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes backups, durably. Their objects are collected by GC.
func (s *Store) Delete(ctx context.Context, records ...*image.Record) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	for _, r := range records {
		if err := s.remove(ctx, r.Box, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDamaged gives backups up whose records cannot be read, durably.
func (s *Store) DeleteDamaged(ctx context.Context, damaged ...*RecordError) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	for _, d := range damaged {
		if err := s.remove(ctx, d.Box, d.ID); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a record. recordMu is held.
func (s *Store) remove(ctx context.Context, box, id string) error {
	if !isRecordName(box, id) {
		return fmt.Errorf("there can be no backup %q of %q", id, box)
	}
	if err := s.cfg.Blobs.Remove(ctx, recordName(box, id)); err != nil {
		return fmt.Errorf("delete backup %s of %s: %w", id, box, err)
	}
	return nil
}

package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
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
	return fmt.Sprintf("`testbox store copy` from a second copy of the store to this one brings the record back; "+
		"without a second copy, `testbox image delete %s@%s` gives the backup up", e.Box, e.ID)
}

// isRecordName reports whether there can be such a record.
func isRecordName(box, id string) bool { return image.ValidBox(box) && image.ValidID(id) }

// Catalogue are the backups of a store: a record for each.
type Catalogue struct {
	*site
	*damageList                             // what their images were found to lack
	refresh     func(context.Context) error // takes in objects that another process has put
	recordMu    sync.Mutex                  // holds back a second change of records
	held        holds                       // the images that are read
}

// Records gives all backups, sorted by box and time. Those that cannot be read
// are in damaged; any other error is err.
func (c *Catalogue) Records(ctx context.Context) (records []*image.Record, damaged []*RecordError, err error) {
	blobs, err := c.cfg.Blobs.List(ctx, recordPrefix)
	if err != nil {
		return nil, nil, err
	}
	found, bad := make([]*image.Record, len(blobs)), make([]*RecordError, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, b := range blobs {
		g.Go(func() (err error) {
			box, id, _ := strings.Cut(strings.TrimPrefix(b.Name, recordPrefix), "/")
			found[i], err = c.Record(gctx, box, id)
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
	if c.cfg.ReadOnly { // some may have been committed since the packs were listed
		err = c.refresh(ctx)
	}
	return records, damaged, err
}

func compareRecords(a, b *image.Record) int {
	return cmp.Or(strings.Compare(a.Box, b.Box), a.Time.Compare(b.Time), cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID))
}

// Record reads one backup's record. What is there and not readable is a
// *RecordError.
func (c *Catalogue) Record(ctx context.Context, box, id string) (*image.Record, error) {
	name := recordName(box, id)
	if !isRecordName(box, id) {
		return nil, &RecordError{box, id, errors.New("it has a name that no record has")}
	}
	text, err := blob.ReadAll(ctx, c.cfg.Blobs, name, image.MaxRecord)
	if err == nil && isBar(text) {
		err = &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	var body []byte
	if err == nil {
		body, err = unseal("record", text)
	}
	switch {
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
func (c *Catalogue) addRecord(ctx context.Context, r *image.Record) (err error) {
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	if r.Time.IsZero() {
		r.Time = time.Now().UTC().Truncate(time.Second)
		if r.After, err = c.comesAfter(ctx, r.Box, r.Time); err != nil {
			return err
		}
	}
	r.Time = r.Time.UTC().Truncate(time.Second)
	r.Format = image.RecordFormat
	if err := c.createFree(ctx, r); err != nil {
		return err
	}
	c.healedBy(ctx, r)
	return nil
}

// createFree writes a record under an id of its time that no other has.
func (c *Catalogue) createFree(ctx context.Context, r *image.Record) (err error) {
	for {
		if r.ID, err = c.freeID(ctx, r.Box, r.Time); err != nil {
			return err
		}
		if err = c.createRecord(ctx, r); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// freeID is an id for a backup of a box that no other has.
func (c *Catalogue) freeID(ctx context.Context, box string, at time.Time) (string, error) {
	base := at.Format(idTime)
	id := base
	for n := 2; ; n++ {
		_, err := c.cfg.Blobs.Size(ctx, recordName(box, id))
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
func (c *Catalogue) SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error) {
	if err := c.writable(); err != nil {
		return nil, err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	over, err := c.version(ctx, recordName(box, id)) // before it is read
	if err != nil {
		return nil, err
	}
	r, err := c.Record(ctx, box, id)
	if err != nil {
		return nil, err
	}
	r.Time, r.After = at.UTC().Truncate(time.Second), ""
	if strings.HasPrefix(id, r.Time.Format(idTime)) {
		return r, c.writeRecord(ctx, r, over)
	}
	if err := c.createFree(ctx, r); err != nil {
		return nil, err
	}
	if err := c.comeAfter(ctx, box, id, r.ID); err != nil {
		return nil, err
	}
	return r, c.remove(ctx, []string{recordName(box, id)})
}

// comeAfter follows a backup of the box that gets another id, from was to id. The
// records of backups that say they were made after was say id from then on.
// recordMu is held.
func (c *Catalogue) comeAfter(ctx context.Context, box, was, id string) error {
	records, _, err := c.Records(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Box == box && r.After == was {
			if err := c.changeLocked(ctx, box, r.ID, func(r *image.Record) { r.After = id }); err != nil {
				return err
			}
		}
	}
	return nil
}

// createRecord writes a record under a name that nothing has.
func (c *Catalogue) createRecord(ctx context.Context, r *image.Record) error {
	if err := r.Check(); err != nil {
		return err
	}
	name := recordName(r.Box, r.ID)
	if err := c.lease.create(ctx, name); err != nil {
		return err
	}
	err := writeOver(ctx, c.cfg.Blobs, name, blob.None, "record", r, image.MaxRecord)
	if err == nil || errors.Is(err, fs.ErrExist) {
		c.lease.done(ctx, name)
		return err
	}
	c.lease.leave(name)
	if c.lease == nil || ctx.Err() != nil {
		return err
	}
	// Settling bars the name, if the record has not come to be by then.
	if e := c.lease.stillOwner(ctx); e != nil {
		return errors.Join(err, e)
	}
	want, _ := envelope("record", r)
	if got, e := blob.ReadAll(ctx, c.cfg.Blobs, name, image.MaxRecord); e == nil && bytes.Equal(got, want) {
		return nil // only the answer was lost
	}
	return err
}

// change rewrites a record.
func (c *Catalogue) change(ctx context.Context, box, id string, edit func(*image.Record)) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	return c.changeLocked(ctx, box, id, edit)
}

func (c *Catalogue) changeLocked(ctx context.Context, box, id string, edit func(*image.Record)) error {
	// The version comes first: if the record changes before it is read, it is
	// not overwritten.
	over, err := c.version(ctx, recordName(box, id))
	if err != nil {
		return err
	}
	r, err := c.Record(ctx, box, id)
	if err != nil {
		return err
	}
	edit(r)
	return c.writeRecord(ctx, r, over)
}

// replaceRecord writes a record in the place of one that cannot be read.
func (c *Catalogue) replaceRecord(ctx context.Context, r *image.Record) error {
	over, err := c.version(ctx, recordName(r.Box, r.ID))
	if err != nil {
		return err
	}
	return c.writeRecord(ctx, r, over)
}

// writeRecord writes a record over a version. That one is of a time when this
// process still was the owner.
func (c *Catalogue) writeRecord(ctx context.Context, r *image.Record, over blob.Version) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := c.lease.stillOwner(ctx); err != nil {
		return err
	}
	return writeOver(ctx, c.cfg.Blobs, recordName(r.Box, r.ID), over, "record", r, image.MaxRecord)
}

// version is what a blob is to be written over: None if it is not there, Any
// if it cannot be read.
func (s *site) version(ctx context.Context, name string) (blob.Version, error) {
	v, err := s.cfg.Blobs.Version(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return blob.None, nil
	case isSpoilt(err):
		return blob.Any, nil
	}
	return v, err
}

// SetPinned says whether retention keeps a backup for good.
func (c *Catalogue) SetPinned(ctx context.Context, box, id string, pinned bool) error {
	return c.change(ctx, box, id, func(r *image.Record) { r.Pinned = pinned })
}

// SetNote gives a backup an admin's words.
func (c *Catalogue) SetNote(ctx context.Context, box, id, note string) error {
	return c.change(ctx, box, id, func(r *image.Record) { r.Note = note })
}

// SetBaseline makes a backup the one that a restore of the box takes by
// itself, in the place of an earlier one.
func (c *Catalogue) SetBaseline(ctx context.Context, box, id string, baseline bool) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	if err := c.changeLocked(ctx, box, id, func(r *image.Record) { r.Baseline = baseline }); err != nil {
		return err
	}
	if !baseline {
		return nil
	}
	// The old one goes after the new one is there: a box is never without.
	records, _, err := c.Records(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Box == box && r.ID != id && r.Baseline {
			if err := c.changeLocked(ctx, box, r.ID, func(r *image.Record) { r.Baseline = false }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes backups, durably. Their objects are collected by GC. Those of
// which an image is read in this process are passed by: the error is a
// *HeldError then.
func (c *Catalogue) Delete(ctx context.Context, records ...*image.Record) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	free, held := c.held.split(records)
	var names []string
	for _, r := range free {
		names = append(names, recordName(r.Box, r.ID))
	}
	if len(names) > 0 {
		if err := c.keepOrder(ctx, names); err != nil {
			return err
		}
		if err := c.remove(ctx, names); err != nil {
			return err
		}
	}
	if len(held) > 0 {
		return &HeldError{held}
	}
	return nil
}

// DeleteDamaged gives backups up whose records cannot be read, durably.
func (c *Catalogue) DeleteDamaged(ctx context.Context, damaged ...*RecordError) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	var names []string
	for _, d := range damaged {
		names = append(names, recordName(d.Box, d.ID))
	}
	if err := c.keepOrder(ctx, names); err != nil {
		return err
	}
	return c.remove(ctx, names)
}

// keepOrder comes before the records of names are deleted. A record says after
// which backup its own was made (After). If that one is to be deleted, keepOrder
// puts into After the last backup before it that stays. So the order of those
// that stay is the same. recordMu is held.
func (c *Catalogue) keepOrder(ctx context.Context, names []string) error {
	records, damaged, err := c.Records(ctx)
	if err != nil {
		return err
	}
	var boxes []string
	for _, n := range names {
		box, _, _ := strings.Cut(strings.TrimPrefix(n, recordPrefix), "/")
		boxes = append(boxes, box)
	}
	slices.Sort(boxes)
	for _, box := range slices.Compact(boxes) {
		of, _ := ofBox(records, damaged, box)
		last := "" // of those that stay
		for _, d := range inOrder(of, farthest) {
			if slices.Contains(names, recordName(box, d.ID)) {
				continue
			}
			if slices.Contains(names, recordName(box, d.After)) {
				if err := c.changeLocked(ctx, box, d.ID, func(r *image.Record) { r.After = last }); err != nil {
					// A full disk must not keep anybody from making room.
					c.cfg.Log("backup %s of %s may not stand in its place any more: %v", d.ID, box, err)
				}
			}
			last = d.ID
		}
	}
	return nil
}

// remove deletes records. recordMu is held.
func (c *Catalogue) remove(ctx context.Context, names []string) error {
	for _, n := range names {
		if box, id, _ := strings.Cut(strings.TrimPrefix(n, recordPrefix), "/"); !isRecordName(box, id) {
			return fmt.Errorf("%s cannot be the record of a backup", n)
		}
	}
	if err := c.lease.remove(ctx, names...); err != nil {
		return err
	}
	for i, n := range names {
		if err := c.cfg.Blobs.Remove(ctx, n); err != nil {
			c.lease.leave(names[i])
			c.lease.done(ctx, slices.Concat(names[:i], names[i+1:])...)
			return fmt.Errorf("delete %s: %w", n, err)
		}
	}
	c.lease.done(ctx, names...)
	return nil
}

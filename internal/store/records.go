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

// RecordError is a record that cannot be read. The backup may still be good, so
// nothing is collected while there is such a record.
type RecordError struct {
	Box, ID string
	Err     error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("the record of backup %s of %s: %v", e.ID, e.Box, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// Remedy says how to repair the record, and how to give the backup up.
func (e *RecordError) Remedy() string {
	if !isRecordName(e.Box, e.ID) {
		return fmt.Sprintf("move %s out of the store", recordName(e.Box, e.ID))
	}
	return fmt.Sprintf("`testbox store copy` from a second copy of the store to this one brings the record back; "+
		"without a second copy, `testbox image delete %s@%s` gives the backup up", e.Box, e.ID)
}

// isRecordName reports whether a record can have this name.
func isRecordName(box, id string) bool { return image.ValidBox(box) && image.ValidID(id) }

// Catalogue has the backups of a store, with a record for each.
type Catalogue struct {
	*site
	*damageList                             // what images were found to lack
	refresh     func(context.Context) error // adds objects that another process has stored to the index
	recordMu    sync.Mutex                  // serializes changes of records
	held        holds                       // the images that are being read
	latest      *latest                     // the latest backup of each box
	told        *summaries                  // what the records of each box tell
}

// Records returns all backups, sorted by box and time. Records that cannot be
// read are in damaged. Any other error is err.
func (c *Catalogue) Records(ctx context.Context) (records []*image.Record, damaged []*RecordError, err error) {
	return c.recordsBelow(ctx, recordPrefix)
}

// RecordsOf is Records for one box. It reads no records of others.
func (c *Catalogue) RecordsOf(ctx context.Context, box string) (records []*image.Record, damaged []*RecordError, err error) {
	if !image.ValidBox(box) {
		return nil, nil, nil
	}
	return c.recordsBelow(ctx, recordPrefix+box+"/")
}

func (c *Catalogue) recordsBelow(ctx context.Context, prefix string) (records []*image.Record, damaged []*RecordError, err error) {
	names, err := c.recordNames(ctx, prefix)
	if err != nil {
		return nil, nil, err
	}
	for {
		var gone bool
		if records, damaged, gone, err = c.readRecords(ctx, names); err != nil {
			return nil, nil, err
		}
		if !gone {
			break
		}
		// A backup whose time is changed has another name from then on, which the
		// list may not have had yet. What is a bar stays in the list.
		before := names
		if names, err = c.recordNames(ctx, prefix); err != nil {
			return nil, nil, err
		}
		if slices.Equal(names, before) {
			break
		}
	}
	slices.SortFunc(records, compareRecords)
	if c.cfg.ReadOnly { // some may have been committed since the packs were listed
		err = c.refresh(ctx)
	}
	return records, damaged, err
}

// recordNames gives the names of the blobs of records that begin with prefix,
// sorted.
func (c *Catalogue) recordNames(ctx context.Context, prefix string) (names []string, err error) {
	blobs, err := c.cfg.Blobs.List(ctx, prefix)
	for _, b := range blobs {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return names, err
}

// readRecords reads the records of these names, and reports whether one is not
// there.
func (c *Catalogue) readRecords(ctx context.Context, names []string) (records []*image.Record, damaged []*RecordError, gone bool,
	err error) {
	found, bad := make([]*image.Record, len(names)), make([]*RecordError, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, name := range names {
		g.Go(func() (err error) {
			if err := pace(gctx); err != nil {
				return err
			}
			box, id, _ := strings.Cut(strings.TrimPrefix(name, recordPrefix), "/")
			found[i], err = c.Record(gctx, box, id)
			if errors.As(err, &bad[i]) || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, false, err
	}
	for i := range names {
		switch {
		case found[i] != nil:
			records = append(records, found[i])
		case bad[i] != nil:
			damaged = append(damaged, bad[i])
		default:
			gone = true
		}
	}
	return records, damaged, gone, nil
}

func compareRecords(a, b *image.Record) int {
	return cmp.Or(strings.Compare(a.Box, b.Box), a.Time.Compare(b.Time), cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID))
}

// Record reads one backup's record. If the record exists and cannot be read,
// the error is a *RecordError.
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

// idTime is the time format that an id begins with.
const idTime = "20060102-150405"

// addRecord commits a backup under a new id.
func (c *Catalogue) addRecord(ctx context.Context, r *image.Record) (err error) {
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	now := r.Time.IsZero()
	if now {
		r.Time = time.Now().UTC().Truncate(time.Second)
		if r.After, err = c.comesAfter(ctx, r.Box, r.Time); err != nil {
			return err
		}
	}
	r.Time = r.Time.UTC().Truncate(time.Second)
	r.Format = image.RecordFormat
	before, known, _ := c.latest.look(r.Box)
	if err := c.createFree(ctx, r); err != nil {
		return err
	}
	if now && known {
		c.latest.made(r, before)
	}
	c.healedBy(ctx, r)
	return nil
}

// createFree writes a record under a new id that is made from its time.
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

// freeID returns an id that no backup of the box has.
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

// SetTime corrects the time of a backup, and returns the record with the id
// that goes with that time. For a moment the backup has records under both ids.
func (c *Catalogue) SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error) {
	if err := c.writable(); err != nil {
		return nil, err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	over, err := c.version(ctx, recordName(box, id)) // before the record is read, as in changeLocked
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

// comeAfter updates records after a backup of the box has changed its id from
// was to id. Records that name was as the backup before theirs name id then.
// recordMu is held.
func (c *Catalogue) comeAfter(ctx context.Context, box, was, id string) error {
	records, _, err := c.RecordsOf(ctx, box)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.After == was {
			if err := c.changeLocked(ctx, box, r.ID, func(r *image.Record) { r.After = id }); err != nil {
				return err
			}
		}
	}
	return nil
}

// createRecord writes a record under a name that no blob has.
func (c *Catalogue) createRecord(ctx context.Context, r *image.Record) error {
	if err := r.Check(); err != nil {
		return err
	}
	name := recordName(r.Box, r.ID)
	defer c.latest.changed(name)
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
	// stillOwner bars the name, unless the record exists by now.
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
	// The version is read first. If the record changes after that, it is not
	// overwritten.
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

// replaceRecord writes a record over one that cannot be read.
func (c *Catalogue) replaceRecord(ctx context.Context, r *image.Record) error {
	over, err := c.version(ctx, recordName(r.Box, r.ID))
	if err != nil {
		return err
	}
	return c.writeRecord(ctx, r, over)
}

// writeRecord writes a record over a version. The version must have been read
// while this process still was the owner.
func (c *Catalogue) writeRecord(ctx context.Context, r *image.Record, over blob.Version) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := c.lease.stillOwner(ctx); err != nil {
		return err
	}
	defer c.latest.changed(recordName(r.Box, r.ID))
	return writeOver(ctx, c.cfg.Blobs, recordName(r.Box, r.ID), over, "record", r, image.MaxRecord)
}

// version returns the version that a blob is to be written over. It is None if
// the blob does not exist, and Any if it cannot be read.
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

// SetPinned sets whether retention keeps a backup for good.
func (c *Catalogue) SetPinned(ctx context.Context, box, id string, pinned bool) error {
	return c.change(ctx, box, id, func(r *image.Record) { r.Pinned = pinned })
}

// SetNote sets an admin's note on a backup.
func (c *Catalogue) SetNote(ctx context.Context, box, id, note string) error {
	return c.change(ctx, box, id, func(r *image.Record) { r.Note = note })
}

// SetBoot notes the result of a boot test, in the place of an earlier one.
func (c *Catalogue) SetBoot(ctx context.Context, box, id string, result *image.BootTest) error {
	return c.change(ctx, box, id, func(r *image.Record) { r.Boot = result })
}

// SetBaseline makes a backup the one that is restored by default to its box. It
// replaces an earlier baseline.
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
	// The old baseline is cleared after the new one is set, so that the box always
	// has one.
	records, _, err := c.RecordsOf(ctx, box)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.ID != id && r.Baseline {
			if err := c.changeLocked(ctx, box, r.ID, func(r *image.Record) { r.Baseline = false }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes backups durably. GC collects their objects later. Backups that
// have an image which this process is reading are not deleted, and the error is
// a *HeldError then.
func (c *Catalogue) Delete(ctx context.Context, records ...*image.Record) error {
	if err := c.writable(); err != nil {
		return err
	}
	ctx = WithPace(ctx, nil) // backups that commit wait for the lock
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

// DeleteDamaged durably deletes records that cannot be read, and so gives up
// their backups.
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

// keepOrder is called before the records of names are deleted. A record names
// in After the backup that was made before its own. If that backup is to be
// deleted, keepOrder sets After to the last earlier backup that stays. So the
// remaining backups stay in order. recordMu is held.
func (c *Catalogue) keepOrder(ctx context.Context, names []string) error {
	var boxes []string
	gone := map[string]bool{}
	for _, n := range names {
		box, _, _ := strings.Cut(strings.TrimPrefix(n, recordPrefix), "/")
		boxes, gone[n] = append(boxes, box), true
	}
	slices.Sort(boxes)
	for _, box := range slices.Compact(boxes) {
		records, damaged, err := c.RecordsOf(ctx, box)
		if err != nil {
			return err
		}
		of, _ := ofBox(records, damaged, box)
		last := "" // the last backup that stays
		for _, d := range inOrder(of, farthest) {
			if gone[recordName(box, d.ID)] {
				continue
			}
			if gone[recordName(box, d.After)] {
				if err := c.changeLocked(ctx, box, d.ID, func(r *image.Record) { r.After = last }); err != nil {
					// Errors are only logged, so that a full disk does not prevent deletion,
					// which makes room.
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
		defer c.latest.changed(n)
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

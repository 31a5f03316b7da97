package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/words"
)

// copyAtOnce is the number of chunks that are copied at a time.
const copyAtOnce = 8

// CopyProgress says how far a copy is.
type CopyProgress struct {
	Total   int           // backups to copy
	Done    int           // part of Total that is in the copy
	Present int           // part of Done that was complete in the copy before
	Record  *image.Record // the backup that is being copied
	Objects int           // sent so far
	Bytes   int64         // of the objects sent, as they are stored
}

// ErrSame says that source and target are the same store.
var ErrSame = errors.New("both are the same store, in the same place")

// Copy copies backups to another store, under the same ids. It can be stopped
// at any moment and started again, and then sends nothing twice. A backup that
// exists in the target keeps its marks there. It is checked all the same, and
// the objects that it lacks are sent. If the target's record is damaged, it is
// replaced. Each object is checked against its name before it counts.
//
// A backup that cannot be read here, or whose record cannot be written there,
// does not stop the others. damaged are the records that cannot be read, as
// Records returns them. The error names all backups that were not copied.
// progress may be nil. It is called after each page, by one goroutine at a
// time.
func (s *Store) Copy(ctx context.Context, dst *Store, records []*image.Record, damaged []*RecordError, progress func(CopyProgress)) error {
	if err := dst.objects.writable(); err != nil {
		return err
	}
	if same, err := s.isSame(ctx, dst); err != nil {
		return err
	} else if same {
		return ErrSame
	}
	// A record that is about to be removed must not count as present.
	if err := dst.objects.lease.stillOwner(ctx); err != nil {
		return err
	}
	session := dst.Begin()
	defer session.Close()
	if progress == nil {
		progress = func(CopyProgress) {}
	}
	c := &copying{src: s.objects, from: s.Catalogue, dst: session, tell: progress, now: CopyProgress{Total: len(records) + len(damaged)}}
	c.tell(c.now)
	var errs []error
	for i, r := range records {
		c.now.Record = r
		err := c.record(ctx, r)
		if err == nil {
			c.now.Done++
			c.tell(c.now)
			continue
		}
		if ctx.Err() != nil { // nothing is wrong with what was being read then
			c.tell(c.now)
			left := c.now.Total - c.now.Done
			return errors.Join(append(errs, fmt.Errorf("%s %s not copied yet; run the copy again, and what is there is not sent twice: %w",
				words.Count(left, "backup"), words.Verb(left, "is", "are"), ctx.Err()))...)
		}
		errs = append(errs, fmt.Errorf("backup %s of %s is not copied: %w", r.ID, r.Box, err))
		if !errors.As(err, new(*sourceError)) && !errors.As(err, new(*targetError)) {
			if n := len(records) - i - 1; n > 0 {
				errs = append(errs, fmt.Errorf("the copy ended there, and %s %s not tried; what is copied is not sent again",
					words.Count(n, "other backup"), words.Verb(n, "was", "were")))
			}
			break
		}
	}
	for _, d := range damaged {
		errs = append(errs, fmt.Errorf("backup %s of %s is not copied: %w", d.ID, d.Box, c.unreadable(ctx, d)))
	}
	return errors.Join(errs...)
}

// isSame reports whether dst is this store, perhaps under another name. It
// writes a blob to dst and looks for it here. The UUID alone does not tell,
// since a copy that was made file by file has the same one.
func (s *Store) isSame(ctx context.Context, dst *Store) (bool, error) {
	if s.objects.uuid != dst.objects.uuid {
		return false, nil
	}
	name := "same-" + strings.ToLower(rand.Text())
	if err := blob.WriteAll(ctx, dst.objects.cfg.Blobs, name, nil); err != nil {
		return false, err
	}
	_, err := s.objects.cfg.Blobs.Size(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, dst.objects.cfg.Blobs.Remove(ctx, name)
	}
	return true, errors.Join(err, dst.objects.cfg.Blobs.Remove(ctx, name))
}

// unreadable returns an error that says how to repair a record.
func (c *copying) unreadable(ctx context.Context, d *RecordError) error {
	if _, err := c.dst.catalogue.Record(ctx, d.Box, d.ID); err == nil {
		return fmt.Errorf("its record here cannot be read: %w; the other store has a good one: "+
			"`testbox store copy` from there to here brings it back", d.Err)
	}
	return fmt.Errorf("its record cannot be read: %w; %s", d.Err, d.Remedy())
}

// sourceError says that something cannot be read from the source.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// targetError says that the record of a backup could not be written to the
// target. Other records may still be written.
type targetError struct{ error }

func (e *targetError) Unwrap() error { return e.error }

// copying is a running copy.
type copying struct {
	src  *objects
	from *Catalogue // of src
	dst  *Session
	tell func(CopyProgress)
	bufs sync.Pool // *[]byte, buffers for objects

	mu  sync.Mutex // guards now while objects are copied
	now CopyProgress
}

func (c *copying) record(ctx context.Context, r *image.Record) error {
	before := c.now.Objects
	for _, d := range r.Disks {
		c.from.held.hold(d.Root)
		defer c.from.held.release(d.Root)
	}
	for _, d := range r.Disks {
		if err := c.root(ctx, &d); err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	was, err := c.dst.commitCopy(ctx, r)
	if err == nil && was && c.now.Objects == before {
		c.now.Present++
	}
	return err
}

func (c *copying) root(ctx context.Context, d *image.RecordedDisk) error {
	key, root, err := c.src.readRoot(ctx, d.Root)
	if err == nil {
		err = fits(root, d)
	}
	if err != nil {
		return &sourceError{err}
	}
	for i := range root.Pages {
		if err := c.page(ctx, root, i); err != nil {
			return err
		}
		c.tell(c.now)
	}
	return c.send(ctx, key)
}

// page copies the page of a region, after its chunks.
func (c *copying) page(ctx context.Context, root *chunk.Root, i int) error {
	key := object.Key{Kind: object.Page, Name: root.Pages[i]}
	if missing, err := c.dst.Missing(ctx, []object.Key{key}); err != nil || len(missing) == 0 {
		return err
	}
	_, p, err := c.src.readPage(ctx, root, i)
	if err != nil {
		return &sourceError{err}
	}
	var keys []object.Key
	seen := map[object.Name]bool{}
	for _, ref := range p.Chunks {
		if !seen[ref.Name] {
			seen[ref.Name] = true
			keys = append(keys, object.Key{Kind: object.Chunk, Name: ref.Name})
		}
	}
	g, chunksCtx := errgroup.WithContext(ctx)
	g.SetLimit(copyAtOnce)
	for _, k := range keys {
		g.Go(func() error { return c.send(chunksCtx, k) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.send(ctx, key)
}

// send copies an object, unless the target has it. The target may have a page
// whose chunks were missing.
func (c *copying) send(ctx context.Context, key object.Key) error {
	if c.dst.objects.touch(key) {
		return nil
	}
	buf, _ := c.bufs.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer c.bufs.Put(buf)
	o, err := c.src.get(ctx, key, *buf)
	if err != nil {
		return &sourceError{err}
	}
	if cap(o.Data) > cap(*buf) {
		*buf = o.Data
	}
	if err := c.dst.Put(ctx, o); errors.Is(err, object.ErrDamaged) {
		return &sourceError{err}
	} else if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Objects++
	c.now.Bytes += int64(len(o.Data))
	return nil
}

// commitCopy commits a backup under its id in the source, and reports whether
// the target had it already.
func (s *Session) commitCopy(ctx context.Context, r *image.Record) (was bool, err error) {
	if err := s.objects.writable(); err != nil {
		return false, err
	}
	if err := s.closure(ctx, r); err != nil {
		return false, err
	}
	was, baseline, err := s.catalogue.copyRecord(ctx, r)
	if err == nil && baseline {
		err = s.catalogue.SetBaseline(ctx, r.Box, r.ID, true) // clears the baseline of other backups
	}
	if err != nil && ctx.Err() == nil {
		err = &targetError{err}
	}
	if err == nil {
		s.catalogue.healedBy(ctx, r)
	}
	return was, err
}

// copyRecord writes a record to the target. It reports whether the target had
// it already, and whether it is to be the box's baseline there.
func (c *Catalogue) copyRecord(ctx context.Context, r *image.Record) (was, baseline bool, err error) {
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	there, err := c.Record(ctx, r.Box, r.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = c.createRecord(ctx, r); errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("the name of this backup is not free there: a process ended while it created or deleted a backup of this name: %w", err)
		}
		return false, r.Baseline, err
	case errors.As(err, new(*RecordError)):
		if r.Baseline {
			// A baseline that was chosen after this record was damaged stays.
			records, _, err := c.Records(ctx)
			if err != nil {
				return false, false, err
			}
			if slices.ContainsFunc(records, func(o *image.Record) bool { return o.Box == r.Box && o.Baseline }) {
				without := *r
				without.Baseline = false
				r = &without
			}
		}
		return false, r.Baseline, c.replaceRecord(ctx, r)
	case err != nil:
		return false, false, err
	case !sameImages(r, there):
		return false, false, errors.New("there is another backup with this id; copy to another store, or delete one of the two")
	}
	if r.Boot != nil && (there.Boot == nil || there.Boot.Time.Before(r.Boot.Time)) { // what was found out about its bytes holds there too
		if err := c.changeLocked(ctx, r.Box, r.ID, func(there *image.Record) { there.Boot = r.Boot }); err != nil {
			return true, false, err
		}
	}
	return true, r.Baseline && there.Baseline, c.settle(ctx, recordName(r.Box, r.ID)) // a former copy may have been killed
}

// sameImages reports whether two records are of the same backup.
func sameImages(a, b *image.Record) bool {
	return a.Time.Equal(b.Time) && slices.EqualFunc(a.Disks, b.Disks, func(a, b image.RecordedDisk) bool {
		return a.Name == b.Name && a.Root == b.Root
	})
}

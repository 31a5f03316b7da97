package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// copyAtOnce is how many chunks are copied at a time.
const copyAtOnce = 8

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Total   int           // backups to copy
	Done    int           // of them, those that are in the copy
	Present int           // of those, the ones that were there with all that they need
	Record  *image.Record // the one at work
	Objects int           // sent so far
	Bytes   int64         // of them, as they are stored
}

// Copy copies backups to another store, under the ids that they have. It can
// be ended at any moment and begun again: what is there is not sent twice. A
// backup that is there already keeps its marks and is checked all the same,
// and what it lacks is sent. Each object is checked against its name before it
// counts. A backup that is damaged here does not hold up the others; the error
// names all that were not copied. Progress, if it is not nil, is told after
// each page, by one goroutine at a time.
func (s *Store) Copy(ctx context.Context, dst *Store, records []*image.Record, progress func(CopyProgress)) error {
	if err := dst.writable(); err != nil {
		return err
	}
	session := dst.Begin()
	defer session.Close()
	if progress == nil {
		progress = func(CopyProgress) {}
	}
	c := &copying{src: s, dst: session, tell: progress, now: CopyProgress{Total: len(records)}}
	var errs []error
	for _, r := range records {
		c.now.Record = r
		err := c.record(ctx, r)
		if err == nil {
			c.now.Done++
			c.tell(c.now)
			continue
		}
		errs = append(errs, fmt.Errorf("backup %s of %s is not copied: %w", r.ID, r.Box, err))
		if !errors.As(err, new(*sourceError)) {
			break
		}
	}
	return errors.Join(errs...)
}

// sourceError says that something cannot be read where it is copied from.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// copying copies to a store.
type copying struct {
	src  *Store
	dst  *Session
	tell func(CopyProgress)
	bufs sync.Pool // *[]byte, what is read to be sent

	mu  sync.Mutex // guards now while objects are copied
	now CopyProgress
}

func (c *copying) record(ctx context.Context, r *image.Record) error {
	before := c.now.Objects
	for _, d := range r.Disks {
		if err := c.root(ctx, d.Root); err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	was, err := c.dst.commitCopy(ctx, r)
	if err == nil && was && c.now.Objects == before {
		c.now.Present++
	}
	return err
}

func (c *copying) root(ctx context.Context, hex string) error {
	key, root, err := c.src.readRoot(ctx, hex)
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

// page copies a region's page after its chunks.
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

// send copies an object that is not there, or a page that is there and whose
// chunks were not.
func (c *copying) send(ctx context.Context, key object.Key) error {
	if c.dst.touch(key) {
		return nil
	}
	buf, _ := c.bufs.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer c.bufs.Put(buf)
	o, err := c.src.Get(ctx, key, *buf)
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

// commitCopy commits a backup under the id that it has, and reports whether it
// was there.
func (s *Session) commitCopy(ctx context.Context, r *image.Record) (was bool, err error) {
	if err := s.writable(); err != nil {
		return false, err
	}
	if err := s.closure(ctx, r); err != nil {
		return false, err
	}
	s.recordMu.Lock()
	there, err := s.Record(ctx, r.Box, r.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = s.writeRecord(ctx, r)
	case err == nil && !sameImages(r, there):
		err = errors.New("there is another backup with this id; copy to another store, or delete one of the two")
	case err == nil:
		was = true
		err = s.settle(ctx, recordName(r.Box, r.ID)) // a copy before may have been killed
	}
	s.recordMu.Unlock()
	if err == nil && r.Baseline && (!was || there.Baseline) {
		err = s.SetBaseline(ctx, r.Box, r.ID, true) // and no other
	}
	return was, err
}

// sameImages reports whether two records are of one backup.
func sameImages(a, b *image.Record) bool {
	return a.Time.Equal(b.Time) && slices.EqualFunc(a.Disks, b.Disks, func(a, b image.RecordedDisk) bool {
		return a.Name == b.Name && a.Root == b.Root
	})
}

package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// MemStore stores backups in memory, for tests of code that uses a store. It
// makes the same checks as a store, and never collects garbage. It is a
// chunk.Images, and a chunk.Session that does not end. The zero value is empty.
type MemStore struct {
	// Failing, if not nil, is called before a method does anything. op is
	// "missing", "put", "get" or "commit". The method fails with its error. It
	// may be called from many goroutines.
	Failing func(op string) error

	mu      sync.Mutex // guards the fields below
	objects map[object.Key]object.Object
	records []*image.Record
	gets    int
}

func (m *MemStore) fail(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Failing != nil {
		return m.Failing(op)
	}
	return nil
}

// Missing implements chunk.Session.
func (m *MemStore) Missing(ctx context.Context, keys []object.Key) ([]object.Key, error) {
	if err := m.fail(ctx, "missing"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []object.Key
	for _, k := range keys {
		if !m.has(k) {
			out = append(out, k)
		}
	}
	return out, nil
}

// has reports whether an object is there. A page needs all its chunks too.
func (m *MemStore) has(k object.Key) bool {
	o, ok := m.objects[k]
	if !ok || k.Kind != object.Page {
		return ok
	}
	raw, err := o.Decode(nil)
	if err != nil {
		return false
	}
	p, err := chunk.ParsePage(raw)
	return err == nil && !slices.ContainsFunc(p.Chunks, func(r chunk.Ref) bool {
		return !m.has(object.Key{Kind: object.Chunk, Name: r.Name})
	})
}

// Put implements chunk.Session.
func (m *MemStore) Put(ctx context.Context, o object.Object) error {
	if err := m.fail(ctx, "put"); err != nil {
		return err
	}
	if _, err := o.Decode(nil); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[o.Key]; !ok {
		m.set(o)
	}
	return nil
}

func (m *MemStore) set(o object.Object) {
	if m.objects == nil {
		m.objects = map[object.Key]object.Object{}
	}
	o.Data = slices.Clone(o.Data)
	m.objects[o.Key] = o
}

// Close implements chunk.Session. It does nothing.
func (m *MemStore) Close() error { return nil }

// Begin begins a session that can be closed.
func (m *MemStore) Begin() chunk.Session { return &memSession{m: m} }

type memSession struct {
	m      *MemStore
	closed atomic.Bool
}

func (s *memSession) Missing(ctx context.Context, keys []object.Key) ([]object.Key, error) {
	if s.closed.Load() {
		return nil, chunk.ErrClosed
	}
	return s.m.Missing(ctx, keys)
}

func (s *memSession) Put(ctx context.Context, o object.Object) error {
	if s.closed.Load() {
		return chunk.ErrClosed
	}
	return s.m.Put(ctx, o)
}

func (s *memSession) Commit(ctx context.Context, r *image.Record) error {
	if s.closed.Load() {
		return chunk.ErrClosed
	}
	return s.m.Commit(ctx, r)
}

func (s *memSession) Close() error {
	s.closed.Store(true)
	return nil
}

// OpenImage implements chunk.Images.
func (m *MemStore) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	m.mu.Lock()
	i := slices.IndexFunc(m.records, func(o *image.Record) bool { return o.Box == r.Box && o.ID == r.ID })
	var d *image.RecordedDisk
	if i >= 0 {
		d = m.records[i].Disk(disk)
	}
	m.mu.Unlock()
	if d == nil {
		return nil, fmt.Errorf("%s of backup %s of %s: %w", disk, r.ID, r.Box, fs.ErrNotExist)
	}
	return m.openDisk(ctx, *d)
}

func (m *MemStore) openDisk(ctx context.Context, d image.RecordedDisk) (*chunk.Image, error) {
	im, err := chunk.OpenImage(ctx, m.Getter(d.Root), d.Root)
	if err != nil {
		return nil, err
	}
	if im.Root.Size != d.Disk.Size || im.Root.SectorSize != d.Disk.SectorSize {
		return nil, errors.New("record and root are of different disks")
	}
	return im, nil
}

// Getter returns a getter for the objects of an image. The image needs no
// record.
func (m *MemStore) Getter(root object.Name) chunk.Getter { return &memGetter{m: m, root: root} }

type memGetter struct {
	m      *MemStore
	root   object.Name
	closed atomic.Bool
}

func (g *memGetter) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	switch {
	case g.closed.Load():
		return object.Object{}, chunk.ErrClosed
	case at.Image() != g.root:
		return object.Object{}, fmt.Errorf("%v of another image is %w", at.Key(), chunk.ErrMissing)
	}
	return g.m.Get(ctx, at.Key(), buf)
}

// Check unpacks the object, since nothing has the sum of its stored form.
func (g *memGetter) Check(ctx context.Context, at chunk.Place, buf []byte) error {
	o, err := g.Get(ctx, at, buf)
	if err == nil {
		_, err = o.Decode(nil)
	}
	return err
}

func (g *memGetter) Close() error {
	g.closed.Store(true)
	return nil
}

// Get returns an object of any image.
func (m *MemStore) Get(ctx context.Context, key object.Key, buf []byte) (object.Object, error) {
	if err := m.fail(ctx, "get"); err != nil {
		return object.Object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	o, ok := m.objects[key]
	if !ok {
		return object.Object{}, fmt.Errorf("%v is %w", key, chunk.ErrMissing)
	}
	o.Data = append(buf[:0], o.Data...)
	return o, nil
}

// Commit implements chunk.Session.
func (m *MemStore) Commit(ctx context.Context, r *image.Record) error {
	if err := m.fail(ctx, "commit"); err != nil {
		return err
	}
	for _, d := range r.Disks {
		if err := m.whole(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Time.IsZero() {
		r.Time = time.Now().UTC().Truncate(time.Second)
	}
	c := *r
	c.ID = m.newID(r)
	if err := c.Check(); err != nil {
		return err
	}
	r.ID = c.ID
	m.records = append(m.records, &c)
	return nil
}

// whole fails if an object of a disk's image is missing.
func (m *MemStore) whole(ctx context.Context, d image.RecordedDisk) error {
	im, err := m.openDisk(ctx, d)
	if err != nil {
		return err
	}
	defer im.Close()
	for i := range im.Root.Pages {
		p, err := im.Page(ctx, i)
		if err != nil {
			return err
		}
		for _, c := range p.Chunks {
			o, err := m.Get(ctx, object.Key{Kind: object.Chunk, Name: c.Name}, nil)
			if err == nil && o.RawLen != c.Len {
				err = fmt.Errorf("the page of %v %w", o.Key, chunk.ErrWrong)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *MemStore) newID(r *image.Record) string {
	base := r.Time.UTC().Format("20060102-150405")
	id := base
	for n := 2; slices.ContainsFunc(m.records, func(o *image.Record) bool { return o.Box == r.Box && o.ID == id }); n++ {
		id = fmt.Sprint(base, "-", n)
	}
	return id
}

// Records returns the committed records.
func (m *MemStore) Records() []*image.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records)
}

// Keys returns the keys of all objects of a kind, in the order of their names.
func (m *MemStore) Keys(kind object.Kind) []object.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.DeleteFunc(slices.Collect(maps.Keys(m.objects)), func(k object.Key) bool { return k.Kind != kind })
	slices.SortFunc(keys, func(a, b object.Key) int { return bytes.Compare(a.Name[:], b.Name[:]) })
	return keys
}

// Gets is how often an object was asked for.
func (m *MemStore) Gets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gets
}

// Lose removes an object.
func (m *MemStore) Lose(k object.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, k)
}

// Set replaces an object, or adds it, without a check.
func (m *MemStore) Set(o object.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(o)
}

// Flip flips a bit of an object in its stored form.
func (m *MemStore) Flip(k object.Key, bit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.objects[k].Data
	d[bit/8%len(d)] ^= 1 << (bit % 8)
}

package store

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// treeReaders is how many pages are read at once: object storage answers late,
// and to many at a time.
const treeReaders = 8

// marker marks what records reach. It does not guess: a root or a page that it
// cannot read ends it.
type marker struct {
	s         *objects
	catalogue *Catalogue
	marks     *index.Marks         // used under the mutex of contents
	roots     map[object.Name]bool // all of it is marked

	mu      sync.Mutex           // guards those below
	pages   map[object.Name]bool // marked with their chunks
	lacking map[string]bool      // images with pages of which chunks are not there
}

// newMarker begins anew: no plan is good any more, and what ended backups
// counted on is forgotten. The caller is alone.
func (u *Upkeep) newMarker() *marker {
	u.voidPlan()
	m := &marker{s: u.objects, catalogue: u.catalogue, roots: map[object.Name]bool{}, pages: map[object.Name]bool{},
		lacking: map[string]bool{}}
	has := u.objects.contents
	has.mu.Lock()
	defer has.mu.Unlock()
	m.marks = has.index.NewMarks()
	if has.sessions == 0 {
		has.index.ClearTouched()
		clear(has.complete)
	}
	return m
}

// close ends the use of the marks.
func (m *marker) close() {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.marks.Close()
}

// voidPlan makes the newest plan of a collection one of no use. The caller is
// alone.
func (u *Upkeep) voidPlan() {
	if u.newest != nil {
		u.newest.close()
		u.newest = nil
	}
}

// needs reports whether an object is not to be collected: a record reaches it,
// or a backup in progress counts on it. The mutex of contents is held.
func (m *marker) needs(k object.Key) bool { return m.marks.Has(k) || m.s.index.Touched(k) }

// records marks what all records reach that are there now. It may be called
// again, for those that came since.
func (m *marker) records(ctx context.Context) ([]*image.Record, error) {
	// A record that was deleted and comes back would need what is gone then.
	if err := m.s.settle(ctx, recordPrefix); err != nil {
		return nil, err
	}
	records, damaged, err := m.catalogue.Records(ctx)
	if err != nil {
		return nil, err
	}
	if len(damaged) > 0 {
		return nil, fmt.Errorf("nothing is collected while it is not known what a backup needs: %w; %s", damaged[0], damaged[0].Remedy())
	}
	for _, r := range records {
		for _, d := range r.Disks {
			if m.roots[d.Root] {
				continue
			}
			if err := m.root(ctx, imageName(r, d), d.Root); err != nil {
				return nil, fmt.Errorf("nothing is collected while an image cannot be read: %w; back the box up again, or delete the backup", err)
			}
			m.roots[d.Root] = true
		}
	}
	return records, m.markHeld(ctx)
}

// markHeld marks what images need that are read now. Most often they have records.
// It comes after the records were listed: see OpenImage.
func (m *marker) markHeld(ctx context.Context) error {
	for _, root := range m.catalogue.held.roots() {
		if m.roots[root] {
			continue
		}
		if err := m.root(ctx, "an image that is read now", root); err != nil {
			return fmt.Errorf("nothing is collected while an image is read whose backup was deleted, and which is not whole: %w", err)
		}
		m.roots[root] = true
	}
	return nil
}

// imageName is an image for people.
func imageName(r *image.Record, d image.RecordedDisk) string {
	return fmt.Sprintf("%s %s disk %s", r.Box, r.ID, d.Name)
}

func (m *marker) root(ctx context.Context, image string, name object.Name) error {
	key, root, err := m.s.readRoot(ctx, name)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	m.mark(key)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, p := range root.Pages {
		if m.begin(p) {
			g.Go(func() error { return m.page(ctx, image, root, i) })
		}
	}
	return g.Wait()
}

// begin reports whether nobody has begun with a page yet. The caller then marks
// it and its chunks.
func (m *marker) begin(page object.Name) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := m.pages[page]
	m.pages[page] = true
	return !seen
}

func (m *marker) page(ctx context.Context, image string, root *chunk.Root, i int) error {
	key, page, err := m.s.readPage(ctx, root, i)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	keys := []object.Key{key}
	for _, c := range page.Chunks {
		keys = append(keys, object.Key{Kind: object.Chunk, Name: c.Name})
	}
	if !m.mark(keys...) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lacking[image] = true
	}
	return nil
}

// mark marks objects as needed, and reports whether all are there.
func (m *marker) mark(keys ...object.Key) (all bool) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	all = true
	for _, k := range keys {
		all = m.marks.Add(k) && all
	}
	return all
}

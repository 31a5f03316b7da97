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

// treeReaders is the number of pages that are read at once. A request to object
// storage takes long, but many can run at a time.
const treeReaders = 8

// marker marks the objects that records reach. It does not guess. If it cannot
// read a root or a page, it ends with an error.
type marker struct {
	s         *objects
	catalogue *Catalogue
	marks     *index.Marks         // used under the mutex of contents
	roots     map[object.Name]bool // images that are completely marked

	mu      sync.Mutex           // guards the fields below
	pages   map[object.Name]bool // marked with their chunks
	lacking map[string]bool      // images with pages that have missing chunks
}

// newMarker starts a new marking. It makes earlier plans unusable, and, if no
// backup is in progress, forgets what earlier backups relied on. The caller
// holds upkeepMu.
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

// voidPlan makes the newest plan of a collection unusable. The caller holds
// upkeepMu.
func (u *Upkeep) voidPlan() {
	if u.newest != nil {
		u.newest.close()
		u.newest = nil
	}
}

// needs reports whether an object must not be collected, because a record
// reaches it or a backup in progress relies on it. The mutex of contents is
// held.
func (m *marker) needs(k object.Key) bool { return m.marks.Has(k) || m.s.index.Touched(k) }

// records marks everything that the present records reach. It can be called
// again for records that came later.
func (m *marker) records(ctx context.Context) ([]*image.Record, error) {
	// A deleted record must not come back after a power cut, since its objects
	// may be collected now.
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

// markHeld marks the objects of images that are being read now. Most of these
// images have records. It must run after the records were listed, see
// OpenImage.
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

// imageName names an image for people.
func imageName(r *image.Record, d image.RecordedDisk) string {
	return fmt.Sprintf("%s %s disk %s", r.Box, r.ID, d.Name)
}

func (m *marker) root(ctx context.Context, image string, name object.Name) error {
	if err := pace(ctx); err != nil {
		return err
	}
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
// the page and its chunks.
func (m *marker) begin(page object.Name) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := m.pages[page]
	m.pages[page] = true
	return !seen
}

func (m *marker) page(ctx context.Context, image string, root *chunk.Root, i int) error {
	if err := pace(ctx); err != nil {
		return err
	}
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

// mark marks objects as needed, and reports whether all exist.
func (m *marker) mark(keys ...object.Key) (all bool) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	all = true
	for _, k := range keys {
		all = m.marks.Add(k) && all
	}
	return all
}

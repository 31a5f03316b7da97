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
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// space says what the bytes of the packs are used for. A group is a set of
// backups, such as those of one box. The bytes of a pack are divided among its
// objects by their lengths, so the figures are estimates.
type space struct {
	stored int64   // size of all packs
	trees  int64   // part of stored in packs with the trees of images
	alone  []int64 // by group, what no other group needs
	shared int64   // what several groups need
	unused int64   // what no group needs
	fresh  int64   // what no group needs in packs that another process writes
	reason error   // why some of unused may be needed; nil if none is
}

// These are owners of objects other than a group. Groups are numbered from 0.
const (
	nobody = -1
	many   = -2
)

// space walks the trees of all images in the groups. Each page is read once for
// each group that has it, but at most twice. fresh is the number of the first
// pack that another process writes, or 0 if none does.
func (u *Upkeep) space(ctx context.Context, groups [][]*image.Record, fresh uint32) (*space, error) {
	for {
		sp, err := u.spaceOnce(ctx, groups, fresh)
		if sp != nil || err != nil {
			return sp, err
		}
	}
}

// spaceOnce does the work of space. It returns nil if the index was replaced
// meanwhile.
func (u *Upkeep) spaceOnce(ctx context.Context, groups [][]*image.Record, fresh uint32) (*space, error) {
	s := u.objects
	s.mu.Lock()
	w := &spaceWalk{s: s, catalogue: u.catalogue, index: s.index, owner: s.index.NewLabels(nobody), pages: map[object.Name]int32{}}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.owner.Close()
	}()
	for i, g := range groups {
		if err := w.group(ctx, int32(i), g); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index != w.index {
		return nil, nil
	}
	return w.sum(len(groups), fresh), nil
}

// spaceWalk finds out which group needs which objects.
type spaceWalk struct {
	s         *objects
	catalogue *Catalogue
	index     *index.Index  // the index that owner belongs to
	owner     *index.Labels // which group needs an object; used under the mutex of contents

	mu    sync.Mutex // guards the fields below
	pages map[object.Name]int32
	lost  error // the first page or root that cannot be read
}

func (w *spaceWalk) group(ctx context.Context, n int32, records []*image.Record) error {
	seen := map[object.Name]bool{}
	for _, r := range records {
		for _, d := range r.Disks {
			if seen[d.Root] {
				continue
			}
			seen[d.Root] = true
			if err := w.image(ctx, n, r, d.Root); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *spaceWalk) image(ctx context.Context, n int32, r *image.Record, name object.Name) error {
	key, root, err := w.s.readRoot(ctx, name)
	if err != nil {
		return w.lack(ctx, r, err)
	}
	w.claim(n, key)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, p := range root.Pages {
		if w.begin(n, p) {
			g.Go(func() error { return w.page(ctx, n, r, root, i) })
		}
	}
	return g.Wait()
}

// lack notes an object that is lost, unless the backup was deleted meanwhile
// and the object may have been collected. Any other error ends the walk.
func (w *spaceWalk) lack(ctx context.Context, r *image.Record, err error) error {
	if !IsLost(err) {
		return err
	}
	if _, e := w.catalogue.Record(ctx, r.Box, r.ID); errors.Is(e, fs.ErrNotExist) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == nil {
		w.lost = err
	}
	return nil
}

// begin notes that group n has a page, and reports whether the page must be read
// for that. A page is not read again for the same group. It is also not read
// after two other groups, since its objects then have the owner many already.
func (w *spaceWalk) begin(n int32, page object.Name) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, seen := w.pages[page]
	if seen && (was == n || was == many) {
		return false
	}
	if w.pages[page] = n; seen {
		w.pages[page] = many
	}
	return true
}

func (w *spaceWalk) page(ctx context.Context, n int32, r *image.Record, root *chunk.Root, i int) error {
	key, page, err := w.s.readPage(ctx, root, i)
	if err != nil {
		return w.lack(ctx, r, err)
	}
	keys := []object.Key{key}
	for _, c := range page.Chunks {
		keys = append(keys, object.Key{Kind: object.Chunk, Name: c.Name})
	}
	w.claim(n, keys...)
	return nil
}

// claim notes that group n needs some objects. An object that another group
// needs too gets the owner many.
func (w *spaceWalk) claim(n int32, keys ...object.Key) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, k := range keys {
		switch o := w.owner.Of(k); {
		case o == nil:
		case *o == nobody:
			*o = n
		case *o != n:
			*o = many
		}
	}
}

// sum divides the bytes of all packs among the groups. The mutex of contents is
// held.
func (w *spaceWalk) sum(groups int, fresh uint32) *space {
	type part struct {
		pack  uint32
		owner int32
	}
	weight, parts, items := map[uint32]int64{}, map[part]int64{}, map[uint32]uint32{}
	for it, owner := range w.owner.All {
		weight[it.Loc.Pack] += int64(it.Loc.Len)
		parts[part{it.Loc.Pack, owner}] += int64(it.Loc.Len)
		items[it.Loc.Pack]++
	}
	sp := &space{alone: make([]int64, groups), reason: w.lost}
	for n, p := range w.s.packs {
		if sp.stored += p.size; p.kind == trees {
			sp.trees += p.size
		}
		if extra := int64(p.objects) - int64(items[n]); extra > 0 { // copies that the index does not point to
			each := int64(1)
			if items[n] > 0 {
				each = max(weight[n]/int64(items[n]), 1)
			}
			weight[n] += extra * each
			parts[part{n, nobody}] += extra * each
		}
		var before int64 // part of the pack's weight that is given out
		for owner := int32(many); owner < int32(groups); owner++ {
			part := parts[part{n, owner}]
			if part == 0 {
				continue
			}
			bytes := share(p.size, before+part, weight[n]) - share(p.size, before, weight[n])
			before += part
			sp.add(owner, bytes, fresh > 0 && n >= fresh)
		}
		if before == 0 {
			sp.add(nobody, p.size, fresh > 0 && n >= fresh)
		}
	}
	return sp
}

// share returns size * part / whole.
func share(size, part, whole int64) int64 {
	return int64(float64(size) * float64(part) / float64(whole))
}

func (sp *space) add(owner int32, bytes int64, fresh bool) {
	switch {
	case owner >= 0:
		sp.alone[owner] += bytes
	case owner == many:
		sp.shared += bytes
	case fresh:
		sp.fresh += bytes
	default:
		sp.unused += bytes
	}
}

// Freed estimates how many bytes of packs become unneeded when some backups are
// deleted. Bytes that are unneeded already do not count. The error says why
// that is not known, and is never a reason not to delete.
func (u *Upkeep) Freed(ctx context.Context, gone []*image.Record) (int64, error) {
	records, damaged, err := u.catalogue.Records(ctx)
	if err != nil {
		return 0, err
	}
	going := map[[2]string]bool{}
	for _, r := range gone {
		going[[2]string{r.Box, r.ID}] = true
	}
	stay := slices.DeleteFunc(records, func(r *image.Record) bool { return going[[2]string{r.Box, r.ID}] })
	sp, err := u.space(ctx, [][]*image.Record{gone, stay}, 0)
	if err != nil {
		return 0, err
	}
	if len(damaged) > 0 {
		return 0, errors.New("it is not known what a backup needs whose record cannot be read")
	}
	if sp.reason != nil {
		return 0, fmt.Errorf("it is not known what a backup needs that cannot be read: %w", sp.reason)
	}
	return sp.alone[0], nil
}

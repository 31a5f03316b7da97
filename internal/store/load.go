package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// loader finds out which packs and objects exist.
type loader struct {
	*site
	*contents
	*snapshot
	found  *badList
	damage *damageList
	lookMu sync.Mutex // serializes calls of lookAgain
}

// load finds out which packs and objects exist, from the index's snapshot and
// from the packs that the snapshot does not know. It is called before the store
// is shared.
func (s *loader) load(ctx context.Context) error {
	// The index is read before the packs are listed. Otherwise a pack that another
	// process seals between the two would be in the index and not in the list, and
	// seem to be gone.
	x, known, err := s.readIndex()
	if err == nil && s.cfg.ReadOnly && s.cfg.Owner != nil && !s.isLastOwner(ctx) {
		// Another folder has written to the store since. Its packs may have objects
		// that this index does not have, and that are needed.
		err = fs.ErrNotExist
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Log("%v: it is made anew from the packs", err)
		}
		x, known = &index.Index{}, nil
	}
	there, err := s.listPacks(ctx)
	if err != nil {
		return err
	}
	if err := s.found.loadBad(ctx); err != nil {
		return err
	}
	others, err := s.damage.load(ctx)
	if err != nil {
		return err
	}
	s.takeBad(others)
	s.useIndex(x, known, there)
	unknown := map[uint32]packInfo{}
	for n, p := range there {
		s.next = max(s.next, n+1)
		if _, ok := s.packs[n]; !ok {
			unknown[n] = p
		}
	}
	if err := s.readPacks(ctx, unknown, s.index, s.packs); err != nil {
		return err
	}
	s.dirty = s.dirty || len(unknown) > 0
	return nil
}

// lookAgain adds new packs to the index of a store that is open for reading
// only. Meanwhile another process commits backups, and moves objects to other
// packs. With all, packs that are gone are forgotten and all others are read
// again. This finds objects that were stored twice, when the copy that the
// index pointed to is gone.
func (s *loader) lookAgain(ctx context.Context, all bool) error {
	s.lookMu.Lock()
	defer s.lookMu.Unlock()
	there, err := s.listPacks(ctx)
	if err == nil && all {
		err = s.stillThere(ctx) // else all packs may seem to be gone
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	gone := map[uint32]bool{}
	for n := range s.packs {
		if _, is := there[n]; !is && all {
			gone[n] = true
			delete(s.packs, n)
		} else if !all {
			delete(there, n)
		}
	}
	if len(gone) > 0 {
		s.index.RemoveFunc(func(it index.Item) bool { return gone[it.Loc.Pack] })
		clear(s.complete)
	}
	s.mu.Unlock()
	packs := map[uint32]packInfo{}
	if err := s.readPacks(ctx, there, s.index, packs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.packs, packs)
	return nil
}

// settle makes the blobs durable whose names begin with prefix. A process that
// was killed may have created or removed a blob in a way that is visible now,
// but would not survive a power cut. After settle, the caller can rely on what
// it sees.
func (s *site) settle(ctx context.Context, prefix string) error {
	if s.cfg.ReadOnly {
		return nil
	}
	return blob.Settle(ctx, s.cfg.Blobs, prefix)
}

// listPacks returns the packs that exist. Their number of objects is not known
// yet.
func (s *loader) listPacks(ctx context.Context) (map[uint32]packInfo, error) {
	if err := s.settle(ctx, packPrefix); err != nil {
		return nil, err
	}
	blobs, err := s.cfg.Blobs.List(ctx, packPrefix)
	if err != nil {
		return nil, err
	}
	there := map[uint32]packInfo{}
	for _, b := range blobs {
		kind, n, ok := parsePackName(b.Name)
		if !ok || n > index.MaxPack {
			s.cfg.Log("%s is no pack of this store, it is left alone", b.Name)
			continue
		}
		if _, twice := there[n]; twice {
			return nil, fmt.Errorf("two packs have the number %d; one of them came from elsewhere, move it away", n)
		}
		there[n] = packInfo{kind: kind, size: b.Size}
	}
	return there, nil
}

// readPacks adds the objects of some packs to an index, and those packs that
// belong to this store to packs. If an object is in several packs, the last
// place counts.
func (s *loader) readPacks(ctx context.Context, some map[uint32]packInfo, x *index.Index, packs map[uint32]packInfo) error {
	for numbers := range slices.Chunk(slices.Sorted(maps.Keys(some)), treeReaders) {
		lists := make([][]pack.Entry, len(numbers))
		g, ctx := errgroup.WithContext(ctx)
		for i, n := range numbers {
			g.Go(func() (err error) {
				lists[i], err = s.readPack(ctx, n, some[n])
				if s.cfg.ReadOnly && errors.Is(err, fs.ErrNotExist) {
					return nil // collected since it was listed; the objects that are needed are in another pack
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i, n := range numbers {
			p := some[n]
			if lists[i] == nil {
				continue
			}
			if err := s.addAll(x, n, lists[i]); err != nil {
				return fmt.Errorf("%s: %w", packName(p.kind, n), err)
			}
			p.objects = uint32(len(lists[i]))
			packs[n] = p
		}
	}
	return nil
}

// addAll adds the objects of a pack to an index, except those that were found
// damaged there.
func (s *loader) addAll(x *index.Index, n uint32, entries []pack.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if key, bad := s.bad[place{n, e.Off}]; bad && key == e.Key {
			continue
		}
		if err := x.Add(e.Key, loc(n, e)); err != nil {
			return err
		}
	}
	return nil
}

// readPack lists the objects of a pack. Of a damaged pack, it lists the objects
// that are not damaged. It returns nil for a pack that is not of this store.
func (s *loader) readPack(ctx context.Context, n uint32, p packInfo) ([]pack.Entry, error) {
	name := packName(p.kind, n)
	r := s.packReader(ctx, name)
	h, entries, err := pack.ReadTable(r, p.size)
	if err == nil && (h.Store != s.uuid || h.Number != n) {
		s.cfg.Log("%s belongs to another store or place, it is left alone", name)
		return nil, nil
	}
	if errors.Is(err, object.ErrDamaged) {
		s.cfg.Log("%s is damaged: %v; what is whole in it is used", name, err)
		entries, err = s.salvage(ctx, r, p.size)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return append([]pack.Entry{}, entries...), nil
}

// salvage finds the undamaged objects of a damaged pack.
func (s *loader) salvage(ctx context.Context, r io.ReaderAt, size int64) (out []pack.Entry, err error) {
	err = pack.Scan(ctx, r, size, func(e pack.Entry, _ object.Object, f *pack.FaultError) error {
		if f == nil {
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// loc is the index entry for an object of pack n.
func loc(n uint32, e pack.Entry) index.Loc {
	return index.Loc{Pack: n, Off: e.Off, Len: pack.ObjectHeaderSize + int(e.Stored), Raw: int(e.Raw)}
}

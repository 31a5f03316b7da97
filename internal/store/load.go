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

// loader finds out what is there.
type loader struct {
	*site
	*contents
	*snapshot
	found  *badList
	damage *damageList
	lookMu sync.Mutex // holds back a second look for new packs
}

// load finds out what is there: the index's snapshot, and the packs that it does
// not know. All is called before the store is shared.
func (s *loader) load(ctx context.Context) error {
	// Read before the packs are listed: of those that another process seals
	// between the two, none is taken for gone.
	x, known, err := s.readIndex()
	if err == nil && s.cfg.ReadOnly && s.cfg.Owner != nil && !s.isLastOwner(ctx) {
		// Another folder has written since: what the index does not know of a
		// pack may be there, and be needed.
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

// lookAgain takes in the packs that are new in a store that is only read:
// another process commits backups, and moves objects to other packs. With all,
// packs that are gone are forgotten and all others read again: an object that
// was there twice is now where the index did not point to.
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
// was killed may have left a blob, or the removal of one, that is seen and would
// not outlive a power cut. From now on what is seen is counted on.
func (s *site) settle(ctx context.Context, prefix string) error {
	if s.cfg.ReadOnly {
		return nil
	}
	return blob.Settle(ctx, s.cfg.Blobs, prefix)
}

// listPacks gives the packs that are there; objects is not known yet.
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

// readPacks puts what is in some packs into an index, and those that belong to
// this store into packs. Of two places of an object the later one counts.
func (s *loader) readPacks(ctx context.Context, some map[uint32]packInfo, x *index.Index, packs map[uint32]packInfo) error {
	for numbers := range slices.Chunk(slices.Sorted(maps.Keys(some)), treeReaders) {
		lists := make([][]pack.Entry, len(numbers))
		g, ctx := errgroup.WithContext(ctx)
		for i, n := range numbers {
			g.Go(func() (err error) {
				lists[i], err = s.readPack(ctx, n, some[n])
				if s.cfg.ReadOnly && errors.Is(err, fs.ErrNotExist) {
					return nil // collected since it was listed; what was needed of it is in another one
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

// addAll puts the objects of a pack into an index, but for those that were
// found damaged there.
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

// readPack lists the objects of a pack, the whole ones of a damaged one; nil
// is a pack that is not of this store.
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

// salvage finds the whole objects of a damaged pack.
func (s *loader) salvage(ctx context.Context, r io.ReaderAt, size int64) (out []pack.Entry, err error) {
	err = pack.Scan(ctx, r, size, func(e pack.Entry, _ object.Object, f *pack.FaultError) error {
		if f == nil {
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// loc is what the index says of an entry of a pack.
func loc(n uint32, e pack.Entry) index.Loc {
	return index.Loc{Pack: n, Off: e.Off, Len: pack.ObjectHeaderSize + int(e.Stored)}
}

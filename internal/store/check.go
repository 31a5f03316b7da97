package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
	"testbox-imaging/internal/words"
)

// Check says what is wrong with a store, without reading the bytes of chunks.
// It checks that everything that records reach is there, and that the index and
// the packs agree. Nothing else may use the store meanwhile. Tests call it at
// their end.
func (u *Upkeep) Check(ctx context.Context) error {
	records, damaged, err := u.catalogue.Records(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range damaged {
		errs = append(errs, d)
	}
	for _, r := range records {
		for _, d := range r.Disks {
			if err := u.checkImage(ctx, d.Root); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", imageName(r, d), err))
			}
		}
	}
	for n, items := range u.objects.byPack() {
		if err := u.checkPack(ctx, n, items); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (u *Upkeep) checkImage(ctx context.Context, name object.Name) error {
	_, root, err := u.objects.readRoot(ctx, name)
	if err != nil {
		return err
	}
	for i := range root.Pages {
		key, page, err := u.objects.readPage(ctx, root, i)
		if err != nil {
			return err
		}
		for _, err := range u.objects.lacking(page) {
			if err != nil {
				return fmt.Errorf("a chunk of %v: %w", key, err)
			}
		}
	}
	return nil
}

// byPack returns what the index says of each sealed pack, by pack and offset.
func (s *contents) byPack() map[uint32]map[uint32]object.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[uint32]map[uint32]object.Key{}
	for n := range s.packs {
		out[n] = map[uint32]object.Key{}
	}
	for it := range s.index.All {
		if _, open := s.unsealed[it.Loc.Pack]; open {
			continue
		}
		if out[it.Loc.Pack] == nil {
			out[it.Loc.Pack] = map[uint32]object.Key{}
		}
		out[it.Loc.Pack][it.Loc.Off] = keyOf(it)
	}
	return out
}

// checkPack compares a pack with what the index says of it.
func (u *Upkeep) checkPack(ctx context.Context, n uint32, items map[uint32]object.Key) error {
	s := u.objects
	s.mu.Lock()
	p, ok := s.packs[n]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("the index has %s in pack %d, which is not there", words.Count(len(items), "object"), n)
	}
	name := packName(p.kind, n)
	size, err := s.cfg.Blobs.Size(ctx, name)
	if err != nil {
		return err
	}
	h, entries, err := pack.ReadTable(blob.Reader(ctx, s.cfg.Blobs, name), size)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case size != p.size || len(entries) != int(p.objects) || h.Number != n || h.Store != s.uuid:
		return fmt.Errorf("%s has %d objects in %d bytes, the store says %d in %d", name, len(entries), size, p.objects, p.size)
	}
	for _, e := range entries {
		if short(e.Key) == items[e.Off] {
			delete(items, e.Off)
		}
	}
	for _, off := range slices.Sorted(maps.Keys(items)) {
		return fmt.Errorf("%s has no %v at %d, as the index says", name, items[off], off)
	}
	return nil
}

package store

import (
	"context"
	"maps"

	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// RebuildIndex makes the index anew from the packs, and writes it. Backups may
// go on meanwhile.
func (u *Upkeep) RebuildIndex(ctx context.Context) error {
	if err := u.objects.writable(); err != nil {
		return err
	}
	done, err := u.alone()
	if err != nil {
		return err
	}
	defer done()
	u.voidPlan()
	if err := u.objects.lease.settle(ctx); err != nil { // else objects in packs that are still to be removed would count again
		return err
	}
	s := u.objects
	s.mu.Lock()
	old := maps.Clone(s.packs)
	s.mu.Unlock()
	there, err := s.listPacks(ctx)
	if err != nil {
		return err
	}
	x, packs := &index.Index{}, map[uint32]packInfo{}
	if err := s.readPacks(ctx, there, x, packs); err != nil {
		return err
	}
	if err := s.replaceIndex(x, packs, old); err != nil {
		return err
	}
	return s.saveIndex()
}

// replaceIndex switches to a new index. It adds what the present index knows of
// packs that are not in old, and which objects backups rely on.
func (s *contents) replaceIndex(x *index.Index, packs, old map[uint32]packInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.index.All {
		key := keyOf(it)
		if _, known := old[it.Loc.Pack]; !known {
			if err := x.Add(key, it.Loc); err != nil {
				return err
			}
		}
		if it.Touched {
			x.Touch(key)
		}
	}
	for at, key := range s.bad { // found meanwhile
		x.Remove(key, at.pack, at.off)
	}
	for n, p := range s.packs {
		if _, known := old[n]; !known {
			packs[n] = p
		}
	}
	s.index, s.packs, s.dirty = x, packs, true
	clear(s.complete)
	return nil
}

// keyOf returns the key of an item of the index. The index keeps only a prefix
// of the name, so the rest of the name is zero. Such a key can be looked up in
// the index, which compares only the prefix, but not in a pack.
func keyOf(it index.Item) object.Key {
	k := object.Key{Kind: it.Kind}
	copy(k.Name[:], it.Prefix[:])
	return k
}

// short clears the part of a name that the index does not keep, so that a full
// key can be compared with one from keyOf.
func short(k object.Key) object.Key {
	clear(k.Name[len(index.Item{}.Prefix):])
	return k
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// raw returns the unpacked bytes of an object, checked against its name.
func (s *objects) raw(ctx context.Context, key object.Key) ([]byte, error) {
	o, err := s.get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	return o.Decode(nil)
}

// get returns an object in its stored form, in buf's memory if that is large
// enough. If the object does not exist, the error matches chunk.ErrMissing.
func (s *objects) get(ctx context.Context, key object.Key, buf []byte) (object.Object, error) {
	for {
		l, name, err := s.locate(key)
		if err != nil {
			return object.Object{}, err
		}
		o, err := s.getAt(ctx, key, l, name, buf)
		if err == nil {
			return o, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			// A collection may have moved the object, and removed its old pack.
			if moved, err := s.moved(ctx, key, l); err != nil {
				return object.Object{}, err
			} else if moved {
				continue
			}
		}
		if errors.Is(err, fs.ErrNotExist) && s.packLost(ctx, l.Pack) {
			err = chunk.ErrMissing
		}
		return object.Object{}, fmt.Errorf("%v in %s at %d: %w", key, name, l.Off, err)
	}
}

// moved reports whether an object is at another place now than at was.
func (s *objects) moved(ctx context.Context, key object.Key, was index.Loc) (bool, error) {
	is := func() bool {
		now, _, err := s.locate(key)
		return err == nil && now != was
	}
	if !s.cfg.ReadOnly || is() {
		return is(), nil
	}
	if err := s.lookAgain(ctx, false); err != nil || is() {
		return err == nil, err
	}
	err := s.lookAgain(ctx, true)
	return err == nil && is(), err
}

// packLost removes a pack that somebody deleted from the index, with all its
// objects, and reports whether it did. It does nothing if the whole store is
// unreachable.
func (s *objects) packLost(ctx context.Context, n uint32) bool {
	if err := s.stillThere(ctx); err != nil {
		return false
	}
	s.cfg.Log("pack %d is not there any more; `testbox store scrub` says what that costs", n)
	s.damage.saw()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.packs, n)
	s.index.RemoveFunc(func(it index.Item) bool { return it.Loc.Pack == n })
	clear(s.complete)
	s.dirty = true
	return true
}

// stillThere returns an error unless the place still has the store that was
// opened.
func (s *site) stillThere(ctx context.Context) error {
	now := site{cfg: s.cfg}
	if err := now.identify(ctx); err != nil {
		return err
	}
	if now.uuid != s.uuid {
		return errors.New("there is another store now than the one that was opened")
	}
	return nil
}

// getAt reads an object. If it seems damaged, it is read once more, since the
// bytes may have been spoilt on the way. If the second try fails too, the
// object counts as damaged.
func (s *objects) getAt(ctx context.Context, key object.Key, l index.Loc, name string, buf []byte) (o object.Object, err error) {
	for range 2 {
		o, err = pack.ReadObject(s.packReader(ctx, name), int64(l.Off), l.Len, buf)
		if err == nil && o.Key != key {
			err = fmt.Errorf("%v is there: %w", o.Key, object.ErrDamaged)
		}
		if !errors.Is(err, object.ErrDamaged) {
			return o, err
		}
	}
	s.foundBad(ctx, key, place{l.Pack, l.Off}, err)
	return o, err
}

// locate returns where an object is. If the object's pack is still being
// written, locate seals the pack first, so that the object can be read.
func (s *objects) locate(key object.Key) (index.Loc, string, error) {
	for {
		s.mu.Lock()
		l, ok := s.index.Get(key)
		_, unsealed := s.unsealed[l.Pack]
		p := s.packs[l.Pack]
		s.mu.Unlock()
		if !ok {
			return l, "", fmt.Errorf("%v: %w", key, chunk.ErrMissing)
		}
		if !unsealed {
			return l, packName(p.kind, l.Pack), nil
		}
		s.sealAll()
	}
}

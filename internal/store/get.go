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

// raw gives the bytes of an object, checked against its name.
func (s *objects) raw(ctx context.Context, key object.Key) ([]byte, error) {
	o, err := s.get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	return o.Decode(nil)
}

// get gives an object in its stored form, in buf's memory if that is large
// enough. One that is not there is an error that matches chunk.ErrMissing.
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
			// A collection may have moved it, and removed the pack.
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

// moved reports whether an object is somewhere else now than it was.
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

// packLost takes a pack that somebody removed for lost, with all that was in
// it; but not if the whole store is away.
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

// stillThere looks whether this is the store that was opened.
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

// getAt reads an object. What was spoilt on the way is right when it is read
// once more; what is not is damaged.
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

// locate says where an object is. One that is in a pack being written can be
// read when that is sealed.
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

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// badName is the blob with the places of damaged objects. An index that is made
// anew must leave these objects out.
const badName = "bad"

// badObject is a damaged object, or a pack that is damaged outside of its
// objects.
type badObject struct {
	Pack uint32 `json:"pack"`
	Off  uint32 `json:"off"`  // bytes from the pack's start
	Kind string `json:"kind"` // kind of the object, or badPack
	Name string `json:"name,omitempty"`
}

// badPack is the kind of a pack that is damaged outside of its objects.
const badPack = "pack"

// badList is the list of what this process found damaged.
type badList struct {
	*site
	*contents
	badMu sync.Mutex // serializes writing the list
}

func badOf(at place, key object.Key) badObject {
	if key == (object.Key{}) {
		return badObject{Pack: at.pack, Kind: badPack}
	}
	return badObject{at.pack, at.off, key.Kind.String(), key.Name.String()}
}

// key is the key of the damaged object. It is empty if b stands for a pack.
func (b badObject) key() (object.Key, error) {
	if b.Kind == badPack {
		return object.Key{}, nil
	}
	name, err := object.ParseName(b.Name)
	for _, k := range []object.Kind{object.Chunk, object.Page, object.Root} {
		if k.String() == b.Kind {
			return object.Key{Kind: k, Name: name}, err
		}
	}
	return object.Key{}, fmt.Errorf("%q is not a kind of object", b.Kind)
}

const maxBad = 256 << 20

func (s *badList) loadBad(ctx context.Context) error {
	var list []badObject
	body, err := readEnvelope(ctx, s.cfg.Blobs, badName, "bad", maxBad)
	switch {
	case err == nil:
		err = image.DecodeStrict("it", body, &list)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !isSpoilt(err):
		return err
	}
	if err != nil {
		// The list only says what reading finds out anyway. A scrub writes it anew.
		s.cfg.Log("the list of damaged objects: %v; run `testbox store scrub`", err)
		return nil
	}
	s.takeBad(list)
	return nil
}

// takeBad treats the objects on a list as missing. It also reserves the pack
// numbers on the list, since a new pack with such a number would count as
// damaged.
func (s *contents) takeBad(list []badObject) {
	for _, b := range list {
		if key, err := b.key(); err == nil {
			s.bad[place{b.Pack, b.Off}] = key
			s.next = max(s.next, min(b.Pack, index.MaxPack)+1)
		}
	}
}

// foundBad treats a damaged object as missing from now on, so that the next
// backup heals it.
func (s *objects) foundBad(ctx context.Context, key object.Key, at place, why error) {
	s.cfg.Log("%v is damaged: %v", key, why)
	s.mu.Lock()
	s.setBad(key, at)
	s.mu.Unlock()
	if s.cfg.ReadOnly {
		s.damage.saw(badOf(at, key))
		return
	}
	if err := s.saveBad(ctx); err != nil {
		s.cfg.Log("the list of damaged objects could not be written: %v", err)
	}
}

// setBad treats a damaged object as missing. mu is held, or s is not shared
// yet.
func (s *contents) setBad(key object.Key, at place) {
	s.bad[at] = key
	if s.index.Remove(key, at.pack, at.off) {
		s.dirty = true
	}
	clear(s.complete)
}

// saveBad writes the list, without places in packs that are gone.
func (s *badList) saveBad(ctx context.Context) error {
	s.badMu.Lock()
	defer s.badMu.Unlock()
	s.mu.Lock()
	list := []badObject{}
	for at, key := range s.bad {
		if _, there := s.packs[at.pack]; !there {
			delete(s.bad, at)
			continue
		}
		list = append(list, badOf(at, key))
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b badObject) int { return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Off, b.Off)) })
	// The version must have been read while this process still was the owner.
	over, err := s.version(ctx, badName)
	if err != nil || over == blob.None && len(list) == 0 {
		return err
	}
	if err := s.lease.stillOwner(ctx); err != nil {
		return err
	}
	// An empty list is written too. If it were removed instead, a late request to
	// remove it could hit a newer list.
	return writeOver(ctx, s.cfg.Blobs, badName, over, "bad", list, maxBad)
}

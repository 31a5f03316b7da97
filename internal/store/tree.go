package store

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// readRoot reads an image's root. A root that exists and cannot be parsed is an
// error that matches object.ErrDamaged.
func (s *objects) readRoot(ctx context.Context, name object.Name) (object.Key, *chunk.Root, error) {
	key := object.Key{Kind: object.Root, Name: name}
	raw, err := s.raw(ctx, key)
	if err != nil {
		return key, nil, err
	}
	root, err := chunk.ParseRoot(raw)
	if err != nil {
		return key, nil, damagedTree(key, err)
	}
	return key, root, nil
}

// readPage reads the page of region i. Its errors are like those of readRoot.
func (s *objects) readPage(ctx context.Context, root *chunk.Root, i int) (object.Key, *chunk.Page, error) {
	key := object.Key{Kind: object.Page, Name: root.Pages[i]}
	raw, err := s.raw(ctx, key)
	if err != nil {
		return key, nil, err
	}
	page, err := chunk.ParsePage(raw)
	if err == nil && page.Len() != root.Region(i).Len {
		err = fmt.Errorf("it is for a region of %d bytes, not for one of %d", page.Len(), root.Region(i).Len)
	}
	if err != nil {
		return key, nil, damagedTree(key, err)
	}
	return key, page, nil
}

// damagedTree is wrong for who reads an image. It is of no use to them.
func damagedTree(key object.Key, err error) error {
	return fmt.Errorf("%v is %w, since it %w: %w", key, object.ErrDamaged, chunk.ErrWrong, err)
}

// IsLost reports whether an error says that an object is missing or damaged. It
// is false if the object only could not be read now.
func IsLost(err error) bool {
	return errors.Is(err, chunk.ErrMissing) || errors.Is(err, object.ErrDamaged)
}

package chunk

import (
	"context"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Bulk is a Getter for which many objects at once cost less than one by one.
type Bulk interface {
	// GetAll does what Get does for one place after the other. It calls got for each,
	// in their order, with what Get would return. The object's bytes are in buf's
	// memory if that is large enough, and stay there only until got returns. GetAll
	// ends when got returns an error, and returns that error.
	GetAll(ctx context.Context, at []Place, buf []byte, got func(object.Object, error) error) error
	// CheckAll does what Check does for one place after the other. It calls got as
	// GetAll does.
	CheckAll(ctx context.Context, at []Place, buf []byte, got func(error) error) error
}

// GetAll is GetAll of a Getter that may be a Bulk.
func GetAll(ctx context.Context, g Getter, at []Place, buf []byte, got func(object.Object, error) error) error {
	if b, ok := g.(Bulk); ok {
		return b.GetAll(ctx, at, buf, got)
	}
	for _, p := range at {
		if err := got(g.Get(ctx, p, buf)); err != nil {
			return err
		}
	}
	return nil
}

// CheckAll is CheckAll of a Getter that may be a Bulk.
func CheckAll(ctx context.Context, g Getter, at []Place, buf []byte, got func(error) error) error {
	if b, ok := g.(Bulk); ok {
		return b.CheckAll(ctx, at, buf, got)
	}
	for _, p := range at {
		if err := got(g.Check(ctx, p, buf)); err != nil {
			return err
		}
	}
	return nil
}

// Bring implements image.Stored.
func (s *storedPiece) Bring(pieces []image.Stored, into func(i int) (dst []byte, compare bool)) error {
	stored := s.im.buf()
	defer s.im.bufs.Put(stored)
	at, err := s.places(pieces)
	if err != nil {
		return err
	}
	i := 0
	return GetAll(s.ctx, s.im.get, at, stored[:0], func(o object.Object, err error) error {
		p := pieces[i].(*storedPiece)
		if err == nil {
			dst, compare := into(i)
			how := object.Object.Unpack
			if compare {
				how = object.Object.Decode
			}
			err = bringChunk(o, p.place, p.len, dst, how)
		}
		i++
		return p.where(err)
	})
}

// Check implements image.Stored.
func (s *storedPiece) Check(pieces []image.Stored) error {
	stored := s.im.buf()
	defer s.im.bufs.Put(stored)
	at, err := s.places(pieces)
	if err != nil {
		return err
	}
	i := 0
	return CheckAll(s.ctx, s.im.get, at, stored[:0], func(err error) error {
		i++
		return pieces[i-1].(*storedPiece).where(err)
	})
}

// places returns where pieces of the same reader as s are.
func (s *storedPiece) places(pieces []image.Stored) ([]Place, error) {
	at := make([]Place, len(pieces))
	for i, other := range pieces {
		p, ok := other.(*storedPiece)
		if !ok || p.im != s.im {
			return nil, fmt.Errorf("pieces of several images are asked for at once, of which one is %v", s.im.Name)
		}
		at[i] = p.place
	}
	return at, nil
}

// where adds to an error where the piece is.
func (s *storedPiece) where(err error) error {
	if err == nil {
		return nil
	}
	return s.im.at(s.off, err)
}

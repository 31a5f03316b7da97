package store

import (
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

var _ chunk.Images = (*Store)(nil)

// OpenImage implements chunk.Images.
func (s *Store) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	d, name, err := s.recorded(ctx, r, disk)
	if err != nil {
		return nil, err
	}
	g := &imageGetter{store: s, image: name}
	im, err := chunk.OpenImage(ctx, g, name)
	if err == nil {
		err = fits(im.Root, d)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return im, nil
}

// recorded gives a disk of a backup as its record in the store tells of it,
// which has to be what the caller knows, and the name of its image.
func (s *Store) recorded(ctx context.Context, r *image.Record, disk string) (*image.RecordedDisk, object.Name, error) {
	wanted := r.Disk(disk)
	if wanted == nil {
		return nil, object.Name{}, fmt.Errorf("backup %s of %s has no disk %s: %w", r.ID, r.Box, disk, fs.ErrNotExist)
	}
	now, err := s.Record(ctx, r.Box, r.ID)
	if err != nil {
		return nil, object.Name{}, err
	}
	d := now.Disk(disk)
	if d == nil || d.Root != wanted.Root {
		return nil, object.Name{}, fmt.Errorf("backup %s of %s has another image of %s than it had: %w", r.ID, r.Box, disk, fs.ErrNotExist)
	}
	name, err := object.ParseName(d.Root)
	return d, name, err
}

// imageGetter reads one image.
type imageGetter struct {
	store  *Store
	image  object.Name // of the root
	closed atomic.Bool
}

// Get implements chunk.Getter.
func (g *imageGetter) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	switch {
	case g.closed.Load():
		return object.Object{}, fmt.Errorf("image %v: %w", g.image, chunk.ErrClosed)
	case at.Image() != g.image:
		return object.Object{}, fmt.Errorf("%v of image %v, asked of image %v: %w", at.Key(), at.Image(), g.image, chunk.ErrMissing)
	}
	return g.store.get(ctx, at.Key(), buf)
}

// Close implements chunk.Getter.
func (g *imageGetter) Close() error {
	g.closed.Store(true)
	return nil
}

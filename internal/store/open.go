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
	return openImage(ctx, s.objects, s.Catalogue, r, disk)
}

func openImage(ctx context.Context, from *objects, c *Catalogue, r *image.Record, disk string) (*chunk.Image, error) {
	d := r.Disk(disk)
	if d == nil {
		return nil, fmt.Errorf("backup %s of %s has no disk %s: %w", r.ID, r.Box, disk, fs.ErrNotExist)
	}
	// A collection lists the records first, and then the images that are held. It
	// may miss the record of an image that is held here. If that record is deleted
	// later, the collection still finds the image held. If that record is
	// committed later, its session protects the objects.
	c.held.hold(d.Root)
	g := &imageGetter{from: from, held: &c.held, image: d.Root}
	err := c.isRecorded(ctx, r, d)
	var im *chunk.Image
	if err == nil {
		im, err = chunk.OpenImage(ctx, g, d.Root)
	}
	if err == nil {
		err = fits(im.Root, d)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return im, nil
}

// isRecorded returns an error if the backup's record, as it is now, does not
// have the disk with the image that the caller expects.
func (c *Catalogue) isRecorded(ctx context.Context, r *image.Record, d *image.RecordedDisk) error {
	now, err := c.Record(ctx, r.Box, r.ID)
	if err != nil {
		return err
	}
	if is := now.Disk(d.Name); is == nil || is.Root != d.Root || is.Disk.Size != d.Disk.Size || is.Disk.SectorSize != d.Disk.SectorSize {
		return fmt.Errorf("backup %s of %s has another image of %s than that: %w", r.ID, r.Box, d.Name, fs.ErrNotExist)
	}
	return nil
}

// imageGetter reads one image, and holds it until Close.
type imageGetter struct {
	from   *objects
	held   *holds
	image  object.Name // name of the image's root
	closed atomic.Bool
}

var _ chunk.Aware = (*imageGetter)(nil)

// may returns an error unless the object at a place may be read.
func (g *imageGetter) may(at chunk.Place) error {
	switch {
	case g.closed.Load():
		return fmt.Errorf("image %v: %w", g.image, chunk.ErrClosed)
	case at.Image() != g.image:
		return fmt.Errorf("%v of image %v, asked of image %v: %w", at.Key(), at.Image(), g.image, chunk.ErrMissing)
	}
	return nil
}

// Get implements chunk.Getter.
func (g *imageGetter) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	if err := g.may(at); err != nil {
		return object.Object{}, err
	}
	return g.from.get(ctx, at.Key(), buf)
}

// Lacks implements chunk.Aware. What anything in this process finds damaged is not in the
// index any more: a read, a collection or a scrub.
func (g *imageGetter) Lacks(at chunk.Place) error {
	if err := g.may(at); err != nil {
		return err
	}
	g.from.mu.Lock()
	defer g.from.mu.Unlock()
	if _, there := g.from.index.Get(at.Key()); !there {
		return fmt.Errorf("%v: %w", at.Key(), chunk.ErrMissing)
	}
	return nil
}

// Check implements chunk.Getter. Whatever reads an object from a pack compares
// it with its sum.
func (g *imageGetter) Check(ctx context.Context, at chunk.Place, buf []byte) error {
	_, err := g.Get(ctx, at, buf)
	return err
}

// Close implements chunk.Getter.
func (g *imageGetter) Close() error {
	if g.closed.CompareAndSwap(false, true) {
		g.held.release(g.image)
	}
	return nil
}

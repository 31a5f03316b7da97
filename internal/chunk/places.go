package chunk

import (
	"context"
	"fmt"

	"testbox-imaging/internal/object"
)

// A server finds the objects of an image that it has open by these places. What
// is not in the image has no place.

// RootPlace returns the place of the root.
func (im *Image) RootPlace() Place {
	return Place{image: im.Name, key: object.Key{Kind: object.Root, Name: im.Name}}
}

// PagePlace returns the place of the page of a region. If the image has no such
// region, the error matches ErrMissing.
func (im *Image) PagePlace(region int) (Place, error) {
	if region < 0 || region >= len(im.Root.Pages) {
		return Place{}, im.noRegion(region)
	}
	return im.pagePlace(region), nil
}

func (im *Image) noRegion(region int) error {
	return fmt.Errorf("image %v has no region %d: %w", im.Name, region, ErrMissing)
}

// Region has the places of the chunks of one region of an image.
type Region struct {
	region int
	image  object.Name
	names  []object.Name
}

// Region reads the page of a region. If the image has no such region, the error
// matches ErrMissing.
func (im *Image) Region(ctx context.Context, region int) (*Region, error) {
	if _, err := im.PagePlace(region); err != nil {
		return nil, err
	}
	p, err := im.Page(ctx, region)
	if err != nil {
		return nil, err
	}
	r := &Region{region: region, image: im.Name, names: make([]object.Name, len(p.Chunks))}
	for i, c := range p.Chunks {
		r.names[i] = c.Name
	}
	return r, nil
}

// Len returns the number of chunks of the region.
func (r *Region) Len() int { return len(r.names) }

// Place returns the place of a chunk. If the region has no such chunk, the error
// matches ErrMissing.
func (r *Region) Place(i int) (Place, error) {
	if i < 0 || i >= len(r.names) {
		return Place{}, fmt.Errorf("region %d of image %v has no chunk %d: %w", r.region, r.image, i, ErrMissing)
	}
	return Place{Region: r.region, Chunk: i, image: r.image, key: object.Key{Kind: object.Chunk, Name: r.names[i]}}, nil
}

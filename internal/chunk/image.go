package chunk

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Image is an image in a store, open to be read. Its methods may be called
// from many goroutines at once.
type Image struct {
	Name object.Name // of the root
	Root *Root

	get  Getter
	bufs sync.Pool // *storedBuf
}

// storedBuf has room for any chunk or page as it is stored, and for what a
// store reads along with it.
type storedBuf [object.MaxChunk + 4096]byte

// OpenImage reads the root of the image that a getter was opened for; nothing
// else of it is looked at. A root that is not there is an error that matches
// ErrMissing. After an error the caller closes the getter, else the image.
func OpenImage(ctx context.Context, g Getter, root object.Name) (*Image, error) {
	b, err := getRaw(ctx, g, Place{image: root, key: object.Key{Kind: object.Root, Name: root}}, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("image %v: %w", root, err)
	}
	r, err := ParseRoot(b)
	if err != nil {
		return nil, fmt.Errorf("image %v: %w", root, err)
	}
	return &Image{Name: root, Root: r, get: g}, nil
}

// Getter is what the image is read by.
func (im *Image) Getter() Getter { return im.get }

// Close lets go of the image. Its readers are closed before.
func (im *Image) Close() error { return im.get.Close() }

// pagePlace is where the page of region i is.
func (im *Image) pagePlace(i int) Place {
	return Place{Region: i, image: im.Name, key: object.Key{Kind: object.Page, Name: im.Root.Pages[i]}}
}

// chunkPlace is where the chunk j of the page of region i is.
func (im *Image) chunkPlace(i, j int, name object.Name) Place {
	return Place{Region: i, Chunk: j, image: im.Name, key: object.Key{Kind: object.Chunk, Name: name}}
}

// Page gives the page of region i, which is as long as the region.
func (im *Image) Page(ctx context.Context, i int) (*Page, error) {
	region := im.Root.Region(i)
	p, err := im.page(ctx, i)
	if err == nil {
		err = fits(p.Len(), region)
	}
	if err != nil {
		return nil, im.at(region.Off, err)
	}
	return p, nil
}

// fits says whether a page that describes n bytes is as long as its region.
func fits(n int64, region image.Range) error {
	if n != region.Len {
		return fmt.Errorf("page is for a region of %d bytes, not for one of %d", n, region.Len)
	}
	return nil
}

func (im *Image) page(ctx context.Context, i int) (*Page, error) {
	raw := im.buf()
	defer im.bufs.Put(raw)
	b, err := im.object(ctx, im.pagePlace(i), raw[:0])
	if err != nil {
		return nil, err
	}
	return ParsePage(b)
}

// chunk fills dst[:n] with the chunk of n bytes at a place; what dst has behind
// that may be spoilt.
func (im *Image) chunk(ctx context.Context, at Place, n int, dst []byte) error {
	_ = dst[:n] // a shorter one would be left as it is
	b, err := im.object(ctx, at, dst[:0:len(dst)])
	if err == nil && len(b) != n {
		err = fmt.Errorf("%v has %d bytes, its page says %d", at.key, len(b), n)
	}
	return err
}

// object gives a chunk's or a page's bytes, checked against its name, in dst's
// memory if that is large enough.
func (im *Image) object(ctx context.Context, at Place, dst []byte) ([]byte, error) {
	stored := im.buf()
	defer im.bufs.Put(stored)
	return getRaw(ctx, im.get, at, stored[:0], dst)
}

func (im *Image) buf() *storedBuf {
	if b, ok := im.bufs.Get().(*storedBuf); ok {
		return b
	}
	return new(storedBuf)
}

// at says where the image has the error.
func (im *Image) at(off int64, err error) error {
	return fmt.Errorf("image %v, byte %d of the disk: %w", im.Name, off, err)
}

// Span is a run of a region's bytes of one content and, if it is data, of one
// chunk.
type Span struct {
	Off, Len int64 // bytes, from the region's start
	Content  image.Content
	Chunk    int // data: of Page.Chunks
	At       int // data: where in the chunk the run begins, bytes
}

// Spans gives the runs of a page that ParsePage took, in the region's order.
func (p *Page) Spans() iter.Seq[Span] {
	return func(yield func(Span) bool) {
		var off int64
		var chunk, at int
		for _, e := range p.Extents {
			for left := e.Len; left > 0; {
				s := Span{Off: off, Len: left, Content: e.Content}
				if e.Content == image.Data {
					s.Len = min(left, int64(p.Chunks[chunk].Len-at))
					s.Chunk, s.At = chunk, at
					if at += int(s.Len); at == p.Chunks[chunk].Len {
						chunk, at = chunk+1, 0
					}
				}
				if !yield(s) {
					return
				}
				off += s.Len
				left -= s.Len
			}
		}
	}
}

package chunk

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Image is an image in a store that is open for reading. Its methods may be
// called from many goroutines at once.
type Image struct {
	Name object.Name // of the root
	Root *Root

	get  Getter
	bufs sync.Pool // *storedBuf
}

// storedBuf has room for any chunk or page as it is stored, and for other bytes
// that a store reads together with it.
type storedBuf [object.MaxChunk + 4096]byte

// OpenImage reads the root of the image that g was opened for, and nothing else
// of it. If the root does not exist, the error matches ErrMissing. After an
// error the caller closes the getter, otherwise the image.
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

// Getter returns the getter that reads the image's objects.
func (im *Image) Getter() Getter { return im.get }

// With returns the same image, read by another getter. That getter must give the
// objects of the same root. Closing the image that With returns closes only that
// getter.
func (im *Image) With(g Getter) *Image { return &Image{Name: im.Name, Root: im.Root, get: g} }

// Close releases the image. The caller closes the image's readers first.
func (im *Image) Close() error { return im.get.Close() }

// pagePlace returns the place of the page of region i.
func (im *Image) pagePlace(i int) Place {
	return Place{Region: i, image: im.Name, key: object.Key{Kind: object.Page, Name: im.Root.Pages[i]}}
}

// PagePlaces returns the places of up to n pages, from that of region i on.
func (im *Image) PagePlaces(i, n int) (places []Place) {
	for ; n > 0 && i < len(im.Root.Pages); i, n = i+1, n-1 {
		places = append(places, im.pagePlace(i))
	}
	return places
}

// chunkPlace returns the place of chunk j of the page of region i.
func (im *Image) chunkPlace(i, j int, name object.Name) Place {
	return Place{Region: i, Chunk: j, image: im.Name, key: object.Key{Kind: object.Chunk, Name: name}}
}

// Page returns the page of region i, and checks that it is as long as the
// region.
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

// fits returns an error if a page that describes n bytes is not as long as its
// region.
func fits(n int64, region image.Range) error {
	if n != region.Len {
		return fmt.Errorf("page is for a region of %d bytes, not for one of %d", n, region.Len)
	}
	return nil
}

func (im *Image) page(ctx context.Context, i int) (*Page, error) {
	raw, stored := im.buf(), im.buf()
	defer im.bufs.Put(raw)
	defer im.bufs.Put(stored)
	b, err := getRaw(ctx, im.get, im.pagePlace(i), stored[:0], raw[:0])
	if err != nil {
		return nil, err
	}
	return ParsePage(b)
}

// chunk fills dst[:n] with the chunk of n bytes at a place. The rest of dst may be
// overwritten.
func (im *Image) chunk(ctx context.Context, at Place, n int, dst []byte) error {
	stored := im.buf()
	defer im.bufs.Put(stored)
	o, err := im.get.Get(ctx, at, stored[:0])
	if err != nil {
		return err
	}
	return bringChunk(o, at, n, dst, object.Object.Decode)
}

// bringChunk fills dst[:n] with the chunk of n bytes that how makes of the object
// that came for a place. The rest of dst may be overwritten.
func bringChunk(o object.Object, at Place, n int, dst []byte, how bringFunc) error {
	_ = dst[:n] // panics if dst is too short, which would otherwise stay unchanged
	b, err := bring(o, at, dst[:0:len(dst)], how)
	if err == nil && len(b) != n {
		err = fmt.Errorf("the page of %v is %w, since it %w: %d bytes instead of %d", at.key, object.ErrDamaged, ErrWrong, n, len(b))
	}
	return err
}

func (im *Image) buf() *storedBuf {
	if b, ok := im.bufs.Get().(*storedBuf); ok {
		return b
	}
	return new(storedBuf)
}

// at adds to an error where in the image it occurred.
func (im *Image) at(off int64, err error) error {
	return fmt.Errorf("image %v, byte %d of the disk: %w", im.Name, off, err)
}

// Span is a run of bytes in a region with one content. If it is data, all of it
// is in one chunk.
type Span struct {
	Off, Len int64 // bytes, from the region's start
	Content  image.Content
	Chunk    int // for data, the index in Page.Chunks
	At       int // for data, the offset in the chunk at which the run begins, in bytes
}

// Spans returns the runs of a page that ParsePage accepted, in order.
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

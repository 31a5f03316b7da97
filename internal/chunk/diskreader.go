package chunk

import (
	"context"
	"errors"
	"io"
	"slices"
	"sort"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// DiskReader reads the disk of an image at any place, as an io.ReaderAt. Unused
// places read as zeros. It may be used from many goroutines at once.
type DiskReader struct {
	im    *Image
	ctx   context.Context
	stop  context.CancelFunc
	cache *cache
	ahead *readAhead
}

// minCache is the smallest cache, in bytes. It has room for the largest page
// and some chunks.
const minCache = 8 << 20

// ReaderAt opens the disk for reading. Its cache has up to cacheBytes, but at
// least 8 MiB. The cache holds what was read last, and what is read ahead for
// sequential readers. ctx is used for all reads. The caller closes the reader.
func (im *Image) ReaderAt(ctx context.Context, cacheBytes int64) *DiskReader {
	d := &DiskReader{im: im, cache: newCache(max(cacheBytes, minCache))}
	d.ctx, d.stop = context.WithCancel(ctx)
	d.ahead = newReadAhead(d)
	return d
}

// Close stops reading ahead and waits until that has ended. After that, nothing
// reads from the store any more.
func (d *DiskReader) Close() error {
	d.stop()
	d.ahead.wait()
	return nil
}

// Size returns the disk's length in bytes.
func (d *DiskReader) Size() int64 { return d.im.Root.Size }

// ReadAt implements io.ReaderAt. If it returns n and an error, the first n
// bytes are correct.
func (d *DiskReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read before the disk's start")
	}
	if off >= d.Size() {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), d.Size()-off))
	for n := 0; n < want; {
		got, err := d.readRegion(p[n:want], off+int64(n))
		n += got
		if err != nil {
			return n, d.im.at(off+int64(n), err)
		}
	}
	d.ahead.after(off, off+int64(want))
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

// readRegion reads the part of p that is in the region of off.
func (d *DiskReader) readRegion(p []byte, off int64) (n int, err error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	region := int(off / RegionSize)
	e, err := d.page(region)
	if err != nil {
		return 0, err
	}
	defer d.cache.done(e)
	at := off % RegionSize
	for _, s := range e.page.from(at) {
		if n == len(p) {
			break
		}
		skip := at + int64(n) - s.Off
		part := p[n : n+int(min(int64(len(p)-n), s.Len-skip))]
		if s.Content != image.Data {
			clear(part)
		} else if err := d.readChunk(part, d.chunkAt(region, e.page, s), s.At+int(skip)); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// chunkRef is the place and length of a chunk.
type chunkRef struct {
	at  Place
	len int // bytes
}

// chunkAt returns the chunk of a span of a region's page.
func (d *DiskReader) chunkAt(region int, p *pageMap, s Span) chunkRef {
	ref := p.chunks[s.Chunk]
	return chunkRef{d.im.chunkPlace(region, s.Chunk, ref.Name), ref.Len}
}

func (d *DiskReader) readChunk(p []byte, ref chunkRef, at int) error {
	e, err := d.chunk(ref)
	if err != nil {
		return err
	}
	copy(p, (*e.data)[at:])
	d.cache.done(e)
	return nil
}

// chunk returns a chunk from the cache. The caller must call done for it.
func (d *DiskReader) chunk(ref chunkRef) (*entry, error) {
	e, err := d.cache.use(ref.at.key, func(e *entry) error {
		data := d.cache.buffer(ref.len + object.Slack)
		if err := d.im.chunk(d.ctx, ref.at, ref.len, *data); err != nil {
			d.cache.free.Put(data)
			return err
		}
		*data = (*data)[:ref.len]
		e.data, e.size = data, int64(cap(*data))
		return nil
	})
	if err == nil && len(*e.data) != ref.len {
		d.cache.done(e)
		return nil, errors.New("two pages say different lengths of chunk " + ref.at.key.Name.String())
	}
	return e, err
}

// page returns the page of a region from the cache. The caller must call done
// for it.
func (d *DiskReader) page(region int) (*entry, error) {
	e, err := d.cache.use(d.im.pagePlace(region).key, func(e *entry) error {
		p, err := d.im.page(d.ctx, region)
		if err != nil {
			return err
		}
		e.page = newPageMap(p)
		e.size = int64(len(e.page.spans))*40 + int64(len(e.page.chunks))*40
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := fits(e.page.size, d.im.Root.Region(region)); err != nil {
		d.cache.done(e)
		return nil, err
	}
	return e, nil
}

// pageMap is a page in a form for lookups.
type pageMap struct {
	spans  []Span
	chunks []Ref
	size   int64 // bytes of the region
}

func newPageMap(p *Page) *pageMap {
	return &pageMap{slices.Collect(p.Spans()), p.Chunks, p.Len()}
}

// from returns the spans that end after at, which is a place in the region.
func (m *pageMap) from(at int64) []Span {
	i := sort.Search(len(m.spans), func(i int) bool { return m.spans[i].Off+m.spans[i].Len > at })
	return m.spans[i:]
}

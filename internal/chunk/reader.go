package chunk

import (
	"context"
	"io"
	"sync"

	"testbox-imaging/internal/image"
)

// pagesAhead is how many pages are fetched before they are needed. Each page
// describes 256 MiB of disk.
const pagesAhead = 4

// Reader reads the image region by region. It returns a Data piece for each
// chunk, and a Zero or Unused piece for each such run of a region. A chunk can
// have runs of zero or unused bytes between its parts. Their pieces come after
// the chunk's, which begins first. Decode fetches the chunks, and pages are
// fetched ahead. Both use ctx.
func (im *Image) Reader(ctx context.Context) image.Reader { return im.ReaderFrom(ctx, 0) }

// ReaderFrom is Reader in an order that begins with any region. The last region is
// followed by the first.
func (im *Image) ReaderFrom(ctx context.Context, region int) image.Reader {
	r := &reader{ctx: ctx, im: im, from: region}
	if region < 0 || region >= len(im.Root.Pages) {
		r.err = im.noRegion(region)
	}
	return r
}

// reader counts the pages in the order in which it returns their pieces.
type reader struct {
	ctx    context.Context
	im     *Image
	from   int           // region of page 0
	asked  int           // pages below this number are in ahead, or done
	done   int           // number of pages handed out
	ahead  []fetchedPage // pages from number done on
	pieces []image.Piece // pieces of page done-1 that are not returned yet
	err    error
}

// fetchedPage waits for a page that is being fetched, and returns it.
type fetchedPage func() (*Page, error)

// Next implements image.Reader.
func (r *reader) Next() (image.Piece, error) {
	for len(r.pieces) == 0 && r.err == nil {
		r.err = r.nextRegion()
	}
	if r.err != nil {
		return image.Piece{}, r.err
	}
	p := r.pieces[0]
	r.pieces = r.pieces[1:]
	return p, nil
}

func (r *reader) nextRegion() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if r.done == len(r.im.Root.Pages) {
		return io.EOF
	}
	r.fetchAhead()
	i := r.region(r.done)
	region := r.im.Root.Region(i)
	p, err := r.ahead[0]()
	if err == nil {
		err = fits(p.Len(), region)
	}
	if err != nil {
		return r.im.at(region.Off, err)
	}
	r.ahead = r.ahead[1:]
	r.done++
	r.pieces = r.im.pieces(r.ctx, p, i)
	return nil
}

// region returns the region of a page.
func (r *reader) region(page int) int { return (r.from + page) % len(r.im.Root.Pages) }

// fetchAhead starts to fetch pages. Adjacent regions with the same page, such
// as empty ones, share one fetch.
func (r *reader) fetchAhead() {
	for pages := r.im.Root.Pages; r.asked < min(r.done+pagesAhead, len(pages)); r.asked++ {
		region := r.region(r.asked)
		if n := len(r.ahead); n > 0 && pages[r.region(r.asked-1)] == pages[region] {
			r.ahead = append(r.ahead, r.ahead[n-1])
			continue
		}
		page := sync.OnceValues(func() (*Page, error) { return r.im.page(r.ctx, region) })
		r.ahead = append(r.ahead, page)
		go page()
	}
}

// PlaceOf returns where the data of a piece is in its image. ok is false if the
// piece is not one of an image's Reader.
func PlaceOf(s image.Stored) (at Place, ok bool) {
	p, ok := s.(*storedPiece)
	if !ok {
		return Place{}, false
	}
	return p.place, true
}

// pieces returns the pieces of a region, in the order of their first bytes.
func (im *Image) pieces(ctx context.Context, p *Page, region int) []image.Piece {
	off := im.Root.Region(region).Off
	out := make([]image.Piece, 0, len(p.Extents)+len(p.Chunks))
	ranges := make([]image.Range, 0, len(p.Extents)+len(p.Chunks)) // ranges of a chunk are adjacent
	others := make([]image.Range, 0, len(p.Extents))
	var data int // index in out of the chunk that began last
	for s := range p.Spans() {
		at := image.Range{Off: off + s.Off, Len: s.Len}
		if s.Content != image.Data {
			others = append(others, at)
			n := len(others)
			out = append(out, image.Piece{Content: s.Content, Ranges: others[n-1 : n : n], Len: s.Len})
			continue
		}
		ranges = append(ranges, at)
		n := len(ranges)
		if s.At == 0 {
			data = len(out)
			ref := p.Chunks[s.Chunk]
			out = append(out, im.piece(ctx, im.chunkPlace(region, s.Chunk, ref.Name), ref.Len, at.Off))
			out[data].Ranges = ranges[n-1 : n : n]
		} else {
			have := len(out[data].Ranges)
			out[data].Ranges = ranges[n-1-have : n : n]
		}
	}
	return out
}

// piece returns the piece of a chunk of n bytes that begins at off. Its ranges
// are not set yet.
func (im *Image) piece(ctx context.Context, at Place, n int, off int64) image.Piece {
	s := &storedPiece{ctx: ctx, im: im, place: at, len: n, off: off}
	return image.Piece{Content: image.Data, Len: int64(n), Sum: at.key.Name, Decode: s.decode, Stored: s}
}

// storedPiece is a chunk of n bytes that begins at off on the disk. It implements
// image.Stored.
type storedPiece struct {
	ctx   context.Context
	im    *Image
	place Place
	len   int
	off   int64
}

func (s *storedPiece) decode(dst []byte) error {
	return s.where(s.im.chunk(s.ctx, s.place, s.len, dst))
}

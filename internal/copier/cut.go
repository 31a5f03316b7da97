package copier

import (
	"io"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// cutter makes chunks and pages of windows: the blocks that are used and not
// zero, in the order of the disk, are the stream that is cut.
type cutter struct {
	windows *ordered[*windowSlot]   // classified
	begin   func(*windowSlot) error // is told of each, in order
	size    int64                   // of the disk
	figures figures

	slots     int         // filled so far
	pos       int64       // up to where the disk is in chunks and pages
	regionEnd int64       // of the region of pos
	page      *chunk.Page // of that region; nil at the disk's end
	cut       chunk.Cutter

	cur   *windowSlot // current window, of pos or the next; nil before the first
	run   int         // of its runs
	block int         // of its blocks
}

// figures count the bytes of the disk that are data, zeros and unused.
type figures struct{ data, zero, unused int64 }

func newCutter(size int64, windows *ordered[*windowSlot], begin func(*windowSlot) error) *cutter {
	return &cutter{windows: windows, begin: begin, size: size, regionEnd: min(size, chunk.RegionSize), page: new(chunk.Page)}
}

// produce fills a slot with the next chunk, or with the page of a region whose
// last chunk went before.
func (c *cutter) produce(out *chunkSlot) error {
	out.seq = c.slots
	c.slots++
	for c.pos < c.regionEnd {
		used, err := c.used()
		if err != nil {
			return err
		}
		if n := min(used.Off, c.regionEnd) - c.pos; n > 0 {
			c.advance(image.Unused, n)
		} else if c.fill(out, used.End()) {
			return nil
		}
	}
	switch {
	case out.n > 0:
		return nil // the region's last chunk; its page comes next
	case c.page == nil:
		return io.EOF
	}
	out.page, c.page = c.page, nil
	if c.regionEnd < c.size {
		c.page, c.regionEnd = new(chunk.Page), min(c.size, c.regionEnd+chunk.RegionSize)
		c.cut.Reset()
	}
	return nil
}

// advance goes over bytes of the disk.
func (c *cutter) advance(content image.Content, n int64) {
	c.page.Append(content, n)
	c.pos += n
	switch content {
	case image.Data:
		c.figures.data += n
	case image.Zero:
		c.figures.zero += n
	default:
		c.figures.unused += n
	}
}

// used gives the next run that is used, from pos on; an empty one at the disk's
// end if there is none.
func (c *cutter) used() (image.Range, error) {
	for {
		if c.cur == nil {
			s, ok, err := c.windows.next()
			if !ok || err != nil {
				return image.Range{Off: c.size}, err
			}
			if err := c.begin(s); err != nil {
				return image.Range{}, err
			}
			c.cur, c.run, c.block = s, 0, 0
		}
		for runs := c.cur.win.runs; c.run < len(runs); c.run++ {
			if r := runs[c.run].Clip(c.pos, c.size); r.Len > 0 {
				return r, nil
			}
		}
		c.windows.done(c.cur)
		c.cur = nil
	}
}

// fill puts the blocks from pos to end into a chunk, until that is full.
func (c *cutter) fill(out *chunkSlot, end int64) bool {
	w := &c.cur.win
	if w.hole {
		c.advance(image.Zero, end-c.pos)
		return false
	}
	for c.pos < end {
		off, n, m := c.pos-w.off, w.block(c.pos, end), w.blocks[c.block]
		c.block++
		if m == markZero {
			c.advance(image.Zero, n)
			continue
		}
		c.advance(image.Data, n)
		out.n += int64(copy(out.raw[out.n:], c.cur.raw[off:off+n]))
		if c.cut.Add(int(n), m == markBoundary) {
			return true
		}
	}
	return false
}

package copier

import (
	"io"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// cutter makes chunks and pages from windows. The stream that it cuts has all
// blocks that are used and not zero, in the order of the disk.
type cutter struct {
	windows *ordered[*windowSlot]   // windows with their marks
	begin   func(*windowSlot) error // called for each window, in order
	size    int64                   // of the disk
	figures figures

	slots     int         // number of slots filled so far
	pos       int64       // everything before it is in chunks and pages
	regionEnd int64       // end of the region that pos lies in
	page      *chunk.Page // page of that region; nil at the disk's end
	cut       chunk.Cutter

	cur   *windowSlot // current window, at pos or behind it; nil before the first
	run   int         // index of the current run in cur
	block int         // index of the current block in cur
}

// figures counts the bytes of the disk that are data, zeros and unused.
type figures struct{ data, zero, unused int64 }

func newCutter(size int64, windows *ordered[*windowSlot], begin func(*windowSlot) error) *cutter {
	return &cutter{windows: windows, begin: begin, size: size, regionEnd: min(size, chunk.RegionSize), page: new(chunk.Page)}
}

// produce fills a slot with the next chunk. After the last chunk of a region it
// fills a slot with the region's page.
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
		return nil // this is the region's last chunk, and its page comes next
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

// advance adds the next n bytes of the disk to the page and to the figures.
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

// used gives the next used run, from pos on. If there is none, it gives an empty
// range at the disk's end.
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

// fill adds the blocks from pos to end to the chunk in out. It returns true when
// the chunk ends.
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

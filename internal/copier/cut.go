package copier

import (
	"io"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// cutter makes chunks and pages of windows: the blocks that are used and not
// zero, in the order of the disk, are the stream that is cut.
type cutter struct {
	windows *ordered          // classified
	begin   func(*slot) error // is told of each, in order
	size    int64             // of the disk
	figures figures

	at     int64       // up to where the disk is in chunks and pages
	region int64       // where the region of at ends
	page   *chunk.Page // of that region; nil at the disk's end
	cut    chunk.Cutter

	from  *slot // the window of at or the next; nil is none yet
	run   int   // of its runs
	block int   // of its blocks
}

// figures are bytes of the disk.
type figures struct{ data, zero, unused int64 }

func newCutter(size int64, windows *ordered, begin func(*slot) error) *cutter {
	return &cutter{windows: windows, begin: begin, size: size, region: min(size, chunk.RegionSize), page: new(chunk.Page)}
}

// produce fills a slot with the next chunk, or with the page of a region whose
// last chunk went before.
func (c *cutter) produce(out *slot) error {
	for c.at < c.region {
		used, err := c.used()
		if err != nil {
			return err
		}
		if n := min(used.Off, c.region) - c.at; n > 0 {
			c.pass(image.Unused, n)
		} else if c.take(out, used.End()) {
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
	if c.region < c.size {
		c.page, c.region = new(chunk.Page), min(c.size, c.region+chunk.RegionSize)
		c.cut.Reset()
	}
	return nil
}

// pass goes over bytes of the disk.
func (c *cutter) pass(content image.Content, n int64) {
	c.page.Append(content, n)
	c.at += n
	switch content {
	case image.Data:
		c.figures.data += n
	case image.Zero:
		c.figures.zero += n
	default:
		c.figures.unused += n
	}
}

// used gives the next run that is used, from at on; an empty one at the disk's
// end if there is none.
func (c *cutter) used() (image.Range, error) {
	for {
		if c.from == nil {
			s, err := c.windows.next()
			if s == nil || err != nil {
				return image.Range{Off: c.size}, err
			}
			if err := c.begin(s); err != nil {
				return image.Range{}, err
			}
			c.from, c.run, c.block = s, 0, 0
		}
		for runs := c.from.win.runs; c.run < len(runs); c.run++ {
			if r := runs[c.run].Clip(c.at, c.size); r.Len > 0 {
				return r, nil
			}
		}
		c.windows.done(c.from)
		c.from = nil
	}
}

// take puts the blocks from at to end into a chunk, until that is full.
func (c *cutter) take(out *slot, end int64) bool {
	w := &c.from.win
	if w.hole {
		c.pass(image.Zero, end-c.at)
		return false
	}
	for c.at < end {
		off, n, m := c.at-w.off, w.block(c.at, end), w.blocks[c.block]
		c.block++
		if m == zero {
			c.pass(image.Zero, n)
			continue
		}
		c.pass(image.Data, n)
		out.n += int64(copy(out.raw[out.n:], c.from.raw[off:off+n]))
		if c.cut.Add(int(n), m == boundary) {
			return true
		}
	}
	return false
}

package copier

import (
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// Boxes that restore the same image at the same time give its pieces to each
// other. A box that comes late begins with the region where the others are, goes on
// to the image's end, and then takes the regions before that. So nothing in this
// package may rely on an image that begins with the disk's first byte, if its
// pieces tell their sums. Places in the order are counted in bytes from its
// beginning.

// regionOf is the number of the region that a byte of the disk lies in.
func regionOf(off int64) int { return int(off / chunk.RegionSize) }

// cover checks that the ranges of an image's pieces cover the disk, each byte
// once, in the order that image.Reader promises.
type cover struct {
	size     int64         // of the disk
	anywhere bool          // the order may begin with any region
	begin    int64         // where on the disk the order began; 0 before the first piece
	to       int64         // the first bytes of the order that are covered
	ahead    []image.Range // ranges behind these that are covered, in order
}

func coverOf(im Image) cover { return cover{size: im.Size(), anywhere: im.PiecesProved()} }

// next is where on the disk the next piece must begin, and where it must end at the
// latest. The latter is the disk's end before the order wraps round, and where the
// order began after that.
func (c *cover) next() (off, limit int64) {
	if off = c.begin + c.to; off < c.size {
		return off, c.size
	}
	return off - c.size, c.begin
}

// add adds a piece's ranges. It returns false if they are out of order, overlap
// others or lie outside of the disk.
func (c *cover) add(ranges []image.Range) bool {
	if len(ranges) == 0 {
		return false
	}
	if first := ranges[0].Off; c.to == 0 && c.anywhere && first > 0 && first < c.size && first%chunk.RegionSize == 0 {
		c.begin = first
	}
	due, limit := c.next()
	if ranges[0].Off != due {
		return false
	}
	at := due
	for _, r := range ranges {
		if r.Off < at || r.Len <= 0 || r.Len > limit-r.Off || !c.insert(r) {
			return false
		}
		at = r.End()
	}
	n, end := 0, due
	for n < len(c.ahead) && c.ahead[n].Off == end {
		end = c.ahead[n].End()
		n++
	}
	c.to += end - due
	c.ahead = slices.Delete(c.ahead, 0, n)
	return true
}

func (c *cover) insert(r image.Range) bool {
	i, _ := slices.BinarySearchFunc(c.ahead, r.Off, func(a image.Range, off int64) int { return cmp.Compare(a.Off, off) })
	if i > 0 && c.ahead[i-1].End() > r.Off || i < len(c.ahead) && c.ahead[i].Off < r.End() {
		return false
	}
	c.ahead = slices.Insert(c.ahead, i, r)
	return true
}

// complete reports whether each byte of the disk is covered.
func (c *cover) complete() bool { return c.to == c.size }

// cutOff is the error of an image that ends before it is complete.
func (c *cover) cutOff() error {
	due, _ := c.next()
	return fmt.Errorf("the image ends at byte %d, after %d of %d bytes", due, c.to, c.size)
}

// bits has a flag for each item of an image, region by region, in the order of the
// items of a region. So it does not matter with which region an order begins.
type bits []flags

// flags are those of the items of one region.
type flags struct {
	n    int
	word []uint64
}

// add adds the flag of the next item of a region, and returns its number.
func (b *bits) add(region int, set bool) (i int) {
	for len(*b) <= region {
		*b = append(*b, flags{})
	}
	f := &(*b)[region]
	if f.n%64 == 0 {
		f.word = append(f.word, 0)
	}
	if set {
		f.word[f.n/64] |= 1 << (f.n % 64)
	}
	f.n++
	return f.n - 1
}

// set sets a flag that was added.
func (b bits) set(region, i int) { b[region].word[i/64] |= 1 << (i % 64) }

// has gives flag i of a region. It is false for flags that were never added.
func (b bits) has(region, i int) bool {
	return region < len(b) && i < b[region].n && b[region].word[i/64]>>(i%64)&1 == 1
}

package copier

import (
	"cmp"
	"slices"

	"testbox-imaging/internal/image"
)

// cover checks that the ranges of an image's pieces are the disk, each byte
// once, and in the order that image.Reader promises.
type cover struct {
	size  int64         // of the disk
	to    int64         // all before was there
	ahead []image.Range // what was there behind to, in order
}

// add takes a piece's ranges; false is: they are not what may come.
func (c *cover) add(ranges []image.Range) bool {
	if len(ranges) == 0 || ranges[0].Off != c.to {
		return false
	}
	at := c.to
	for _, r := range ranges {
		if r.Off < at || r.Len <= 0 || r.Len > c.size-r.Off || !c.insert(r) {
			return false
		}
		at = r.End()
	}
	n := 0
	for n < len(c.ahead) && c.ahead[n].Off == c.to {
		c.to = c.ahead[n].End()
		n++
	}
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

// whole reports whether nothing is left.
func (c *cover) whole() bool { return c.to == c.size }

// bits are flags of the pieces of an image, in the order in which they come.
type bits struct {
	n    int
	word []uint64
}

func (b *bits) add(set bool) {
	if b.n%64 == 0 {
		b.word = append(b.word, 0)
	}
	if set {
		b.word[b.n/64] |= 1 << (b.n % 64)
	}
	b.n++
}

// has is false for flags that were never added.
func (b *bits) has(i int) bool { return i < b.n && b.word[i/64]>>(i%64)&1 == 1 }

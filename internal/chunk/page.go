package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Page says what a region of a disk holds. The bytes of all chunks, in order,
// are the bytes of all data extents, in order. The page does not have the
// number of its region, so equal regions have the same page.
type Page struct {
	Extents []Extent // all of the region, in order
	Chunks  []Ref    // all of the data extents, in order
}

// Extent is a run of bytes of one content.
type Extent struct {
	Content image.Content
	Len     int64 // bytes
}

// Ref names a chunk.
type Ref struct {
	Name object.Name
	Len  int // bytes before compression
}

var pageMagic = []byte("TBXPAGE1")

// Append adds an extent. If the last extent has the same content, it is made
// longer instead.
func (p *Page) Append(c image.Content, n int64) {
	if last := len(p.Extents) - 1; last >= 0 && p.Extents[last].Content == c {
		p.Extents[last].Len += n
	} else if n > 0 {
		p.Extents = append(p.Extents, Extent{c, n})
	}
}

// Marshal returns the page's bytes.
//
//	"TBXPAGE1"
//	uvarint  number of extents, then for each: uvarint length * 4 + content
//	uvarint  number of chunks, then for each: 32 bytes name, uvarint length
//
// uvarint is that of package encoding/binary (base 128, least significant first).
func (p *Page) Marshal() []byte {
	b := append([]byte(nil), pageMagic...)
	b = binary.AppendUvarint(b, uint64(len(p.Extents)))
	for _, e := range p.Extents {
		b = binary.AppendUvarint(b, uint64(e.Len)<<2|uint64(e.Content))
	}
	b = binary.AppendUvarint(b, uint64(len(p.Chunks)))
	for _, c := range p.Chunks {
		b = append(b, c.Name[:]...)
		b = binary.AppendUvarint(b, uint64(c.Len))
	}
	return b
}

// ParsePage parses a page. It accepts only what Marshal writes.
func ParsePage(b []byte) (*Page, error) {
	p, err := parsePage(b)
	if err != nil {
		return nil, fmt.Errorf("page is not readable: %w", err)
	}
	return p, nil
}

func parsePage(b []byte) (*Page, error) {
	if len(b) > object.MaxPage {
		return nil, fmt.Errorf("it has %d bytes", len(b))
	}
	c := cursor{b: b}
	c.want(pageMagic)
	var p Page
	var size, data int64
	for range c.count(1) {
		v := c.uvarint()
		e := Extent{image.Content(v & 3), int64(v >> 2)}
		if e.Content > image.Unused || e.Len < 1 || e.Len > RegionSize-size {
			return nil, errors.New("it has an extent of an unknown content or a wrong length")
		}
		if n := len(p.Extents); n > 0 && p.Extents[n-1].Content == e.Content {
			return nil, errors.New("it has two adjacent extents of the same content")
		}
		if size += e.Len; e.Content == image.Data {
			data += e.Len
		}
		p.Extents = append(p.Extents, e)
	}
	for range c.count(33) {
		ref := Ref{object.Name(c.bytes(32)), int(min(c.uvarint(), RegionSize))}
		if ref.Len < 1 || ref.Len > MaxSize {
			return nil, errors.New("it has a chunk of a wrong length")
		}
		data -= int64(ref.Len)
		p.Chunks = append(p.Chunks, ref)
	}
	switch {
	case c.err != nil:
		return nil, c.err
	case len(c.b) > 0:
		return nil, errors.New("it has something after its end")
	case size == 0 || data != 0:
		return nil, errors.New("its chunks are not as long as its data extents")
	}
	return &p, nil
}

// Len returns how many bytes of the disk the page describes.
func (p *Page) Len() (n int64) {
	for _, e := range p.Extents {
		n += e.Len
	}
	return n
}

// cursor reads fields. After the first field that is missing or wrong, err is
// set and all further fields are zero.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(what string) {
	if c.err == nil {
		c.err = errors.New(what)
	}
	c.b = nil
}

func (c *cursor) want(magic []byte) {
	if string(c.bytes(len(magic))) != string(magic) {
		c.fail("it does not begin with " + string(magic))
	}
}

// bytes returns the next n bytes, or zeros if there are fewer.
func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.fail("it is cut off")
		return make([]byte, n)
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

// uvarint reads a number. It accepts only the shortest form.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.fail("it has a malformed number")
		return 0
	}
	c.b = c.b[n:]
	return v
}

// count reads the number of elements that follow, each of at least so many
// bytes.
func (c *cursor) count(each int) int {
	v := c.uvarint()
	if v > uint64(len(c.b)/each) {
		c.fail("it is cut off")
		return 0
	}
	return int(v)
}

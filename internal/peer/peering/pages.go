package peering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// keptPages is how many pages are kept. Three passes over the image follow each other closely:
// what comes is planned, it is written, and it is read back. Without a cache a room of 256
// boxes would read each page 768 times from the server. A page is some 100 KiB long. Of a disk of
// up to 8 GiB all are kept, so that boxes need not wait for them behind chunks of others when
// they compare the disk, and check what they will write.
const keptPages = 32

// pages keeps pages as they are stored. The zero value is empty.
type pages struct {
	mu    sync.Mutex // guards the fields below
	byKey map[object.Key]object.Object
	order []object.Key // the oldest first
}

// pagesTogether is how many pages are fetched by one question. Behind the full port of a server
// each question takes as long as many pages do.
const pagesTogether = 8

// errEnough ends a question whose first page has come.
var errEnough = errors.New("the other pages do not come")

// get returns the first of some pages. Those behind it are fetched with it.
func (p *pages) get(ctx context.Context, from chunk.Getter, at []chunk.Place, buf []byte) (object.Object, error) {
	if o, has := p.find(at[0]); has {
		o.Data = append(buf[:0], o.Data...)
		return o, nil
	}
	want := at[:1:1] // whatever came meanwhile: the answer begins with it
	for _, a := range at[1:] {
		if _, has := p.find(a); !has {
			want = append(want, a)
		}
	}
	var first object.Object
	n := 0
	err := chunk.GetAll(ctx, from, want, buf, func(o object.Object, err error) error {
		n++
		switch {
		case err == nil:
			if o = p.keep(o); n == 1 {
				first = o
			}
		case n > 1: // who needs it asks for it again
			return errEnough
		}
		return err
	})
	if err != nil && err != errEnough {
		return first, err
	}
	first.Data = append(buf[:0], first.Data...)
	return first, nil
}

func (p *pages) find(at chunk.Place) (o object.Object, has bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, has = p.byKey[at.Key()]
	return o, has
}

// keep returns the page as it is kept.
func (p *pages) keep(o object.Object) object.Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kept, has := p.byKey[o.Key]; has {
		return kept
	}
	if len(p.order) == keptPages {
		delete(p.byKey, p.order[0])
		p.order = append(p.order[:0], p.order[1:]...)
	}
	if p.byKey == nil {
		p.byKey = map[object.Key]object.Object{}
	}
	o.Data = bytes.Clone(o.Data)
	p.byKey[o.Key] = o
	p.order = append(p.order, o.Key)
	return o
}

// layout says where the chunks of a region are on the disk.
type layout struct {
	region int
	refs   []chunk.Ref
	ranges [][]image.Range
}

// keptLayouts is how many of them are kept. Others ask for what lies close together.
const keptLayouts = 8

// layouts keeps layouts. The zero value is empty.
type layouts struct {
	mu   sync.Mutex
	list []*layout // the oldest first
}

func (l *layouts) find(region int) *layout {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, have := range l.list {
		if have.region == region {
			return have
		}
	}
	return nil
}

// get returns the layout of a region of an image.
func (l *layouts) get(ctx context.Context, im *chunk.Image, region int) (*layout, error) {
	if have := l.find(region); have != nil {
		return have, nil
	}
	page, err := im.Page(ctx, region)
	if err != nil {
		return nil, err
	}
	n := &layout{region, page.Chunks, make([][]image.Range, len(page.Chunks))}
	off := im.Root.Region(region).Off
	for s := range page.Spans() {
		if s.Content == image.Data {
			n.ranges[s.Chunk] = append(n.ranges[s.Chunk], image.Range{Off: off + s.Off, Len: s.Len})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == keptLayouts {
		l.list = append(l.list[:0], l.list[1:]...)
	}
	l.list = append(l.list, n)
	return n, nil
}

// cut returns where the units of a page end, counted in chunks. All boxes of a room must cut
// in the same way.
func cut(refs []chunk.Ref, bytes int) (ends []int) {
	lens := make([]int, len(refs))
	for i, r := range refs {
		lens[i] = r.Len
	}
	for ; ; bytes *= 2 {
		units := room.Cut(lens, wire.MaxObjects, bytes)
		if len(units) > wire.MaxUnits && bytes < chunk.RegionSize {
			continue
		}
		end := 0
		for _, n := range units {
			end += n
			ends = append(ends, end)
		}
		return ends
	}
}

// region is what is known of a region of the image whose chunks were planned, or are being
// planned.
type region struct {
	number uint32
	page   object.Name
	ends   []int  // where its units end, in chunks
	have   []byte // bitmap of units that others can have
	onDisk []byte // bitmap of chunks that are on the disk
	upTo   int    // chunks before it were planned
}

func newRegion(l *layout, page object.Name, unit int) *region {
	r := &region{number: uint32(l.region), page: page, ends: cut(l.refs, unit)}
	r.have, r.onDisk = make([]byte, (len(r.ends)+7)/8), make([]byte, (len(l.refs)+7)/8)
	return r
}

// unitOf returns the unit that a chunk is in.
func (r *region) unitOf(chunk int) (room.Unit, error) {
	lo, hi := 0, len(r.ends)
	for lo < hi {
		if mid := (lo + hi) / 2; r.ends[mid] <= chunk {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if chunk < 0 || lo == len(r.ends) {
		return room.Unit{}, fmt.Errorf("region %d has no chunk %d", r.number, chunk)
	}
	return room.Unit{Page: r.number, At: uint32(lo)}, nil
}

// chunks returns which chunks a unit has: from and to, without to.
func (r *region) chunks(u room.Unit) (from, to int) {
	if u.At > 0 {
		from = r.ends[u.At-1]
	}
	return from, r.ends[u.At]
}

func bit(b []byte, i int) bool { return i/8 < len(b) && b[i/8]>>(i%8)&1 == 1 }

func setBit(b []byte, i int, to bool) {
	if b[i/8] &^= 1 << (i % 8); to {
		b[i/8] |= 1 << (i % 8)
	}
}

package peering

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
)

// unit is a unit of which some chunks must be fetched, or are in memory.
type unit struct {
	id     room.Unit
	of     *region
	places []chunk.Place // of the chunks that must be fetched, in order
	at     []uint32      // their numbers in the page
	refs   []chunk.Ref
	raw    int  // bytes of them before compression
	edge   bool // it has bytes of the disk's first or last MiB, which are written last of all

	moved  atomic.Int64  // when a chunk of them came last, in nanoseconds since 1970
	ready  chan struct{} // closed when they came
	here   bool          // they came
	proved bool          // each is here, and was compared with its name
	came   []arrival
	mem    *memory // that has their bytes; nil if they are not here
	taken  []bool  // by the copier
	left   int     // how many of them it has not taken
	last   int64   // what it had taken, in bytes, when it took the last of them
	bytes  int64   // of memory
}

// arrival is a chunk that came.
type arrival struct {
	stored object.Object // without Data, which is in the unit's memory
	at, n  int           // where it is there, and how many bytes it has as it is stored
	raw    []byte        // before compression; nil if it is stored so, or if there was no memory for it
	sum    xxh3.Uint128  // of the bytes before compression, made when they were compared with the name
	err    error
}

// index returns which of the unit's chunks a chunk of its page is.
func (u *unit) index(at int) (i int, ok bool) {
	for i, n := range u.at {
		if int(n) == at {
			return i, true
		}
	}
	return 0, false
}

// plan tells the picker of what the box will need, as far ahead as there is room for.
func (s *session) plan() {
	if err := s.planAll(); err != nil && s.planning.Err() == nil {
		s.node.cfg.Log("not all of the image is fetched together with other boxes: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = true
	s.picker.End()
	s.broadcast()
	s.wake()
}

func (s *session) planAll() error {
	c, err := s.g.Coming(s.planning)
	if err != nil {
		return err
	}
	defer c.Close()
	b := builder{s: s}
	for {
		p, brought, err := c.Next()
		if err == io.EOF {
			return b.end()
		}
		if err != nil {
			return err
		}
		place, ok := chunk.PlaceOf(p.Stored)
		if !ok {
			return errors.New("the image has a piece that is not in the store")
		}
		if err := b.add(place, p, brought); err != nil {
			return err
		}
	}
}

// builder puts pieces into units.
type builder struct {
	s *session
	r *region // of the unit that is being built
	u *unit   // nil if there is none
}

// add adds the next piece of data.
func (b *builder) add(at chunk.Place, p image.Piece, brought bool) error {
	if b.r == nil || int(b.r.number) != at.Region {
		if err := b.region(at.Region); err != nil {
			return err
		}
	}
	id, err := b.r.unitOf(at.Chunk)
	if err != nil {
		return err
	}
	if b.u != nil && b.u.id != id {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if b.u == nil {
		b.u = &unit{id: id, of: b.r, ready: make(chan struct{})}
	}
	u, edge := b.u, b.s.isEdge(p.Ranges)
	u.edge = u.edge || edge
	if !brought {
		b.s.mu.Lock()
		setBit(b.r.onDisk, at.Chunk, !edge)
		b.s.mu.Unlock()
		return nil
	}
	u.places, u.at, u.raw = append(u.places, at), append(u.at, uint32(at.Chunk)), u.raw+int(p.Len)
	u.refs = append(u.refs, chunk.Ref{Name: at.Key().Name, Len: int(p.Len)})
	return nil
}

// isEdge reports whether bytes are of the disk's first or last MiB. The disk has zeros there
// until the copier has written all the rest.
func (s *session) isEdge(ranges []image.Range) bool {
	return slices.ContainsFunc(ranges, func(r image.Range) bool {
		return r.Off < image.PieceSize || r.End() > s.image.Root.Size-image.PieceSize
	})
}

// region begins another region.
func (b *builder) region(n int) error {
	if err := b.end(); err != nil {
		return err
	}
	s := b.s
	l, err := s.laid.get(s.planning, s.image, n)
	if err != nil {
		return err
	}
	page := s.image.Root.Pages[n]
	b.r = newRegion(l, page, s.unit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.regions[b.r.number] != nil {
		return fmt.Errorf("region %d comes twice", n)
	}
	s.regions[b.r.number] = b.r
	if s.byPage[page] == nil { // another region with the same page has the same chunks
		s.byPage[page] = b.r
	}
	return nil
}

// end ends a region.
func (b *builder) end() error {
	if b.r == nil {
		return nil
	}
	if err := b.flush(); err != nil {
		return err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if len(b.r.ends) > 0 {
		b.r.upTo = b.r.ends[len(b.r.ends)-1]
	}
	b.s.broadcast()
	return nil
}

// flush plans the unit that was built, when there is room for it.
func (b *builder) flush() error {
	u, s := b.u, b.s
	if b.u = nil; u == nil {
		return nil
	}
	_, end := u.of.chunks(u.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(u.at) == 0 { // all of it is on the disk
		setBit(u.of.have, int(u.id.At), s.disk && !u.edge)
		u.of.upTo = end
		return nil
	}
	for !s.picker.Room(s.stored(u)) || s.waiting > s.node.cfg.Memory {
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-s.planning.Done():
		}
		s.mu.Lock()
		if err := s.planning.Err(); err != nil {
			return err
		}
	}
	u.came, u.taken, u.left = make([]arrival, len(u.at)), make([]bool, len(u.at)), len(u.at)
	for i, p := range u.places {
		if s.early[p] {
			delete(s.early, p)
			u.taken[i] = true
			u.left--
		}
	}
	u.of.upTo = end
	if u.left == 0 {
		u.last = s.taken
		s.drop(u)
		s.broadcast()
		return nil
	}
	s.units[u.id] = u
	s.picker.Add(time.Now(), u.id, s.stored(u))
	s.broadcast()
	s.wake()
	return nil
}

// stored is about how many bytes a unit will have as it is stored.
func (s *session) stored(u *unit) int { return max(1, int(float64(u.raw)*s.ratio)) }

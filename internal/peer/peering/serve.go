package peering

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
)

// have returns a bitmap of the units of a page that others can have.
func (s *session) have(page object.Name) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byPage[page]
	if r == nil {
		return nil
	}
	return append([]byte(nil), r.have...)
}

// chunk returns a chunk of a page from memory, or from the disk.
func (s *session) chunk(ctx context.Context, page object.Name, at int, buf []byte) (object.Object, error) {
	s.mu.Lock()
	r := s.byPage[page]
	if r == nil {
		s.mu.Unlock()
		return object.Object{}, fmt.Errorf("page %v: %w", page, chunk.ErrMissing)
	}
	o, on := s.inMemory(r, at, buf)
	s.mu.Unlock()
	switch {
	case o.Data != nil:
		return o, nil
	case on:
		return s.fromDisk(ctx, r, at, buf)
	}
	return o, fmt.Errorf("chunk %d of page %v: %w", at, page, chunk.ErrMissing)
}

// inMemory returns a copy of a chunk whose bytes were compared with its name, if it is in
// memory. on says that it is on the disk.
func (s *session) inMemory(r *region, at int, buf []byte) (o object.Object, on bool) {
	id, err := r.unitOf(at)
	if err != nil {
		return o, false
	}
	if u := s.units[id]; u != nil && u.here && u.proved {
		if i, in := u.index(at); in {
			o = u.came[i].stored
			o.Data = u.mem.stored(buf[:0], u.came[i])
			return o, false
		}
	}
	return o, s.disk && bit(r.onDisk, at)
}

// packers is how many chunks are compressed at once. Others are sent as they are, so that
// the box has processors left for its own disk.
var packers = make(chan struct{}, max(1, runtime.NumCPU()/2))

// fromDisk reads a chunk from the disk, past the kernel's cache. What has another hash is not
// sent, and the box's own read-back finds it.
func (s *session) fromDisk(ctx context.Context, r *region, at int, buf []byte) (o object.Object, err error) {
	ctx, cancel := context.WithTimeout(ctx, room.QuietWait)
	defer cancel()
	l, err := s.laid.get(ctx, s.image, int(r.number))
	if err != nil {
		return o, fmt.Errorf("%w (%w)", chunk.ErrMissing, err)
	}
	raw, err := s.readDisk(l, at)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if id, bad := r.unitOf(at); bad == nil {
			setBit(r.have, int(id.At), false)
		}
		setBit(r.onDisk, at, false)
		return o, fmt.Errorf("chunk %d of region %d: %w (%w)", at, r.number, chunk.ErrMissing, err)
	}
	key := object.Key{Kind: object.Chunk, Name: l.refs[at].Name}
	select {
	case packers <- struct{}{}:
		defer func() { <-packers }()
		return object.Encode(key, raw, buf[:0]), nil
	default:
		return object.Object{Key: key, Codec: object.Raw, RawLen: len(raw), Data: raw}, nil
	}
}

func (s *session) readDisk(l *layout, at int) ([]byte, error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.gone || at >= len(l.refs) {
		return nil, chunk.ErrClosed
	}
	raw := disk.AlignedBuffer(l.refs[at].Len)
	n := 0
	for _, r := range l.ranges[at] {
		if _, err := s.g.Target.ReadAt(raw[n:][:r.Len], r.Off); err != nil {
			return nil, err
		}
		n += int(r.Len)
	}
	if object.NameOf(raw) != l.refs[at].Name {
		return nil, object.ErrDamaged
	}
	return raw, nil
}

// count counts bytes that came.
func (s *session) count(image, all *atomic.Int64, n int) {
	image.Add(int64(n))
	all.Add(int64(n))
}

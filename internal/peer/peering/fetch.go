package peering

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer"
	"testbox-imaging/internal/room"
)

// waitFor is how long the copier waits for a chunk from the room before it reads it from the
// server. The room notices much earlier that something is missing, so this happens only if
// the room does not work at all.
const waitFor = 10 * time.Second

// serverWait is after which time a fetch from the server is given up from which nothing
// comes, so that it does not hold a place that fetches from peers could have. It is long, since on
// a slow line fetches wait for each other.
const serverWait = 2 * time.Minute

var (
	errUnwanted = errors.New("it is not needed any more")
	errLate     = errors.New("it takes too long")
	errSilent   = errors.New("the server does not send anything")
)

// give gives the copier the chunk of the first place, and some more. It returns how many
// places are done.
func (s *session) give(ctx context.Context, at []chunk.Place, buf []byte, got func(object.Object, error) error) (int, error) {
	u, here, err := s.await(ctx, at[0])
	if err != nil {
		return 0, err
	}
	if here {
		return s.hand(u, at, buf, got)
	}
	return s.read(ctx, u, at[:s.alike(u, at)], buf, got)
}

// alike returns how many of some places can be read from the server together with the first: those of
// the same unit, those that will come with none, or, if the first was waited for in vain and is not
// planned yet, those that are not either.
func (s *session) alike(u *unit, at []chunk.Place) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	_, first := s.unitOf(at[0])
	for ; n < len(at); n++ {
		other, known := s.unitOf(at[n])
		if other != u || u == nil && known != first && !s.lost && s.fetching {
			break
		}
	}
	return n
}

// await waits until the unit of a chunk is here. If that takes too long, and nothing of it comes, here is false. If the
// chunk is in no unit, u is nil.
func (s *session) await(ctx context.Context, at chunk.Place) (u *unit, here bool, err error) {
	timer := time.NewTimer(waitFor)
	defer timer.Stop()
	for {
		s.mu.Lock()
		u, known := s.unitOf(at)
		moved, late := s.moved, s.lost || !s.fetching
		var ready chan struct{} // nil blocks for ever
		if u != nil {
			here, ready = u.here, u.ready
		}
		s.mu.Unlock()
		if here || known || late {
			return u, here, nil
		}
		select {
		case <-ready:
		case <-moved:
		case <-timer.C:
			if u != nil && time.Since(time.Unix(0, u.moved.Load())) < waitFor {
				timer.Reset(waitFor) // it comes, over a slow line, and would only come later if it were asked for twice
				continue
			}
			return u, false, nil
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// unitOf returns the unit that a chunk is to come with, unless the copier has taken it. known
// says that it will come with none.
func (s *session) unitOf(at chunk.Place) (u *unit, known bool) {
	r := s.regions[uint32(at.Region)]
	if at.Key().Kind != object.Chunk || r == nil {
		return nil, s.planned || at.Key().Kind != object.Chunk
	}
	id, err := r.unitOf(at.Chunk)
	if err != nil {
		return nil, true
	}
	if u := s.units[id]; u != nil {
		if i, in := u.index(at.Chunk); in && !u.taken[i] && u.places[i] == at {
			return u, false
		}
		return nil, true
	}
	return nil, s.planned || at.Chunk < r.upTo
}

// hand gives the copier chunks of a unit that is here.
func (s *session) hand(u *unit, at []chunk.Place, buf []byte, got func(object.Object, error) error) (n int, err error) {
	for ; n < len(at); n++ {
		i, c, ok := s.inUnit(u, at[n])
		if !ok {
			break
		}
		o := c.stored
		switch { // the memory stays until the last chunk of the unit was taken
		case c.raw != nil: // it need not be unpacked again
			o.Codec, o.Data = object.Raw, c.raw
		case c.err == nil:
			o.Data = u.mem.stored(buf[:0], c)
		}
		if c.err == nil {
			s.given(at[n], c.sum)
		}
		if err := got(o, c.err); err != nil {
			return n, err
		}
		s.took(u, i)
	}
	return n, nil
}

// inUnit returns a chunk of a unit that is here, unless the copier has taken it.
func (s *session) inUnit(u *unit, at chunk.Place) (i int, c arrival, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Region != int(u.of.number) {
		return 0, c, false
	}
	if i, ok = u.index(at.Chunk); !ok || !u.here || u.taken[i] || u.places[i] != at {
		return 0, c, false
	}
	return i, u.came[i], true
}

// read reads chunks from the server. u is the unit in which they should have come, or nil. If
// it comes meanwhile, read ends.
func (s *session) read(ctx context.Context, u *unit, at []chunk.Place, buf []byte, got func(object.Object, error) error) (
	n int, err error,
) {
	reads := ctx
	if u != nil {
		var cancel context.CancelCauseFunc
		reads, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-u.ready:
				cancel(errUnwanted)
			case <-reads.Done():
			}
		}()
	}
	var raw []byte
	err = chunk.GetAll(reads, s.plain, at, buf, func(o object.Object, err error) error {
		if err != nil && context.Cause(reads) == errUnwanted && ctx.Err() == nil {
			return errUnwanted
		}
		if err == nil && o.Kind == object.Chunk {
			s.count(&s.server, &s.node.fromServer, len(o.Data))
			if raw, err = decode(o, at[n], raw[:0]); err == nil {
				s.given(at[n], copier.SumOf(raw))
				o.Codec, o.Data = object.Raw, raw
			}
		}
		if err := got(o, err); err != nil {
			return err
		}
		s.tookAlone(at[n])
		n++
		return nil
	})
	if err == errUnwanted { // any other error is one that the copier has got
		err = nil
	}
	return n, err
}

// tookAlone notes that the copier has a chunk that did not come with its unit. If the unit was
// not planned yet, it will not wait for this chunk.
func (s *session) tookAlone(at chunk.Place) {
	s.mu.Lock()
	u, known := s.unitOf(at)
	if u == nil && !known {
		s.early[at] = true
	}
	s.mu.Unlock()
	if u != nil {
		i, _ := u.index(at.Chunk)
		s.took(u, i)
	}
}

// took notes that the copier has a chunk.
func (s *session) took(u *unit, i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.taken[i] {
		return
	}
	u.taken[i] = true
	u.left--
	s.taken += int64(u.refs[i].Len)
	s.settle()
	if u.left > 0 {
		return
	}
	u.last = s.taken
	s.picker.Written(time.Now(), u.id)
	s.retire(u)
	s.broadcast()
	s.wake()
}

// retire keeps a unit, all of whose chunks the copier has taken, for other boxes.
func (s *session) retire(u *unit) {
	s.memory -= u.bytes
	s.waiting -= u.bytes
	s.slim(u)
	s.memory += u.bytes
	if !u.here || !u.proved {
		s.drop(u)
		return
	}
	s.kept.PushBack(u)
	s.trim()
}

// slim keeps the chunks of a unit only as they are stored. The copier must have none of them.
func (s *session) slim(u *unit) {
	for i := range u.came {
		u.came[i].raw = nil
	}
	u.bytes = 0
	if u.mem != nil {
		s.free.slim(u.mem)
		u.bytes = u.mem.bytes()
	}
}

// trim drops units until the rest fits into the memory.
func (s *session) trim() {
	for s.memory > s.node.cfg.Memory && s.kept.Len() > 0 {
		s.drop(s.kept.Remove(s.kept.Front()).(*unit))
	}
}

// drop forgets the bytes of a unit. When they are on the disk for certain, others are served
// from there.
func (s *session) drop(u *unit) {
	delete(s.units, u.id)
	s.memory -= u.bytes
	setBit(u.of.have, int(u.id.At), false)
	s.free.put(u.mem)
	u.came, u.mem = nil, nil
	if s.disk && !u.edge {
		s.settling = append(s.settling, u)
		s.settle()
	}
}

// settle notes which chunks are on the disk by now.
func (s *session) settle() {
	for len(s.settling) > 0 && s.taken-s.settling[0].last >= settled {
		u := s.settling[0]
		s.settling = s.settling[1:]
		for _, n := range u.at {
			setBit(u.of.onDisk, int(n), true)
		}
		setBit(u.of.have, int(u.id.At), true)
	}
}

// begin begins a fetch. The caller has the mutex.
func (s *session) begin(f room.Fetch) {
	u := s.units[f.Unit]
	if u == nil { // the copier has it already
		s.picker.Failed(time.Now(), f, room.Away)
		return
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.flights[f.Number] = cancel
	to := s.names.of(f.From)
	s.work.Go(func() {
		defer cancel(nil)
		var came []arrival
		var err error
		mem := &memory{free: &s.free, most: u.raw + object.Slack}
		if f.From == room.Server {
			came, err = s.fromServer(ctx, cancel, u, mem)
		} else {
			came, err = s.fromPeer(ctx, u, to, mem)
		}
		if !s.ended(f, u, came, mem, err) {
			s.free.put(mem)
		}
	})
}

// giveUp ends a fetch of which the picker knows that it ends.
func (s *session) giveUp(f room.Fetch) {
	if cancel := s.flights[f.Number]; cancel != nil {
		delete(s.flights, f.Number)
		cancel(errLate)
	}
}

// ended notes how a fetch ended. It reports whether the unit has taken the memory.
func (s *session) ended(f room.Fetch, u *unit, came []arrival, mem *memory, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	if s.flights[f.Number] == nil {
		return false // it was given up
	}
	delete(s.flights, f.Number)
	now := time.Now()
	if err != nil {
		s.picker.Failed(now, f, peer.FaultOf(err))
		return false
	}
	for _, other := range s.picker.Came(now, f) {
		s.giveUp(other)
	}
	if u.here || u.left == 0 || s.units[u.id] != u {
		return false
	}
	u.came, u.mem, u.here = came, mem, true
	u.proved = !slices.ContainsFunc(came, func(c arrival) bool { return c.err != nil })
	s.keep(u)
	from, to := u.of.chunks(u.id)
	if u.proved && (s.disk && !u.edge || len(u.at) == to-from) {
		setBit(u.of.have, int(u.id.At), true)
	}
	close(u.ready)
	s.trim()
	return true
}

// keep accounts for the memory of a unit that came. What was unpacked for the comparison with
// its name is kept for the copier if there is room. Else the copier unpacks it again.
func (s *session) keep(u *unit) {
	s.ratio += (float64(u.mem.len)/float64(u.raw) - s.ratio) / 16
	u.bytes = u.mem.bytes()
	if s.waiting+u.bytes > s.node.cfg.Memory/2 {
		s.slim(u)
	}
	s.waiting += u.bytes
	s.memory += u.bytes
}

// decode unpacks a chunk, and compares it with the name that belongs to the place.
func decode(o object.Object, at chunk.Place, dst []byte) ([]byte, error) {
	if o.Key != at.Key() {
		return nil, fmt.Errorf("asked for %v, got %v: %w", at.Key(), o.Key, object.ErrDamaged)
	}
	return o.Decode(dst)
}

// fromServer fetches the chunks of a unit from the server.
func (s *session) fromServer(ctx context.Context, cancel context.CancelCauseFunc, u *unit, mem *memory) (
	[]arrival, error,
) {
	silent := time.AfterFunc(serverWait, func() { cancel(errSilent) })
	defer silent.Stop()
	buf := s.free.buffer()
	defer s.free.putBuffer(buf)
	all, i := make([]arrival, len(u.at)), 0
	err := chunk.GetAll(ctx, s.plain, u.places, buf, func(o object.Object, err error) error {
		silent.Reset(serverWait)
		u.moved.Store(time.Now().UnixNano())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			var raw []byte
			if raw, err = decode(o, u.places[i], mem.next(i)); err == nil {
				all[i] = mem.keep(o, raw)
			}
		}
		if err != nil && !errors.Is(err, object.ErrDamaged) && !errors.Is(err, chunk.ErrMissing) {
			return err
		}
		all[i].err = err
		s.count(&s.server, &s.node.fromServer, len(o.Data))
		i++
		return nil
	})
	return all, err
}

// fromPeer fetches the chunks of a unit from another box.
func (s *session) fromPeer(ctx context.Context, u *unit, to peer.To, mem *memory) ([]arrival, error) {
	buf := s.free.buffer()
	defer s.free.putBuffer(buf)
	all := make([]arrival, len(u.at))
	err := s.node.peers.Chunks(ctx, to, u.of.page, u.at, u.refs, buf, mem.next, func(i int, o object.Object, raw []byte) error {
		u.moved.Store(time.Now().UnixNano())
		s.count(&s.others, &s.node.fromPeers, len(o.Data))
		all[i] = mem.keep(o, raw)
		return nil
	})
	return all, err
}

package boxapi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// verdicts lets boxes that restore the same image share what the check of its chunks found,
// so that the store is read once for a room and not once for each box. Only good verdicts
// are remembered. A chunk that another request reads at this moment is waited for.
type verdicts struct {
	keep time.Duration

	mu     sync.Mutex // guards the field below, what the blocks have, and looks
	blocks recent[blockKey, *block]
}

const (
	// verdictsMemory bounds what is remembered of all images, in bytes. That is enough for
	// some ten million chunks.
	verdictsMemory = 8 << 20
	// keepVerdicts is for how long a chunk that was found good counts as good. A box checks
	// all of an image before its first write, and then writes for minutes. So it relies on
	// verdicts that are minutes old anyway. What rots meanwhile is found nevertheless: each chunk
	// is compared with its sum when it is sent, and with its name at the box.
	keepVerdicts = 5 * time.Minute
	// lookAtOnce and lookFor bound what others may have to wait for: so many chunks, and about
	// so much time. Who has waited mostWaits times for a chunk, or for a look that takes longer,
	// reads it himself. So nobody is held up by requests that begin and do nothing.
	lookAtOnce = 32
	lookFor    = flushEvery / 2
	mostWaits  = 4
	// blockChunks is for how many consecutive chunks of a page one time is kept.
	blockChunks = 1024
	blockSize   = 768 // bytes that a block takes, with what leads to it
)

type blockKey struct {
	regionKey
	number int
}

func keyOf(at chunk.Place) blockKey {
	return blockKey{regionKey{at.Image(), at.Region}, at.Chunk / blockChunks}
}

// block is what is known of some consecutive chunks of a page.
type block struct {
	since time.Time // nothing in it is older
	good  [blockChunks / 64]uint64
	busy  map[int]*look // by the number of the chunk; nil if there is none, since a map does not shrink
}

func (b *block) has(c int) bool { return b.good[c%blockChunks/64]>>(c%64)&1 == 1 }

// look is the work of a request that reads some chunks of a block. Other requests wait for
// its end.
type look struct {
	of     *block
	places []chunk.Place
	bad    []int         // chunks that were not found good
	done   chan struct{} // closed at its end; nobody changes it from then on
}

func newVerdicts(limit int64, keep time.Duration) *verdicts {
	return &verdicts{keep: keep, blocks: newRecent[blockKey, *block](limit)}
}

// next says what a request does about the first of some places of chunks. Either the first
// few were found good lately, or the request waits for the look of another one, or it looks
// itself and has to call end. Who is to look alone waits for nobody, and nobody for him. A look
// that is stuck is not waited for.
func (v *verdicts) next(at []chunk.Place, alone bool, stuck *look) (good int, wait, mine *look) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := keyOf(at[0])
	b, _ := v.blocks.get(key)
	if b == nil {
		b = &block{since: time.Now()}
		v.blocks.put(key, b, blockSize)
	}
	if time.Since(b.since) > v.keep {
		b.since = time.Now()
		clear(b.good[:])
	}
	for good < len(at) && keyOf(at[good]) == key && b.has(at[good].Chunk) {
		good++
	}
	if good > 0 {
		return good, nil, nil
	}
	other := b.busy[at[0].Chunk]
	alone = alone || other != nil && other == stuck
	if other != nil && !alone {
		return 0, other, nil
	}
	mine = &look{of: b, done: make(chan struct{})}
	if alone {
		mine.places = at[:1]
		return 0, nil, mine
	}
	if b.busy == nil {
		b.busy = map[int]*look{}
	}
	n := 0
	for n < min(len(at), lookAtOnce) && keyOf(at[n]) == key && !b.has(at[n].Chunk) && b.busy[at[n].Chunk] == nil {
		b.busy[at[n].Chunk] = mine
		n++
	}
	mine.places = at[:n]
	return 0, nil, mine
}

// note notes what a look has found, unless it has ended.
func (v *verdicts) note(l *look, at chunk.Place, good bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case l.ended():
	case good:
		l.of.good[at.Chunk%blockChunks/64] |= 1 << (at.Chunk % 64)
	default:
		l.bad = append(l.bad, at.Chunk)
	}
}

// end ends a look. It may be called again.
func (v *verdicts) end(l *look) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.ended() {
		return
	}
	for _, p := range l.places {
		if l.of.busy[p.Chunk] == l {
			delete(l.of.busy, p.Chunk)
		}
	}
	if len(l.of.busy) == 0 {
		l.of.busy = nil
	}
	close(l.done)
}

func (l *look) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// forget forgets that a chunk was good.
func (v *verdicts) forget(at chunk.Place) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, _ := v.blocks.get(keyOf(at)); b != nil {
		b.good[at.Chunk%blockChunks/64] &^= 1 << (at.Chunk % 64)
	}
}

// check finds out the verdicts of some places of an image, and adds them to an answer. It
// writes to the client only while it has no look, since others would wait for a client
// that is slow.
func (v *verdicts) check(ctx context.Context, g chunk.Getter, at []chunk.Place, buf []byte, a *answer) error {
	aware, ok := g.(chunk.Aware)
	if !ok || slices.ContainsFunc(at, func(p chunk.Place) bool { return p.Key().Kind != object.Chunk }) {
		return chunk.CheckAll(ctx, g, at, buf, func(err error) error {
			if err := a.found(err); err != nil {
				return err
			}
			return a.flush()
		})
	}
	var stuck *look
	for waits := 0; len(at) > 0; {
		good, wait, mine := v.next(at, waits >= mostWaits, stuck)
		var n int
		var err error
		switch {
		case wait != nil:
			waits++
			var late bool
			if late, err = a.wait(ctx, wait); late {
				stuck = wait
			} else if err == nil && slices.Contains(wait.bad, at[0].Chunk) {
				waits = mostWaits
			}
		case mine != nil:
			n, err = v.look(ctx, g, mine, buf, a)
		default:
			n, err = v.remembered(aware, at[:good], a)
		}
		if err == nil {
			err = a.flush()
		}
		if err != nil {
			return err
		}
		if at = at[n:]; n > 0 {
			waits = 0
		}
	}
	return nil
}

// remembered adds the verdicts of chunks that were found good lately, up to one that the
// store knows to be damaged since then. It returns how many they are.
func (v *verdicts) remembered(g chunk.Aware, at []chunk.Place, a *answer) (n int, err error) {
	for ; n < len(at) && err == nil; n++ {
		if g.Lacks(at[n]) != nil {
			v.forget(at[n])
			break
		}
		err = a.found(nil)
	}
	return n, err
}

// errEnough ends a look that has lasted long enough.
var errEnough = errors.New("that is enough for now")

// look reads the chunks of a look, and returns of how many of them it knows the verdict. If
// the request is cancelled, others do not wait until the store notices that.
func (v *verdicts) look(ctx context.Context, g chunk.Getter, l *look, buf []byte, a *answer) (n int, err error) {
	defer v.end(l)
	defer context.AfterFunc(ctx, func() { v.end(l) })()
	start := time.Now()
	err = chunk.CheckAll(ctx, g, l.places, buf, func(err error) error {
		if ctx.Err() == nil { // else an error says nothing of the chunk
			v.note(l, l.places[n], err == nil)
		}
		n++
		if err := a.found(err); err != nil {
			return err
		}
		if time.Since(start) >= lookFor || a.left() <= 0 {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		err = nil
	}
	return n, err
}

// answer is the answer to a check, with a byte for each place.
type answer struct {
	q      *request
	ctx    context.Context
	places []wire.Place // those without a verdict
	known  []byte       // verdicts that were not sent yet
	last   time.Time    // when some were sent
}

// found adds the verdict of a chunk that was looked for in the store.
func (a *answer) found(err error) error {
	a.q.lacks(a.ctx, a.places[0], err)
	a.add(err)
	return a.ctx.Err()
}

// add adds the verdict of the next place.
func (a *answer) add(err error) {
	a.known = append(a.known, byte(wire.VerdictOf(err)))
	a.places = a.places[1:]
}

// left returns for how long the next verdicts can wait before they are sent.
func (a *answer) left() time.Duration { return flushEvery - time.Since(a.last) }

// flush sends what is known, if that is due.
func (a *answer) flush() error {
	if a.left() > 0 || len(a.known) == 0 {
		return nil
	}
	if _, err := a.q.Write(a.known); err != nil {
		return err
	}
	a.known, a.last = a.known[:0], time.Now()
	return a.q.flush()
}

// wait waits for the end of a look. It is late if the look lasts longer than one should. What
// is known is sent meanwhile.
func (a *answer) wait(ctx context.Context, l *look) (late bool, err error) {
	due, patience := time.NewTimer(a.left()), time.NewTimer(2*lookFor)
	defer due.Stop()
	defer patience.Stop()
	for {
		select {
		case <-l.done:
			return false, nil
		case <-due.C: // the next one is due after that patience
			if err := a.flush(); err != nil {
				return false, err
			}
		case <-patience.C:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

package copier

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// pieceSize is how many bytes a slot has at the most, but for runs of zeros and
// of unused bytes, which take no memory.
const pieceSize = image.PieceSize

// slot is what goes through a pipeline in one go, a pointer. reset empties it,
// but for its memory.
type slot interface{ reset() }

// ring is the slots that all passes of one call use, one after the other; their
// number bounds memory and the pieces in flight.
type ring[S slot] struct {
	most int
	make func() S
	made []S // so far
}

// maxSlots bounds the memory of a ring to 64 MiB, with two buffers a slot; the
// garbage collector may need as much again.
const maxSlots = 32

// newRing makes at most so many slots, when they are needed.
func newRing[S slot](most int, make func() S) *ring[S] {
	return &ring[S]{most: min(most, maxSlots), make: make}
}

// buffers gives as many buffers as a ring of so many slots needs. It cuts them
// out of one piece of memory: what nothing touches of it costs nothing.
func buffers(slots, size int, alloc func(size int) []byte) func() []byte {
	var left []byte
	return func() []byte {
		if left == nil {
			left = alloc(min(slots, maxSlots) * size)
		}
		b := left[:size:size]
		left = left[size:]
		return b
	}
}

// stage is work on slots, done by some goroutines at once, in any order.
type stage[S slot] struct {
	workers int
	batch   int // slots of one call at the most; it never waits for more than one
	do      func([]S) error
	busy    atomic.Int64 // nanoseconds that all workers spent in do
}

// each is a stage that does one slot at a time.
func each[S slot](workers int, do func(S) error) *stage[S] {
	return &stage[S]{workers: workers, batch: 1, do: func(s []S) error { return do(s[0]) }}
}

// share is how much of the time since start the workers were at work, 0 to 1.
func (st *stage[S]) share(start time.Time) float64 {
	return min(1, float64(st.busy.Load())/float64(st.workers)/float64(max(1, time.Since(start))))
}

// run moves slots through a pipeline: produce fills them one after the other
// until io.EOF, the stages work on many at once, collect gets them in the
// order of produce. The first error ends all of it; run returns after the last
// of its goroutines has ended, that is, at once but for operations on disks
// and files that had begun.
func (r *ring[S]) run(ctx context.Context, produce func(S) error, collect func(S) error, stages ...*stage[S]) error {
	g, ctx := errgroup.WithContext(ctx)
	out := r.start(ctx, g, produce, stages...)
	g.Go(func() error { return out.each(collect) })
	return g.Wait()
}

// start is run for callers that take the slots out of it themselves, to the end
// or until ctx is done.
func (r *ring[S]) start(ctx context.Context, g *errgroup.Group, produce func(S) error, stages ...*stage[S]) *ordered[S] {
	// All channels hold all slots, so that no sender ever waits.
	free := make(chan S, r.most)
	for _, s := range r.made {
		free <- s
	}
	first := make(chan numbered[S], r.most)
	g.Go(func() error { return r.feed(ctx, produce, free, first) })
	in := first
	for _, st := range stages {
		out := make(chan numbered[S], r.most)
		st.start(ctx, g, in, out)
		in = out
	}
	return &ordered[S]{ctx: ctx, in: in, free: free, waiting: map[int]S{}}
}

// numbered is a slot on its way.
type numbered[S slot] struct {
	seq  int // in the order of produce
	slot S
}

func (r *ring[S]) feed(ctx context.Context, produce func(S) error, free <-chan S, out chan<- numbered[S]) error {
	for seq := 0; ; seq++ {
		s, err := r.get(ctx, free)
		if err != nil {
			return err
		}
		s.reset()
		err = produce(s)
		if err == io.EOF {
			close(out)
			return nil
		}
		if err != nil {
			return err
		}
		out <- numbered[S]{seq, s}
	}
}

// get gives a slot that is free.
func (r *ring[S]) get(ctx context.Context, free <-chan S) (S, error) {
	select {
	case s := <-free:
		return s, ctx.Err()
	default:
	}
	if len(r.made) == r.most {
		s, _, err := receive(ctx, free)
		return s, err
	}
	s := r.make()
	r.made = append(r.made, s)
	return s, ctx.Err()
}

// receive takes the next value; ok is false at the end.
func receive[T any](ctx context.Context, in <-chan T) (v T, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return v, false, err
	}
	select {
	case v, ok = <-in:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, ctx.Err()
	}
}

// start begins a stage's goroutines; the last to end closes out.
func (st *stage[S]) start(ctx context.Context, g *errgroup.Group, in <-chan numbered[S], out chan<- numbered[S]) {
	left := int32(st.workers)
	for range st.workers {
		g.Go(func() error {
			err := st.work(ctx, in, out)
			if err == nil && atomic.AddInt32(&left, -1) == 0 {
				close(out)
			}
			return err
		})
	}
}

func (st *stage[S]) work(ctx context.Context, in <-chan numbered[S], out chan<- numbered[S]) error {
	taken := make([]numbered[S], 0, st.batch)
	slots := make([]S, 0, st.batch)
	for {
		first, ok, err := receive(ctx, in)
		if !ok || err != nil {
			return err
		}
		taken = st.more(append(taken[:0], first), in)
		slots = slots[:0]
		for _, t := range taken {
			slots = append(slots, t.slot)
		}
		began := time.Now()
		err = st.do(slots)
		st.busy.Add(int64(time.Since(began)))
		if err != nil {
			return err
		}
		for _, t := range taken {
			out <- t
		}
	}
}

// more fills a batch with what is there already.
func (st *stage[S]) more(batch []numbered[S], in <-chan numbered[S]) []numbered[S] {
	for len(batch) < st.batch {
		select {
		case s, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// ordered puts slots back into the order of produce.
type ordered[S slot] struct {
	ctx     context.Context
	in      <-chan numbered[S]
	free    chan<- S
	waiting map[int]S
	seq     int
}

// next gives the next slot, which done takes back; ok is false at the end.
func (o *ordered[S]) next() (s S, ok bool, err error) {
	for {
		if s, ok = o.waiting[o.seq]; ok {
			delete(o.waiting, o.seq)
			o.seq++
			return s, true, nil
		}
		got, ok, err := receive(o.ctx, o.in)
		if !ok || err != nil {
			return s, false, err
		}
		o.waiting[got.seq] = got.slot
	}
}

func (o *ordered[S]) done(s S) { o.free <- s }

// each hands all slots to collect.
func (o *ordered[S]) each(collect func(S) error) error {
	for {
		s, ok, err := o.next()
		if !ok || err != nil {
			return err
		}
		if err := collect(s); err != nil {
			return err
		}
		o.done(s)
	}
}

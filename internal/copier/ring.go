package copier

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// pieceSize is the most bytes of data in a slot. Runs of zeros and of unused
// bytes may be longer, since they take no memory.
const pieceSize = image.PieceSize

// slot is a pointer to one unit of work in a pipeline. reset empties the slot,
// but leaves it its buffers.
type slot interface{ reset() }

// ring has the slots that all passes of one call use, one pass after the other.
// Their number bounds the memory and the pieces in flight.
type ring[S slot] struct {
	most int
	make func() S
	made []S // slots that were made so far
}

// maxSlots bounds the memory of a ring to 64 MiB, with two buffers in each slot.
// The garbage collector may need as much again.
const maxSlots = 32

// newRing makes a ring of up to most slots, but not more than maxSlots. It makes a
// slot only when one is needed.
func newRing[S slot](most int, make func() S) *ring[S] {
	return &ring[S]{most: min(most, maxSlots), make: make}
}

// buffers returns a function that gives a buffer for each slot of a ring. The
// buffers are cut out of one large allocation. The parts of it that nobody
// touches cost no memory.
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

// stage is a step of a pipeline. Several goroutines do it at once, in any order
// of the slots.
type stage[S slot] struct {
	workers int
	batch   int // most slots in one call of do, which never waits for more than one slot
	do      func([]S) error
	busy    atomic.Int64 // nanoseconds that all workers spent in do
	work    worked
}

// worked measures the time in which at least one of several goroutines is at work.
type worked struct {
	mu    sync.Mutex
	n     int // how many are at work
	since time.Time
	sum   time.Duration // of the times that have ended
}

func (w *worked) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n++; w.n == 1 {
		w.since = time.Now()
	}
}

func (w *worked) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n--; w.n == 0 {
		w.sum += time.Since(w.since)
	}
}

// total is valid when nobody is at work.
func (w *worked) total() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sum
}

// each is a stage that does one slot at a time.
func each[S slot](workers int, do func(S) error) *stage[S] {
	return &stage[S]{workers: workers, batch: 1, do: func(s []S) error { return do(s[0]) }}
}

// share is the part of the time since start in which the workers were busy, from
// 0 to 1.
func (st *stage[S]) share(start time.Time) float64 {
	return min(1, float64(st.busy.Load())/float64(st.workers)/float64(max(1, time.Since(start))))
}

// run moves slots through a pipeline. produce fills one slot after the other
// until it returns io.EOF. The stages work on many slots at once. collect gets
// the slots in the order of produce. The first error stops everything. run
// returns when all of its goroutines have ended, so after an error it waits only
// for operations on disks and files that had begun.
func (r *ring[S]) run(ctx context.Context, produce func(S) error, collect func(S) error, stages ...*stage[S]) error {
	g, ctx := errgroup.WithContext(ctx)
	out := r.start(ctx, g, produce, stages...)
	g.Go(func() error { return out.each(collect) })
	return g.Wait()
}

// start is run for callers that consume the slots themselves. They must do so to
// the end, or until ctx is done.
func (r *ring[S]) start(ctx context.Context, g *errgroup.Group, produce func(S) error, stages ...*stage[S]) *ordered[S] {
	// Each channel has room for all slots, so that no sender ever waits.
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

// numbered is a slot on its way through the pipeline.
type numbered[S slot] struct {
	seq  int // position in the order of produce
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

// get gives a free slot. It makes a new one only if none is free.
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

// receive gives the next value of a channel. ok is false when it is closed.
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

// start starts a stage's goroutines. The last one to end closes out.
func (st *stage[S]) start(ctx context.Context, g *errgroup.Group, in <-chan numbered[S], out chan<- numbered[S]) {
	left := int32(st.workers)
	for range st.workers {
		g.Go(func() error {
			err := st.run(ctx, in, out)
			if err == nil && atomic.AddInt32(&left, -1) == 0 {
				close(out)
			}
			return err
		})
	}
}

func (st *stage[S]) run(ctx context.Context, in <-chan numbered[S], out chan<- numbered[S]) error {
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
		st.work.begin()
		err = st.do(slots)
		st.work.end()
		st.busy.Add(int64(time.Since(began)))
		if err != nil {
			return err
		}
		for _, t := range taken {
			out <- t
		}
	}
}

// more fills a batch with slots that are there already, and does not wait.
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

// next gives the next slot. The caller returns it by done. ok is false at the
// end.
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

// each calls collect for all slots in order, and frees each slot afterwards.
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

package copier

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// stage is work on slots, done by some goroutines at once, in any order.
type stage struct {
	workers int
	batch   int // slots of one call at the most; it never waits for more than one
	do      func([]*slot) error
	busy    atomic.Int64 // nanoseconds that all workers spent in do
}

// each is a stage that does one slot at a time.
func each(workers int, do func(*slot) error) *stage {
	return &stage{workers: workers, batch: 1, do: func(s []*slot) error { return do(s[0]) }}
}

// share is how much of the time since start the workers were at work, 0 to 1.
func (st *stage) share(start time.Time) float64 {
	return min(1, float64(st.busy.Load())/float64(st.workers)/float64(max(1, time.Since(start))))
}

// ring is the slots that all passes of one call use, one after the other; their
// number bounds memory and the pieces in flight.
type ring struct {
	slots []*slot // made so far
	most  int
	aux   int // bytes of the second buffers
	alloc func(size int) []byte
	area  []byte // the buffers of slots to come
}

// maxSlots bounds the memory of a ring to 64 MiB, with both buffers; the
// garbage collector may need as much again.
const maxSlots = 32

// newRing makes slots when they are needed, with buffers as alloc makes them: a
// piece long, and the second one of aux bytes.
func newRing(slots, aux int, alloc func(size int) []byte) *ring {
	return &ring{most: min(slots, maxSlots), aux: aux, alloc: alloc}
}

// get gives a slot that is free.
func (r *ring) get(ctx context.Context, free <-chan *slot) (*slot, error) {
	select {
	case s := <-free:
		return s, ctx.Err()
	default:
	}
	if len(r.slots) == r.most {
		return take(ctx, free)
	}
	if r.slots == nil {
		r.area = r.alloc(r.most * (pieceSize + r.aux)) // memory that nothing touches costs nothing
	}
	s := &slot{raw: r.cut(pieceSize), aux: r.cut(r.aux)}
	r.slots = append(r.slots, s)
	return s, ctx.Err()
}

// cut takes a buffer from the area.
func (r *ring) cut(size int) []byte {
	b := r.area[:size:size]
	r.area = r.area[size:]
	return b
}

// run moves slots through a pipeline: produce fills them one after the other
// until io.EOF, the stages work on many at once, collect gets them in the
// order of produce. The first error ends all of it; run returns after the last
// of its goroutines has ended, that is, at once but for operations on disks
// and files that had begun.
func (r *ring) run(ctx context.Context, produce func(*slot) error, collect func(*slot) error, stages ...*stage) error {
	g, ctx := errgroup.WithContext(ctx)
	out := r.start(ctx, g, produce, stages...)
	g.Go(func() error { return out.each(collect) })
	return g.Wait()
}

// start is run without its end: who calls it takes the slots from what it
// gives, to the end or until ctx is done.
func (r *ring) start(ctx context.Context, g *errgroup.Group, produce func(*slot) error, stages ...*stage) *ordered {
	// All channels hold all slots, so that no sender ever waits.
	free := make(chan *slot, r.most)
	for _, s := range r.slots {
		free <- s
	}
	first := make(chan *slot, r.most)
	g.Go(func() error { return r.feed(ctx, produce, free, first) })
	in := first
	for _, st := range stages {
		out := make(chan *slot, r.most)
		st.start(ctx, g, in, out)
		in = out
	}
	return &ordered{ctx: ctx, in: in, free: free, waiting: map[int]*slot{}}
}

// take gets the next slot; nil is the end.
func take(ctx context.Context, in <-chan *slot) (*slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s := <-in:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *ring) feed(ctx context.Context, produce func(*slot) error, free <-chan *slot, out chan<- *slot) error {
	for seq := 0; ; seq++ {
		s, err := r.get(ctx, free)
		if err != nil {
			return err
		}
		s.reset(seq)
		err = produce(s)
		if err == io.EOF {
			close(out)
			return nil
		}
		if err != nil {
			return err
		}
		out <- s
	}
}

// start begins a stage's goroutines; the last to end closes out.
func (st *stage) start(ctx context.Context, g *errgroup.Group, in <-chan *slot, out chan<- *slot) {
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

func (st *stage) work(ctx context.Context, in <-chan *slot, out chan<- *slot) error {
	batch := make([]*slot, 0, st.batch)
	for {
		s, err := take(ctx, in)
		if s == nil || err != nil {
			return err
		}
		batch = st.more(append(batch[:0], s), in)
		began := time.Now()
		err = st.do(batch)
		st.busy.Add(int64(time.Since(began)))
		if err != nil {
			return err
		}
		for _, s := range batch {
			out <- s
		}
	}
}

// more fills a batch with what is there already.
func (st *stage) more(batch []*slot, in <-chan *slot) []*slot {
	for len(batch) < st.batch {
		select {
		case s := <-in:
			if s == nil {
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
type ordered struct {
	ctx     context.Context
	in      <-chan *slot
	free    chan<- *slot
	waiting map[int]*slot
	seq     int
}

// next gives the next slot, which done takes back; nil is the end.
func (o *ordered) next() (*slot, error) {
	for {
		if s := o.waiting[o.seq]; s != nil {
			delete(o.waiting, o.seq)
			o.seq++
			return s, nil
		}
		s, err := take(o.ctx, o.in)
		if s == nil || err != nil {
			return nil, err
		}
		o.waiting[s.seq] = s
	}
}

func (o *ordered) done(s *slot) { o.free <- s }

// each hands all slots to collect.
func (o *ordered) each(collect func(*slot) error) error {
	for {
		s, err := o.next()
		if s == nil || err != nil {
			return err
		}
		if err := collect(s); err != nil {
			return err
		}
		o.done(s)
	}
}

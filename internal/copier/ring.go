package copier

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// slot is one piece, or one run of zero pieces, on its way through a pipeline.
type slot struct {
	seq   int           // order of produce
	off   int64         // bytes from the disk's start
	n     int64         // bytes; more than a piece only if zero
	zero  bool          // all bytes are zero, and raw holds nothing of use
	raw   []byte        // a piece long, of Options.Alloc
	aux   []byte        // a second buffer, for passes that need one
	piece image.Piece   // still to be decoded
	sum   xxh3.Uint128  // of the part of the piece that is neither head nor tail
	bad   []image.Range // what could not be read
	diff  []image.Range // where disk and image differ
}

// data is the slot's bytes; not for a run of zeros.
func (s *slot) data() []byte { return s.raw[:s.n] }

// stage is work on slots, done by some goroutines at once, in any order.
type stage struct {
	workers int
	do      func(*slot) error
}

// ring is the slots that all passes of one call use; their number bounds
// memory and the pieces in flight.
type ring []*slot

// maxSlots bounds the memory of a ring to 64 MiB, with both buffers; the
// garbage collector may need as much again.
const maxSlots = 32

// newRing makes slots for the workers, each with one before and one behind it,
// and for the goroutines that read or write the disk.
func newRing(opt Options, disk int) ring {
	r := make(ring, min(disk+3*opt.Workers, maxSlots))
	for i := range r {
		r[i] = &slot{raw: opt.Alloc(image.PieceSize)}
	}
	return r
}

// run moves slots through a pipeline: produce fills them one after the other
// until io.EOF, the stages work on many at once, collect gets them in the
// order of produce. The first error ends all of it; run returns after the last
// of its goroutines has ended, that is, at once but for operations on disks
// and files that had begun.
func (r ring) run(ctx context.Context, produce func(*slot) error, stages []stage, collect func(*slot) error) error {
	g, ctx := errgroup.WithContext(ctx)
	// All channels hold all slots, so that no sender ever waits.
	free := make(chan *slot, len(r))
	for _, s := range r {
		free <- s
	}
	first := make(chan *slot, len(r))
	g.Go(func() error { return feed(ctx, produce, free, first) })
	in := first
	for _, st := range stages {
		out := make(chan *slot, len(r))
		st.start(ctx, g, in, out)
		in = out
	}
	g.Go(func() error { return gather(ctx, collect, in, free) })
	return g.Wait()
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

func feed(ctx context.Context, produce func(*slot) error, free <-chan *slot, out chan<- *slot) error {
	for seq := 0; ; seq++ {
		s, err := take(ctx, free)
		if err != nil {
			return err
		}
		err = produce(s)
		if err == io.EOF {
			close(out)
			return nil
		}
		if err != nil {
			return err
		}
		s.seq = seq
		out <- s
	}
}

// start begins a stage's goroutines; the last to end closes out.
func (st stage) start(ctx context.Context, g *errgroup.Group, in <-chan *slot, out chan<- *slot) {
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

func (st stage) work(ctx context.Context, in <-chan *slot, out chan<- *slot) error {
	for {
		s, err := take(ctx, in)
		if s == nil || err != nil {
			return err
		}
		if err := st.do(s); err != nil {
			return err
		}
		out <- s
	}
}

// gather puts slots back into the order of produce and hands them to collect.
func gather(ctx context.Context, collect func(*slot) error, in <-chan *slot, free chan<- *slot) error {
	waiting := map[int]*slot{}
	for next := 0; ; {
		s, err := take(ctx, in)
		if s == nil || err != nil {
			return err
		}
		waiting[s.seq] = s
		for s := waiting[next]; s != nil; s = waiting[next] {
			if err := collect(s); err != nil {
				return err
			}
			delete(waiting, next)
			next++
			free <- s
		}
	}
}

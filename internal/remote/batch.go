package remote

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// batcher puts what several goroutines want at the same time into one request. While
// requests are under way, wishes gather for the next one, and nothing is sent that
// nobody wants. A goroutine waits until its wish is fulfilled, so the memory of its
// wish belongs to the request that long.
type batcher[J any] struct {
	c      *Client
	ctx    context.Context // ends when the owner is closed, with the reason
	atOnce int             // requests at once
	fits   func(batch []*wish[J], next *wish[J]) bool
	// do sends one request for a batch. It ends the wishes that are fulfilled or have
	// failed, and returns the others. They are sent again, at once if err is nil.
	do func(ctx context.Context, batch []*wish[J]) (left []*wish[J], err error)

	mu      sync.Mutex // guards the fields below
	queue   []*wish[J]
	running int
}

type wish[J any] struct {
	ctx  context.Context
	job  J
	done chan error
}

func (w *wish[J]) end(err error) { w.done <- err }

// run waits until a wish is fulfilled.
func (b *batcher[J]) run(ctx context.Context, job J) error {
	if err := context.Cause(b.ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &wish[J]{ctx, job, make(chan error, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, w)
	if b.running < b.atOnce {
		b.running++
		go b.work()
	}
	b.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	}
	if b.drop(w) {
		return ctx.Err()
	}
	return <-w.done // its request is under way, and ends now
}

// drop takes a wish out of the queue, unless it is in a request already. Requests before
// it may last for as long as the server is away.
func (b *batcher[J]) drop(w *wish[J]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, w)
	if i < 0 {
		return false
	}
	b.queue = slices.Concat(b.queue[:i], b.queue[i+1:])
	return true
}

func (b *batcher[J]) work() {
	for {
		batch := b.take()
		if batch == nil {
			return
		}
		for len(batch) > 0 {
			batch = b.process(batch)
		}
	}
}

// take returns the next batch, or nil if there is none and the caller ends.
func (b *batcher[J]) take() []*wish[J] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.queue) && (n == 0 || b.fits(b.queue[:n], b.queue[n])) {
		n++
	}
	if n == 0 {
		b.running--
		return nil
	}
	batch := b.queue[:n:n]
	b.queue = b.queue[n:]
	return batch
}

// process sends a batch until all wishes have ended. It returns those that must go
// into another batch, since one of this batch was cancelled.
func (b *batcher[J]) process(batch []*wish[J]) (left []*wish[J]) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	for _, w := range batch {
		defer context.AfterFunc(w.ctx, cancel)()
	}
	err := b.c.try(ctx, func(ctx context.Context) (further bool, err error) {
		for err == nil && len(batch) > 0 {
			before, n := len(batch), min(len(batch), b.c.width.now())
			var left []*wish[J]
			left, err = b.do(ctx, batch[:n])
			b.c.width.note(err)
			batch = slices.Concat(left, batch[n:])
			further = further || len(batch) < before
		}
		return further, err
	})
	for _, w := range batch {
		cancelled := w.ctx.Err()
		closed := context.Cause(b.ctx)
		switch {
		case closed != nil:
			w.end(closed)
		case cancelled != nil:
			w.end(cancelled)
		case errors.Is(err, context.Canceled):
			left = append(left, w)
		default:
			w.end(err)
		}
	}
	return left
}

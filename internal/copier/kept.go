package copier

import (
	"context"
	"sync"
	"time"
)

// flushEvery is how many bytes are written before a disk is flushed, so that they
// can be read back while later bytes are written.
const flushEvery = 64 << 20

// kept flushes a disk while it is written, and says how far the read-back may
// follow. Places in the image are counted in bytes, in the order in which its
// pieces come.
type kept struct {
	target Target
	every  int64 // bytes to write between two flushes, or 0 if only the end of the pass flushes

	mu       sync.Mutex    // guards the fields below
	at       int64         // everything before this place is written
	fresh    int64         // bytes that were written since the last flush began
	flushing bool          // a flush runs, and will be followed by another if that is due
	to       int64         // everything before this place is written and flushed
	more     chan struct{} // closed when to grows
	written  bool          // the pass that writes has ended
	first    time.Time     // end of the first flush
}

func newKept(target Target, every int64) *kept {
	return &kept{target: target, every: every, more: make(chan struct{})}
}

// wrote notes that everything before a place in the image is written, the last n
// bytes of it since the last call. If it is time to flush and nobody does, wrote
// returns a function that does so as long as it is due.
func (k *kept) wrote(at, n int64) (flush func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = at
	k.fresh += n
	if k.flushing || !k.due() {
		return nil
	}
	k.flushing = true
	return k.flushWhileDue
}

func (k *kept) due() bool { return k.every > 0 && k.fresh >= k.every }

func (k *kept) flushWhileDue() error {
	for {
		k.mu.Lock()
		if !k.due() {
			k.flushing = false
			k.mu.Unlock()
			return nil
		}
		at := k.at
		k.fresh = 0
		k.mu.Unlock()
		if err := k.flush(at, false); err != nil {
			return err
		}
	}
}

// flush flushes the disk, after everything before a place was written. end says
// that this is all of the image.
func (k *kept) flush(at int64, end bool) error {
	if err := k.target.Sync(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.first.IsZero() {
		k.first = time.Now()
	}
	k.to = max(k.to, at)
	k.written = k.written || end
	close(k.more)
	k.more = make(chan struct{})
	return nil
}

// wait waits until everything before a place is written and flushed. It returns
// how far that is so, which may be farther.
func (k *kept) wait(ctx context.Context, to int64) (int64, error) {
	for {
		k.mu.Lock()
		at, more := k.to, k.more
		k.mu.Unlock()
		if at >= to {
			return at, ctx.Err()
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// ended reports whether everything is written and flushed.
func (k *kept) ended() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.written
}

// sinceFirst is the time since the first flush. Before that there was nothing to
// read back.
func (k *kept) sinceFirst() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.first.IsZero() {
		return 0
	}
	return time.Since(k.first)
}

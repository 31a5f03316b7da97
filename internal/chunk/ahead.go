package chunk

import (
	"sync"

	"testbox-imaging/internal/image"
)

const (
	// aheadBytes is how far before those who read in order chunks are fetched,
	// in bytes of disk address; an eighth of the cache bounds it too.
	aheadBytes = 8 << 20
	// aheadAtOnce is how many chunks are fetched ahead at a time.
	aheadAtOnce = 4
	// aheadStreams is how many may read in order at a time; the kernel sends
	// the reads of one stream from several threads, a little out of order.
	aheadStreams = 16
)

// readAhead fetches what those who read in order will read next.
type readAhead struct {
	d      *DiskReader
	window int64         // bytes
	slots  chan struct{} // one for each fetch
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what is below
	streams [aheadStreams]stream
	oldest  int
	closed  bool
}

// stream is somebody who reads in order, as far as known.
type stream struct {
	next    int64 // where the next read begins
	fetched int64 // up to where chunks were fetched
}

func newReadAhead(d *DiskReader) *readAhead {
	return &readAhead{d: d, window: min(aheadBytes, d.cache.limit/8), slots: make(chan struct{}, aheadAtOnce)}
}

// after is called after each read. It does not wait for the store.
func (a *readAhead) after(off, end int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	s := a.find(off)
	if s == nil {
		a.streams[a.oldest] = stream{next: end, fetched: end}
		a.oldest = (a.oldest + 1) % aheadStreams
		return
	}
	s.next = end
	for s.fetched = max(s.fetched, end); s.fetched < min(end+a.window, a.d.Size()); {
		n := a.fetch(s.fetched)
		if n == 0 {
			return
		}
		s.fetched += n
	}
}

func (a *readAhead) find(off int64) *stream {
	for i := range a.streams {
		if a.streams[i].next == off && off > 0 {
			return &a.streams[i]
		}
	}
	return nil
}

// fetch begins to fetch what the disk has at off and says how many bytes that
// answers for; 0 is: not now.
func (a *readAhead) fetch(off int64) int64 {
	region := int(off / RegionSize)
	e, known := a.d.cache.peek(a.d.im.pagePlace(region).key)
	if e == nil {
		if !known {
			a.begin(func() (*entry, error) { return a.d.page(region) })
		}
		return 0
	}
	defer a.d.cache.done(e)
	spans := e.page.from(off % RegionSize)
	if len(spans) == 0 {
		return 0 // a page that does not fit; who reads there will say it
	}
	s := spans[0]
	n := s.Off + s.Len - off%RegionSize
	if s.Content != image.Data {
		return n
	}
	ref := a.d.chunkAt(region, e.page, s)
	have, known := a.d.cache.peek(ref.at.key)
	if have != nil {
		a.d.cache.done(have)
	}
	if known || a.begin(func() (*entry, error) { return a.d.chunk(ref) }) {
		return n
	}
	return 0
}

// begin runs a fetch beside us if a slot is free.
func (a *readAhead) begin(fetch func() (*entry, error)) bool {
	select {
	case a.slots <- struct{}{}:
	default:
		return false
	}
	a.wg.Go(func() {
		if e, err := fetch(); err == nil { // who reads there will say the error
			a.d.cache.done(e)
		}
		<-a.slots
	})
	return true
}

func (a *readAhead) wait() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.wg.Wait()
}

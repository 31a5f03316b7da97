package chunk

import (
	"sync"

	"testbox-imaging/internal/image"
)

const (
	// aheadBytes is how far ahead of a sequential reader chunks are fetched, in
	// bytes of disk address. An eighth of the cache is a limit too.
	aheadBytes = 8 << 20
	// aheadAtOnce is the number of chunks that are fetched ahead at a time.
	aheadAtOnce = 4
	// aheadStreams is the number of sequential readers that are followed. The
	// kernel sends the reads of one stream from several threads, and so a little
	// out of order.
	aheadStreams = 16
)

// readAhead fetches what sequential readers will need next.
type readAhead struct {
	d      *DiskReader
	window int64         // bytes
	slots  chan struct{} // one for each fetch
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	streams [aheadStreams]stream
	oldest  int
	closed  bool
}

// stream is a presumed sequential reader.
type stream struct {
	next    int64 // where its next read should begin
	fetched int64 // chunks before this place were fetched
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

// fetch starts to fetch what the disk has at off. It returns for how many bytes
// from off that suffices, or 0 if it could not start.
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
		return 0 // the page does not fit its region; a read there returns the error
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

// begin runs fetch in the background if a slot is free.
func (a *readAhead) begin(fetch func() (*entry, error)) bool {
	select {
	case a.slots <- struct{}{}:
	default:
		return false
	}
	a.wg.Go(func() {
		if e, err := fetch(); err == nil { // a read there returns the error
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

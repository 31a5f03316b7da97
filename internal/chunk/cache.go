package chunk

import (
	"container/list"
	"sync"

	"testbox-imaging/internal/object"
)

// cache keeps the most recently used pages and decoded chunks, up to limit
// bytes. Entries in use stay even beyond the limit. Each entry is loaded only
// once, however many goroutines ask for it.
type cache struct {
	limit int64 // bytes
	free  sync.Pool

	mu     sync.Mutex // guards the fields below
	size   int64      // bytes of the loaded entries
	recent list.List  // of *entry, the most recently used first
	byKey  map[object.Key]*entry
}

// entry is a page or a chunk. load sets the content once, and it does not
// change after that.
type entry struct {
	key  object.Key
	load sync.Once
	err  error
	page *pageMap
	data *[]byte // of a chunk

	// The cache's mutex guards the fields below.
	place *list.Element // in recent; nil if the entry left the cache
	size  int64
	users int
	ready bool // the entry is loaded
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, byKey: map[object.Key]*entry{}}
}

// use returns an entry, and calls load to fill it if it is not loaded. The
// caller must call done for the entry. Errors are not kept, so that the next
// call tries again.
func (c *cache) use(key object.Key, load func(*entry) error) (*entry, error) {
	e := c.find(key)
	e.load.Do(func() {
		e.err = load(e)
		c.loaded(e)
	})
	if e.err != nil {
		c.done(e)
		return nil, e.err
	}
	return e, nil
}

func (c *cache) find(key object.Key) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		e = &entry{key: key}
		e.place = c.recent.PushFront(e)
		c.byKey[key] = e
	}
	e.users++
	c.recent.MoveToFront(e.place)
	return e
}

// peek returns a loaded entry without waiting, or nil. The caller must call
// done for the entry. known reports whether the entry is loaded or being
// loaded.
func (c *cache) peek(key object.Key) (e *entry, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.byKey[key]
	if e == nil || !e.ready {
		return nil, e != nil
	}
	e.users++
	return e, true
}

// loaded adds the size of a new entry, and drops old entries to make room for
// it.
func (c *cache) loaded(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.err != nil {
		c.drop(e)
		return
	}
	e.ready = true
	c.size += e.size
	for at := c.recent.Back(); at != nil && c.size > c.limit; {
		old := at.Value.(*entry)
		at = at.Prev()
		if old.users == 0 {
			c.drop(old)
		}
	}
}

func (c *cache) drop(e *entry) {
	c.recent.Remove(e.place)
	delete(c.byKey, e.key)
	e.place = nil
	c.size -= e.size
	c.recycle(e)
}

func (c *cache) done(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.recycle(e)
}

// recycle takes back the memory of a chunk that nobody can use any more.
func (c *cache) recycle(e *entry) {
	if e.users == 0 && e.place == nil && e.data != nil {
		c.free.Put(e.data)
		e.data = nil
	}
}

// buffer returns a buffer of n bytes for a chunk.
func (c *cache) buffer(n int) *[]byte {
	b, ok := c.free.Get().(*[]byte)
	if !ok || cap(*b) < n {
		b = new([]byte)
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

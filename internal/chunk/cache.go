package chunk

import (
	"container/list"
	"sync"

	"testbox-imaging/internal/object"
)

// cache keeps pages and decoded chunks, as many as fit into limit bytes, those
// used last; what is in use stays beyond that. Each is loaded once however many
// ask for it.
type cache struct {
	limit int64 // bytes
	free  sync.Pool

	mu     sync.Mutex // guards what is below
	size   int64      // of the loaded entries, bytes
	recent list.List  // of *entry, used last first
	byKey  map[object.Key]*entry
}

// entry is a page or a chunk. What it holds is set by load, once, and read
// after that.
type entry struct {
	key  object.Key
	load sync.Once
	err  error
	page *pageMap
	data *[]byte // of a chunk

	// The cache's mutex guards these.
	place *list.Element // in recent; nil: not in the cache any more
	size  int64
	users int
	ready bool // it is loaded
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, byKey: map[object.Key]*entry{}}
}

// use gives an entry, which load fills if it is not there. It must be given
// back by done. Errors are not kept: the next to ask tries again.
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

// peek gives an entry that is loaded, to be given back, and does not wait;
// known reports whether it is there or on its way.
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

// loaded counts a new entry in and makes room for it.
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

// recycle takes the memory of a chunk that nobody can see any more.
func (c *cache) recycle(e *entry) {
	if e.users == 0 && e.place == nil && e.data != nil {
		c.free.Put(e.data)
		e.data = nil
	}
}

// buffer gives n bytes of memory for a chunk.
func (c *cache) buffer(n int) *[]byte {
	b, ok := c.free.Get().(*[]byte)
	if !ok || cap(*b) < n {
		b = new([]byte)
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

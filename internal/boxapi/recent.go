package boxapi

import "container/list"

// recent keeps what was used last, up to a number of bytes. The caller has a lock.
type recent[K comparable, V any] struct {
	limit int64 // bytes
	size  int64
	order list.List // of *recentItem[K, V], the most recently used first
	by    map[K]*list.Element
}

type recentItem[K comparable, V any] struct {
	key   K
	value V
	size  int64
}

func newRecent[K comparable, V any](limit int64) recent[K, V] {
	return recent[K, V]{limit: limit, by: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	e := r.by[key]
	if e == nil {
		return v, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*recentItem[K, V]).value, true
}

// put adds a value. If there is one already, that one stays.
func (r *recent[K, V]) put(key K, v V, size int64) {
	if r.by[key] != nil {
		return
	}
	r.by[key] = r.order.PushFront(&recentItem[K, V]{key, v, size})
	for r.size += size; r.size > r.limit; {
		old := r.order.Remove(r.order.Back()).(*recentItem[K, V])
		delete(r.by, old.key)
		r.size -= old.size
	}
}

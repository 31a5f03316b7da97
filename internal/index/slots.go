package index

import "testbox-imaging/internal/object"

// Slots gives the objects of an index numbers below Len, in the order of All.
// They are good until objects come or go.
type Slots struct {
	x     *Index
	first []int // of each shard
	n     int
}

// Slots numbers the objects that there are now.
func (x *Index) Slots() *Slots {
	s := &Slots{x: x, first: make([]int, len(x.shards)), n: x.n}
	sum := 0
	for i, shard := range x.shards {
		s.first[i] = sum
		sum += len(shard)
	}
	return s
}

// Good reports whether the index still has as many objects as there are
// numbers.
func (s *Slots) Good() bool { return s.x.n == s.n && len(s.x.shards) == len(s.first) }

// Of is an object's number.
func (s *Slots) Of(key object.Key) (int, bool) {
	if s.n == 0 || !s.Good() {
		return 0, false
	}
	e := newEntry(key, Loc{})
	shard := e.shard(s.x.bits)
	i, there := search(s.x.shards[shard], &e, s.x.bits)
	return s.first[shard] + i, there
}

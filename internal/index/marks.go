package index

import (
	"slices"

	"testbox-imaging/internal/object"
)

// side is a list next to an index. It has a value for each object, such as a
// mark, in the order of the index. The index tells its sides where it inserts
// and removes objects, so that they keep the same order.
type side interface {
	insert(shard, i int)
	remove(shard, i int)
	// regroup moves the values from shards with the lengths from to shards with
	// the lengths to. The order of all objects stays the same.
	regroup(from, to []int)
}

func (x *Index) attach(s side) {
	s.regroup(nil, x.lengths())
	x.sides = append(x.sides, s)
}

func (x *Index) detach(s side) {
	for i := range x.sides {
		if x.sides[i] == s {
			x.sides = append(x.sides[:i:i], x.sides[i+1:]...)
			return
		}
	}
}

// lengths returns the number of entries in each shard.
func (x *Index) lengths() []int {
	out := make([]int, len(x.shards))
	for i, s := range x.shards {
		out[i] = len(s)
	}
	return out
}

// regroup calls move for each value, with its shard and place n, j in shards
// with the lengths from, and its shard and place in shards with the lengths to.
func regroup(from, to []int, move func(n, j, shard, i int)) {
	shard, i := 0, 0 // the next place in the new shards
	for n, count := range from {
		for j := range count {
			for i == to[shard] {
				shard, i = shard+1, 0
			}
			move(n, j, shard, i)
			i++
		}
	}
}

// Marks is a set of objects of an index, with one bit for each object of the
// index. An object keeps its mark when other objects are added or removed, and
// when its Loc changes. Like the index, a set is not safe for concurrent use.
type Marks struct {
	x    *Index
	bits [][]uint64 // of each shard
}

// NewMarks returns an empty set. The index keeps it up to date until Close.
func (x *Index) NewMarks() *Marks {
	m := &Marks{x: x}
	x.attach(m)
	return m
}

// Close ends the use of the set. Closing twice is allowed.
func (m *Marks) Close() { m.x.detach(m) }

// Add marks an object, and reports whether the index has it.
func (m *Marks) Add(key object.Key) bool {
	shard, i, there := m.x.find(key)
	if there {
		m.bits[shard][i/64] |= 1 << (i % 64)
	}
	return there
}

// Has reports whether an object is marked.
func (m *Marks) Has(key object.Key) bool {
	shard, i, there := m.x.find(key)
	return there && m.at(shard, i)
}

func (m *Marks) at(shard, i int) bool { return m.bits[shard][i/64]>>(i%64)&1 != 0 }

// All calls yield for all objects in the order of their names, with whether
// they are marked, until yield returns false.
func (m *Marks) All(yield func(Item, bool) bool) {
	for n, s := range m.x.shards {
		for i := range s {
			if !yield(s[i].item(), m.at(n, i)) {
				return
			}
		}
	}
}

// RemoveFunc removes from the index all objects for which gone returns true.
// gone is told whether an object is marked. It must not use the index.
func (m *Marks) RemoveFunc(gone func(it Item, marked bool) bool) {
	m.x.removeFunc(func(shard, i int, it Item) bool { return gone(it, m.at(shard, i)) })
}

func words(bits int) int { return (bits + 63) / 64 }

func (m *Marks) insert(shard, i int) {
	b := m.bits[shard]
	if n := len(m.x.shards[shard]); words(n) > len(b) {
		b = append(b, 0)
	}
	word := i / 64
	for w := len(b) - 1; w > word; w-- {
		b[w] = b[w]<<1 | b[w-1]>>63
	}
	low := uint64(1)<<(i%64) - 1
	b[word] = b[word]&low | b[word]&^low<<1
	m.bits[shard] = b
}

func (m *Marks) remove(shard, i int) {
	b := m.bits[shard]
	word := i / 64
	low := uint64(1)<<(i%64) - 1
	b[word] = b[word]&low | b[word]>>1&^low
	for w := word + 1; w < len(b); w++ {
		b[w-1] |= b[w] << 63
		b[w] >>= 1
	}
}

func (m *Marks) regroup(from, to []int) {
	old := m.bits
	m.bits = make([][]uint64, len(to))
	for shard, n := range to {
		m.bits[shard] = make([]uint64, words(n))
	}
	regroup(from, to, func(n, j, shard, i int) { m.bits[shard][i/64] |= old[n][j/64] >> (j % 64) & 1 << (i % 64) })
}

// Labels has a number for each object of an index. Like a mark, a label stays
// with its object.
type Labels struct {
	x     *Index
	first int32
	of    [][]int32 // of each shard
}

// NewLabels gives each object the label first. The index keeps the labels up to
// date until Close.
func (x *Index) NewLabels(first int32) *Labels {
	l := &Labels{x: x, first: first}
	x.attach(l)
	return l
}

// Close ends the use of the labels. Closing twice is allowed.
func (l *Labels) Close() { l.x.detach(l) }

// Of returns a pointer to an object's label, or nil if the index does not have
// the object. The pointer is valid until objects are added or removed.
func (l *Labels) Of(key object.Key) *int32 {
	shard, i, there := l.x.find(key)
	if !there {
		return nil
	}
	return &l.of[shard][i]
}

// All calls yield for all objects in the order of their names, with their
// labels, until yield returns false.
func (l *Labels) All(yield func(Item, int32) bool) {
	for n, s := range l.x.shards {
		for i := range s {
			if !yield(s[i].item(), l.of[n][i]) {
				return
			}
		}
	}
}

func (l *Labels) insert(shard, i int) {
	l.of[shard] = slices.Insert(l.of[shard], i, l.first)
}

func (l *Labels) remove(shard, i int) {
	l.of[shard] = slices.Delete(l.of[shard], i, i+1)
}

func (l *Labels) regroup(from, to []int) {
	old := l.of
	l.of = make([][]int32, len(to))
	for shard, n := range to {
		l.of[shard] = slices.Repeat([]int32{l.first}, n)
	}
	regroup(from, to, func(n, j, shard, i int) { l.of[shard][i] = old[n][j] })
}

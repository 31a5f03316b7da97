package index

import "testbox-imaging/internal/object"

// side is a list beside an index that has something for each object, such as a
// mark, in the order of the index. The index tells its sides at which places
// objects come and go, so that they keep the same order.
type side interface {
	insert(shard, i int)
	remove(shard, i int)
	// regroup takes what is kept from shards of these lengths to others. The
	// order of all objects stays.
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

// lengths are those of all shards.
func (x *Index) lengths() []int {
	out := make([]int, len(x.shards))
	for i, s := range x.shards {
		out[i] = len(s)
	}
	return out
}

// Marks is a set of objects of an index, a bit for each object that there is.
// An object keeps its mark when others come or go, and when it is said to be
// somewhere else. As the index, it is not safe for concurrent use.
type Marks struct {
	x    *Index
	bits [][]uint64 // of each shard
}

// NewMarks gives an empty set. Close it, or the index keeps it up to date for
// ever.
func (x *Index) NewMarks() *Marks {
	m := &Marks{x: x}
	x.attach(m)
	return m
}

// Close ends the use of the set. To close it again does nothing.
func (m *Marks) Close() { m.x.detach(m) }

// Add marks an object, and reports whether it is there.
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

// All calls yield for all objects in the order of their names, until it says
// false, with whether they are marked.
func (m *Marks) All(yield func(Item, bool) bool) {
	for n, s := range m.x.shards {
		for i := range s {
			if !yield(s[i].item(), m.at(n, i)) {
				return
			}
		}
	}
}

// RemoveFunc takes out of the index all objects for which gone says so, which is
// told whether they are marked. gone must not use the index.
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
	shard, i := 0, 0 // the next place
	for n, count := range from {
		for j := range count {
			for i == to[shard] {
				shard, i = shard+1, 0
			}
			m.bits[shard][i/64] |= old[n][j/64] >> (j % 64) & 1 << (i % 64)
			i++
		}
	}
}

// Labels has a number for each object of an index, at first the same one. It
// follows the objects as Marks does.
type Labels struct {
	x     *Index
	first int32
	of    [][]int32 // of each shard
}

// NewLabels gives each object the label first. Close the labels, or the index
// keeps them up to date for ever.
func (x *Index) NewLabels(first int32) *Labels {
	l := &Labels{x: x, first: first}
	x.attach(l)
	return l
}

// Close ends the use of the labels. To close them again does nothing.
func (l *Labels) Close() { l.x.detach(l) }

// Of gives an object's label to be changed; nil if the object is not there. It
// is good until objects come or go.
func (l *Labels) Of(key object.Key) *int32 {
	shard, i, there := l.x.find(key)
	if !there {
		return nil
	}
	return &l.of[shard][i]
}

// All calls yield for all objects in the order of their names, until it says
// false, with their labels.
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
	s := append(l.of[shard], 0)
	copy(s[i+1:], s[i:])
	s[i] = l.first
	l.of[shard] = s
}

func (l *Labels) remove(shard, i int) {
	s := l.of[shard]
	copy(s[i:], s[i+1:])
	l.of[shard] = s[:len(s)-1]
}

func (l *Labels) regroup(from, to []int) {
	old := l.of
	l.of = make([][]int32, len(to))
	for shard, n := range to {
		l.of[shard] = make([]int32, n)
		for i := range l.of[shard] {
			l.of[shard][i] = l.first
		}
	}
	shard, i := 0, 0 // the next place
	for n, count := range from {
		for j := range count {
			for i == to[shard] {
				shard, i = shard+1, 0
			}
			l.of[shard][i] = old[n][j]
			i++
		}
	}
}

// Package index knows where objects are. It needs 27 bytes for each object,
// without pointers that the garbage collector would have to follow. It is a
// cache, since everything in it can be read from the packs.
package index

import (
	"fmt"
	"slices"

	"testbox-imaging/internal/object"
)

// Loc is where an object is.
type Loc struct {
	Pack uint32 // number of the pack, at most MaxPack
	Off  uint32 // offset of the object's header in the pack, less than MaxOff
	Len  int    // bytes to read for header and stored form, rounded up; too few for an object that is longer than any chunk
	Raw  int    // bytes of the object before compression; of a root, which may be longer, at most 16 MiB less one byte
}

// These are the limits of a Loc.
const (
	MaxPack = 1<<24 - 1
	MaxOff  = 1 << 28
)

// Item is an object as the index knows it.
type Item struct {
	Prefix  [16]byte // of the name
	Kind    object.Kind
	Loc     Loc
	Touched bool // a backup that is not committed yet relies on it
}

// Index has the place of each object. It is not safe for concurrent use. The
// zero value is empty.
type Index struct {
	shards [][]entry // by the first bits of the name; each is sorted
	bits   int       // how many bits of the name choose the shard; there are 2^bits shards
	n      int
	sides  []side // lists that follow the index
}

// perShard is the most entries that shards have on average. An insert moves
// half of a shard, and a walk over all entries visits all shards.
const perShard = 512

// shard returns the shard that has or would have an entry.
func (x *Index) shard(e *entry) *[]entry { return &x.shards[e.shard(x.bits)] }

// fit makes enough shards for n objects, with at most perShard on average, and
// moves the entries to them. It never reduces the number of shards.
func (x *Index) fit(n int) {
	bits := x.bits
	for n > perShard<<bits {
		bits += 2 // with 1, entries would be moved more often
	}
	if bits == x.bits && x.shards != nil {
		return
	}
	old, from := x.shards, x.lengths()
	x.shards, x.bits = make([][]entry, 1<<bits), bits
	for i, s := range old {
		x.load(s)
		old[i] = nil // the garbage collector can free it now
	}
	for _, side := range x.sides {
		side.regroup(from, x.lengths())
	}
}

// load appends sorted entries that come after all present ones.
func (x *Index) load(sorted []entry) {
	for len(sorted) > 0 {
		s, n := x.shard(&sorted[0]), 1
		for n < len(sorted) && x.shard(&sorted[n]) == s {
			n++
		}
		*s = append(*s, sorted[:n]...)
		sorted = sorted[n:]
	}
}

// Len returns the number of objects.
func (x *Index) Len() int { return x.n }

// find returns the shard of an object, and its place in the shard.
func (x *Index) find(key object.Key) (shard, i int, there bool) {
	if x.n == 0 {
		return 0, 0, false
	}
	e := newEntry(key, Loc{})
	shard = e.shard(x.bits)
	i, there = search(x.shards[shard], &e, x.bits)
	return shard, i, there
}

// entry returns an object's entry, or nil if there is none.
func (x *Index) entry(key object.Key) *entry {
	if shard, i, there := x.find(key); there {
		return &x.shards[shard][i]
	}
	return nil
}

// Get returns where an object is, and whether the index has it.
func (x *Index) Get(key object.Key) (Loc, bool) {
	if e := x.entry(key); e != nil {
		return e.loc(), true
	}
	return Loc{}, false
}

// Add adds an object. If the index has the object, its place is changed, and it
// stays touched.
func (x *Index) Add(key object.Key, l Loc) error {
	if l.Pack > MaxPack || l.Off >= MaxOff || key.Kind.Max() == 0 || key.Kind > 3 {
		return fmt.Errorf("%v in pack %d at %d has no place in the index", key, l.Pack, l.Off)
	}
	x.fit(x.n + 1)
	e := newEntry(key, l)
	s := x.shard(&e)
	i, there := search(*s, &e, x.bits)
	if there {
		e.setTouched((*s)[i].touched())
		(*s)[i] = e
		return nil
	}
	if len(*s) == cap(*s) { // append would double the capacity
		*s = append(make([]entry, 0, len(*s)+1+len(*s)/16), *s...)
	}
	*s = slices.Insert(*s, i, e)
	x.n++
	for _, side := range x.sides {
		side.insert(e.shard(x.bits), i)
	}
	return nil
}

// Remove removes an object if the index says that it is at this place, and
// reports whether it did.
func (x *Index) Remove(key object.Key, pack, off uint32) bool {
	shard, i, there := x.find(key)
	if !there {
		return false
	}
	s := &x.shards[shard]
	if l := (*s)[i].loc(); l.Pack != pack || l.Off != off {
		return false
	}
	*s = slices.Delete(*s, i, i+1)
	x.n--
	for _, side := range x.sides {
		side.remove(shard, i)
	}
	return true
}

// RemoveFunc removes all objects for which gone returns true. gone must not use
// the index.
func (x *Index) RemoveFunc(gone func(Item) bool) {
	x.removeFunc(func(_, _ int, it Item) bool { return gone(it) })
}

// removeFunc is like RemoveFunc, and also passes gone the object's shard and
// its place in the shard. The sides have the object's values at that place.
func (x *Index) removeFunc(gone func(shard, i int, it Item) bool) {
	n := 0
	for shard, s := range x.shards {
		kept := s[:0]
		for i := range s {
			if !gone(shard, len(kept), s[i].item()) {
				kept = append(kept, s[i])
				continue
			}
			for _, side := range x.sides {
				side.remove(shard, len(kept))
			}
		}
		x.shards[shard] = kept
		n += len(kept)
	}
	x.n = n
}

// All calls yield for all objects in the order of their names, until yield
// returns false. Meanwhile objects may be touched, but nothing else may be
// changed.
func (x *Index) All(yield func(Item) bool) {
	for _, s := range x.shards {
		for i := range s {
			if !yield(s[i].item()) {
				return
			}
		}
	}
}

// Touch notes that a backup relies on an object. It returns where the object is,
// and whether the index has it.
func (x *Index) Touch(key object.Key) (Loc, bool) {
	e := x.entry(key)
	if e == nil {
		return Loc{}, false
	}
	e.setTouched(true)
	return e.loc(), true
}

// Touched reports whether a backup relies on an object.
func (x *Index) Touched(key object.Key) bool {
	e := x.entry(key)
	return e != nil && e.touched()
}

// ClearTouched notes that no backup relies on any object.
func (x *Index) ClearTouched() {
	for _, s := range x.shards {
		for i := range s {
			s[i].setTouched(false)
		}
	}
}

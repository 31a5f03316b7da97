// Package index knows where objects are: 24 bytes an object, without pointers
// that the garbage collector would have to follow. It is a cache: packs hold
// all that it says.
package index

import (
	"fmt"
	"slices"

	"testbox-imaging/internal/object"
)

// Loc is where an object is.
type Loc struct {
	Pack uint32 // number of the pack, at most MaxPack
	Off  uint32 // of the object's header in the pack, less than MaxOff
	Len  int    // bytes to read for header and stored form: rounded up, but too few for what is longer than any chunk
}

// Limits of a Loc.
const (
	MaxPack = 1<<24 - 1
	MaxOff  = 1 << 28
)

// Item is an object as the index knows it.
type Item struct {
	Prefix  [16]byte // of the name
	Kind    object.Kind
	Loc     Loc
	Touched bool // a backup that is not committed yet counts on it
}

// Index is not safe for concurrent use. The zero value is empty.
type Index struct {
	shards [][]entry // by the first bits of the name; sorted
	bits   int       // of the name; there are 2^bits shards
	n      int
	sides  []side // kept up to date
}

// perShard is how many entries the shards have on average, at most. An insert
// moves half of a shard, and a walk over all entries visits all shards.
const perShard = 512

// shard gives the one that has an entry, or would have it.
func (x *Index) shard(e *entry) *[]entry { return &x.shards[e.shard(x.bits)] }

// fit makes so many shards that n objects have room in them, perShard in each on
// average, and moves the entries there. It never makes fewer than there are.
func (x *Index) fit(n int) {
	bits := x.bits
	for n > perShard<<bits {
		bits += 2 // with 1, entries would move more often
	}
	if bits == x.bits && x.shards != nil {
		return
	}
	old, from := x.shards, x.lengths()
	x.shards, x.bits = make([][]entry, 1<<bits), bits
	for i, s := range old {
		x.load(s)
		old[i] = nil // the garbage collector can have it now
	}
	for _, side := range x.sides {
		side.regroup(from, x.lengths())
	}
}

// load puts sorted entries behind those that are there.
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

// Len is how many objects there are.
func (x *Index) Len() int { return x.n }

// find gives the place of an object: its shard, and where in it.
func (x *Index) find(key object.Key) (shard, i int, there bool) {
	if x.n == 0 {
		return 0, 0, false
	}
	e := newEntry(key, Loc{})
	shard = e.shard(x.bits)
	i, there = search(x.shards[shard], &e, x.bits)
	return shard, i, there
}

// entry gives an object's, nil if it is not there.
func (x *Index) entry(key object.Key) *entry {
	if shard, i, there := x.find(key); there {
		return &x.shards[shard][i]
	}
	return nil
}

// Get says where an object is.
func (x *Index) Get(key object.Key) (Loc, bool) {
	if e := x.entry(key); e != nil {
		return e.loc(), true
	}
	return Loc{}, false
}

// Add puts an object in, or says where it is now; it keeps its marks.
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
	if len(*s) == cap(*s) { // append would double it
		*s = append(make([]entry, 0, len(*s)+1+len(*s)/16), *s...)
	}
	*s = slices.Insert(*s, i, e)
	x.n++
	for _, side := range x.sides {
		side.insert(e.shard(x.bits), i)
	}
	return nil
}

// Remove takes an object out if it is said to be there; another place stays.
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

// RemoveFunc takes out all objects for which gone says so. gone must not use
// the index.
func (x *Index) RemoveFunc(gone func(Item) bool) {
	x.removeFunc(func(_, _ int, it Item) bool { return gone(it) })
}

// removeFunc is RemoveFunc that also tells gone the place of the object: its shard
// and its number there. Under this place each side has what it keeps of it.
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

// All calls yield for all objects in the order of their names, until it says
// false. Objects may be touched meanwhile, nothing else be changed.
func (x *Index) All(yield func(Item) bool) {
	for _, s := range x.shards {
		for i := range s {
			if !yield(s[i].item()) {
				return
			}
		}
	}
}

// Touch notes that a backup counts on an object, and reports whether it is
// there.
func (x *Index) Touch(key object.Key) bool {
	e := x.entry(key)
	if e == nil {
		return false
	}
	e.setTouched(true)
	return true
}

// Touched reports whether a backup counts on an object.
func (x *Index) Touched(key object.Key) bool {
	e := x.entry(key)
	return e != nil && e.touched()
}

// ClearTouched notes that no backup counts on anything.
func (x *Index) ClearTouched() {
	for _, s := range x.shards {
		for i := range s {
			s[i].setTouched(false)
		}
	}
}

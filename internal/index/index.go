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

// Flag is a mark on an object that whoever uses the index sets.
type Flag uint8

// The flags.
const (
	Touched Flag = 1 // a backup that is not committed yet counts on the object
	Live    Flag = 2 // a record reaches the object
)

// Item is an object as the index knows it.
type Item struct {
	Prefix [16]byte // of the name
	Kind   object.Kind
	Loc    Loc
	Flags  Flag
}

// Index is not safe for concurrent use. The zero value is empty.
type Index struct {
	shards [][]entry // by the first bits of the name; sorted
	bits   int       // of the name; there are 2^bits shards
	n      int
}

// perShard is how many entries the shards have on average, at most. An insert
// moves half of a shard, and a walk over all entries visits all shards.
const perShard = 512

// shard gives the one that has an entry, or would have it.
func (x *Index) shard(e *entry) *[]entry { return &x.shards[e.shard(x.bits)] }

// fit makes shards for n objects.
func (x *Index) fit(n int) {
	bits := x.bits
	for n > perShard<<bits {
		bits += 2 // with 1, entries would move more often
	}
	if bits == x.bits && x.shards != nil {
		return
	}
	old := x.shards
	x.shards, x.bits = make([][]entry, 1<<bits), bits
	for i, s := range old {
		x.load(s)
		old[i] = nil // the garbage collector can have it now
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

// entry gives an object's, nil if it is not there.
func (x *Index) entry(key object.Key) *entry {
	if x.n == 0 {
		return nil
	}
	e := newEntry(key, Loc{})
	s := *x.shard(&e)
	if i, there := search(s, &e, x.bits); there {
		return &s[i]
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

// Add puts an object in, or says where it is now; it keeps its flags.
func (x *Index) Add(key object.Key, l Loc) error {
	if l.Pack > MaxPack || l.Off >= MaxOff || key.Kind.Max() == 0 || key.Kind > 3 {
		return fmt.Errorf("%v in pack %d at %d has no place in the index", key, l.Pack, l.Off)
	}
	x.fit(x.n + 1)
	e := newEntry(key, l)
	s := x.shard(&e)
	i, there := search(*s, &e, x.bits)
	if there {
		e.setFlags((*s)[i].flags())
		(*s)[i] = e
		return nil
	}
	if len(*s) == cap(*s) { // append would double it
		*s = append(make([]entry, 0, len(*s)+1+len(*s)/16), *s...)
	}
	*s = slices.Insert(*s, i, e)
	x.n++
	return nil
}

// Remove takes an object out if it is said to be there; another place stays.
func (x *Index) Remove(key object.Key, pack, off uint32) bool {
	if x.n == 0 {
		return false
	}
	e := newEntry(key, Loc{})
	s := x.shard(&e)
	i, there := search(*s, &e, x.bits)
	if !there {
		return false
	}
	if l := (*s)[i].loc(); l.Pack != pack || l.Off != off {
		return false
	}
	*s = slices.Delete(*s, i, i+1)
	x.n--
	return true
}

// RemoveFunc takes out all objects for which gone says so. gone must not use
// the index.
func (x *Index) RemoveFunc(gone func(Item) bool) {
	n := 0
	for i, s := range x.shards {
		s = slices.DeleteFunc(s, func(e entry) bool { return gone(e.item()) })
		x.shards[i] = s
		n += len(s)
	}
	x.n = n
}

// All calls yield for all objects in the order of their names, until it says
// false. Flags may be set meanwhile, nothing else be changed.
func (x *Index) All(yield func(Item) bool) {
	for _, s := range x.shards {
		for i := range s {
			if !yield(s[i].item()) {
				return
			}
		}
	}
}

// Mark sets a flag of an object, and reports whether the object is there and
// did not have it.
func (x *Index) Mark(key object.Key, f Flag) bool {
	e := x.entry(key)
	if e == nil || e.flags()&f != 0 {
		return false
	}
	e.setFlags(e.flags() | f)
	return true
}

// Flags are those of an object, 0 if it is not there.
func (x *Index) Flags(key object.Key) Flag {
	if e := x.entry(key); e != nil {
		return e.flags()
	}
	return 0
}

// ClearAll takes a flag from all objects.
func (x *Index) ClearAll(f Flag) {
	for _, s := range x.shards {
		for i := range s {
			s[i].setFlags(s[i].flags() &^ f)
		}
	}
}

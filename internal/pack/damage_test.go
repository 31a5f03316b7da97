package pack

import (
	"bytes"
	"slices"
	"testing"

	"testbox-imaging/internal/object"
)

// covers reports whether one of the faults has the byte at off.
func covers(faults []*FaultError, off int) bool {
	return slices.ContainsFunc(faults, func(f *FaultError) bool { return f.Off <= int64(off) && int64(off) < f.Off+f.Len })
}

// without is what is left of entries where [from, to) is damaged.
func without(entries []Entry, from, to int) []Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return int64(from) < e.End() && int(e.Off) < to })
}

// TestEveryBitFound flips every bit: Scan finds it where it is, and all other
// objects; so it does if there is no table besides.
func TestEveryBitFound(t *testing.T) {
	whole, entries := write(t, some())
	noTable := whole[:len(whole)-len(entries)*tableEntrySize-trailerSize]
	for _, b := range [][]byte{whole, noTable} {
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				found, faults := scan(t, b)
				if !covers(faults, i) || !slices.Equal(found, without(entries, i, i+1)) {
					t.Fatalf("bit %d of byte %d of %d: %d objects, %v", bit, i, len(b), len(found), faults)
				}
				b[i] ^= 1 << bit
			}
		}
	}
}

// TestCut: a pack cut short is readable up to its last whole object.
func TestCut(t *testing.T) {
	b, entries := write(t, some())
	for n := range len(b) {
		found, faults := scan(t, b[:n])
		if len(faults) == 0 || !slices.Equal(found, without(entries, n, len(b))) {
			t.Fatalf("cut to %d bytes: %d objects, %v", n, len(found), faults)
		}
		// One that gets shorter after its length was asked for.
		found, faults = account(t, bytes.NewReader(b[:n]), int64(len(b)))
		if len(faults) == 0 || !slices.Equal(found, without(entries, n, len(b))) {
			t.Fatalf("cut to %d bytes later: %d objects, %v", n, len(found), faults)
		}
	}
}

// TestWiped: whatever part is overwritten, all objects outside of it are found.
func TestWiped(t *testing.T) {
	whole, entries := write(t, some())
	for from := range whole {
		for to := from + 1; to <= len(whole); to += 13 {
			b := slices.Clone(whole)
			for i := from; i < to; i++ {
				b[i] ^= 0xff
			}
			if found, faults := scan(t, b); len(faults) == 0 || !slices.Equal(found, without(entries, from, to)) {
				t.Fatalf("%d to %d: %d objects, %v", from, to, len(found), faults)
			}
		}
	}
}

// TestMissingPart: where bytes are gone or too many, objects are in another
// place than the table says. They are found by their headers then.
func TestMissingPart(t *testing.T) {
	whole, entries := write(t, some())
	for i := HeaderSize; i < int(entries[3].Off); i++ {
		for what, b := range map[string][]byte{
			"missing": slices.Concat(whole[:i], whole[i+1:]),
			"added":   slices.Concat(whole[:i], []byte{0xaa}, whole[i:]),
		} {
			found, faults := scan(t, b)
			if len(faults) == 0 || len(found) < len(entries)-1 || found[len(found)-1].Key != entries[3].Key {
				t.Fatalf("a byte is %s at %d: %d objects, %v", what, i, len(found), faults)
			}
		}
	}
}

// TestPackInPack: chunks of a disk that holds a store have objects in them. They
// are none of this pack, whatever is damaged.
func TestPackInPack(t *testing.T) {
	inner, _ := write(t, some())
	objects := []object.Object{some()[1], {Key: object.Key{Kind: object.Chunk, Name: object.NameOf(inner)}, RawLen: len(inner), Data: inner},
		some()[3]}
	whole, entries := write(t, objects)
	for _, end := range []int{len(whole), len(whole) - 1} { // with and without a table
		for i := int(entries[1].Off) + ObjectHeaderSize; i < int(entries[1].End()); i++ {
			b := slices.Clone(whole[:end])
			b[i] ^= 1
			if found, _ := scan(t, b); !slices.Equal(found, without(entries, i, i+1)) {
				t.Fatalf("byte %d of %d: %v", i, end, found)
			}
		}
	}
}

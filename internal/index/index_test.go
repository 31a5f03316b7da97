package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

func key(n uint64, kind object.Kind) object.Key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return object.Key{Kind: kind, Name: object.NameOf(b[:])}
}

// model is an index that is right for sure.
type model map[object.Key]Item

func (m model) update(k object.Key, change func(*Item)) {
	if it, ok := m[k]; ok {
		change(&it)
		m[k] = it
	}
}

// TestModel holds an index to a map.
func TestModel(t *testing.T) {
	keys := rapid.Custom(func(t *rapid.T) object.Key {
		k := key(uint64(rapid.IntRange(0, 30).Draw(t, "n")), object.Kind(rapid.IntRange(1, 3).Draw(t, "kind")))
		same := rapid.SampledFrom([]int{0, 2, 8, 13}).Draw(t, "same") // so that shards are full, and names close
		copy(k.Name[:same], bytes.Repeat([]byte{7}, same))
		return k
	})
	locs := rapid.Custom(func(t *rapid.T) Loc {
		return Loc{rapid.Uint32Range(0, 3).Draw(t, "pack"), rapid.Uint32Range(0, MaxOff-1).Draw(t, "off"),
			lenUnit * rapid.IntRange(0, maxUnits).Draw(t, "len")}
	})
	flags := rapid.SampledFrom([]Flag{Touched, Live})
	rapid.Check(t, func(t *rapid.T) {
		x, m := &Index{}, model{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k, l := keys.Draw(t, "key"), locs.Draw(t, "loc")
				if err := x.Add(k, l); err != nil {
					t.Fatal(err)
				}
				m[k] = Item{[16]byte(k.Name[:16]), k.Kind, l, m[k].Flags}
			},
			"remove": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				it, ok := m[k]
				if x.Remove(k, it.Loc.Pack, it.Loc.Off^1) || x.Remove(k, it.Loc.Pack^1, it.Loc.Off) {
					t.Fatal("removed from another place")
				}
				if x.Remove(k, it.Loc.Pack, it.Loc.Off) != ok {
					t.Fatal("remove")
				}
				delete(m, k)
			},
			"mark": func(t *rapid.T) {
				k, f := keys.Draw(t, "key"), flags.Draw(t, "flag")
				if it, ok := m[k]; x.Mark(k, f) != (ok && it.Flags&f == 0) {
					t.Fatal("mark")
				}
				m.update(k, func(it *Item) { it.Flags |= f })
			},
			"clear": func(t *rapid.T) {
				f := flags.Draw(t, "flag")
				x.ClearAll(f)
				for k := range m {
					m.update(k, func(it *Item) { it.Flags &^= f })
				}
			},
			"remove a pack": func(t *rapid.T) {
				n := rapid.Uint32Range(0, 3).Draw(t, "pack")
				x.RemoveFunc(func(it Item) bool { return it.Loc.Pack == n })
				for k, it := range m {
					if it.Loc.Pack == n {
						delete(m, k)
					}
				}
			},
			"snapshot": func(t *rapid.T) {
				var b bytes.Buffer
				if err := x.WriteTo(&b, [16]byte{9}, []Pack{{Number: 0}, {Number: 1}, {Number: 2}, {Number: 3}}); err != nil {
					t.Fatal(err)
				}
				var err error
				if x, _, err = Read(&b, [16]byte{9}); err != nil {
					t.Fatal(err)
				}
				for k := range m {
					m.update(k, func(it *Item) { it.Flags = 0 })
				}
			},
			"": func(t *rapid.T) { m.check(t, x) },
		})
	})
}

func (m model) check(t *rapid.T, x *Index) {
	all := slices.Collect(x.All)
	if x.Len() != len(m) || len(all) != len(m) || !sorted(all) {
		t.Fatalf("%d objects, %d in All, not %d; sorted: %v", x.Len(), len(all), len(m), sorted(all))
	}
	for k, it := range m {
		if l, ok := x.Get(k); !ok || l != it.Loc || x.Flags(k) != it.Flags || !slices.Contains(all, it) {
			t.Fatalf("%v is %v %v, not %+v", k, l, ok, it)
		}
	}
}

func sorted(all []Item) bool {
	return slices.IsSortedFunc(all, func(a, b Item) int {
		return cmp.Or(bytes.Compare(a.Prefix[:], b.Prefix[:]), cmp.Compare(a.Kind, b.Kind))
	})
}

// TestAddKeepsFlags: an object that is moved keeps its marks.
func TestAddKeepsFlags(t *testing.T) {
	k := key(1, object.Chunk)
	for i, f := range []Flag{0, Touched, Live, Touched | Live} {
		x := &Index{}
		if err := x.Add(k, Loc{Pack: 1, Off: 0, Len: lenUnit}); err != nil {
			t.Fatal(err)
		}
		for _, one := range []Flag{Touched, Live} {
			if f&one != 0 {
				x.Mark(k, one)
			}
		}
		if err := x.Add(k, Loc{Pack: 2, Off: uint32(i), Len: lenUnit}); err != nil {
			t.Fatal(err)
		}
		if got := x.Flags(k); got != f {
			t.Errorf("flags %d became %d", f, got)
		}
	}
}

// TestManyNames: names are found however they are spread.
func TestManyNames(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for what, shape := range map[string]func(name []byte){
		"evenly":          func(name []byte) {},
		"one shard":       func(name []byte) { name[0], name[1] = 0xab, 0xcd },
		"all low":         func(name []byte) { clear(name[:6]) },
		"all high":        func(name []byte) { copy(name, "\xff\xff\xff\xff\xff\xff") },
		"two heaps":       func(name []byte) { copy(name[:6], bytes.Repeat([]byte{-(name[0] & 1)}, 6)) },
		"one byte of 16":  func(name []byte) { clear(name[:15]); clear(name[16:]) },
		"powers of a two": func(name []byte) { n := name[0] % 64; clear(name[:8]); name[n/8] = 1 << (n % 8) },
	} {
		x, want := &Index{}, map[object.Name]Loc{}
		for i := range uint32(20_000) {
			k := object.Key{Kind: object.Chunk}
			binary.LittleEndian.PutUint64(k.Name[:], r.Uint64())
			binary.LittleEndian.PutUint64(k.Name[8:], r.Uint64())
			shape(k.Name[:16])
			l := Loc{i, i, lenUnit}
			if err := x.Add(k, l); err != nil {
				t.Fatal(err)
			}
			want[k.Name] = l
		}
		all := slices.Collect(x.All)
		if x.Len() != len(want) || len(all) != len(want) || !sorted(all) {
			t.Errorf("%s: %d objects, %d in All, not %d; sorted: %v", what, x.Len(), len(all), len(want), sorted(all))
		}
		for name, l := range want {
			if got, ok := x.Get(object.Key{Kind: object.Chunk, Name: name}); !ok || got != l {
				t.Fatalf("%s: %v is at %v, not at %v", what, name, got, l)
			}
			if _, ok := x.Get(object.Key{Kind: object.Page, Name: name}); ok {
				t.Fatalf("%s: %v is there as another kind", what, name)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	x := &Index{}
	for _, l := range []Loc{{Pack: MaxPack + 1}, {Off: MaxOff}} {
		if x.Add(key(1, object.Chunk), l) == nil {
			t.Errorf("%+v is taken", l)
		}
	}
	for _, kind := range []object.Kind{0, 4} {
		if x.Add(key(1, kind), Loc{}) == nil {
			t.Errorf("kind %d is taken", kind)
		}
	}
	if x.Len() != 0 {
		t.Errorf("%d objects", x.Len())
	}
}

// TestFits: whatever a pack has, the index can point to, and get any chunk in
// one read.
func TestFits(t *testing.T) {
	if pack.MaxSize > MaxOff {
		t.Errorf("packs are up to %d bytes, offsets up to %d", pack.MaxSize, MaxOff)
	}
	x, k, most := &Index{}, key(1, object.Chunk), object.MaxChunk+pack.ObjectHeaderSize
	for _, n := range []int{1, lenUnit, lenUnit + 1, most} {
		if err := x.Add(k, Loc{MaxPack, MaxOff - 1, n}); err != nil {
			t.Fatal(err)
		}
		if l, _ := x.Get(k); l.Len < n || l.Len >= n+lenUnit || l.Pack != MaxPack || l.Off != MaxOff-1 {
			t.Errorf("%d bytes are %+v", n, l)
		}
	}
}

func TestSlots(t *testing.T) {
	x := &Index{}
	if _, ok := x.Slots().Of(key(1, object.Chunk)); ok {
		t.Error("an empty index has an object")
	}
	for i := range uint64(3000) {
		if err := x.Add(key(i, object.Chunk), Loc{Pack: 1, Off: uint32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	slots, want := x.Slots(), 0
	for it := range x.All {
		if n, ok := slots.Of(key(uint64(it.Loc.Off), object.Chunk)); !ok || n != want {
			t.Fatalf("object %d has the number %d", want, n)
		}
		want++
	}
	if _, ok := slots.Of(key(4000, object.Chunk)); ok {
		t.Error("an object that is not there has a number")
	}
	x.Remove(key(5, object.Chunk), 1, 5)
	if slots.Good() {
		t.Error("the numbers are taken for good when an object is gone")
	}
}

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
			lenUnit * rapid.IntRange(0, maxUnits).Draw(t, "len"), rapid.IntRange(0, maxRaw).Draw(t, "raw")}
	})
	rapid.Check(t, func(t *rapid.T) {
		x, m := &Index{}, model{}
		var beside []*besides
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k, l := keys.Draw(t, "key"), locs.Draw(t, "loc")
				if err := x.Add(k, l); err != nil {
					t.Fatal(err)
				}
				_, had := m[k]
				m[k] = Item{[16]byte(k.Name[:16]), k.Kind, l, m[k].Touched}
				if !had {
					for _, b := range beside {
						b.labelled[k] = b.first
					}
				}
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
				m.remove(k, beside)
			},
			"touch": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				is, ok := m[k]
				if l, there := x.Touch(k); there != ok || l != is.Loc {
					t.Fatal("touch")
				}
				m.update(k, func(it *Item) { it.Touched = true })
			},
			"clear": func(t *rapid.T) {
				x.ClearTouched()
				for k := range m {
					m.update(k, func(it *Item) { it.Touched = false })
				}
			},
			"begin a walk": func(t *rapid.T) {
				if len(beside) < 3 {
					beside = append(beside, newBesides(x, m, int32(len(beside)-1)))
				}
			},
			"end a walk": func(t *rapid.T) {
				if len(beside) > 0 {
					i := rapid.IntRange(0, len(beside)-1).Draw(t, "walk")
					beside[i].close()
					beside = slices.Delete(beside, i, i+1)
				}
			},
			"mark": func(t *rapid.T) {
				if len(beside) == 0 {
					t.Skip()
				}
				k := keys.Draw(t, "key")
				rapid.SampledFrom(beside).Draw(t, "walk").mark(t, m, k, rapid.Int32Range(5, 9).Draw(t, "label"))
			},
			"remove what is marked": func(t *rapid.T) {
				if len(beside) == 0 {
					t.Skip()
				}
				b := rapid.SampledFrom(beside).Draw(t, "walk")
				b.marks.RemoveFunc(func(it Item, marked bool) bool {
					if marked != b.marked[keyOfItem(m, it)] {
						t.Fatal("told a wrong mark")
					}
					return marked
				})
				for k := range m {
					if b.marked[k] {
						m.remove(k, beside)
					}
				}
			},
			"remove a pack": func(t *rapid.T) {
				n := rapid.Uint32Range(0, 3).Draw(t, "pack")
				x.RemoveFunc(func(it Item) bool { return it.Loc.Pack == n })
				for k, it := range m {
					if it.Loc.Pack == n {
						m.remove(k, beside)
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
					m.update(k, func(it *Item) { it.Touched = false })
				}
				beside = nil // of the other one
			},
			"": func(t *rapid.T) {
				m.check(t, x)
				for _, b := range beside {
					b.check(t, m)
				}
			},
		})
	})
}

func (m model) remove(k object.Key, beside []*besides) {
	delete(m, k)
	for _, b := range beside {
		delete(b.marked, k)
		delete(b.labelled, k)
	}
}

func keyOfItem(m model, it Item) object.Key {
	for k := range m {
		if k.Kind == it.Kind && [16]byte(k.Name[:16]) == it.Prefix {
			return k
		}
	}
	return object.Key{}
}

// besides are marks and labels of an index, and what they must be.
type besides struct {
	first    int32
	marks    *Marks
	labels   *Labels
	marked   map[object.Key]bool
	labelled map[object.Key]int32
}

func newBesides(x *Index, m model, first int32) *besides {
	b := &besides{first, x.NewMarks(), x.NewLabels(first), map[object.Key]bool{}, map[object.Key]int32{}}
	for k := range m {
		b.labelled[k] = first
	}
	return b
}

func (b *besides) close() {
	b.marks.Close()
	b.labels.Close()
	b.labels.Close()
}

func (b *besides) mark(t *rapid.T, m model, k object.Key, label int32) {
	_, there := m[k]
	l := b.labels.Of(k)
	if b.marks.Add(k) != there || (l != nil) != there {
		t.Fatal("marked what is not there, or not what is")
	}
	if there {
		*l = label
		b.marked[k], b.labelled[k] = true, label
	}
}

func (b *besides) check(t *rapid.T, m model) {
	marked, n := 0, 0
	for _, is := range b.marks.All {
		if n++; is {
			marked++
		}
	}
	if n != len(m) || marked != len(b.marked) {
		t.Fatalf("of %d objects %d are marked, not of %d %d", n, marked, len(m), len(b.marked))
	}
	for k := range m {
		if l := b.labels.Of(k); b.marks.Has(k) != b.marked[k] || l == nil || *l != b.labelled[k] {
			t.Fatalf("%v: marked %v, label %v, not %v, %d", k, b.marks.Has(k), l, b.marked[k], b.labelled[k])
		}
	}
	for it, l := range b.labels.All {
		if l != b.labelled[keyOfItem(m, it)] {
			t.Fatal("All tells a wrong label")
		}
	}
}

func (m model) check(t *rapid.T, x *Index) {
	all := slices.Collect(x.All)
	if x.Len() != len(m) || len(all) != len(m) || !sorted(all) {
		t.Fatalf("%d objects, %d in All, not %d; sorted: %v", x.Len(), len(all), len(m), sorted(all))
	}
	for k, it := range m {
		if l, ok := x.Get(k); !ok || l != it.Loc || x.Touched(k) != it.Touched || !slices.Contains(all, it) {
			t.Fatalf("%v is %v %v, not %+v", k, l, ok, it)
		}
	}
}

func sorted(all []Item) bool {
	return slices.IsSortedFunc(all, func(a, b Item) int {
		return cmp.Or(bytes.Compare(a.Prefix[:], b.Prefix[:]), cmp.Compare(a.Kind, b.Kind))
	})
}

// TestAddKeepsMarks: an object that is moved keeps its marks.
func TestAddKeepsMarks(t *testing.T) {
	k := key(1, object.Chunk)
	for i, is := range []bool{false, true} {
		x := &Index{}
		if err := x.Add(k, Loc{Pack: 1, Off: 0, Len: lenUnit}); err != nil {
			t.Fatal(err)
		}
		m := x.NewMarks()
		if is {
			x.Touch(k)
			m.Add(k)
		}
		if err := x.Add(k, Loc{Pack: 2, Off: uint32(i), Len: lenUnit}); err != nil {
			t.Fatal(err)
		}
		if x.Touched(k) != is || m.Has(k) != is {
			t.Errorf("%v became %v, %v", is, x.Touched(k), m.Has(k))
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
			l := Loc{i, i, lenUnit, int(i)}
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
		if err := x.Add(k, Loc{MaxPack, MaxOff - 1, n, object.MaxChunk}); err != nil {
			t.Fatal(err)
		}
		if l, _ := x.Get(k); l.Len < n || l.Len >= n+lenUnit || l.Pack != MaxPack || l.Off != MaxOff-1 || l.Raw != object.MaxChunk {
			t.Errorf("%d bytes are %+v", n, l)
		}
	}
	if err := x.Add(key(1, object.Root), Loc{Raw: object.MaxRoot}); err != nil {
		t.Fatal(err)
	}
	if l, _ := x.Get(key(1, object.Root)); l.Raw != maxRaw {
		t.Errorf("the longest root has %d bytes", l.Raw)
	}
}

// TestMarksFollow: marks and labels stay with their objects while an index grows
// to many shards, and shrinks.
func TestMarksFollow(t *testing.T) {
	const n = 20_000
	x := &Index{}
	marks, labels := x.NewMarks(), x.NewLabels(-1)
	for i := range uint64(n) {
		if err := x.Add(key(i, object.Chunk), Loc{Pack: 1, Off: uint32(i)}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 && !marks.Add(key(i, object.Chunk)) {
			t.Fatal("an object is not there")
		}
		if i%5 == 0 {
			*labels.Of(key(i, object.Chunk)) = int32(i)
		}
	}
	check := func() {
		t.Helper()
		count := 0
		for it, is := range marks.All {
			if is != (it.Loc.Off%3 == 0) {
				t.Fatalf("object %d is marked: %v", it.Loc.Off, is)
			}
			count++
		}
		for it, l := range labels.All {
			if want := int32(it.Loc.Off); it.Loc.Off%5 == 0 && l != want || it.Loc.Off%5 != 0 && l != -1 {
				t.Fatalf("object %d has the label %d", it.Loc.Off, l)
			}
		}
		if count != x.Len() {
			t.Fatalf("%d objects of %d", count, x.Len())
		}
	}
	check()
	x.RemoveFunc(func(it Item) bool { return it.Loc.Off%7 == 0 })
	check()
	for i := uint64(0); i < n; i += 11 {
		x.Remove(key(i, object.Chunk), 1, uint32(i))
	}
	check()
	marks.RemoveFunc(func(it Item, is bool) bool {
		if is != (it.Loc.Off%3 == 0) {
			t.Fatalf("object %d is told to be marked: %v", it.Loc.Off, is)
		}
		return it.Loc.Off%2 == 0
	})
	check()
	marks.Close()
	labels.Close()
	if len(x.sides) > 0 {
		t.Error("the index keeps what was closed")
	}
}

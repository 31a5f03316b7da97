package index

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"testing"

	"testbox-imaging/internal/object"
)

// many is the number of objects of a large site: a box more or less.
const many = 20_000_000

// nth is an object of a large index. Its name is as good as random.
func nth(i uint64) object.Key {
	k := object.Key{Kind: object.Chunk}
	for n := range uint64(2) { // splitmix64
		z := (2*i + n + 1) * 0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(k.Name[8*n:], z^z>>31)
	}
	return k
}

func nthLoc(i uint64) Loc { return Loc{uint32(i / 400), uint32(i%400) * 100_000, 100_000, 200_000} }

// large makes an index of n objects, faster than Add does.
func large(n uint64) (*Index, []Pack) {
	x := &Index{n: int(n)}
	x.fit(x.n)
	for i := range n {
		e := newEntry(nth(i), nthLoc(i))
		s := x.shard(&e)
		*s = append(*s, e)
	}
	for i, s := range x.shards {
		slices.SortFunc(s, func(a, b entry) int { return a.compare(&b) })
		x.shards[i] = slices.Clone(s)
	}
	packs := make([]Pack, n/400+1)
	for i := range packs {
		packs[i].Number = uint32(i)
	}
	return x, packs
}

func largeSnapshot(t testing.TB, n uint64) (b []byte, packs int) {
	x, list := large(n)
	return snapshot(t, x, list), len(list)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSize: an index of 20 million objects has room in 600 MB, loaded or grown,
// and loading needs little more. Here with a tenth of them.
func TestSize(t *testing.T) {
	const n = many / 10
	const limit = 600_000_000/10 + 5_000_000 // buffers, and what an empty index takes
	b, packs := largeSnapshot(t, n)
	if want := n*entrySize + packs*packSize; len(b) > want+want/1000+100 {
		t.Errorf("the snapshot has %d bytes", len(b))
	}
	before := heap()
	x, _, err := Read(bytes.NewReader(b), owner)
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if peak := int64(m.HeapAlloc) - before; peak > limit {
		t.Errorf("reading %d objects takes %d bytes", n, peak)
	}
	for i := uint64(0); i < n; i += 1009 {
		if l, ok := x.Get(nth(i)); !ok || l.Pack != nthLoc(i).Pack || l.Off != nthLoc(i).Off {
			t.Fatalf("object %d is at %v", i, l)
		}
		if _, ok := x.Get(nth(n + i)); ok {
			t.Fatalf("object %d is there", n+i)
		}
	}
	for i := uint64(n); i < n+n/8; i++ { // so that all shards grow
		if err := x.Add(nth(i), nthLoc(i)); err != nil {
			t.Fatal(err)
		}
	}
	if size := heap() - before; size > limit*9/8 {
		t.Errorf("%d objects take %d bytes", x.Len(), size)
	}
}

func BenchmarkGet(b *testing.B) {
	x, _ := large(many)
	for i := uint64(0); b.Loop(); i += 7919 {
		if _, ok := x.Get(nth(i % many)); !ok {
			b.Fatal("not there")
		}
	}
}

func BenchmarkMissing(b *testing.B) {
	x, _ := large(many)
	for i := uint64(many); b.Loop(); i++ {
		if _, ok := x.Get(nth(i)); ok {
			b.Fatal("there")
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	x, _ := large(many)
	for i := uint64(many); b.Loop(); i++ {
		if err := x.Add(nth(i), Loc{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteTo(b *testing.B) {
	x, packs := large(many)
	for b.Loop() {
		if err := x.WriteTo(io.Discard, owner, packs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	snap, _ := largeSnapshot(b, many)
	for b.Loop() {
		if _, _, err := Read(bytes.NewReader(snap), owner); err != nil {
			b.Fatal(err)
		}
	}
}

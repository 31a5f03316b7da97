package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

var owner = [16]byte{1, 2, 3}

func small(t testing.TB) (*Index, []Pack) {
	x, packs := &Index{}, []Pack{}
	for i := range uint32(20) {
		packs = append(packs, Pack{i, 500 << i, 3 * i, i%2 == 0})
		if err := x.Add(key(uint64(i), object.Chunk), Loc{i, i * 100, 5000, 9000 + int(i)}); err != nil {
			t.Fatal(err)
		}
	}
	return x, packs
}

func snapshot(t testing.TB, x *Index, packs []Pack) []byte {
	var b bytes.Buffer
	if err := x.WriteTo(&b, owner, packs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func smallSnapshot(t testing.TB) []byte {
	x, packs := small(t)
	return snapshot(t, x, packs)
}

func TestSnapshot(t *testing.T) {
	x, packs := small(t)
	for _, tt := range []struct {
		x     *Index
		packs []Pack
	}{{x, packs}, {&Index{}, nil}, {&Index{}, packs}} {
		b := snapshot(t, tt.x, tt.packs)
		y, got, err := Read(iotest.OneByteReader(bytes.NewReader(b)), owner)
		if err != nil || !slices.Equal(got, tt.packs) || !slices.Equal(slices.Collect(y.All), slices.Collect(tt.x.All)) || y.Len() != tt.x.Len() {
			t.Errorf("%d objects, %v, %v", y.Len(), got, err)
		}
		if err := Verify(bytes.NewReader(b), owner); err != nil {
			t.Error(err)
		}
		if _, _, err := Read(bytes.NewReader(b), [16]byte{77}); err == nil {
			t.Error("an index is read that belongs to another store")
		}
	}
}

// TestSnapshotDamage: no flipped bit and no cut is taken.
func TestSnapshotDamage(t *testing.T) {
	b := smallSnapshot(t)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if Verify(bytes.NewReader(b), owner) == nil {
				t.Fatalf("bit %d of byte %d is flipped: taken", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if Verify(bytes.NewReader(b[:n]), owner) == nil {
			t.Fatalf("cut to %d bytes: taken", n)
		}
	}
	if Verify(bytes.NewReader(append(b, 0)), owner) == nil {
		t.Error("something after the end is taken")
	}
	if _, _, err := Read(bytes.NewReader(b), [16]byte{2}); err == nil {
		t.Error("the index of another store is taken")
	}
}

// TestSnapshotHostile has sums that are right, over what WriteTo never writes.
func TestSnapshotHostile(t *testing.T) {
	const atPacks, nPacks, nEntries = headSize + 8, 20, 20
	atEntries := atPacks + nPacks*packSize + 8
	for what, change := range map[string]func(b []byte){
		"another version":          func(b []byte) { b[8]++ },
		"no packs":                 func(b []byte) { clear(b[12:16]) },
		"many packs":               func(b []byte) { b[15] = 0xff },
		"an object more":           func(b []byte) { b[16]++ },
		"an object less":           func(b []byte) { b[16]-- },
		"more than memory":         func(b []byte) { copy(b[16:24], "\xff\xff\xff\xff\xff\xff\xff\xff") },
		"a pack twice":             func(b []byte) { copy(b[atPacks+packSize:], b[atPacks:][:packSize]) },
		"a pack that cannot be":    func(b []byte) { b[atPacks+(nPacks-1)*packSize+3] = 1 },
		"a negative size":          func(b []byte) { b[atPacks+15] = 0x80 },
		"more in a pack":           func(b []byte) { b[atPacks+20] = 1 },
		"an object twice":          func(b []byte) { copy(b[atEntries+entrySize:], b[atEntries:][:entrySize]) },
		"no order":                 func(b []byte) { clear(b[atEntries+entrySize:][:16]) },
		"no kind":                  func(b []byte) { b[atEntries+20] &^= 0xc },
		"a mark":                   func(b []byte) { b[atEntries+20] |= 2 },
		"a pack that is not there": func(b []byte) { b[atEntries+16] = nPacks },
	} {
		b := smallSnapshot(t)
		change(b)
		resum(b, atPacks, atEntries, len(b))
		if x, _, err := Read(bytes.NewReader(b), owner); err == nil {
			t.Errorf("%s is taken: %d objects", what, x.Len())
		}
	}
}

// resum makes the sums of the runs of b right again, which end at ends.
func resum(b []byte, ends ...int) {
	from := 0
	for _, end := range ends {
		if end-8 < from || end > len(b) {
			return
		}
		binary.LittleEndian.PutUint64(b[end-8:], xxh3.Hash(b[from:end-8]))
		from = end
	}
}

// TestSnapshotErrors: what can neither be written nor read is an error.
func TestSnapshotErrors(t *testing.T) {
	x, packs := small(t)
	if x.WriteTo(io.Discard, owner, packs[1:]) == nil {
		t.Error("an object of no pack is written")
	}
	swapped := slices.Clone(packs)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	if x.WriteTo(io.Discard, owner, swapped) == nil || x.WriteTo(io.Discard, owner, append(packs, Pack{Number: MaxPack + 1})) == nil {
		t.Error("packs out of order are written")
	}
	b, full := snapshot(t, x, packs), errors.New("full")
	for n := range b {
		if err := x.WriteTo(&limited{n, full}, owner, packs); !errors.Is(err, full) {
			t.Fatalf("room for %d bytes: %v", n, err)
		}
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(full))
		if _, _, err := Read(r, owner); !errors.Is(err, full) {
			t.Fatalf("%d bytes can be read: %v", n, err)
		}
	}
}

// limited is a Writer with room for n bytes.
type limited struct {
	n    int
	full error
}

func (l *limited) Write(b []byte) (int, error) {
	if l.n -= len(b); l.n < 0 {
		return 0, l.full
	}
	return len(b), nil
}

// FuzzRead: what is taken is what would be written.
func FuzzRead(f *testing.F) {
	b := smallSnapshot(f)
	f.Add(b)
	f.Add(b[:80])
	f.Add(snapshot(f, &Index{}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headSize {
			const atPacks = headSize + 8
			resum(b, atPacks, atPacks+int(binary.LittleEndian.Uint16(b[12:]))*packSize+8, len(b))
		}
		x, packs, err := Read(bytes.NewReader(b), owner)
		if err == nil && !bytes.Equal(snapshot(t, x, packs), b) {
			t.Error("what was read is written otherwise")
		}
	})
}

package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

// resum makes the sums of table and trailer right again.
func resum(b []byte, tableOff int) {
	end := len(b) - trailerSize
	sum := blake3.Sum256(b[tableOff:end])
	copy(b[end+16:], sum[:])
	resumPart(b[end:])
}

func resumPart(b []byte) {
	n := len(b) - 8
	binary.LittleEndian.PutUint64(b[n:], xxh3.Hash(b[:n]))
}

// TestHostileTable has sums that are right, over what no writer writes.
func TestHostileTable(t *testing.T) {
	whole, entries := write(t, some())
	off := int(entries[3].End())
	end := len(whole) - trailerSize
	for what, change := range map[string]func(b []byte){
		"an unknown kind":         func(b []byte) { b[off] = 9 },
		"an unknown codec":        func(b []byte) { b[off+1] = 9 },
		"more than is known":      func(b []byte) { b[off+3] = 1 },
		"another place":           func(b []byte) { b[off+4]++ },
		"another length":          func(b []byte) { b[off+8]++ },
		"a length without end":    func(b []byte) { copy(b[off+8:], "\xff\xff\xff\xff") },
		"longer than raw":         func(b []byte) { b[off+12] = 1 },
		"objects over the table":  func(b []byte) { b[off+3*tableEntrySize+8]++ },
		"objects before it":       func(b []byte) { b[off+3*tableEntrySize+8]-- },
		"two that are swapped":    func(b []byte) { swap(b[off:], tableEntrySize) },
		"a count too high":        func(b []byte) { b[end+8]++ },
		"a count without end":     func(b []byte) { copy(b[end+8:], "\xff\xff\xff\xff") },
		"a table before the pack": func(b []byte) { clear(b[end+12 : end+16]) },
		"a table behind the pack": func(b []byte) { copy(b[end+12:], "\xff\xff\xff\xff") },
		"another end":             func(b []byte) { b[end] = 'X' },
		"more in the end":         func(b []byte) { b[end+50] = 1 },
	} {
		b := slices.Clone(whole)
		change(b)
		resum(b, off)
		_, _, err := ReadTable(bytes.NewReader(b), int64(len(b)))
		var f *FaultError
		if !errors.As(err, &f) || f.Off < int64(off) {
			t.Errorf("%s: %v", what, err)
		}
		// What the table says does not hide what is there.
		if found, faults := scan(t, b); !slices.Equal(found, entries) || len(faults) == 0 {
			t.Errorf("%s: scan finds %d objects, %v", what, len(found), faults)
		}
	}
}

func swap(b []byte, n int) {
	first := slices.Clone(b[:n])
	copy(b, b[n:2*n])
	copy(b[n:], first)
}

// TestLyingTable: a table that is right by itself, but not what is in the pack.
func TestLyingTable(t *testing.T) {
	b, entries := write(t, some())
	b[entries[3].End()+tableEntrySize+20] ^= 1 // in a name
	resum(b, int(entries[3].End()))
	found, faults := scan(t, b)
	if !slices.Equal(found, slices.Delete(slices.Clone(entries), 1, 2)) || len(faults) != 1 || faults[0].Off != int64(entries[1].Off) {
		t.Errorf("scan finds %v, %v", found, faults)
	}
}

func TestHostileHeader(t *testing.T) {
	b, _ := write(t, nil)
	for what, change := range map[string]func(b []byte){
		"another magic":      func(b []byte) { b[7] = '2' },
		"more than is known": func(b []byte) { b[12] = 1 },
	} {
		b := slices.Clone(b)
		change(b)
		resumPart(b[:HeaderSize])
		if _, _, err := ReadTable(bytes.NewReader(b), int64(len(b))); !errors.Is(err, object.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if _, faults := scan(t, b); len(faults) != 1 || faults[0].Len != HeaderSize {
			t.Errorf("%s: %v", what, faults)
		}
	}
}

// TestHostileObject: a header with a right sum of what cannot be. It must not
// make the reader ask for memory that it names.
func TestHostileObject(t *testing.T) {
	o := objectOf(object.Chunk, []byte("some bytes"))
	good := Entry{Key: o.Key, Codec: o.Codec, Stored: 10, Raw: 10}
	tests := map[string]func(e *Entry){
		"kind":                func(e *Entry) { e.Kind = 0 },
		"codec":               func(e *Entry) { e.Codec = 7 },
		"longer than a chunk": func(e *Entry) { e.Raw, e.Stored = object.MaxChunk+1, object.MaxChunk+1 },
		"very long":           func(e *Entry) { e.Raw, e.Stored = 1<<32-1, 1<<32-1 },
		"longer than raw":     func(e *Entry) { e.Stored++ },
		"empty":               func(e *Entry) { e.Raw, e.Stored = 0, 0 },
		"cut off":             func(e *Entry) { e.Raw, e.Stored = object.MaxChunk, object.MaxChunk },
	}
	for what, change := range tests {
		e := good
		change(&e)
		b := append(e.appendHeader(nil, xxh3.Hash(o.Data)), o.Data...)
		if _, err := ReadObject(bytes.NewReader(b), 0, 0, nil); !errors.Is(err, object.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	b := append(good.appendHeader(nil, xxh3.Hash(o.Data)), o.Data...)
	if got, err := ReadObject(bytes.NewReader(b), 0, 0, nil); err != nil || !same(got, o) {
		t.Errorf("the good one: %v", err)
	}
	for n := range b {
		if _, err := ReadObject(bytes.NewReader(b[:n]), 0, len(b), nil); !errors.Is(err, object.ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// TestTooLong: nothing is read or allocated of what cannot be a pack.
func TestTooLong(t *testing.T) {
	if _, _, err := ReadTable(bytes.NewReader(make([]byte, 100)), 1<<50); !errors.Is(err, object.ErrDamaged) {
		t.Error(err)
	}
	if _, faults := account(t, bytes.NewReader(nil), MaxSize+1); len(faults) != 1 || faults[0].Len != MaxSize+1 {
		t.Error(faults)
	}
}

// seeds are packs, whole and not.
func seeds(f *testing.F, add func(b []byte)) {
	b, entries := write(f, some())
	add(b)
	add(b[:len(b)-trailerSize])
	add(b[:100])
	add(b[entries[1].Off:])
	add([]byte(objectMagic))
}

func FuzzReadTable(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if end := len(b) - trailerSize; end >= HeaderSize {
			resumPart(b[:HeaderSize])
			if off := binary.LittleEndian.Uint32(b[end+12:]); int64(off) <= int64(end) {
				resum(b, int(off))
			}
		}
		_, entries, err := ReadTable(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, object.ErrDamaged) {
				t.Error(err)
			}
			return
		}
		at := int64(HeaderSize)
		for _, e := range entries {
			if int64(e.Off) != at || e.End() > int64(len(b)) {
				t.Fatalf("%+v is at %d", e, at)
			}
			at = e.End()
		}
	})
}

func FuzzReadObject(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b, int64(HeaderSize), 100) })
	f.Fuzz(func(t *testing.T, b []byte, off int64, hint int) {
		if off < 0 {
			return // bytes.Reader's own error
		}
		if off+ObjectHeaderSize <= int64(len(b)) && off+ObjectHeaderSize > 0 {
			resumPart(b[off:][:ObjectHeaderSize])
		}
		o, err := ReadObject(bytes.NewReader(b), off, hint%(1<<20), nil)
		if err == nil && o.Check() != nil || err != nil && !errors.Is(err, object.ErrDamaged) {
			t.Errorf("%v, %v", o.Key, err)
		}
	})
}

// FuzzScan: every byte is accounted for, and what is found can be read.
func FuzzScan(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _ := scan(t, b)
		for _, e := range found {
			if o, err := ReadObject(bytes.NewReader(b), int64(e.Off), 0, nil); err != nil || o.Key != e.Key {
				t.Errorf("%+v: %v", e, err)
			}
		}
	})
}

// TestParseObject: bytes that were read already give the same object, or damage, however
// few they are.
func TestParseObject(t *testing.T) {
	b, entries := write(t, some())
	for i, e := range entries {
		o, err := ParseObject(b[e.Off:], int64(e.Off))
		if err != nil || !same(o, some()[i]) {
			t.Errorf("object %d: %v", i, err)
		}
		for n := range int(e.End()) - int(e.Off) {
			if _, err := ParseObject(b[e.Off:int(e.Off)+n], int64(e.Off)); !errors.Is(err, object.ErrDamaged) {
				t.Fatalf("%d bytes of object %d: %v", n, i, err)
			}
		}
		b[e.End()-1] ^= 1
		if _, err := ParseObject(b[e.Off:], int64(e.Off)); !errors.Is(err, object.ErrDamaged) {
			t.Errorf("object %d is damaged: %v", i, err)
		}
		b[e.End()-1] ^= 1
	}
}

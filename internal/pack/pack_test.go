package pack

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"testbox-imaging/internal/object"
)

// sink is a Sink in memory that fails where it is told to.
type sink struct {
	bytes.Buffer
	room      int // bytes that it takes; 0: all
	short     bool
	commitErr error
	committed bool
	aborted   bool
}

var errFull = errors.New("full")

func (s *sink) Write(b []byte) (int, error) {
	if s.room == 0 || s.Len()+len(b) <= s.room {
		return s.Buffer.Write(b)
	}
	n, _ := s.Buffer.Write(b[:s.room-s.Len()])
	if s.short {
		return n, nil
	}
	return n, errFull
}

func (s *sink) Commit() error {
	if s.commitErr == nil {
		s.committed = true
	}
	return s.commitErr
}

func (s *sink) Abort() { s.aborted = true }

func objectOf(kind object.Kind, raw []byte) object.Object {
	return object.Encode(object.Key{Kind: kind, Name: object.NameOf(raw)}, raw, nil)
}

func some() []object.Object {
	return []object.Object{
		objectOf(object.Chunk, bytes.Repeat([]byte("abc"), 50)),
		objectOf(object.Page, []byte("raw")),
		objectOf(object.Chunk, []byte("TBXO in it TBXO")),
		objectOf(object.Root, bytes.Repeat([]byte("r"), 100)),
	}
}

var header = Header{7, [16]byte{1, 2, 3}}

func write(t testing.TB, objects []object.Object) ([]byte, []Entry) {
	t.Helper()
	s := &sink{}
	entries, err := writeTo(s, objects)
	if err != nil || !s.committed {
		t.Fatalf("committed: %v, %v", s.committed, err)
	}
	return s.Bytes(), entries
}

func writeTo(s *sink, objects []object.Object) (entries []Entry, err error) {
	w, err := NewWriter(s, header)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		e, err := w.Append(o)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, w.Seal()
}

func TestRoundTrip(t *testing.T) {
	large := []object.Object{objectOf(object.Root, noise(object.MaxRoot)), objectOf(object.Chunk, noise(object.MaxChunk))}
	for _, objects := range [][]object.Object{nil, some()[:1], some(), large, append(some(), large...)} {
		b, want := write(t, objects)
		h, got, err := ReadTable(bytes.NewReader(b), int64(len(b)))
		if err != nil || !slices.Equal(got, want) || h != header {
			t.Fatalf("%d objects: %+v %v %v", len(objects), h, got, err)
		}
		for i, e := range want {
			for _, hint := range []int{-1, 0, ObjectHeaderSize + int(e.Stored), 1 << 20, 1 << 40} {
				o, err := ReadObject(bytes.NewReader(b), int64(e.Off), hint, nil)
				if err != nil || !same(o, objects[i]) {
					t.Fatalf("hint %d: %v %v", hint, o.Key, err)
				}
			}
		}
		if found, faults := scan(t, b); !slices.Equal(found, want) || len(faults) > 0 {
			t.Errorf("scan finds %v, faults %v", found, faults)
		}
	}
}

func same(a, b object.Object) bool {
	return a.Key == b.Key && a.Codec == b.Codec && a.RawLen == b.RawLen && bytes.Equal(a.Data, b.Data)
}

// TestLongTable: one that is not read together with the trailer.
func TestLongTable(t *testing.T) {
	var objects []object.Object
	for range tailSize / tableEntrySize {
		objects = append(objects, some()[1])
	}
	for n := len(objects) - 3; n <= len(objects); n++ {
		b, want := write(t, objects[:n])
		if _, got, err := ReadTable(bytes.NewReader(b), int64(len(b))); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d objects: %d, %v", n, len(got), err)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	s := &sink{}
	w, err := NewWriter(s, header)
	if err != nil {
		t.Fatal(err)
	}
	o := some()[0]
	bad := []object.Object{{}, o, o, o}
	bad[1].RawLen = 2 << 20
	bad[2].Kind = 4
	bad[3].Data = append(bad[3].Data, make([]byte, 1000)...)
	for _, o := range bad {
		if _, err := w.Append(o); err == nil {
			t.Errorf("%v of %d bytes is taken", o.Key, o.RawLen)
		}
	}
	if _, err := w.Append(o); err != nil || w.Len() != 1 {
		t.Fatalf("after a refusal: %v", err)
	}
	if err := w.Seal(); err != nil || int64(s.Len()) != w.Size() {
		t.Fatalf("%d bytes, not %d: %v", s.Len(), w.Size(), err)
	}
	if _, err := w.Append(o); err == nil || w.Seal() == nil {
		t.Error("a sealed pack goes on")
	}
	if found, faults := scan(t, s.Bytes()); len(found) != 1 || len(faults) > 0 {
		t.Errorf("%v, %v", found, faults)
	}
}

// TestFullPack: no pack is longer than MaxSize.
func TestFullPack(t *testing.T) {
	s := &counter{}
	w, _ := NewWriter(s, header)
	root := objectOf(object.Root, noise(object.MaxRoot))
	for w.Len() < MaxSize/object.MaxRoot-1 {
		if _, err := w.Append(root); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Append(root); err == nil {
		t.Error("one more fits")
	}
	room := MaxSize - int(w.Size()) - (w.Len()+1)*tableEntrySize - trailerSize - ObjectHeaderSize
	o := object.Object{Key: root.Key, RawLen: room + 1, Data: root.Data[:room+1]}
	if _, err := w.Append(o); err == nil {
		t.Error("one byte more fits")
	}
	o.RawLen, o.Data = room, o.Data[:room]
	if _, err := w.Append(o); err != nil {
		t.Error(err)
	}
	if err := w.Seal(); err != nil || w.Size() != MaxSize || s.n != MaxSize {
		t.Errorf("sealed with %d bytes, %v", w.Size(), err)
	}
}

// counter is a Sink that only counts.
type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }
func (c *counter) Commit() error               { return nil }
func (c *counter) Abort()                      {}

// TestSinkFails at every byte: nothing is committed then, and the writer is
// dead.
func TestSinkFails(t *testing.T) {
	b, _ := write(t, some())
	for room := 1; room < len(b); room++ {
		for _, short := range []bool{false, true} {
			s := &sink{room: room, short: short}
			want := errFull
			if short {
				want = io.ErrShortWrite
			}
			if _, err := writeTo(s, some()); !errors.Is(err, want) || s.committed {
				t.Fatalf("room for %d bytes: committed: %v, %v", room, s.committed, err)
			}
		}
	}
	s := &sink{room: 200}
	w, _ := NewWriter(s, header)
	w.Append(some()[0])
	w.Append(objectOf(object.Chunk, noise(writeTogether)))
	s.room = 0 // there is room again, but a part is missing
	if _, err := w.Append(some()[1]); !errors.Is(err, errFull) || !errors.Is(w.Seal(), errFull) || s.committed {
		t.Error("a writer goes on after an error")
	}
	if s := (&sink{commitErr: errFull}); !errors.Is(second(writeTo(s, some())), errFull) {
		t.Error("an error of Commit is lost")
	}
}

func second[T any](_ T, err error) error { return err }

func TestAbort(t *testing.T) {
	s := &sink{}
	w, _ := NewWriter(s, header)
	w.Abort()
	if _, err := w.Append(some()[0]); err == nil || w.Seal() == nil || s.committed || !s.aborted {
		t.Error("a pack that was given up goes on")
	}
}

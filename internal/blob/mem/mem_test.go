package mem_test

import (
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/conform"
)

func TestMem(t *testing.T) {
	conform.Blobs(t, func(*testing.T) blob.Store { return new(mem.Store) })
}

func TestClone(t *testing.T) {
	var s mem.Store
	put := func(s *mem.Store, text string) {
		if err := blob.WriteAll(t.Context(), s, "a", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	put(&s, "one")
	other := s.Clone()
	put(&s, "two")
	for s, want := range map[*mem.Store]string{&s: "two", other: "one"} {
		if b, err := blob.ReadAll(t.Context(), s, "a", 10); err != nil || string(b) != want {
			t.Errorf("a store has %q, %v; want %q", b, err, want)
		}
	}
}

package store

import (
	"context"
	"errors"
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// records gives all backups of a store.
func records(t testing.TB, s *Store) []*image.Record {
	t.Helper()
	all, damaged, err := s.Records(context.Background())
	must(t, err)
	if len(damaged) > 0 {
		t.Fatal(damaged[0])
	}
	return all
}

// copyAll copies all backups and says how far it came.
func copyAll(t testing.TB, src, dst *Store) (last CopyProgress, err error) {
	t.Helper()
	err = src.Copy(t.Context(), dst, records(t, src), nil, func(p CopyProgress) { last = p })
	return last, err
}

func TestCopy(t *testing.T) {
	src, dst := newStore(t, &mem.Store{}), newStore(t, &mem.Store{})
	d, e := newDisk(seeds(1, 40), seeds(100, 10)), newDisk(seeds(1, 60))
	a := mustBackup(t, src, "10.0.0.1", day(1), d, e)
	b := mustBackup(t, src, "10.0.0.1", day(2), e)
	c := mustBackup(t, src, "10.0.0.2", day(2), d)
	must(t, src.SetPinned(t.Context(), b.Box, b.ID, true))
	must(t, src.SetBaseline(t.Context(), b.Box, b.ID, true))
	must(t, src.SetNote(t.Context(), c.Box, c.ID, "before the new firmware"))
	p, err := copyAll(t, src, dst)
	must(t, err)
	if p.Done != 3 || p.Present != 0 || p.Objects == 0 {
		t.Errorf("copied %+v", p)
	}
	for i, r := range records(t, dst) {
		if want := records(t, src)[i]; string(r.Marshal()) != string(want.Marshal()) {
			t.Errorf("record is\n%s, want\n%s", r.Marshal(), want.Marshal())
		}
	}
	mustRestore(t, dst, a, d, e)
	mustRestore(t, dst, b, e)
	mustRestore(t, dst, c, d)
	if p, err = copyAll(t, src, dst); err != nil || p.Done != 3 || p.Present != 3 || p.Objects != 0 {
		t.Errorf("copied again: %+v, %v", p, err)
	}
	must(t, src.SetBaseline(t.Context(), a.Box, a.ID, true))
	if _, err = copyAll(t, src, dst); err != nil || !records(t, dst)[1].Baseline {
		t.Errorf("a copy does not keep its own marks: %v", err)
	}
}

// TestCopyResumes ends a copy in the middle.
func TestCopyResumes(t *testing.T) {
	src, dst := newStore(t, &mem.Store{}), newStore(t, &mem.Store{})
	d := newDisk(seeds(1, 40), seeds(100, 40), seeds(200, 40))
	r := mustBackup(t, src, "10.0.0.1", day(1), d)
	ctx, cancel := context.WithCancel(t.Context())
	var half, rest CopyProgress
	err := src.Copy(ctx, dst, records(t, src), nil, func(p CopyProgress) {
		if half = p; p.Objects > 60 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || half.Objects < 60 || len(records(t, dst)) > 0 {
		t.Fatalf("%+v, %v", half, err)
	}
	if !strings.Contains(err.Error(), "1 backup is not copied yet; run the copy again") || strings.Contains(err.Error(), "of 10.0.0.1") {
		t.Errorf("an end on demand is told like damage: %v", err)
	}
	rest, err = copyAll(t, src, dst)
	must(t, err)
	if total := 120 + 3 + 1; half.Objects+rest.Objects > total+copyAtOnce {
		t.Errorf("%d and %d objects were sent, of %d", half.Objects, rest.Objects, total)
	}
	mustRestore(t, dst, r, d)
}

// TestCopyOfDamage: what cannot be copied is said, and the rest is copied.
func TestCopyOfDamage(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	src, dst := openStore(t, Config{Blobs: blobs}), newStore(t, &mem.Store{})
	d, e := newDisk(seeds(1, 10)), newDisk(seeds(100, 10))
	a := mustBackup(t, src, "10.0.0.1", day(1), d)
	b := mustBackup(t, src, "10.0.0.2", day(1), e)
	flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*5000)
	p, err := copyAll(t, src, dst)
	if err == nil || !strings.Contains(err.Error(), "backup "+a.ID+" of 10.0.0.1 is not copied") || p.Done != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	mustRestore(t, dst, b, e)
	if got := records(t, dst); len(got) != 1 {
		t.Errorf("there are %d records", len(got))
	}
}

// TestCopyHeals: a copy that was damaged gets what it lacks from the first
// store.
func TestCopyHeals(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	src, dst := newStore(t, &mem.Store{}), openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 10))
	r := mustBackup(t, src, "10.0.0.1", day(1), d)
	_, err := copyAll(t, src, dst)
	must(t, err)
	must(t, blobs.Remove(t.Context(), packsOf(t, blobs, chunks)[0]))
	dst = newStore(t, blobs)
	if err := dst.objects.closure(t.Context(), r); !errors.Is(err, chunk.ErrMissing) {
		t.Fatalf("the loss is not seen: %v", err)
	}
	p, err := copyAll(t, src, dst)
	if err != nil || p.Objects == 0 || p.Present != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	mustRestore(t, dst, r, d)
}

func TestCopyRefusesAnotherBackup(t *testing.T) {
	src, dst := newStore(t, &mem.Store{}), newStore(t, &mem.Store{})
	d, e := newDisk(seeds(1, 10)), newDisk(seeds(100, 10))
	mustBackup(t, src, "10.0.0.1", day(1), d)
	r := mustBackup(t, dst, "10.0.0.1", day(1), e)
	if _, err := copyAll(t, src, dst); err == nil || !strings.Contains(err.Error(), "another backup with this id") {
		t.Errorf("%v", err)
	}
	mustRestore(t, dst, r, e)
}

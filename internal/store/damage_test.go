package store

import (
	"path/filepath"
	"testing"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// damaged are the backups of "BOX" that the store says to be damaged.
func damaged(t testing.TB, s *Store) (out []string) {
	t.Helper()
	damages, err := s.Damages(t.Context())
	must(t, err)
	rs, _, err := s.Records(t.Context())
	must(t, err)
	for _, r := range rs {
		if len(damages.Of(r)) > 0 {
			out = append(out, r.Box)
		}
	}
	return out
}

func wantDamaged(t testing.TB, s *Store, want ...string) {
	t.Helper()
	got := damaged(t, s)
	if len(got) != len(want) {
		t.Fatalf("damaged are %v, not %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("damaged are %v, not %v", got, want)
		}
	}
}

func verify(t testing.TB, s *Store, r *image.Record) *Damage {
	t.Helper()
	d, err := s.Verify(t.Context(), r, "sda", 2, nil)
	must(t, err)
	return d
}

// TestDamageIsNoted: what a scrub finds stands in the list for all boxes that it
// costs, and goes when it is healed; so does what a process found that only
// reads, also beside a writer. The next backup heals both.
func TestDamageIsNoted(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	w := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 4), seeds(1, 1))
	a := mustBackup(t, w, "a", day(1), d)
	mustBackup(t, w, "b", day(1), newDisk(seeds(1, 4), seeds(40, 1)))
	mustBackup(t, w, "c", day(1), newDisk(seeds(70, 3)))
	name := packsOf(t, blobs, chunks)[0]
	wantDamaged(t, w)

	flip(t, blobs, name, 8*1000)
	r := openStore(t, Config{Blobs: blobs, ReadOnly: true})
	found := verify(t, r, a)
	if found == nil || found.Bytes != 2*cellSize || len(found.Places) != 2 {
		t.Fatalf("found is %+v", found)
	}
	lacking, err := r.Lacking(t.Context())
	must(t, err)
	must(t, r.NoteVerified(t.Context(), nil, lacking))
	wantDamaged(t, w, "a", "b")

	// The writer does not know of it: its backup of that disk may rest on what
	// is damaged, and so does not clear the list.
	mustBackup(t, w, "a2", day(2), d)
	wantDamaged(t, w, "a", "a2", "b")
	w2 := openStore(t, Config{Blobs: blobs})
	mustBackup(t, w2, "a3", day(3), d)
	wantDamaged(t, w2, "b") // the same chunk is healed, but nobody looked
	r = openStore(t, Config{Blobs: blobs, ReadOnly: true})
	if found := verify(t, r, a); found != nil {
		t.Errorf("it is healed, but %+v", found)
	}
	if report := mustScrub(t, w2); report.Err() != nil {
		t.Error(report)
	}
	wantDamaged(t, w2)

	// A scrub finds it, and finds it whole again.
	flip(t, blobs, packsOf(t, blobs, chunks)[1], 8*1000)
	mustScrub(t, w2)
	if len(damaged(t, w2)) == 0 {
		t.Error("what a scrub found is not in the list")
	}
	gone, _, err := w2.Records(t.Context())
	must(t, err)
	must(t, w2.Delete(t.Context(), gone...))
	wantDamaged(t, w2)
	mustScrub(t, w2)
	if _, err := blobs.Size(t.Context(), damageName); err == nil {
		t.Error("an empty list stays")
	}
}

// TestDamageBesideAWriter: who verifies needs no lock of a writer.
func TestDamageBesideAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	blobs, err := dir.New(durable.OS{}, path)
	must(t, err)
	must(t, Init(t.Context(), blobs))
	s, err := OpenDir(t.Context(), path, nil, false, t.Logf)
	must(t, err)
	defer s.Close()
	a := mustBackup(t, s.Store, "a", day(1), newDisk(seeds(1, 4)))
	r, err := OpenDir(t.Context(), path, nil, true, t.Logf)
	must(t, err)
	must(t, r.NoteVerified(t.Context(), nil, Damages{a.Disks[0].Root: {Root: a.Disks[0].Root, Bytes: 512}}))
	must(t, r.Close())
	wantDamaged(t, s.Store, "a")
	must(t, r.NoteVerified(t.Context(), []object.Name{a.Disks[0].Root}, nil))
	wantDamaged(t, s.Store)
	if report := mustScrub(t, s.Store); len(report.Foreign) > 0 {
		t.Errorf("%v are nothing of the store", report.Foreign)
	}
}

// TestNumberOfDamagedPack: a pack that was damaged, and is gone, does not make
// an object damaged that a later pack has in the same place.
func TestNumberOfDamagedPack(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	w, d := openStore(t, Config{Blobs: blobs}), newDisk(seeds(1, 4))
	a := mustBackup(t, w, "a", day(1), d)
	flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*1000)
	r := openStore(t, Config{Blobs: blobs, ReadOnly: true})
	found := verify(t, r, a)
	if found == nil {
		t.Fatal("the damage is not found")
	}
	must(t, r.NoteVerified(t.Context(), nil, Damages{found.Root: *found}))
	w = openStore(t, Config{Blobs: blobs})
	must(t, w.Delete(t.Context(), a))
	mustGC(t, w)
	b := mustBackup(t, openStore(t, Config{Blobs: blobs}), "b", day(2), d)
	if found := verify(t, openStore(t, Config{Blobs: blobs, ReadOnly: true}), b); found != nil {
		t.Errorf("a backup that was made anew is damaged: %v", found)
	}
}

// TestNotedDuringVerify: what is noted while a verify is at work outlasts it too.
func TestNotedDuringVerify(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	w := openStore(t, Config{Blobs: blobs})
	a := mustBackup(t, w, "a", day(1), newDisk(seeds(1, 4)))
	reader := func() *Store { return openStore(t, Config{Blobs: blobs, ReadOnly: true}) }
	root := a.Disks[0].Root
	r := reader()
	must(t, reader().NoteVerified(t.Context(), nil, Damages{root: {Root: root, Bytes: 512}}))
	must(t, r.NoteVerified(t.Context(), []object.Name{root}, nil))
	wantDamaged(t, w, "a")
	must(t, reader().NoteVerified(t.Context(), []object.Name{root}, nil))
	wantDamaged(t, w)
}

// TestNotedDuringScrub: what is noted while a scrub is at work outlasts it, for
// the scrub may have been there before.
func TestNotedDuringScrub(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	h := &hooked{Store: blobs}
	w := openStore(t, Config{Blobs: h})
	a := mustBackup(t, w, "a", day(1), newDisk(seeds(1, 4)))
	before := mustBackup(t, w, "b", day(1), newDisk(seeds(50, 4)))
	note := func(r *image.Record) {
		root := r.Disks[0].Root
		must(t, openStore(t, Config{Blobs: blobs, ReadOnly: true}).NoteVerified(t.Context(), nil, Damages{root: {Root: root, Bytes: 512}}))
	}
	note(before)
	h.before = func(op string) {
		if op == "list "+recordPrefix { // after all packs are read
			h.before = nil
			note(a)
		}
	}
	mustScrub(t, w)
	wantDamaged(t, w, "a")
}

package store

import (
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

// TestRebuildIndex: an index that is made anew says what the old one said, and
// what a backup in progress counts on stays protected.
func TestRebuildIndex(t *testing.T) {
	s := newStore(t, &mem.Store{})
	dead, d := newDisk(seeds(1, 60)), newDisk(seeds(1, 60), seeds(100, 20))
	kept := mustBackup(t, s, "10.0.0.1", day(1), newDisk(seeds(200, 20)))
	must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.1", day(2), dead)))
	session := s.Begin()
	must(t, d.save(t.Context(), session))
	before := s.objects.index.Len()
	must(t, s.RebuildIndex(t.Context()))
	if after := s.objects.index.Len(); after != before {
		t.Errorf("%d objects became %d", before, after)
	}
	mustGC(t, s)
	r := recordOf("10.0.0.2", day(3), d)
	must(t, session.Commit(t.Context(), r))
	session.Close()
	mustRestore(t, s, r, d)
	mustRestore(t, s, kept, newDisk(seeds(200, 20)))
}

// TestIndexGone: the index is a cache. One that is deleted, cut off or another
// store's is made anew by Open.
func TestIndexGone(t *testing.T) {
	sp := newSpecimen(t)
	other := faults.NewVolatile()
	o := openStore(t, Config{Blobs: initialised(t), State: other, Dir: stateDir})
	mustBackup(t, o, "10.0.0.9", day(1), newDisk(seeds(900, 5)))
	must(t, o.Close())
	foreign, err := durable.ReadFile(other, stateDir+indexName, 1<<20)
	must(t, err)
	own, err := durable.ReadFile(sp.state, stateDir+indexName, 1<<20)
	must(t, err)
	for what, text := range map[string][]byte{"deleted": nil, "empty": {}, "cut off": own[:len(own)/2], "another's": foreign,
		"with more behind it": append(own, 0)} {
		t.Run(what, func(t *testing.T) {
			sp := sp.clone()
			must(t, sp.state.Remove(stateDir+indexName))
			if text != nil {
				must(t, durable.WriteFile(sp.state, stateDir+indexName, text, 0o600))
			}
			s := sp.open(t)
			for _, err := range sp.restore(t, s) {
				must(t, err)
			}
			must(t, s.Close())
			wantHealed(t, sp, sp.open(t))
			now, err := durable.ReadFile(sp.state, stateDir+indexName, 1<<20)
			if err != nil || len(now) != len(own) {
				t.Errorf("the index has %d bytes then, %v; it had %d", len(now), err, len(own))
			}
		})
	}
}

func initialised(t testing.TB) blob.Store {
	t.Helper()
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	return blobs
}

// TestOldIndex: an index from before collections and backups since.
func TestOldIndex(t *testing.T) {
	blobs, state := initialised(t), faults.NewVolatile()
	open := func() *Store { return openStore(t, Config{Blobs: blobs, State: state, Dir: stateDir}) }
	s := open()
	gone := mustBackup(t, s, "10.0.0.1", day(1), newDisk(mixed(seeds(1, 30), seeds(100, 30))))
	d, e := newDisk(seeds(1, 30)), newDisk(seeds(200, 10))
	a := mustBackup(t, s, "10.0.0.1", day(2), d)
	must(t, s.Close())
	old, err := durable.ReadFile(state, stateDir+indexName, 1<<20)
	must(t, err)
	s = open()
	must(t, s.Delete(t.Context(), gone))
	mustGC(t, s)
	b := mustBackup(t, s, "10.0.0.2", day(3), e)
	must(t, s.Close())
	must(t, durable.WriteFile(state, stateDir+indexName, old, 0o600))
	s = open()
	mustRestore(t, s, a, d)
	mustRestore(t, s, b, e)
	must(t, s.Check(t.Context()))
	var all []*image.Record = records(t, s)
	must(t, s.Delete(t.Context(), all...))
	mustGC(t, s)
	if left, n := stored(t, blobs); left != 0 {
		t.Errorf("%d bytes are left in %d packs", left, n)
	}
}

package store

import (
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
)

// damageCase is a store with half dead packs and a chunk that is damaged, which
// the one backup needs.
func damageCase(t *testing.T) (blobs *mem.Store, s *Store, d fakeDisk, pack string) {
	t.Helper()
	blobs = &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s = openStore(t, Config{Blobs: blobs})
	gone := mustBackup(t, s, "10.0.0.1", day(1), newDisk(mixed(seeds(1, 20), seeds(100, 20))))
	d = newDisk(seeds(1, 20))
	mustBackup(t, s, "10.0.0.1", day(2), d)
	must(t, s.Delete(t.Context(), gone))
	pack = packsOf(t, blobs, chunks)[0]
	flip(t, blobs, pack, 8*1000)
	return blobs, s, d, pack
}

// wantKept wants a pack to outlast a collection until the box is backed up
// again, and not to outlast the next one.
func wantKept(t *testing.T, blobs *mem.Store, s *Store, d fakeDisk, pack string) {
	t.Helper()
	isThere := func() bool { return strings.Contains(strings.Join(packsOf(t, blobs, chunks), " "), pack) }
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	res, err := s.GC(t.Context(), plan)
	if err != nil || !isThere() {
		t.Fatalf("the pack is gone: %v %v %v", plan, res, err)
	}
	if said := plan.String() + res.String(); !strings.Contains(said, pack) {
		t.Errorf("it is not said that %s is kept: %s", pack, said)
	}
	r := mustBackup(t, s, "10.0.0.1", day(3), d)
	mustGC(t, s)
	if isThere() {
		t.Error("the pack is kept when all is healed")
	}
	mustRestore(t, s, r, d)
	must(t, s.Check(t.Context()))
	if report := mustScrub(t, s); len(report.Faults) > 0 {
		t.Errorf("%v", report)
	}
}

func TestGCFindsDamage(t *testing.T) {
	blobs, s, d, pack := damageCase(t)
	wantKept(t, blobs, s, d, pack)
}

func TestGCAfterScrub(t *testing.T) {
	blobs, s, d, pack := damageCase(t)
	if mustScrub(t, s).Err() == nil {
		t.Error("the scrub found nothing")
	}
	wantKept(t, blobs, s, d, pack)
}

// TestGCOfSalvaged: the pack's table is damaged too, so that nobody can say
// which object it was.
func TestGCOfSalvaged(t *testing.T) {
	blobs, _, d, pack := damageCase(t)
	size, err := blobs.Size(t.Context(), pack)
	must(t, err)
	flip(t, blobs, pack, 8*(size-100))
	s := openStore(t, Config{Blobs: blobs})
	wantKept(t, blobs, s, d, pack)
}

package server

import (
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
)

func works(t *testing.T, l *ledger.Ledger) (all []ledger.StoreWork) {
	t.Helper()
	must(t, l.View(t.Context(), func(tx *ledger.Tx) (err error) {
		all, err = tx.StoreWorks()
		return err
	}))
	return all
}

func sizes(t *testing.T, l *ledger.Ledger) (all []ledger.StoreSize) {
	t.Helper()
	must(t, l.View(t.Context(), func(tx *ledger.Tx) (err error) {
		all, err = tx.StoreSizes(time.Time{})
		return err
	}))
	return all
}

// TestMeasure notes what the store has, and not too often.
func TestMeasure(t *testing.T) {
	k, _ := newTestKeeper(t, new(atomic.Bool))
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	k.now = func() time.Time { return now }
	for _, after := range []time.Duration{0, time.Minute, time.Hour, -24 * time.Hour} {
		now = now.Add(after)
		k.measure(t.Context())
	}
	all := sizes(t, k.ledger)
	if len(all) != 3 {
		t.Fatalf("%d sizes are noted: %+v", len(all), all)
	}
	for _, z := range all {
		if z.Backups != 1 || z.Data != 8192 || z.Stored != k.store.PackBytes() || z.Stored == 0 || z.Room <= 0 || z.Free <= 0 || z.Free > z.Room {
			t.Errorf("the store has %+v", z)
		}
	}
}

// TestWorkIsNoted has work end in each way, and looks at what the ledger has of it.
func TestWorkIsNoted(t *testing.T) {
	var restoring atomic.Bool
	k, dir := newTestKeeper(t, &restoring)
	last := func(work string) ledger.StoreWork {
		t.Helper()
		all := works(t, k.ledger)
		i := slices.IndexFunc(all, func(w ledger.StoreWork) bool { return w.Work == work })
		if i < 0 {
			t.Fatalf("nothing is noted of %s: %+v", work, all)
		}
		return all[i]
	}
	ends(t, k, begins(t, k, api.PlanGC).ID)
	if all := works(t, k.ledger); len(all) != 0 {
		t.Errorf("a plan is noted: %+v", all)
	}
	ends(t, k, begins(t, k, api.Scrub).ID)
	if w := last("scrub"); w.Outcome != api.UpkeepDone || w.By != "ann" || w.Found == "" || w.Begun.IsZero() || w.Ended.Before(w.Begun) {
		t.Errorf("a scrub is noted as %+v", w)
	}
	k.day(t.Context(), time.Date(2026, 11, 30, 3, 30, 0, 0, time.UTC))
	if w := last("gc"); w.Outcome != api.UpkeepDone || w.By != "" {
		t.Errorf("the collection of the day is noted as %+v", w)
	}
	if len(sizes(t, k.ledger)) == 0 {
		t.Error("the upkeep of the day does not measure the store")
	}
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs: %v, %v", packs, err)
	}
	for _, p := range packs {
		b, err := os.ReadFile(p)
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(p, b, 0o600))
	}
	sunday := time.Date(2026, 11, 29, 3, 30, 0, 0, time.UTC)
	k.cfg.Upkeep.Scrub = "sunday"
	k.day(t.Context(), sunday)
	damaged := last("scrub")
	if damaged.Outcome != api.UpkeepDamaged || damaged.By != "" || damaged.Found == "" {
		t.Errorf("a scrub that finds damage is noted as %+v", damaged)
	}
	restoring.Store(true)
	u := begins(t, k, api.Scrub)
	must(t, k.Cancel(u.ID))
	ends(t, k, u.ID)
	if got := last("scrub"); got != damaged {
		t.Errorf("a scrub that was cancelled is noted: %+v", got)
	}
}

func TestNextOfUpkeep(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Upkeep.At, cfg.Upkeep.Scrub = "03:30", "sunday"
	u := quietUpkeep(nil)
	u.cfg = &cfg
	u.now = func() time.Time { return time.Date(2026, 11, 30, 3, 30, 0, 0, time.UTC) } // a Monday
	day, scrub := u.Next()
	if want := time.Date(2026, 12, 1, 3, 30, 0, 0, time.UTC); !day.Equal(want) {
		t.Errorf("the next upkeep is at %v", day)
	}
	if want := time.Date(2026, 12, 6, 3, 30, 0, 0, time.UTC); !scrub.Equal(want) {
		t.Errorf("the next scrub is at %v", scrub)
	}
	cfg.Upkeep.Scrub = ""
	if day, scrub := u.Next(); day.IsZero() || !scrub.IsZero() {
		t.Errorf("without a scrub: %v, %v", day, scrub)
	}
	cfg.Upkeep.At = ""
	if day, scrub := u.Next(); !day.IsZero() || !scrub.IsZero() {
		t.Errorf("without upkeep: %v, %v", day, scrub)
	}
}

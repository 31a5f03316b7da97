package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
)

// TestStoreHistory asks what the store had, and when it will be full.
func TestStoreHistory(t *testing.T) {
	s, _ := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	c := r.root()
	const at = "/api/v1/store/history"
	var h api.StoreHistory
	c.want(200, "GET", at, nil, &h)
	if h.Sizes == nil || len(h.Sizes) != 0 || h.Forecast.State != "unknown" || h.Forecast.Day != nil {
		t.Errorf("of a new store: %+v", h)
	}
	now := r.clock()
	const gib = 1 << 30
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		for n := range 60 {
			err := tx.AddStoreSize(ledger.StoreSize{Time: now.AddDate(0, 0, n-60), Stored: int64(n) * gib, Data: int64(n) * 9 * gib,
				Room: 100 * gib, Free: int64(100-n) * gib, Backups: int64(n)})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	c.want(200, "GET", at, nil, &h)
	if len(h.Sizes) != 60 || h.Sizes[59].Backups != 59 || h.Forecast.State != "full" || h.Forecast.PerDay != gib || h.Forecast.Day == nil {
		t.Fatalf("%d sizes, and %+v", len(h.Sizes), h.Forecast)
	}
	if in := h.Forecast.Day.Sub(now).Hours() / 24; in < 37 || in > 42 {
		t.Errorf("it is full in %.1f days", in)
	}
	_, m := c.do("GET", "/metrics", nil)
	i := strings.Index(string(m), "\ntestbox_store_full_time_seconds ")
	var at1970 float64
	if _, err := fmt.Sscan(string(m)[max(i, 0)+len("\ntestbox_store_full_time_seconds "):], &at1970); i < 0 || err != nil ||
		int64(at1970) != h.Forecast.Day.Unix() {
		t.Errorf("the metrics say %v, %v", at1970, err)
	}
	c.want(200, "GET", at+"?days=7", nil, &h)
	if len(h.Sizes) != 7 || h.Forecast.State != "full" {
		t.Errorf("in a week there are %d sizes, and %+v", len(h.Sizes), h.Forecast)
	}
	c.want(400, "GET", at+"?days=0", nil, nil)
	c.want(400, "GET", at+"?days=5000", nil, nil)
}

// TestStoreDamage asks which backups lack what, what was done to the store and what comes
// next.
func TestStoreDamage(t *testing.T) {
	s, ids := newStore(t)
	day := time.Date(2026, 12, 1, 3, 30, 0, 0, time.UTC)
	k := &fakeKeeper{nextDay: day}
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Keeper = s, k })
	c := r.root()
	var st api.Store
	c.want(200, "GET", "/api/v1/store", nil, &st)
	if st.Lacking != 0 || st.Damage == nil || st.Records == nil || len(st.Last) != 0 || !st.NextDay.Equal(day) || st.NextScrub != nil {
		t.Errorf("the store is %+v", st)
	}
	records, _, err := s.Records(t.Context())
	must(t, err)
	lacks := store.Damages{}
	for _, rec := range records {
		root := rec.Disks[0].Root
		lacks[root] = store.Damage{Root: root, Bytes: 512, Found: day}
	}
	must(t, s.NoteVerified(t.Context(), []object.Name{}, lacks))
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutStoreWork(ledger.StoreWork{Work: "scrub", Begun: day, Ended: day, Outcome: api.UpkeepDamaged, Found: "two\nlines"})
	}))
	c.want(200, "GET", "/api/v1/store", nil, &st)
	if st.Lacking < len(ids) || len(st.Damage) != st.Lacking || st.Damage[0].Bytes != 512 ||
		st.Damage[0].Box == "" || st.Damage[0].Disk == "" {
		t.Errorf("the damage is %+v", st)
	}
	if len(st.Last) != 1 || st.Last[0].Outcome != api.UpkeepDamaged || !strings.Contains(st.Last[0].Found, "lines") {
		t.Errorf("the last work is %+v", st.Last)
	}
}

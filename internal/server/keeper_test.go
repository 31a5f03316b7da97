package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
)

// newTestKeeper is a keeper of a store with a backup. restoring says whether a restore
// is at work.
func newTestKeeper(t *testing.T, restoring *atomic.Bool) (*keeper, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.InitDir(t.Context(), dir))
	s, err := store.OpenDir(t.Context(), dir, nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	commit(t, s, "10.0.0.7", 1)
	u := quietUpkeep(restoring.Load)
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	u.cfg, u.store, u.ledger = &cfg, s, openBook(t, &cfg)
	k := newKeeper(u)
	t.Cleanup(k.close)
	return k, dir
}

// ends waits until work has ended.
func ends(t *testing.T, k *keeper, id string) api.Upkeep {
	t.Helper()
	_, ended, err := k.Look(id)
	must(t, err)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the work does not end")
	}
	u, _, err := k.Look(id)
	must(t, err)
	return u
}

func begins(t *testing.T, k *keeper, work api.Work) api.Upkeep {
	t.Helper()
	u, fresh, err := k.Begin(api.NewUpkeep{Work: work}, "ann")
	if err != nil || !fresh {
		t.Fatalf("%s begins: %v, %v", work, fresh, err)
	}
	return u
}

// TestKeeper does each kind of work.
func TestKeeper(t *testing.T) {
	k, dir := newTestKeeper(t, new(atomic.Bool))
	if u := ends(t, k, begins(t, k, api.PlanGC).ID); u.Outcome != api.UpkeepDone || u.Text == "" {
		t.Errorf("a plan: %+v", u)
	}
	if u := ends(t, k, begins(t, k, api.GC).ID); u.Outcome != api.UpkeepDone || !strings.Contains(u.Text, "0 packs removed") {
		t.Errorf("a collection: %+v", u)
	}
	if u := ends(t, k, begins(t, k, api.Scrub).ID); u.Outcome != api.UpkeepDone || u.Done == 0 || !strings.Contains(u.Text, "whole") {
		t.Errorf("a scrub: %+v", u)
	}
	// A process that reads keeps packs from being removed.
	reader, err := store.OpenDir(t.Context(), dir, nil, true, t.Logf)
	must(t, err)
	if u := ends(t, k, begins(t, k, api.GC).ID); u.Outcome != api.UpkeepRefused || !strings.Contains(u.Error, "in use") {
		t.Errorf("a collection beside a reader: %+v", u)
	}
	must(t, reader.Close())
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	must(t, err)
	if len(packs) == 0 {
		t.Fatal("the store has no packs")
	}
	for _, p := range packs {
		b, err := os.ReadFile(p)
		must(t, err)
		b[len(b)/3] ^= 1
		must(t, os.Chmod(p, 0o600))
		must(t, os.WriteFile(p, b, 0o600))
	}
	u := ends(t, k, begins(t, k, api.Scrub).ID)
	if u.Outcome != api.UpkeepDamaged || !strings.Contains(u.Text, "costs 10.0.0.7") || !strings.Contains(u.Error, "the store has") {
		t.Errorf("a scrub of a store with damage: %+v", u)
	}
	if _, _, err := k.Look("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("work that is not known: %v", err)
	}
}

// TestKeeperGivesWay has work wait for a restore. Meanwhile nothing else begins, and
// it can be cancelled.
func TestKeeperGivesWay(t *testing.T) {
	var restoring atomic.Bool
	k, _ := newTestKeeper(t, &restoring)
	restoring.Store(true)
	q := api.NewUpkeep{Work: api.Scrub, Key: "k"}
	u, _, err := k.Begin(q, "ann")
	must(t, err)
	for end := time.Now().Add(time.Minute); k.Running() == nil || k.Running().State != "waiting"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the scrub does not wait")
		}
	}
	if again, fresh, err := k.Begin(q, "ann"); err != nil || fresh || again.ID != u.ID {
		t.Errorf("the same request again: %+v, %v, %v", again, fresh, err)
	}
	var refusal *problem.Error
	_, _, err = k.Begin(api.NewUpkeep{Work: api.GC}, "bob")
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "scrub, which ann") {
		t.Errorf("a second work: %v", err)
	}
	// The upkeep of the day waits for its turn.
	day := make(chan error, 1)
	go func() {
		_, err := k.inTurn(t.Context(), step{"collection", "test", true, k.collect})
		day <- err
	}()
	select {
	case err := <-day:
		t.Errorf("the upkeep of the day does not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	must(t, k.Cancel(u.ID))
	if u := ends(t, k, u.ID); u.Outcome != api.UpkeepCancelled || !strings.Contains(u.Error, "cancelled") {
		t.Errorf("cancelled: %+v", u)
	}
	restoring.Store(false)
	must(t, <-day)
	if u := ends(t, k, begins(t, k, api.GC).ID); u.Outcome != api.UpkeepDone {
		t.Errorf("after the restore: %+v", u)
	}
	restoring.Store(true)
	u = begins(t, k, api.GC)
	k.close()
	if u := ends(t, k, u.ID); u.Outcome != api.UpkeepStopped || !strings.Contains(u.Error, "the server was ended") {
		t.Errorf("when the server ends: %+v", u)
	}
	if _, _, err := k.Begin(api.NewUpkeep{Work: api.GC}, "ann"); err == nil {
		t.Error("work begins when the server ends")
	}
}

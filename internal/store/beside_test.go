package store

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/image"
)

// besideCase is a store with two backups, and what a third one left that is
// deleted.
func besideCase(t *testing.T) (hook *hooked, s *Store, r *image.Record, d fakeDisk) {
	t.Helper()
	hook = &hooked{Store: &mem.Store{}}
	s = newStore(t, hook)
	var half [][]uint64
	for i := range uint64(12) {
		half = append(half, mixed(seeds(1+20*i, 20), seeds(5001+20*i, 20)))
	}
	gone := mustBackup(t, s, "10.0.0.2", day(1), newDisk(half...))
	d = longDisk(1)
	r = mustBackup(t, s, "10.0.0.1", day(1), d)
	mustBackup(t, s, "10.0.0.3", day(1), newDisk(seeds(1, 20)))
	must(t, s.Delete(t.Context(), gone))
	return hook, s, r, d
}

// lookAround does what only looks at a store.
func lookAround(t *testing.T, s *Store, r *image.Record) *Stats {
	t.Helper()
	st, err := s.Stats(t.Context())
	must(t, err)
	if _, err := s.Freed(t.Context(), []*image.Record{r}); err != nil {
		t.Error(err)
	}
	if got := records(t, s); len(got) != 2 {
		t.Errorf("there are %v", got)
	}
	if lacking, err := s.Lacking(t.Context()); err != nil || len(lacking) > 0 {
		t.Errorf("lacking are %v, %v", lacking, err)
	}
	if found, err := s.Verify(t.Context(), r, "sda", 1, nil); err != nil || found != nil {
		t.Errorf("verify: %v, %v", found, err)
	}
	return st
}

// TestLookBesideScrub: figures, lists and a verify are had while a scrub reads,
// and the figures are right.
func TestLookBesideScrub(t *testing.T) {
	_, s, r, _ := besideCase(t)
	want, n := lookAround(t, s, r), 0
	report, err := s.Scrub(t.Context(), func(ScrubProgress) {
		if n++; n > 3 {
			return
		}
		if st := lookAround(t, s, r); !reflect.DeepEqual(st, want) {
			t.Errorf("beside a scrub the figures are %+v, not %+v", st, want)
		}
	})
	if err != nil || len(report.Faults) > 0 || n < 3 {
		t.Errorf("%v, %v; looked %d times", report, err, n)
	}
}

// TestLookKeepsPlan: figures and lists leave the plan of a collection good.
func TestLookKeepsPlan(t *testing.T) {
	_, s, r, d := besideCase(t)
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	st := lookAround(t, s, r)
	res, err := s.GC(t.Context(), plan)
	if err != nil || res.Freed < st.Dead/2 {
		t.Errorf("%v, %v; %d bytes were dead", res, err, st.Dead)
	}
	mustRestore(t, s, r, d)
}

// TestLookBesideGC: the same while a collection moves objects, and removes the
// packs in which they were.
func TestLookBesideGC(t *testing.T) {
	hook, s, r, _ := besideCase(t)
	n := 0
	within := false
	hook.before = func(op string) {
		if within || n == 8 || !strings.HasPrefix(op, "remove ") && !strings.HasPrefix(op, "create ") {
			return
		}
		within = true // what we look at is not looked at
		defer func() { within = false }()
		n++
		done := make(chan bool)
		go func() {
			defer close(done)
			if st, err := s.Stats(context.Background()); err != nil || st.Unknown != "" || st.Alone+st.Shared+st.Unused != st.Stored {
				t.Errorf("beside a collection: %+v, %v", st, err)
			}
			if lacking, err := s.Lacking(context.Background()); err != nil || len(lacking) > 0 {
				t.Errorf("lacking are %v, %v", lacking, err)
			}
		}()
		<-done
	}
	res := mustGC(t, s)
	hook.before = nil
	if res.Removed == 0 || n < 3 {
		t.Errorf("%v; looked %d times", res, n)
	}
	lookAround(t, s, r)
}

// TestBackupBesideStats: objects that come while the figures are made leave
// those of others right.
func TestBackupBesideStats(t *testing.T) {
	hook, s, r, _ := besideCase(t)
	want := lookAround(t, s, r)
	session := s.Begin()
	done := false
	hook.before = func(op string) {
		if !done && strings.HasPrefix(op, "read "+packPrefix+string(trees)) {
			done = true
			for _, step := range longDisk(9001).steps() { // which is not committed
				must(t, step(context.Background(), session))
			}
		}
	}
	st, err := s.Stats(t.Context())
	hook.before = nil
	must(t, err)
	if !done || !reflect.DeepEqual(st.Boxes, want.Boxes) || st.Alone != want.Alone || st.Shared != want.Shared {
		t.Errorf("beside a backup (%v) the figures are %+v, not %+v", done, st, want)
	}
	must(t, session.Close())
}

// TestNotTogether: a plan counts on an index that a scrub changes, and so on.
func TestNotTogether(t *testing.T) {
	_, s, _, _ := besideCase(t)
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	n := 0
	_, err = s.Scrub(t.Context(), func(ScrubProgress) {
		if n++; n > 1 {
			return
		}
		_, planErr := s.PlanGC(t.Context())
		_, gcErr := s.GC(t.Context(), plan)
		_, scrubErr := s.Scrub(t.Context(), nil)
		for what, err := range map[string]error{
			"plan": planErr, "collection": gcErr, "scrub": scrubErr, "new index": s.RebuildIndex(t.Context()),
		} {
			if !errors.Is(err, ErrBusy) {
				t.Errorf("a %s beside a scrub: %v", what, err)
			}
		}
	})
	must(t, err)
	if _, err := s.GC(t.Context(), plan); !errors.Is(err, ErrOldPlan) {
		t.Errorf("a plan that is older than a scrub: %v", err)
	}
}

// TestLookBesideWriter: what another process has written and not committed yet
// counts as being written, and a collection keeps it. That holds for the first
// backup of a store too.
func TestLookBesideWriter(t *testing.T) {
	for _, first := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "store")
		must(t, InitDir(t.Context(), path))
		if !first {
			w := openDir(t, path, false)
			mustBackup(t, w.Store, "10.0.0.1", day(1), longDisk(1))
			must(t, w.Close())
		}
		w := openDir(t, path, false)
		session := w.Begin()
		for _, step := range longDisk(9001).steps() {
			must(t, step(t.Context(), session))
		}
		w.objects.sealAll()
		s := openDir(t, path, true)
		st, err := s.Stats(t.Context())
		must(t, err)
		if st.Writing == 0 || st.Dead != 0 {
			t.Errorf("first %v: %d bytes are being written, %d are dead", first, st.Writing, st.Dead)
		}
		plan, err := s.PlanGC(t.Context())
		must(t, err)
		if plan.Beside == "" || plan.Fresh == 0 || plan.Gain() != 0 {
			t.Errorf("first %v: the plan is\n%v", first, plan)
		}
		must(t, errors.Join(s.Close(), session.Close(), w.Close()))
	}
}

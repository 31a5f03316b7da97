package dispatch

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

// TestNeeds: a job needs its backup while it waits, works, and while its box is held,
// and not longer. What it began with counts, and not what came later.
func TestNeeds(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		first := r.store.add(here, "", "sda")
		needs := func(want ...string) {
			r.Helper()
			all, err := r.server().Needs(ctx)
			if err != nil {
				r.Fatal(err)
			}
			var got []string
			for _, n := range all {
				got = append(got, n.Box+"@"+n.ID+" "+n.Job)
				if !strings.Contains(n.Why, n.Job) {
					r.Errorf("it is said: %s", n.Why)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				r.Errorf("needed are %q, want %q", got, want)
			}
		}
		needs()
		s := r.add(here, box.Restore)
		used := here.String() + "@" + first.ID
		needs(used + " " + s.ID)
		a := r.boot(here).works()
		r.store.add(here, "", "sda")
		a.reports(true)
		for range limits.Attempts {
			needs(used + " " + s.ID)
			a.ends(box.Failed)
			if j, _ := r.server().Job(ctx, s.ID); j.State == job.Held {
				break
			}
			a = r.boot(here).works()
		}
		if j, _ := r.server().Job(ctx, s.ID); j.State != job.Held {
			t.Fatalf("the job is %s", j.State)
		}
		needs(used + " " + s.ID)

		// A job that waits for another box's backup.
		waits := r.add(there, box.Verify, func(q *Request) { q.Options = Options{From: here.String(), Image: first.ID} })
		r.add(there, box.Backup)
		want := []string{used + " " + s.ID, used + " " + waits.ID}
		slices.Sort(want)
		needs(want...)
		r.store.mu.Lock()
		r.store.fail = errors.New("the disk is away")
		r.store.mu.Unlock()
		if all, err := r.server().Needs(ctx); err == nil && len(all) < 2 {
			t.Errorf("while the store is away, needed are %v", all)
		}
		r.store.mu.Lock()
		r.store.fail = nil
		r.store.mu.Unlock()
		if _, err := r.server().Cancel(ctx, waits.ID, "ann"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.server().Release(ctx, here, "ann"); err != nil {
			t.Fatal(err)
		}
		needs()
	})
}

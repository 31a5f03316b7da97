package dispatch

import (
	"errors"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// A box takes its jobs and settings along to another address, unless it has a job under way.
func TestReaddress(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Name: "box1", Labels: []string{"a"}, Health: ledger.Good})
		})
		s := r.add(here, box.RefreshInfo)
		a := r.boot(here).works()
		to := boxAddr(77)
		try := func(want string) {
			t.Helper()
			err := r.server().Readdress(ctx, here, to, "eva", func(*ledger.Box) {})
			if !errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, not %q", err, want)
			}
		}
		try("which has not ended")
		a.ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
		rec := r.store.add(here, "", "sda")
		needs := r.add(there, box.Restore, opts(Options{From: here.String(), Image: rec.ID}))
		try("is needed")
		if _, err := r.server().Cancel(ctx, needs.ID, "eva"); err != nil {
			t.Fatal(err)
		}
		to = there
		try("there is a box " + there.String() + " already")
		to = boxAddr(77)
		if err := r.server().Readdress(ctx, boxAddr(78), to, "eva", func(*ledger.Box) {}); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("a box that is not there moves: %v", err)
		}
		if err := r.server().Readdress(ctx, here, to, "eva", func(b *ledger.Box) { b.Sight = []byte(`{"gaps":[1]}`) }); err != nil {
			t.Fatal(err)
		}
		b := r.box(to)
		if b.Name != "box1" || b.Labels[0] != "a" || string(b.Sight) != `{"gaps":[1]}` {
			t.Errorf("%+v", b)
		}
		if st, err := r.server().Job(ctx, s.ID); err != nil || st.Box != to || st.Outcome != box.Done {
			t.Errorf("%+v, %v", st, err)
		}
		if all := r.audit("readdress box"); len(all) != 1 || all[0].Who != "eva" || all[0].On != to.String() ||
			!strings.Contains(all[0].Why, here.String()) {
			t.Errorf("%+v", all)
		}
		if err := r.server().Readdress(ctx, to, boxAddr(79), "eva", func(*ledger.Box) {}); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("a box moves on before all has followed: %v", err)
		}
		s = r.add(to, box.RefreshInfo)
		a = r.boot(to)
		a.hello.UUID, a.hello.MACs = b.UUID, b.MACs // it is the same machine
		a.works().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
		r.kill()
		r.start(&knife{})
		if st, err := r.server().Job(ctx, s.ID); err != nil || st.Box != to {
			t.Errorf("after a restart: %+v, %v", st, err)
		}
	})
}

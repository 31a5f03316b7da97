package dispatch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// of is a request of a schedule for one box.
func (r *rig) of(a box.Addr, within time.Duration) Request {
	now := time.Now()
	return Request{Boxes: []box.Addr{a}, Action: box.Backup, By: "schedule nightly", Key: "1", From: now, Until: now.Add(within), Yields: true}
}

// TestInTime: a job that does not get its turn in time ends, says why it waited, and is in
// the audit log. Its box is not armed any more. It is not made a second time.
func TestInTime(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: there, Health: ledger.Good, Holder: ledger.Holder{Name: "bob"}})
		})
		added, err := r.server().AddAll(ctx, []Request{r.of(here, 20*time.Minute), r.of(there, 20*time.Minute)}, nil)
		if err != nil || len(added) != 2 || !added[0].Made || !added[1].Made {
			t.Fatal(added, err)
		}
		time.Sleep(time.Second)
		r.job(added[0].ID, job.Armed, "")
		r.waits(added[1].ID, job.ForHolder)
		time.Sleep(20 * time.Minute)
		never := r.job(added[0].ID, job.Ended, box.Expired)
		waited := r.job(added[1].ID, job.Ended, box.Expired)
		r.armed(here, false)
		if !strings.Contains(waited.Text, "bob has reserved this box.") || waited.Class != job.ClassAdmin || never.Class != job.ClassAdmin {
			t.Errorf("%s (%s); %s (%s)", waited.Text, waited.Class, never.Text, never.Class)
		}
		if r.box(here).Health != ledger.Good {
			t.Error("a box that nobody restarts at night counts as broken")
		}
		if all := r.audit("job did not begin"); len(all) != 2 || !strings.Contains(all[0].Why+all[1].Why, "bob has reserved this box.") {
			t.Errorf("%+v", all)
		}
		r.put(func(tx *ledger.Tx) error { return tx.PutBox(ledger.Box{Address: there, Health: ledger.Good}) })
		again, err := r.server().AddAll(ctx, []Request{r.of(there, 20*time.Minute)}, nil)
		if err != nil || again[0].Made || again[0].ID != waited.ID {
			t.Errorf("%+v, %v", again, err)
		}
		time.Sleep(time.Hour)
		r.armed(there, false)
	})
}

// TestInTimeWhileAway: a job does not begin after its time because the server was off.
func TestInTimeWhileAway(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.cfg.Most = 1
		r.start(&knife{})
		added, err := r.server().AddAll(ctx, []Request{r.of(here, 20*time.Minute), r.of(there, 20*time.Minute)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, armed := r.boots.get(added[1].Box); armed { // both were asked for at once
			added[0], added[1] = added[1], added[0]
		}
		begun, waits := added[0].Box, added[1].Box
		r.job(added[0].ID, job.Armed, "")
		r.job(added[1].ID, job.Queued, "")
		r.kill()
		time.Sleep(time.Hour)
		r.start(&knife{})
		time.Sleep(2 * time.Second)
		r.job(added[0].ID, job.Ended, box.Expired)
		r.job(added[1].ID, job.Ended, box.Expired)
		r.armed(begun, false)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.powers[begun] != 1 || r.powers[waits] != 0 {
			t.Errorf("boxes are restarted after their time: %v", r.powers)
		}
	})
}

// TestAddAllWithMore: what belongs to the jobs is durable with them, or neither is.
func TestAddAllWithMore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		note := func(fails error) func(*ledger.Tx, []Added) error {
			return func(tx *ledger.Tx, all []Added) error {
				err := tx.PutSchedule(ledger.Schedule{Name: "nightly", Spec: "@daily", Target: all[0].ID})
				return errors.Join(err, fails)
			}
		}
		no := errors.New("no")
		if _, err := r.server().AddAll(ctx, []Request{r.of(here, time.Hour)}, note(no)); !errors.Is(err, no) {
			t.Error(err)
		}
		jobs, _, err := r.server().Jobs(ctx, ledger.JobFilter{}, ledger.Page{})
		if err != nil || len(jobs) != 0 {
			t.Errorf("%v, %v", jobs, err)
		}
		time.Sleep(time.Second)
		r.armed(here, false)
		added, err := r.server().AddAll(ctx, []Request{r.of(here, time.Hour)}, note(nil))
		if err != nil {
			t.Fatal(err)
		}
		r.kill()
		r.start(&knife{})
		time.Sleep(time.Second)
		r.job(added[0].ID, job.Armed, "")
		r.put(func(tx *ledger.Tx) error {
			all, err := tx.Schedules()
			if len(all) != 1 || all[0].Target != added[0].ID {
				t.Errorf("%+v", all)
			}
			return err
		})
	})
}

// TestManyDueAtOnce: 200 boxes that are due at one time go through the places that the
// server has, and what a person asks for meanwhile does not wait for all of them.
func TestManyDueAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		const many, most, rack = 200, 8, 3
		r.cfg.Most = most
		r.cfg.Places = func(g ledger.Group) (int, bool) { return rack, g.Name == "rack" }
		r.start(&knife{})
		addr := func(n int) box.Addr { return boxAddr(1<<8 + n) }
		r.put(func(tx *ledger.Tx) error {
			err := tx.PutGroup(ledger.Group{Name: "rack"})
			for n := 0; n < many; n += 4 {
				err = errors.Join(err, tx.PutBox(ledger.Box{Address: addr(n), Health: ledger.Good, Groups: []string{"rack"}}))
			}
			return err
		})
		var requests []Request
		for n := range many {
			requests = append(requests, r.of(addr(n), 6*time.Hour))
		}
		if _, err := r.server().AddAll(ctx, requests, nil); err != nil {
			t.Fatal(err)
		}
		var asked string
		done, asap := 0, -1
		for round := 0; done < many+1; round++ {
			if round > 2*many {
				t.Fatalf("after %d rounds only %d jobs are done", round, done)
			}
			time.Sleep(time.Second)
			if round == 3 {
				asked = r.add(boxAddr(5<<8), box.Backup).ID
			}
			jobs, _, err := r.server().Jobs(ctx, ledger.JobFilter{States: []string{string(job.Armed), string(job.Running)}}, ledger.Page{})
			if err != nil {
				t.Fatal(err)
			}
			racked, due := 0, 0
			for _, j := range jobs {
				if j.ID != asked { // a person need not wait for boxes that nobody has restarted yet
					due++
				}
				for n := 0; n < many; n += 4 {
					if j.Box == addr(n) {
						racked++
					}
				}
			}
			if due > most || racked > rack {
				t.Fatalf("%d boxes are at work, %d of them in the rack", due, racked)
			}
			for _, j := range jobs {
				if r.boot(j.Box).works().commits().ends(box.Done); j.ID == asked {
					asap = round
				}
				done++
			}
		}
		if asap < 3 || asap > 5 {
			t.Errorf("the person's box had its turn in round %d", asap)
		}
	})
}

package dispatch

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/wire"
)

// switchable is a fault of one kind of call that can be switched on and off.
type switchable struct {
	on   atomic.Bool
	what string
	err  error
	hits atomic.Int64
}

func (s *switchable) cut(name string) error {
	if s.on.Load() && name == s.what {
		s.hits.Add(1)
		return s.err
	}
	return nil
}

// A boot file that cannot be removed for a while keeps the agent from being told to
// restart, since it would start maintenance again.
func TestBootFileStays(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "disarm", err: errors.New("input/output error")}
		r.start(&knife{cut: f.cut})
		s := r.add(here, box.Backup)
		a := r.boot(here).works().commits()
		f.on.Store(true)
		res := &wire.Result{Outcome: box.Done, Receipts: receipt}
		for range 3 {
			_, err := r.server().Result(ctx, a.hello.Token, a.from, res)
			if err == nil || !strings.Contains(err.Error(), "input/output error") {
				t.Fatalf("the agent is answered: %v", err)
			}
		}
		if j := r.job(s.ID, job.Ended, box.Done); j.Settled {
			t.Error("the job is settled")
		}
		if all, _, err := r.server().Jobs(ctx, ledger.JobFilter{Open: true}, ledger.Page{}); err != nil || len(all) != 1 {
			t.Errorf("%d jobs are open, %v", len(all), err)
		}
		hits := f.hits.Load()
		time.Sleep(10 * time.Minute)
		if n := f.hits.Load() - hits; n < 10 || n > 20 {
			t.Errorf("it was tried %d times in 10 minutes", n)
		}
		if w := r.boot(here).asks(); w != "" {
			t.Errorf("a box that starts maintenance again is told to %s", w)
		}
		f.on.Store(false)
		time.Sleep(mostPause)
		r.armed(here, false)
		if !r.job(s.ID, job.Ended, box.Done).Settled {
			t.Error("the job is not settled")
		}
		if w := a.ends(box.Done); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		if n := r.store.of(s.Arming); n != 1 {
			t.Errorf("there are %d backups", n)
		}
	})
}

// asks says hello to a server that may not answer.
func (a *agent) asks() job.Word {
	w, err := a.server().Hello(ctx, &a.hello, a.from)
	if err != nil {
		return ""
	}
	return w.Word
}

// An agent whose hello is not answered, because the boot file of the next attempt
// cannot be written, repeats it and gets the work.
func TestBootFileMissing(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "arm", err: errors.New("no space left on device")}
		r.start(&knife{cut: f.cut})
		f.on.Store(true)
		s := r.add(here, box.Backup)
		r.job(s.ID, job.Armed, "")
		r.armed(here, false)
		time.Sleep(time.Minute)
		f.on.Store(false)
		time.Sleep(mostPause)
		r.armed(here, true)
		a := r.boot(here)
		f.on.Store(true)
		if w := a.asks(); w != "" {
			t.Errorf("the agent is told to %s", w)
		}
		if file, _ := r.boots.get(here); file.secret != a.file.secret {
			t.Error("the boot file has a new secret")
		}
		f.on.Store(false)
		a.works()
		if file, _ := r.boots.get(here); file.secret == a.file.secret {
			t.Error("the boot file has the used secret")
		}
		r.job(s.ID, job.Running, "")
		time.Sleep(mostPause)
		if !r.job(s.ID, job.Running, "").Settled {
			t.Error("the job is not settled")
		}
	})
}

// A box whose disk is not fit to run gets its boot file back within a minute or so, when
// somebody has removed or replaced it. Other boxes do not, since they may start from their
// own disks.
func TestBootFileRemoved(t *testing.T) {
	bubble(t, func(r *rig) {
		there := boxAddr(2)
		r.start(&knife{})
		r.store.add(here, "", "sda")
		r.store.add(there, "", "sda")
		r.add(there, box.Restore)
		s := r.add(here, box.Restore)
		remove := func(want bool) {
			t.Helper()
			r.boots.remove(here)
			r.boots.remove(there)
			time.Sleep(guardEvery + time.Second)
			r.armed(here, want)
			r.armed(there, false)
		}
		remove(false) // nothing is written yet
		time.Sleep(limits.Arming)
		r.job(s.ID, job.Ended, box.Expired)
		s = r.add(here, box.Restore)
		a := r.boot(here).works()
		remove(false)
		a.reports(true)
		for range 2 {
			remove(true)
			a.reports(false)
		}
		r.job(s.ID, job.Running, "")
		if w := a.ends(box.Failed); w != job.Retry {
			t.Fatalf("the agent is told to %s", w)
		}
		remove(true)
		for range limits.Attempts - 1 {
			r.boot(here).works().ends(box.Failed)
		}
		held := r.job(s.ID, job.Held, box.Failed)
		remove(true)
		r.boots.put(here, bootFile{job.Job{Order: job.Order{Arming: "another"}}, "1-aa"})
		time.Sleep(guardEvery + time.Second)
		if f, _ := r.boots.get(here); f.job.Arming != held.Arming {
			t.Errorf("the box has the boot file of arming %s", f.job.Arming)
		}
		if n := strings.Count(r.log.String(), "was removed or replaced"); n != 1 {
			t.Errorf("it is logged %d times\n%s", n, r.log)
		}
		if _, err := r.server().Release(ctx, here, "bob"); err != nil {
			t.Fatal(err)
		}
		remove(false)
	})
}

// A boot file that is refused ends the job, as it is no use to try again.
func TestBootFileRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "arm", err: problem.Refusef("default does not boot the local disk")}
		f.on.Store(true)
		r.start(&knife{cut: f.cut})
		s := r.add(here, box.Backup)
		j := r.job(s.ID, job.Ended, box.Failed)
		if j.Class != job.ClassServer || !strings.Contains(j.Text, "default does not boot the local disk") || !j.Settled || f.hits.Load() != 1 {
			t.Errorf("the job is %+v", j)
		}
		f.on.Store(false)
		r.store.add(here, "", "sda")
		s = r.add(here, box.Restore)
		a := r.boot(here).works()
		a.reports(true)
		f.on.Store(true) // a running job goes on
		if _, err := r.server().Cancel(ctx, s.ID, "ann"); err != nil {
			t.Error(err)
		}
		if w := a.reports(false); w != job.Stop {
			t.Errorf("the agent is told to %s", w)
		}
		res := &wire.Result{Outcome: job.Cancelled}
		if _, err := r.server().Result(ctx, a.hello.Token, a.from, res); err == nil {
			t.Error("the agent is answered")
		}
		f.on.Store(false)
		if w := a.ends(job.Cancelled); w != job.Hold {
			t.Errorf("the agent is told to %s", w)
		}
		r.job(s.ID, job.Held, job.Cancelled)
	})
}

// While the ledger cannot be written, nothing happens to jobs, and nothing is lost.
func TestLedgerFails(t *testing.T) {
	for name, cause := range map[string]error{"full": ledger.ErrFull, "unsure": ledger.ErrUnsure} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				f := &switchable{what: "update", err: cause}
				r.start(&knife{cut: f.cut})
				r.store.add(here, "", "sda")
				f.on.Store(true)
				if _, err := r.server().Add(ctx, Request{Boxes: []box.Addr{here}, Action: box.Restore, By: "ann"}); !errors.Is(err, cause) {
					t.Errorf("a job is added: %v", err)
				}
				f.on.Store(false)
				s := r.add(here, box.Restore, waitUp)
				a := r.boot(here)
				f.on.Store(true)
				if w := a.asks(); w != "" {
					t.Errorf("the agent is told to %s", w)
				}
				r.job(s.ID, job.Armed, "")
				if _, err := r.server().Grant(ctx, a.hello.Token, a.from); err == nil {
					t.Error("a session that is not durable is granted something")
				}
				f.on.Store(false)
				a.works()
				f.on.Store(true)
				if _, err := r.server().Report(ctx, a.hello.Token, a.from, &wire.Report{Number: 1, Writes: true}); !errors.Is(err, cause) {
					t.Errorf("the agent may write: %v", err)
				}
				for range 100 { // it lives all the same
					time.Sleep(5 * time.Second)
					if w := a.reports(false); w != job.GoOn {
						t.Fatalf("the agent is told to %s", w)
					}
				}
				if _, err := r.server().Cancel(ctx, s.ID, "ann"); !errors.Is(err, cause) {
					t.Errorf("the job is cancelled: %v", err)
				}
				f.on.Store(false)
				a.reports(true)
				f.on.Store(true)
				res := &wire.Result{Outcome: box.Done, Receipts: receiptsOf(a.work.Record)}
				if _, err := r.server().Result(ctx, a.hello.Token, a.from, res); err == nil {
					t.Error("a result is taken")
				}
				r.job(s.ID, job.Running, "")
				r.armed(here, true)
				f.on.Store(false)
				a.ends(box.Done)
				r.job(s.ID, job.Restarting, box.Done)
				time.Sleep(time.Second)
				f.on.Store(true)
				r.server().DefaultAsked(here, time.Now())
				time.Sleep(2 * time.Minute)
				if n := f.hits.Load(); n > 40 {
					t.Errorf("the ledger was asked %d times", n)
				}
				f.on.Store(false)
				r.answers(here)
				time.Sleep(time.Minute)
				if j := r.job(s.ID, job.Ended, box.Done); j.Up != job.UpYes {
					t.Errorf("up is %q: what the box asked for is forgotten", j.Up)
				}
			})
		})
	}
}

// Time that is over counts as soon as the ledger can be written again.
func TestTickFails(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "update", err: ledger.ErrFull}
		r.start(&knife{cut: f.cut})
		s := r.add(here, box.Backup)
		f.on.Store(true)
		time.Sleep(limits.Arming + time.Minute)
		if n := f.hits.Load(); n < 2 || n > 10 {
			t.Errorf("the ledger was asked %d times", n)
		}
		r.job(s.ID, job.Armed, "")
		f.on.Store(false)
		time.Sleep(time.Minute)
		r.job(s.ID, job.Ended, box.Expired)
		r.armed(here, false)
	})
}

// A step that cannot be settled is settled later, and nothing is done twice.
func TestSettleFails(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		var n atomic.Int64
		f := &switchable{what: "update", err: ledger.ErrFull}
		r.start(&knife{cut: func(name string) error {
			if name == "update" && n.Add(1) == 3 { // to add, to begin, to settle
				f.on.Store(true)
			}
			return f.cut(name)
		}})
		s := r.add(here, box.Backup)
		if r.job(s.ID, job.Armed, "").Settled {
			t.Fatal("it is settled")
		}
		time.Sleep(time.Minute)
		f.on.Store(false)
		time.Sleep(mostPause)
		if j := r.job(s.ID, job.Armed, ""); !j.Settled || j.Cycle || r.powers[here] != 1 || r.boots.arms != 1 {
			t.Errorf("settled: %v, power cycles: %d, boot files: %d", j.Settled, r.powers[here], r.boots.arms)
		}
	})
}

// A server that is started again goes on with the sessions of before, and knows their
// tokens as soon as they are used.
func TestRestart(t *testing.T) {
	bubble(t, func(r *rig) {
		rec := r.store.add(here, "", "sda")
		r.start(&knife{})
		s := r.add(here, box.Restore)
		a := r.boot(here).works()
		a.reports(true)
		for _, dies := range []bool{false, true} {
			if dies {
				r.kill()
			} else {
				r.server().Close()
			}
			if _, err := r.server().Grant(ctx, a.hello.Token, a.from); err == nil || errors.Is(err, errNoSession) {
				t.Errorf("a server that ends says %v", err)
			}
			time.Sleep(2 * limits.Silence) // the server's own absence is no silence
			r.start(&knife{})
			if j := r.job(s.ID, job.Running, ""); !j.Wrote || j.Attempt != 1 {
				t.Errorf("the job is %+v", j)
			}
			time.Sleep(limits.Silence / 2)
			if g, err := r.server().Grant(ctx, a.hello.Token, a.from); err != nil || !g.MayRead(here.String(), rec.ID, "sda") {
				t.Errorf("the agent is granted %+v, %v", g, err)
			}
			a.reports(true)
		}
		a.ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
		if !r.forgot[a.hello.Token] {
			t.Error("what the session has open is not ended")
		}
		r.server().Close()
		r.start(&knife{})
		if w := a.ends(box.Done); w != job.Restart {
			t.Errorf("an agent that repeats its result is told to %s", w)
		}
		if w := a.says(); w != job.Restart {
			t.Errorf("an agent that repeats its hello is told to %s", w)
		}
		r.server().Close()
		if _, err := r.server().Add(ctx, Request{}); !errors.Is(err, errClosed) {
			t.Errorf("a closed server adds jobs: %v", err)
		}
		if _, err := r.server().Hello(ctx, &a.hello, a.from); !errors.Is(err, errClosed) {
			t.Errorf("a closed server answers: %v", err)
		}
	})
}

// A start with a job that cannot be read is refused, since it could be one of a box
// whose disk must not run.
func TestDamagedJob(t *testing.T) {
	bubble(t, func(r *rig) {
		r.put(func(tx *ledger.Tx) error {
			return tx.AddJob(ledger.Job{ID: "1", Box: here, State: "armed", Created: time.Now(), Doc: []byte(`{"format":2}`)})
		})
		_, err := openWith(ctx, r.cfg, faultyBook{&knife{}, r.ledger})
		if err == nil || !strings.Contains(err.Error(), "job 1 of "+here.String()) {
			t.Errorf("the error is %v", err)
		}
		r.d, r.k = nil, &knife{}
		synctest.Wait()
	})
}

// When the job goes on while a boot file cannot be made, what was left of the earlier
// step is given up.
func TestStepChanges(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "arm", err: errors.New("no space left on device")}
		r.start(&knife{cut: f.cut})
		f.on.Store(true)
		s := r.add(here, box.Backup)
		if _, err := r.server().Cancel(ctx, s.ID, "ann"); err != nil {
			t.Fatal(err)
		}
		f.on.Store(false)
		time.Sleep(2 * mostPause)
		r.armed(here, false)
		if j := r.job(s.ID, job.Ended, job.Cancelled); !j.Settled || r.boots.arms != 0 {
			t.Errorf("settled: %v, boot files: %d", j.Settled, r.boots.arms)
		}
	})
}

// An agent that could be heard of is not silent, even if what it says cannot be made
// durable.
func TestHeardWhileFull(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "update", err: ledger.ErrFull}
		r.start(&knife{cut: f.cut})
		s := r.add(here, box.Backup)
		a := r.boot(here).works()
		f.on.Store(true)
		for range 100 {
			time.Sleep(5 * time.Second)
			if _, err := r.server().Report(ctx, a.hello.Token, a.from, &wire.Report{Number: 1, Writes: true}); err == nil {
				t.Fatal("the agent may write")
			}
		}
		f.on.Store(false)
		time.Sleep(time.Minute)
		r.job(s.ID, job.Running, "")
	})
}

// A power command that was under way when the server was killed is run again.
func TestKilledWhilePowerRuns(t *testing.T) {
	bubble(t, func(r *rig) {
		runs, slow := 0, true
		r.power()
		r.runs = func(ctx context.Context, b ledger.Box, _ int) (Switched, error) {
			r.mu.Lock()
			runs++
			wait := slow
			r.mu.Unlock()
			if wait {
				<-ctx.Done()
			}
			return Switched{By: "slow"}, ctx.Err()
		}
		r.start(&knife{})
		s := r.add(here, box.Backup)
		if r.job(s.ID, job.Armed, "").Settled {
			t.Error("the job is settled while the power command runs")
		}
		r.kill()
		r.mu.Lock()
		slow = false
		r.mu.Unlock()
		r.start(&knife{})
		time.Sleep(time.Second)
		if j := r.job(s.ID, job.Armed, ""); runs != 2 || j.Cycle || !j.Settled || j.Text != "" {
			t.Errorf("the power command ran %d times, and the job is %+v", runs, j.Job)
		}
	})
}

// A held job and the one that takes over change in one piece.
func TestTakeOverAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		var n atomic.Int64
		f := &switchable{what: "update", err: ledger.ErrFull}
		r.start(&knife{cut: func(name string) error {
			if f.on.Load() && name == "update" && n.Add(1) != 2 { // to add; the second one is cut
				return nil
			}
			return f.cut(name)
		}})
		r.store.add(here, "", "sda")
		first, _ := r.hold(here)
		f.on.Store(true)
		second := r.add(here, box.Restore)
		r.job(first.ID, job.Held, box.Failed)
		r.job(second.ID, job.Queued, "")
		f.on.Store(false)
		time.Sleep(time.Minute)
		r.job(first.ID, job.Ended, box.Failed)
		r.job(second.ID, job.Armed, "")
	})
}

// While the store cannot be read, no restore takes over a held box, since it is not
// known what it would restore. Other boxes do not wait for that.
func TestTakeOverWithoutStore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		first, _ := r.hold(here)
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Health: ledger.Good, Holder: ledger.Holder{Name: "bob"}})
		})
		second := r.add(here, box.Restore)
		r.waits(second.ID, job.ForHolder)
		r.store.mu.Lock()
		r.store.fail = errors.New("the bucket is away")
		r.store.mu.Unlock()
		r.put(func(tx *ledger.Tx) error { return tx.PutBox(ledger.Box{Address: here, Health: ledger.Good}) })
		other := r.add(there, box.Backup)
		r.job(other.ID, job.Armed, "")
		r.job(first.ID, job.Held, box.Failed)
		r.job(second.ID, job.Queued, "")
		r.store.mu.Lock()
		r.store.fail = nil
		r.store.mu.Unlock()
		time.Sleep(time.Minute)
		if !r.job(second.ID, job.Armed, "").AllDisks {
			t.Error("it is no restore of all disks")
		}
	})
}

// A box is in maintenance when its server comes back after the time of its arming is over.
// It says hello a little later, and has not lost its job.
func TestAwayPastArming(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here)
		r.kill()
		time.Sleep(2 * limits.Arming)
		r.start(&knife{})
		time.Sleep(5 * time.Minute)
		r.job(s.ID, job.Armed, "")
		a.works().commits().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)

		expires := r.add(there, box.Backup)
		r.kill()
		time.Sleep(2 * limits.Arming)
		r.start(&knife{})
		time.Sleep(limits.Arming)
		r.job(expires.ID, job.Ended, box.Expired)
	})
}

// A job that ended with its boot file still there is found, however long the server was
// away.
func TestAwayForLong(t *testing.T) {
	bubble(t, func(r *rig) {
		f := &switchable{what: "disarm", err: errors.New("input/output error")}
		r.start(&knife{cut: f.cut})
		s := r.add(here, box.Backup)
		f.on.Store(true)
		if _, err := r.server().Cancel(ctx, s.ID, "ann"); err != nil {
			t.Fatal(err)
		}
		r.job(s.ID, job.Ended, job.Cancelled)
		r.armed(here, true)
		r.kill()
		time.Sleep(3 * keepEnded)
		r.start(&knife{})
		time.Sleep(time.Second)
		r.armed(here, false)
		if !r.job(s.ID, job.Ended, job.Cancelled).Settled {
			t.Error("the job is not settled")
		}
	})
}

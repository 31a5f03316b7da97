package dispatch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/wire"
)

var here, there = boxAddr(1<<8 + 1), boxAddr(1<<8 + 2)

func opts(o Options) func(*Request) { return func(q *Request) { q.Options = o } }

// isRefusal reports whether an error is a refusal with a text.
func isRefusal(err error, text string) bool {
	var p *problem.Error
	return errors.As(err, &p) && p.Kind == problem.Refused && strings.Contains(err.Error(), text)
}

func TestBackup(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		r.job(s.ID, job.Armed, "")
		a := r.boot(here).works()
		r.job(s.ID, job.Running, "")
		if g, err := r.server().Grant(ctx, a.hello.Token, here.IP()); err != nil || !g.Backup || g.Box != here.String() || g.MayRead != nil {
			t.Errorf("the agent is granted %+v, %v", g, err)
		}
		r.server().Sent(a.hello.Token, 40)
		r.server().Sent(a.hello.Token, 2)
		r.server().Sent("unknown", 2)
		if w := a.commits().ends(box.Done); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		r.armed(here, false)
		j := r.job(s.ID, job.Ended, box.Done)
		if !j.Settled || j.Backup == "" || len(j.Receipts) != 1 || j.Sent != 42 || !r.forgot[a.hello.Token] {
			t.Errorf("the job is %+v", j)
		}
		if _, err := r.server().Grant(ctx, a.hello.Token, here.IP()); err == nil {
			t.Error("an agent whose job has ended is granted something")
		}
		if !strings.Contains(r.text(here, "last-action.json"), string(j.Arming)) {
			t.Error("last-action.json does not have the action")
		}
		time.Sleep(time.Minute)
		if w := a.ends(box.Done); w != job.Restart {
			t.Errorf("the agent that repeats its result is told to %s", w)
		}
		time.Sleep(2 * keepEnded)
		if _, err := r.server().Report(ctx, a.hello.Token, here.IP(), &wire.Report{Number: 1}); !errors.Is(err, errNoSession) {
			t.Errorf("a job that ended long ago is still in memory: %v", err)
		}
		r.job(s.ID, job.Ended, box.Done)
	})
}

// A success that nothing shows is a failure.
func TestNoFalseSuccess(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		for _, action := range []box.Action{box.Backup, box.Restore, box.Verify} {
			s := r.add(here, action)
			for range limits.Attempts {
				a := r.boot(here).works()
				res := &wire.Result{Outcome: box.Done, Text: "All is well."}
				if action == box.Backup {
					res.Receipts = receipt
				}
				if _, err := r.server().Result(ctx, a.hello.Token, a.from, res); err != nil {
					t.Fatal(err)
				}
			}
			r.job(s.ID, job.Ended, box.Failed)
		}
		// What could not be read is zeros in the backup, also if the agent does not say so.
		s := r.add(here, box.Backup)
		a := r.boot(here).works()
		r.store.add(here, a.file.job.Arming, "sda").Disks[0].Bad = []image.Range{{Off: 0, Len: 512}}
		a.ends(box.Done)
		r.job(s.ID, job.Ended, box.BadSectors)
	})
}

func TestActions(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		rec := r.store.add(here, "", "sda")
		for _, c := range []struct {
			action box.Action
			says   box.Outcome
			want   box.Outcome
			state  job.State
			word   job.Word
		}{
			{box.RefreshInfo, box.Done, box.Done, job.Ended, job.Restart},
			{box.Verify, box.Differs, box.Differs, job.Ended, job.Restart},
			{box.Verify, box.Done, box.Done, job.Ended, job.Restart},
			{box.Restore, box.Done, box.Done, job.Ended, job.Restart},
			{box.Restore, box.BadSectors, box.BadSectors, job.Ended, job.Restart},
			{box.Restore, box.Refused, box.Refused, job.Ended, job.Restart},
			{box.Restore, box.Failed, "", job.Armed, job.Retry},
			{box.Rescue, box.Rescuing, "", job.Rescue, job.GoOn},
		} {
			s := r.add(here, c.action)
			a := r.boot(here).works()
			if uses := c.action == box.Restore || c.action == box.Verify; uses != (a.work.Record != nil) {
				t.Errorf("%s: the agent is given the backup: %v", c.action, a.work.Record != nil)
			} else if g, _ := r.server().Grant(ctx, a.hello.Token, here.IP()); uses {
				if g.Backup || !g.MayRead(here.String(), rec.ID, "sda") || g.MayRead(there.String(), rec.ID, "sda") ||
					g.MayRead(here.String(), "20000101-000000", "sda") {
					t.Errorf("%s is granted %+v", c.action, g)
				}
			} else if g.MayRead != nil || g.Backup {
				t.Errorf("%s is granted %+v", c.action, g)
			}
			if w := a.ends(c.says); w != c.word {
				t.Errorf("%s, %s: the agent is told to %s", c.action, c.says, w)
			}
			j := r.job(s.ID, c.state, c.want)
			if c.state == job.Ended && c.action != box.RefreshInfo && j.Backup != rec.ID {
				t.Errorf("%s has used backup %q", c.action, j.Backup)
			}
			r.armed(here, c.state != job.Ended)
			switch c.state {
			case job.Armed:
				if _, err := r.server().Cancel(ctx, s.ID, "ann"); err != nil {
					t.Error(err)
				}
			case job.Rescue:
				if _, err := r.server().Grant(ctx, a.hello.Token, here.IP()); err == nil {
					t.Error("a rescue is granted something")
				}
				if w := a.ends(box.Done); w != job.Restart {
					t.Errorf("finish: the agent is told to %s", w)
				}
				r.job(s.ID, job.Ended, box.Done)
			}
		}
	})
}

// Three attempts use the same backup, also when there is a newer one, and the agent of
// each has a session of its own.
func TestAttempts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		rec := r.store.add(here, "", "sda")
		s := r.add(here, box.Restore)
		var last *agent
		for n := 1; n <= limits.Attempts; n++ {
			a := r.boot(here).works()
			if a.work.Attempt != n || a.work.Record.ID != rec.ID {
				t.Errorf("attempt %d is number %d with backup %s", n, a.work.Attempt, a.work.Record.ID)
			}
			if last != nil {
				if _, err := r.server().Report(ctx, last.hello.Token, here.IP(), &wire.Report{Number: 9}); !errors.Is(err, errNoSession) {
					t.Errorf("the agent of an earlier attempt has a session: %v", err)
				}
			}
			r.store.add(here, "", "sda")
			a.ends(box.Failed)
			last = a
		}
		r.job(s.ID, job.Ended, box.Failed)
	})
}

func TestWrongAddress(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here)
		a.from = there.IP()
		if w := a.says(); w != job.Refuse {
			t.Errorf("an agent at another address is told to %s", w)
		}
		a.says()
		if n := len(r.audit("alarm")); n != 1 {
			t.Errorf("the audit log has %d alarms", n)
		}
		a.from = here.IP()
		a.works()
		for _, from := range []box.Addr{there, {}} {
			_, grant := r.server().Grant(ctx, a.hello.Token, from.IP())
			_, report := r.server().Report(ctx, a.hello.Token, from.IP(), &wire.Report{Number: 1})
			_, result := r.server().Result(ctx, a.hello.Token, from.IP(), &wire.Result{Outcome: box.Failed})
			inventory := r.server().Inventory(ctx, a.hello.Token, from.IP(), box.InfoText, nil)
			for _, err := range []error{grant, report, result, inventory} {
				if !errors.Is(err, errNoSession) {
					t.Errorf("a session is used from %s: %v", from, err)
				}
			}
		}
		a.hello.Box = there
		if w := a.says(); w != job.Refuse {
			t.Errorf("an agent that names another box is told to %s", w)
		}
		r.job(s.ID, job.Running, "")
		a.hello.Arming = box.NewArming()
		if w := a.says(); w != job.Refuse {
			t.Errorf("an agent with an unknown arming is told to %s", w)
		}
	})
}

// Strangers who say hello again and again cause one line of the log in a while, and the
// next line says how many were left out. Nothing of it is in the audit log.
func TestStrangersFillNoLog(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		lines := func() int { return strings.Count(r.log.String(), "does not know") }
		h := wire.Hello{Protocol: wire.Version, Box: here, Secret: "1-aa", Token: strings.Repeat("a", wire.MinToken)}
		says := func(from box.Addr) {
			h.Arming = box.NewArming()
			if w, err := r.server().Hello(ctx, &h, from.IP()); err != nil || w.Word != job.Refuse {
				t.Fatal(w, err)
			}
		}
		for range 100 {
			says(here)
			time.Sleep(time.Second)
		}
		says(there)
		if n := lines(); n != 2 {
			t.Errorf("the log has %d lines\n%s", n, r.log)
		}
		time.Sleep(sparing.Every)
		says(here)
		if n := lines(); n != 3 || !strings.Contains(r.log.String(), "99 lines were left out before") {
			t.Errorf("the log has %d lines\n%s", n, r.log)
		}
		for n := range 2000 {
			says(boxAddr(n))
		}
		if n := lines(); n > 300 {
			t.Errorf("the log has %d lines", n)
		}
		if n := len(r.audit("alarm")); n != 0 {
			t.Errorf("the audit log has %d alarms", n)
		}
	})
}

func TestSecretUsedTwice(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a, b := r.boot(here), r.boot(here)
		a.works()
		if w := a.says(); w != job.Work {
			t.Errorf("an agent that repeats its hello is told to %s", w)
		}
		if w := b.says(); w != job.Restart {
			t.Errorf("an agent with a used secret is told to %s", w)
		}
		r.job(s.ID, job.Ended, box.Failed)
		r.armed(here, false)
		if n := len(r.audit("alarm")); n != 1 || !strings.Contains(r.log.String(), "used twice") {
			t.Errorf("the audit log has %d alarms", n)
		}
		if b := r.box(here); b.Health != ledger.Suspect || b.Reason == "" || len(r.audit("box is suspect")) != 1 {
			t.Errorf("the box is %s (%s)", b.Health, b.Reason)
		}
	})
}

// TestTokenOfAnotherJob has an agent come with the token of its box's job before. It
// must draw another one, since nobody could say what two jobs allow it.
func TestTokenOfAnotherJob(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.add(here, box.Backup)
		first := r.boot(here).works().commits()
		first.ends(box.Done)
		s := r.add(here, box.Restore)
		again := r.boot(here)
		token := again.hello.Token
		again.hello.Token = first.hello.Token
		if w := again.says(); w != job.Restart {
			t.Errorf("an agent with the token of another job is told to %s", w)
		}
		if _, err := r.server().Grant(ctx, first.hello.Token, again.from); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the token of a job that has ended is granted something: %v", err)
		}
		r.job(s.ID, job.Armed, "")
		again.hello.Token = token
		again.works().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
	})
}

// What an admin has said of a box counts more than what a job says.
func TestHealthOfAdmin(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Health: ledger.Maintenance, Reason: "new fan"})
		})
		s := r.add(here, box.Backup)
		time.Sleep(limits.Arming)
		r.job(s.ID, job.Ended, box.Expired)
		if b := r.box(here); b.Health != ledger.Maintenance || b.Reason != "new fan" {
			t.Errorf("the box is %s (%s)", b.Health, b.Reason)
		}
	})
}

func TestExpiry(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here)
		time.Sleep(limits.Arming / 2)
		synctest.Wait()
		if n := r.powers[here]; n != 2 {
			t.Errorf("power was asked for %d times", n)
		}
		time.Sleep(limits.Arming/2 + time.Second)
		r.job(s.ID, job.Ended, box.Expired)
		r.armed(here, false)
		if w := a.says(); w != job.Restart {
			t.Errorf("an agent that comes too late is told to %s", w)
		}
		if b := r.box(here); b.Health != ledger.Suspect {
			t.Errorf("the box is %s", b.Health)
		}
	})
}

func TestSilence(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here).works()
		updates := r.k.n
		for range 200 {
			time.Sleep(5 * time.Second)
			if w := a.reports(false); w != job.GoOn {
				t.Fatalf("the agent is told to %s", w)
			}
		}
		if r.k.n != updates {
			t.Errorf("signs of life led to %d calls", r.k.n-updates)
		}
		time.Sleep(limits.Silence - time.Second)
		r.job(s.ID, job.Running, "")
		time.Sleep(2 * time.Second)
		if j := r.job(s.ID, job.Armed, ""); j.Attempt != 2 {
			t.Errorf("the attempt is %d", j.Attempt)
		}
		if w := a.reports(false); w != job.Restart {
			t.Errorf("an agent that was silent is told to %s", w)
		}
	})
}

// When the server's clock is set, agents that are heard of are not silent, and those
// that are silent are found.
func TestClockIsSet(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		bubble(t, func(r *rig) {
			var set atomic.Int64
			r.cfg.Now = func() time.Time { return time.Now().Round(0).Add(24*time.Hour + time.Duration(set.Load())) }
			r.start(&knife{})
			s := r.add(here, box.Backup)
			a := r.boot(here).works()
			time.Sleep(time.Second)
			set.Store(int64(skew))
			kick(r.server().clockKick)
			for range 20 {
				time.Sleep(time.Second)
				r.job(s.ID, job.Running, "")
			}
			a.reports(false)
			time.Sleep(limits.Silence - time.Second)
			r.job(s.ID, job.Running, "")
			time.Sleep(pollClock + time.Second)
			r.job(s.ID, job.Armed, "")
		})
	}
}

// An agent is silent when so much time has passed, also if somebody has set the clock back
// since it was heard of last, to before its job or not.
func TestSilentWhileClockIsSetBack(t *testing.T) {
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour} {
		bubble(t, func(r *rig) {
			set := r.clock()
			r.start(&knife{})
			s := r.add(here, box.Backup)
			a := r.boot(here).works()
			for range 90 {
				time.Sleep(time.Minute)
				a.reports(false)
			}
			set.Store(-int64(back))
			time.Sleep(limits.Silence - time.Second)
			r.job(s.ID, job.Running, "")
			time.Sleep(pollClock + time.Second)
			r.job(s.ID, job.Armed, "")
		})
	}
}

// clock gives the server a clock that can be set. A server that looks at it again and again
// would keep the time of a test from passing, and is ended.
func (r *rig) clock() *atomic.Int64 {
	set, same, last := &atomic.Int64{}, &atomic.Int64{}, &atomic.Int64{}
	r.cfg.Now = func() time.Time {
		now := time.Now().Round(0)
		if last.Swap(now.UnixNano()) != now.UnixNano() {
			same.Store(0)
		}
		if same.Add(1) > 100_000 {
			panic("the server looks at its clock again and again")
		}
		return now.Add(48*time.Hour + time.Duration(set.Load()))
	}
	return set
}

// The clock is set back while jobs of all kinds are there, and the server is started again or
// not. No job ends by that, all go on, and a job that is asked for later is the later one.
func TestClockIsSetBack(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "started again": true} {
		for _, back := range []time.Duration{time.Hour, 24 * time.Hour} {
			t.Run(fmt.Sprint(name, " ", back), func(t *testing.T) {
				bubble(t, func(r *rig) {
					set := r.clock()
					r.start(&knife{})
					boxes := map[string]box.Addr{}
					for n, name := range []string{"queued", "armed", "running", "restarting", "held", "rescue"} {
						boxes[name] = boxAddr(n + 20)
						r.store.add(boxes[name], "", "sda")
					}
					r.put(func(tx *ledger.Tx) error {
						return tx.PutBox(ledger.Box{Address: boxes["queued"], Health: ledger.Good, Holder: ledger.Holder{Name: "bob"}})
					})
					queued := r.add(boxes["queued"], box.Backup)
					armed := r.add(boxes["armed"], box.Backup)
					running := r.add(boxes["running"], box.Backup)
					atWork := r.boot(boxes["running"]).works()
					up := r.add(boxes["restarting"], box.Restore, waitUp)
					r.boot(boxes["restarting"]).works().ends(box.Done)
					held, _ := r.hold(boxes["held"])
					rescue := r.add(boxes["rescue"], box.Rescue)
					r.boot(boxes["rescue"]).works().ends(box.Rescuing)

					set.Store(-int64(back))
					if restart {
						r.kill()
						r.start(&knife{})
					}
					kick(r.server().clockKick)
					r.server().Look()
					for range 3 {
						time.Sleep(pollClock + time.Second)
						if w := atWork.reports(false); w != job.GoOn {
							t.Errorf("the agent at work is told to %s", w)
						}
						r.waits(queued.ID, job.ForHolder)
						r.job(armed.ID, job.Armed, "")
						r.job(running.ID, job.Running, "")
						r.job(up.ID, job.Restarting, box.Done)
						r.job(held.ID, job.Held, box.Failed)
						r.job(rescue.ID, job.Rescue, "")
					}

					// All go on.
					atWork.commits().ends(box.Done)
					r.job(running.ID, job.Ended, box.Done)
					r.boot(boxes["armed"]).works().commits().ends(box.Done)
					r.job(armed.ID, job.Ended, box.Done)
					later := r.add(boxes["armed"], box.Verify)
					r.put(func(tx *ledger.Tx) error {
						last, err := tx.LastJobs([]box.Addr{boxes["armed"]})
						if got := last[boxes["armed"]].ID; got != later.ID {
							t.Errorf("the latest job of the box is %s, and not %s", got, later.ID)
						}
						return err
					})
					r.boot(boxes["armed"]).works().ends(box.Done)
					r.job(later.ID, job.Ended, box.Done)
					second := r.add(boxes["queued"], box.Verify)
					r.put(func(tx *ledger.Tx) error {
						return tx.PutBox(ledger.Box{Address: boxes["queued"], Health: ledger.Good})
					})
					r.server().Look()
					time.Sleep(time.Second)
					r.job(queued.ID, job.Armed, "")
					r.job(second.ID, job.Queued, "")
					r.answers(boxes["restarting"])
					r.server().DefaultAsked(boxes["restarting"], r.cfg.Now())
					time.Sleep(time.Minute)
					if j := r.job(up.ID, job.Ended, box.Done); j.Up != job.UpYes {
						t.Errorf("up is %q", j.Up)
					}
					last := int64(1 << 60)
					for _, e := range r.audit("") {
						if e.Number >= last {
							t.Errorf("entry %d of the audit log stands before %d", e.Number, last)
						}
						last = e.Number
					}
				})
			})
		}
	}
}

func TestNoPower(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.only = "powered"
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Name: "powered", Health: ledger.Good})
		})
		if s := r.add(there, box.Backup); r.job(s.ID, job.Armed, "").Power || r.powers[there] != 0 {
			t.Error("a box without a power command was switched off and on")
		}
		if s := r.add(here, box.Backup); !r.job(s.ID, job.Armed, "").Power || r.powers[here] != 1 {
			t.Error("a box with a power command was not switched off and on")
		}
	})
}

func TestUp(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.answers(here) // the maintenance system answers too
		s := r.add(here, box.RefreshInfo, waitUp)
		r.boot(here).works().ends(box.Done)
		r.server().DefaultAsked(here, time.Now().Add(-time.Minute)) // a request of before
		time.Sleep(time.Minute)
		r.job(s.ID, job.Restarting, box.Done)
		r.server().DefaultAsked(here, time.Now())
		time.Sleep(2 * probeEvery)
		if j := r.job(s.ID, job.Ended, box.Done); j.Up != job.UpYes {
			t.Errorf("up is %q", j.Up)
		}
		s = r.add(there, box.RefreshInfo, waitUp)
		r.boot(there).works().ends(box.Done)
		r.server().DefaultAsked(there, time.Now())
		time.Sleep(limits.Up)
		if j := r.job(s.ID, job.Ended, box.Done); j.Up != job.UpNo || r.box(there).Health != ledger.Suspect {
			t.Errorf("up is %q", j.Up)
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		cancel := func(id string) {
			t.Helper()
			if _, err := r.server().Cancel(WithWhy(ctx, "socket", "wrong box"), id, "bob"); err != nil {
				t.Error(err)
			}
		}
		first := r.add(here, box.Restore)
		queued := r.add(here, box.Restore)
		r.job(queued.ID, job.Queued, "")
		cancel(queued.ID)
		r.job(queued.ID, job.Ended, job.Cancelled)
		cancel(first.ID) // armed
		r.job(first.ID, job.Ended, job.Cancelled)
		r.armed(here, false)

		s := r.add(here, box.Restore)
		a := r.boot(here).works()
		cancel(s.ID)
		if _, err := r.server().Cancel(ctx, s.ID, "bob"); !isRefusal(err, "told to stop already") {
			t.Errorf("the second cancel: %v", err)
		}
		if w := a.reports(true); w != job.Stop {
			t.Errorf("the agent is told to %s", w)
		}
		a.ends(job.Cancelled)
		r.job(s.ID, job.Ended, job.Cancelled)

		s = r.add(here, box.Restore, waitUp)
		r.boot(here).works().ends(box.Done)
		cancel(s.ID) // restarting
		if j := r.job(s.ID, job.Ended, box.Done); j.Up != job.UpNo {
			t.Errorf("up is %q", j.Up)
		}

		s = r.add(here, box.Rescue)
		r.boot(here).works().ends(box.Rescuing)
		cancel(s.ID)
		r.job(s.ID, job.Ended, job.Cancelled)
		if _, err := r.server().Cancel(ctx, s.ID, "bob"); !isRefusal(err, "has ended") {
			t.Errorf("a job that has ended: %v", err)
		}
		if _, err := r.server().Cancel(ctx, "nothing", "bob"); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("no job: %v", err)
		}

		s = r.add(here, box.Restore)
		a = r.boot(here).works()
		a.reports(true)
		cancel(s.ID)
		a.ends(job.Cancelled)
		r.job(s.ID, job.Held, job.Cancelled)
		if _, err := r.server().Cancel(ctx, s.ID, "bob"); !isRefusal(err, "release the box") {
			t.Errorf("a held job: %v", err)
		}
		r.armed(here, true)
		if all := r.audit("cancel a job"); len(all) != 6 || all[0].Who != "bob" || all[0].From != "socket" || all[0].Why != "wrong box" {
			t.Errorf("the audit log has %d: %+v", len(all), all)
		}
	})
}

// A rescue is for boxes of which something is broken, and needs neither the list of
// disks nor the store.
func TestRescueNeedsNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.list(here, strings.Repeat("x", wire.MaxDisksFile+1))
		r.store.fail = errors.New("the bucket is away")
		for _, action := range []box.Action{box.Rescue, box.RefreshInfo} {
			s := r.add(here, action)
			a := r.boot(here).works()
			if a.work.Selection != nil {
				t.Error("the agent is told to use some disks")
			}
			a.ends(map[box.Action]box.Outcome{box.Rescue: box.Rescuing, box.RefreshInfo: box.Done}[action])
			if action == box.Rescue {
				r.job(s.ID, job.Rescue, "")
				a.ends(box.Done)
			}
			r.job(s.ID, job.Ended, box.Done)
		}
	})
}

// hold leads a box to a held restore.
func (r *rig) hold(a box.Addr, change ...func(*Request)) (Status, *agent) {
	r.Helper()
	s := r.add(a, box.Restore, change...)
	var last *agent
	for n := range limits.Attempts {
		last = r.boot(a).works()
		if last.reports(true) != job.GoOn {
			r.Fatal("the agent may not write")
		}
		if w := last.ends(box.Failed); (w == job.Hold) != (n == limits.Attempts-1) {
			r.Fatalf("the agent is told to %s", w)
		}
	}
	return r.job(s.ID, job.Held, box.Failed), last
}

func TestHeldAndReleased(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		s, a := r.hold(here)
		if w := a.says(); w != job.Hold {
			t.Errorf("a held box is told to %s", w)
		}
		if w := r.boot(here).says(); w != job.Hold {
			t.Errorf("a held box that restarts is told to %s", w)
		}
		if n := len(r.audit("alarm")); n != 1 {
			t.Errorf("the audit log has %d alarms", n)
		}
		backup := r.add(here, box.Backup)
		if j := r.job(backup.ID, job.Queued, ""); j.Wait == nil || j.Wait.Reason != job.ForHeld {
			t.Errorf("a backup of a held box waits for %+v", j.Wait)
		}
		if _, err := r.server().Release(WithWhy(ctx, "10.9.9.9", "mended by hand"), here, "bob"); err != nil {
			t.Fatal(err)
		}
		if j := r.job(s.ID, job.Ended, box.Failed); !j.Released {
			t.Error("the job is not released")
		}
		if _, err := r.server().Release(ctx, here, "bob"); !isRefusal(err, "is not held") {
			t.Errorf("the second release: %v", err)
		}
		if all := r.audit("release a box"); len(all) != 1 || all[0].Why != "mended by hand" || all[0].On != here.String() {
			t.Errorf("the audit log has %+v", all)
		}
		time.Sleep(time.Second)
		r.job(backup.ID, job.Armed, "")
	})
}

func TestTakeOver(t *testing.T) {
	for name, c := range map[string]struct {
		first, second Options
		newer         []string // disks of another backup that the second restore uses
		list          string   // disk-devices.lst is changed between them
		good          bool
		third         bool // a third restore, which is like the first, makes all good
	}{
		"the same":            {good: true},
		"the same disk":       {first: Options{Disks: []string{"sda"}}, second: Options{Disks: []string{"sda"}}, good: true},
		"more disks":          {first: Options{Disks: []string{"sda"}}, second: Options{Disks: []string{"sdb", "sda"}}, good: true},
		"fewer disks":         {second: Options{Disks: []string{"sda"}}}, // what all are, only the agent knows
		"other disks":         {first: Options{Disks: []string{"sda"}}, second: Options{Disks: []string{"sdb"}}},
		"all instead of some": {first: Options{Disks: []string{"sda"}}},
		"another list":        {list: "sda\n"},
		"a smaller backup":    {newer: []string{"sda"}},
		"fewer disks first":   {first: Options{Disks: []string{"sda", "sdb"}}, second: Options{Disks: []string{"sda"}}, third: true},
		"a larger backup":     {newer: []string{"sda", "sdb", "sdc"}, good: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start(&knife{})
				r.store.add(here, "", "sda", "sdb")
				first, held := r.hold(here, opts(c.first))
				if c.newer != nil {
					r.store.add(here, "", c.newer...)
				}
				r.list(here, c.list)
				second := r.add(here, box.Restore, opts(c.second))
				r.job(first.ID, job.Ended, box.Failed)
				j := r.job(second.ID, job.Armed, "")
				if !j.TookOver || j.AllDisks != c.good {
					t.Errorf("took over: %v, all disks: %v", j.TookOver, j.AllDisks)
				}
				if w := held.says(); w != job.Restart {
					t.Errorf("the agent of the held job is told to %s", w)
				}
				r.armed(here, true)
				a := r.boot(here).works()
				a.reports(true)
				a.ends(box.Done)
				if c.good {
					r.job(second.ID, job.Ended, box.Done)
				} else {
					r.job(second.ID, job.Held, box.Done)
				}
				r.armed(here, !c.good)
				if c.good {
					return
				}
				if !c.third {
					return
				}
				// A third one must make good what the first one left, whatever the second did.
				r.list(here, "")
				third := r.add(here, box.Restore, opts(c.first))
				if !r.job(third.ID, job.Armed, "").AllDisks {
					t.Error("the third restore is not one of all disks")
				}
			})
		})
	}
}

// list writes disk-devices.lst. With "" it removes it.
func (r *rig) list(a box.Addr, text string) {
	r.Helper()
	path := filepath.Join(r.dir, a.String(), box.DisksFile)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if text == "" {
		os.Remove(path)
	} else if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		r.Fatal(err)
	}
}

// A restore that took over must not begin with fewer disks than it began with.
func TestListChangedAfterTakeOver(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda", "sdb")
		r.hold(here)
		s := r.add(here, box.Restore)
		if !r.job(s.ID, job.Armed, "").AllDisks {
			t.Fatal("it is no restore of all disks")
		}
		r.list(here, "sda\n")
		if w := r.boot(here).says(); w != job.Hold {
			t.Errorf("the agent is told to %s", w)
		}
		r.job(s.ID, job.Held, box.Refused)
	})
}

// A rescue that took over leaves the box held, and what the restore before it owes.
func TestRescueOfHeldBox(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		r.hold(here)
		s := r.add(here, box.Rescue)
		r.boot(here).works().ends(box.Rescuing)
		if _, err := r.server().Finish(ctx, here, "bob"); err != nil {
			t.Error(err)
		}
		r.job(s.ID, job.Held, box.Done)
		if _, err := r.server().Finish(ctx, here, "bob"); !isRefusal(err, "not up for rescue") {
			t.Errorf("the second finish: %v", err)
		}
		restore := r.add(here, box.Restore, opts(Options{Disks: []string{"sda"}}))
		if r.job(restore.ID, job.Armed, "").AllDisks {
			t.Error("what the first restore left is forgotten")
		}
	})
}

// The host keys of a rescue are known as long as it lasts, also to a server that was
// started anew. Those of the next start of the box take their place.
func TestHostKeys(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Rescue)
		want := func(state job.State, keys ...string) {
			t.Helper()
			got := r.job(s.ID, state, "")
			if !slices.Equal(got.HostKeys, keys) {
				t.Errorf("the job is %s, with the host keys %q, not %q", got.State, got.HostKeys, keys)
			}
		}
		says := func(a *agent, key string) {
			t.Helper()
			_, err := a.server().Result(ctx, a.hello.Token, a.from, &wire.Result{Outcome: box.Rescuing, HostKeys: []string{key}})
			if err != nil {
				t.Fatal(err)
			}
		}
		says(r.boot(here).works(), "first")
		want(job.Rescue, "first")
		r.kill()
		r.start(&knife{})
		want(job.Rescue, "first")
		again := r.boot(here).works()
		want(job.Running)
		says(again, "second")
		want(job.Rescue, "second")
		again.ends(box.Done)
		if got := r.job(s.ID, job.Ended, box.Done); len(got.HostKeys) != 0 {
			t.Errorf("after its end the job has the host keys %q", got.HostKeys)
		}
	})
}

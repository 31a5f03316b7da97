package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
)

// logText is the log of a box.
func (r *rig) logText(a box.Addr) string {
	b, _ := os.ReadFile(filepath.Join(r.dir, a.String(), "maintenance.log"))
	return string(b)
}

// TestPowerFails: a box whose power command fails stays armed, says so, and waits for people. Power is
// asked for once more later.
func TestPowerFails(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.broken = errors.New("no route to the power strip")
		r.start(&knife{})
		s := r.add(here, box.Backup)
		j := r.job(s.ID, job.Armed, "")
		if j.Text != "The power command failed: no route to the power strip." || !j.Power || !j.ByHand {
			t.Errorf("the job says %q, %+v", j.Text, j.Job)
		}
		if log := r.logText(here); !strings.Contains(log, "restart (the power command fake): no route to the power strip") {
			t.Error(log)
		}
		if !strings.Contains(r.log.String(), "no route to the power strip") {
			t.Error("the server's log does not say it")
		}
		r.mu.Lock()
		r.broken = nil
		r.mu.Unlock()
		time.Sleep(limits.Arming / 2)
		if j := r.job(s.ID, job.Armed, ""); j.ByHand || r.powers[here] != 2 {
			t.Errorf("power was asked for %d times, and the job is %+v", r.powers[here], j.Job)
		}
		r.boot(here).works().commits().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
	})
}

// TestPowerOnceMore: a try that may succeed the next time is repeated after a while, and what the command said is in
// the log of the box.
func TestPowerOnceMore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		var at []time.Time
		r.runs = func(_ context.Context, b ledger.Box, try int) (Switched, error) {
			at = append(at, time.Now())
			if try < 3 {
				return Switched{By: "bmc", Output: fmt.Sprintf("one\n\ntry %d", try), Again: true}, errors.New("busy")
			}
			return Switched{By: "bmc", Output: strings.Repeat("x\n", 1000)}, nil
		}
		r.start(&knife{})
		s := r.add(here, box.Backup)
		if j := r.job(s.ID, job.Armed, ""); j.Settled || j.ByHand {
			t.Errorf("the job does not wait for the next try: %+v", j.Job)
		}
		time.Sleep(time.Minute)
		if len(at) != 3 || at[1].Sub(at[0]) != powerPause || at[2].Sub(at[1]) != powerPause {
			t.Errorf("%v", at)
		}
		if j := r.job(s.ID, job.Armed, ""); !j.Settled || j.Cycle || j.ByHand || j.Text != "" {
			t.Errorf("%+v", j.Job)
		}
		log := r.logText(here)
		for _, want := range []string{"power: try 1", "power: try 2", "restart (the power command bmc): busy", "[800 lines are left out]",
			"restart (the power command bmc): done."} {
			if !strings.Contains(log, want) {
				t.Errorf("the log has no %q", want)
			}
		}
	})
}

// TestPowerGivesWay: a box that says hello gets no second try, which would cut its power in the middle of its work. A
// command that runs already is not stopped, since the box may be off.
func TestPowerGivesWay(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		tries, stopped := 0, false
		r.runs = func(ctx context.Context, _ ledger.Box, _ int) (Switched, error) {
			tries++
			time.Sleep(time.Minute)
			stopped = stopped || ctx.Err() != nil
			return Switched{By: "slow", Again: true}, errors.New("it did not answer in time")
		}
		r.start(&knife{})
		s := r.add(here, box.Backup)
		time.Sleep(time.Second)
		a := r.boot(here).works()
		time.Sleep(2 * time.Minute)
		if j := r.job(s.ID, job.Running, ""); tries != 1 || stopped || j.ByHand {
			t.Errorf("%d tries, stopped: %v, %+v", tries, stopped, j.Job)
		}
		a.commits().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
	})
}

// TestPowerComesTooLate: a power command that has waited for its turn is not begun when the box has come meanwhile, since
// it would cut the power while a disk is written.
func TestPowerComesTooLate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.turn = time.Minute
		r.start(&knife{})
		s := r.add(here, box.Backup)
		time.Sleep(time.Second)
		var err error
		go func() { // it waits for the power command of the job, and then for its own turn
			time.Sleep(50 * time.Second)
			_, err = r.server().SwitchPower(ctx, here, power.Off, "ann", false)
		}()
		r.job(s.ID, job.Armed, "")
		a := r.boot(here).works()
		time.Sleep(3 * time.Minute)
		if j := r.job(s.ID, job.Running, ""); r.begun != 0 || j.ByHand || j.Text != "" {
			t.Errorf("%d were begun, and the job is %+v", r.begun, j.Job)
		}
		if !isRefused(err) || len(r.switched) != 0 {
			t.Errorf("%v, %q", err, r.switched)
		}
		if log := r.logText(here); strings.Contains(log, "restart") {
			t.Error(log)
		}
		a.commits().ends(box.Done)
		other := r.add(there, box.Backup)
		time.Sleep(3 * time.Minute)
		if r.job(other.ID, job.Armed, ""); r.begun != 1 {
			t.Errorf("%d were begun for a box that waits", r.begun)
		}
		done := make(chan error)
		go func() {
			_, err := r.server().SwitchPower(ctx, there, power.Off, "ann", false)
			done <- err
		}()
		time.Sleep(time.Second)
		b := r.boot(there).works()
		if err := <-done; !isRefused(err) || len(r.switched) != 0 {
			t.Errorf("%v, %q", err, r.switched)
		}
		b.commits().ends(box.Done)
	})
}

// TestPowerTakenAway: a job that was made before the server lost its power commands does not take its box for restarted.
func TestPowerTakenAway(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.cfg.Starting = 1
		r.start(&knife{})
		r.add(here, box.Backup)
		s := r.add(there, box.Backup)
		r.waits(s.ID, job.ForPower)
		r.server().Close()
		r.cfg.Power, r.cfg.Starting = nil, 0
		r.start(&knife{})
		time.Sleep(time.Second)
		if j := r.job(s.ID, job.Armed, ""); !j.ByHand || j.Text != "The server has no power command any more. Restart the box." {
			t.Errorf("%+v", j.Job)
		}
	})
}

// TestPowerOnAlone: where a box may run all the same, people are told.
func TestPowerOnAlone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.runs = func(context.Context, ledger.Box, int) (Switched, error) {
			return Switched{By: "wake", Short: "It was woken. If it runs, restart it."}, nil
		}
		r.start(&knife{})
		s := r.add(here, box.Backup)
		if j := r.job(s.ID, job.Armed, ""); !j.ByHand || j.Text != "It was woken. If it runs, restart it." {
			t.Errorf("%+v", j.Job)
		}
	})
}

// TestStarting: of many boxes some start at once.
func TestStarting(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.cfg.Starting = 1
		r.start(&knife{})
		one, two := r.add(here, box.Backup), r.add(there, box.Backup)
		r.job(one.ID, job.Armed, "")
		r.waits(two.ID, job.ForPower)
		r.boot(here).works().commits().ends(box.Done)
		time.Sleep(time.Second)
		r.job(two.ID, job.Armed, "")
		third := r.add(boxAddr(1<<8+3), box.Backup)
		r.waits(third.ID, job.ForPower)
		time.Sleep(job.StartTime + pollQueue) // the second one never comes
		r.job(third.ID, job.Armed, "")
	})
}

// TestSwitchPower: an admin switches a box, unless somebody is at work there.
func TestSwitchPower(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		if _, err := r.server().SwitchPower(ctx, here, power.Off, "ann", false); !isRefused(err) {
			t.Error(err)
		}
		r.server().Close()
		r.power()
		r.start(&knife{})
		did, err := r.server().SwitchPower(WithWhy(ctx, "socket", "it hangs"), here, power.Off, "ann", false)
		if err != nil || did.Output != "says off" || did.By != "fake" {
			t.Errorf("%+v, %v", did, err)
		}
		if all := r.audit("power off"); len(all) != 1 || all[0].Who != "ann" || all[0].On != here.String() || all[0].Why != "it hangs" {
			t.Errorf("%+v", all)
		}
		if log := r.logText(here); !strings.Contains(log, "power: says off") ||
			!strings.Contains(log, "off, as ann asked for (the power command fake): done.") {
			t.Error(log)
		}
		s := r.add(here, box.Backup)
		r.job(s.ID, job.Armed, "")
		if _, err := r.server().SwitchPower(ctx, here, power.Cycle, "ann", false); err != nil {
			t.Errorf("an armed box: %v", err)
		}
		r.boot(here).works()
		if _, err := r.server().SwitchPower(ctx, here, power.Cycle, "ann", false); !isRefused(err) || !strings.Contains(err.Error(), s.ID) {
			t.Errorf("a box at work: %v", err)
		}
		r.broken = errors.New("no route")
		if _, err := r.server().SwitchPower(ctx, here, power.On, "ann", true); err == nil || err.Error() != "no route" {
			t.Error(err)
		}
		if want := []string{here.String() + " off", here.String() + " cycle", here.String() + " on"}; !slices.Equal(r.switched, want) {
			t.Errorf("%q", r.switched)
		}
		if all := r.audit("power on"); len(all) != 1 || all[0].Why != "forced" {
			t.Errorf("%+v", all)
		}
		if _, err := r.server().SwitchPower(ctx, here, power.On, "", true); err == nil {
			t.Error("nobody may do it")
		}
	})
}

// TestSwitchPowerWaits: the command of an admin and that of a job do not run at once.
func TestSwitchPowerWaits(t *testing.T) {
	bubble(t, func(r *rig) {
		r.power()
		r.runs = func(context.Context, ledger.Box, int) (Switched, error) {
			time.Sleep(time.Minute)
			return Switched{By: "slow"}, nil
		}
		r.start(&knife{})
		r.add(here, box.Backup)
		synctest.Wait()
		_, err := r.server().SwitchPower(ctx, here, power.On, "ann", false)
		if !isRefused(err) || !strings.Contains(err.Error(), "runs already") {
			t.Error(err)
		}
		if _, err := r.server().SwitchPower(ctx, there, power.On, "ann", false); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if _, err := r.server().SwitchPower(ctx, here, power.On, "ann", false); err != nil {
			t.Error(err)
		}
	})
}

func isRefused(err error) bool {
	var p *problem.Error
	return errors.As(err, &p) && p.Kind == problem.Refused
}

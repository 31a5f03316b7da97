package dispatch

import (
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

var here, there = boxAddr(1<<8 + 1), boxAddr(1<<8 + 2)

// pass lets time pass.
func pass(d time.Duration) { time.Sleep(d) }

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
		if w := a.commits().ends(box.Done); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		r.armed(here, false)
		j := r.job(s.ID, job.Ended, box.Done)
		if !j.Settled || j.Backup == "" || len(j.Receipts) != 1 || !r.forgot[a.hello.Token] {
			t.Errorf("the job is %+v", j)
		}
		if _, err := r.server().Grant(ctx, a.hello.Token, here.IP()); err == nil {
			t.Error("an agent whose job has ended is granted something")
		}
		pass(time.Minute)
		if w := a.ends(box.Done); w != job.Restart {
			t.Errorf("the agent that repeats its result is told to %s", w)
		}
	})
}

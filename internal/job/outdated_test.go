package job

import (
	"testing"
	"time"

	"testbox-imaging/internal/box"
)

// TestOutdated: no job of an old copy is done once more, and no disk runs that may be
// half restored.
func TestOutdated(t *testing.T) {
	for _, action := range []box.Action{box.Backup, box.Restore} {
		for name, to := range map[string]func(p *play){
			"queued":  func(*play) {},
			"armed":   func(p *play) { p.happens(Slot{}) },
			"running": func(p *play) { p.happens(Slot{}).boots(1) },
			"written": func(p *play) { p.happens(Slot{}).boots(1).writes(1) },
		} {
			for _, armed := range []bool{true, false} {
				p := newPlay(t, action)
				to(p)
				if p.file = nil; armed {
					p.file = &WriteBootFile{p.job.Arming, "later"}
				}
				p.job = Outdated(p.job, armed, p.now)
				var fx []Effect
				p.job, fx = Resume(p.job, p.now, limits)
				for _, f := range fx {
					p.do(p.job, f)
				}
				state := Ended
				if armed && action == box.Restore {
					state = Held
				}
				if p.job.State != state || p.job.Outcome != Cancelled || p.job.Settled {
					t.Errorf("%s of a %s, armed %v: %s, %s", name, action, armed, p.job.State, p.job.Outcome)
				}
				p.ownDisk(state == Ended)
				if len(p.sessions) > 0 {
					t.Errorf("%s of a %s, armed %v: a session goes on", name, action, armed)
				}
			}
		}
	}
	held := newPlay(t, box.Restore).happens(Slot{}).boots(1).writes(1).happens(Cancel{"ann"}).says(1, Cancelled)
	if j := Outdated(held.job, true, held.now); j != held.job {
		t.Errorf("a held job with its boot file becomes %+v", j)
	}
	if j := Outdated(held.job, false, held.now); j.State != Ended {
		t.Errorf("a held job that was released since is %s", j.State)
	}
	up := newPlay(t, box.Restore, func(o *Order) { o.WaitUp = true }).happens(Slot{}).boots(1).writes(1).says(1, box.Done)
	if j := Outdated(up.job, false, up.now.Add(time.Hour)); j.State != Ended || j.Outcome != box.Done {
		t.Errorf("a job that was done becomes %+v", j)
	}
}

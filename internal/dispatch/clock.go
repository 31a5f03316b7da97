package dispatch

import (
	"time"

	"testbox-imaging/internal/job"
)

// clock does what is due: ticks of jobs, effects that failed before, and forgetting
// jobs that ended long ago. It waits for nothing but time.
func (d *Dispatch) clock() {
	for {
		now := d.cfg.Now()
		next := now.Add(pollClock)
		d.mu.Lock()
		for _, t := range d.tasks {
			at := d.nextTime(t, now)
			switch {
			case at.IsZero() || t.due:
			case at.After(now):
				if at.Before(next) {
					next = at
				}
			case t.job.State == job.Ended && t.leftAt.IsZero():
				d.drop(t)
			case d.closed:
			default:
				t.due = true
				d.work.Add(1)
				go d.look(t)
			}
		}
		d.mu.Unlock()
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-timer.C:
		case <-d.clockKick:
		case <-d.ctx.Done():
		}
		timer.Stop()
		if d.ctx.Err() != nil {
			return
		}
	}
}

// setHeard sees to it that an agent was not heard of in the future, if somebody has set the
// server's clock back. The lane is held.
func (d *Dispatch) setHeard(t *task, now time.Time) {
	heard := now.Add(-time.Since(t.heard))
	if t.job.State != job.Running || !t.job.Heard.After(heard) {
		return
	}
	d.mu.Lock()
	t.job.Heard = heard.UTC().Round(0)
	d.mu.Unlock()
}

// tickAt is when a job needs a tick, or zero. Somebody may have set the server's
// clock, so an agent is silent only if so much time has passed since it was heard of.
func (d *Dispatch) tickAt(t *task, now time.Time) time.Time {
	if t.job.Later(now) { // the clock was set back, and a tick puts the job's times right
		return now
	}
	if t.job.State == job.Running && !t.job.Cancel {
		return now.Add(d.cfg.Limits.Silence - time.Since(t.heard))
	}
	return t.job.Due(d.cfg.Limits)
}

// guardAt is when it is looked whether a box has its boot file, or zero. Without the file
// it would start from a disk that is not fit to run.
func (d *Dispatch) guardAt(t *task, now time.Time) time.Time {
	if t.job.BootFile() == nil || !t.job.Unfit() {
		return time.Time{}
	}
	return now.Add(guardEvery - time.Since(t.guarded))
}

// guard writes the boot file again if somebody has removed it or put another one in its
// place. That is logged once for a job.
func (d *Dispatch) guard(t *task) {
	file := t.job.BootFile()
	if !d.cfg.Boots.Armed(d.ctx, t.job.Box, file.Arming, file.Secret) {
		if !t.missed {
			t.missed = true
			const text = "the boot file was removed or replaced; it is written again, since a disk of this box is not fit to run"
			d.cfg.Log.Warn(text, "job", t.job.ID, "box", t.job.Box.String())
			d.openLog(t, "")
			t.log.say(true, text)
		}
		d.effects(t, []job.Effect{*file}) // a failure is logged, and the next look is soon
	}
	d.mu.Lock()
	t.guarded = time.Now()
	d.mu.Unlock()
}

// nextTime is when there is something to do for a job, or zero. The mutex is held.
func (d *Dispatch) nextTime(t *task, now time.Time) time.Time {
	at := d.tickAt(t, now)
	if t.job.State == job.Ended && !t.unsaved {
		at = t.job.Since.Add(keepEnded)
	}
	if t.job.State == job.Restarting && !t.asked.IsZero() && t.asked.Before(at) {
		at = t.asked
	}
	if !at.IsZero() && at.Before(t.tickAfter) {
		at = t.tickAfter
	}
	if !t.leftAt.IsZero() && (at.IsZero() || t.leftAt.Before(at)) {
		at = t.leftAt
	}
	if guard := d.guardAt(t, now); !guard.IsZero() && (at.IsZero() || guard.Before(at)) {
		at = guard
	}
	return at
}

// look does what is due for a job.
func (d *Dispatch) look(t *task) {
	defer d.work.Done()
	defer func() {
		d.mu.Lock()
		t.due = false
		d.mu.Unlock()
		kick(d.clockKick)
	}()
	if t.lane.lock(d.ctx) != nil {
		return
	}
	defer t.lane.unlock()
	now := d.cfg.Now()
	d.setHeard(t, now)
	if due := d.tickAt(t, now); !due.IsZero() && !now.Before(due) && !now.Before(t.tickAfter) {
		d.tell(t, job.Tick{Waits: d.waitText(t)})
	}
	d.mu.Lock()
	asked, tryAgain := t.asked, !t.leftAt.IsZero() && !now.Before(t.leftAt)
	t.asked = time.Time{}
	d.mu.Unlock()
	if !asked.IsZero() {
		if !d.tell(t, job.DefaultAsked{At: asked}) {
			d.mu.Lock()
			if t.asked.IsZero() {
				t.asked = asked
			}
			d.mu.Unlock()
		}
	}
	if tryAgain && !t.leftAt.IsZero() {
		d.again(t)
	}
	if guard := d.guardAt(t, now); !guard.IsZero() && !now.Before(guard) {
		d.guard(t)
	}
}

// waitText says what a queued job waits for, or "".
func (d *Dispatch) waitText(t *task) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.wait == nil || t.job.State != job.Queued {
		return ""
	}
	return t.wait.Text
}

// tell lets something happen to a job whose lane is held. If it cannot be made
// durable, it is tried again after a while.
func (d *Dispatch) tell(t *task, e job.Event) bool {
	m := d.happens(t, e)
	if err := d.commit(m); err != nil {
		d.cfg.Log.Error("it is tried again", "error", err)
		d.mu.Lock()
		t.tickAfter = d.cfg.Now().Add(10 * firstPause)
		d.mu.Unlock()
		return false
	}
	d.carry(m) // what fails is noted
	return true
}

package job

import (
	"fmt"
	"slices"
	"time"

	"testbox-imaging/internal/box"
)

// Next is what becomes of a job by an event. The caller makes the new job
// durable before it carries out any of the effects. Where Heard alone is
// different, it need not be made durable.
func Next(j Job, e Event, now time.Time, l Limits) (Job, []Effect) {
	j = j.notLater(instant(now))
	t := turn{Job: j, now: instant(now), limits: l}
	switch e := e.(type) {
	case Slot:
		t.slot(e)
	case NewJob:
		t.newJob(e)
	case Cancel:
		t.cancel(e)
	case Release:
		t.release(e)
	case Finish:
		t.finish(e)
	case Hello:
		t.hello(e)
	case Report:
		t.report(e)
	case Result:
		t.result(e)
	case Tick:
		t.tick(e)
	case DefaultAsked:
		t.defaultAsked(e)
	case Probed:
		t.probed(e)
	case PowerFailed:
		t.powerFailed(e)
	case ArmFailed:
		t.armFailed(e)
	case Settled:
		return settled(j, e)
	}
	before, after := j, t.Job
	before.Heard = after.Heard
	if before != after {
		t.Step, t.Settled = t.Step+1, false
		return t.Job, append(pending(t.Job), t.reply...)
	}
	if t.sends() {
		return t.Job, append(standing(t.Job), t.reply...)
	}
	return t.Job, t.reply
}

// Later reports whether the job's state began in the future, since somebody has set the
// clock back. Next puts that right.
func (j Job) Later(now time.Time) bool { return j.State != Ended && j.Since.After(now) }

// notLater is a job whose state did not begin in the future. Its deadline is as far away as
// it was.
func (j Job) notLater(now time.Time) Job {
	if !j.Later(now) {
		return j
	}
	if !j.Deadline.IsZero() {
		j.Deadline = j.Deadline.Add(now.Sub(j.Since))
	}
	j.Since = now
	for _, at := range []*time.Time{&j.Disarmed, &j.Default, &j.Heard} {
		if at.After(now) {
			*at = now
		}
	}
	return j
}

// turn is one call of Next. Its methods change the job.
type turn struct {
	Job
	now    time.Time
	limits Limits
	reply  []Effect // what the event itself has for an effect, beside what the new state asks for
}

func (t *turn) answer(w Word)         { t.reply = append(t.reply, Answer{w}) }
func (t *turn) ignore(because string) { t.reply = append(t.reply, Ignored{because}) }

// sends reports whether the agent is sent to work or to restart, or is held. Its boot
// file must be right before that, even if this answer is a repeated one. A held agent
// asks again and again, so a boot file that somebody has removed comes back.
func (t *turn) sends() bool {
	for _, fx := range t.reply {
		if a, ok := fx.(Answer); ok && slices.Contains([]Word{Work, Restart, Retry, Hold}, a.Word) {
			return true
		}
	}
	return false
}

// enter begins a state. The state lasts for a time, or without an end if that is 0.
func (t *turn) enter(s State, lasts time.Duration, text string) {
	t.State, t.Since, t.Text = s, t.now, text
	t.Deadline, t.Half, t.Cycle, t.ByHand = time.Time{}, false, false, false
	if lasts > 0 {
		t.Deadline = t.now.Add(lasts)
	}
}

// end ends the job with an outcome that is no success. If a disk is not fit to
// run, it is held instead.
func (t *turn) end(o box.Outcome, c Class, text string) {
	t.Outcome, t.Class = o, c
	if !t.Unfit() {
		t.close(UpNotAsked, text)
		return
	}
	t.enter(Held, 0, text)
	if o != Cancelled && t.Alarm == "" { // who cancels is told at once
		t.Alarm = fmt.Sprintf("Box %s is held by job %s, since a restore was not finished.", t.Box, t.ID)
	}
}

// close ends the job for good.
func (t *turn) close(up Up, text string) {
	t.enter(Ended, 0, text)
	t.Up, t.Seed = up, Seed{}
}

// succeed takes the outcome of an action that was done. A job that took over a
// held box leaves one that is still not fit to run, unless it has restored all
// disks.
func (t *turn) succeed(o box.Outcome, text string) {
	t.Outcome, t.Class = o, ""
	switch {
	case t.Unfit():
		t.enter(Held, 0, "The action is done, but an earlier restore of this box was not finished.")
	case t.WaitUp:
		t.enter(Restarting, t.limits.Up, text)
	default:
		t.close(UpNotAsked, text)
	}
}

// arm waits for the box to start maintenance.
func (t *turn) arm(cycle bool, text string) {
	t.enter(Armed, t.limits.Arming, text)
	t.Cycle = cycle && t.Power
}

// lose is what becomes of the job when an attempt led to nothing.
func (t *turn) lose(c Class, cycle bool, text string) {
	switch {
	case t.Cancel:
		t.end(Cancelled, ClassAdmin, t.Text)
	case t.Attempt >= t.limits.Attempts:
		t.end(box.Failed, c, text)
	default:
		t.Attempt++
		t.arm(cycle, text)
	}
}

func (t *turn) slot(e Slot) {
	if t.State != Queued {
		t.ignore("the job has begun")
		return
	}
	if t.late(t.now) && !e.TakesOver { // one that takes over becomes held in its place
		t.miss("")
		return
	}
	if e.TakesOver {
		t.TookOver, t.AllDisks = true, e.AllDisks
	}
	t.Attempt = max(t.Attempt, 1)
	t.arm(true, "")
	if !t.Until.IsZero() && t.Deadline.After(t.Until) {
		t.Deadline = t.Until
	}
}

// miss ends a job that did not get its turn in time.
func (t *turn) miss(waits string) {
	text := fmt.Sprintf("This job had to begin before %s, and did not.", minute(t.Until))
	if waits != "" {
		text += " " + waits
	}
	t.end(box.Expired, ClassAdmin, text)
}

func (t *turn) newJob(e NewJob) {
	if t.State != Held {
		t.ignore("only a held job makes way for a new one")
		return
	}
	t.close(UpNotAsked, fmt.Sprintf("Job %s took over.", e.ID))
}

func (t *turn) cancel(e Cancel) {
	text := fmt.Sprintf("Cancelled by %s.", e.By)
	switch t.State {
	case Queued, Armed, Rescue:
		t.end(Cancelled, ClassAdmin, text)
	case Running: // the agent is told by the answer to its next report
		if t.Cancel {
			t.ignore("the agent is told to stop already")
			return
		}
		t.Cancel, t.Text, t.Deadline = true, text, t.now.Add(t.limits.Silence)
	case Restarting: // what was asked for is done, and only the wait for the box ends
		t.close(UpNo, text)
	case Held:
		t.ignore("a disk is not fit to run; release the box, or restore it by a new job")
	case Ended:
		t.ignore("the job has ended")
	}
}

func (t *turn) release(e Release) {
	if t.State != Held {
		t.ignore("the box is not held")
		return
	}
	t.Released = true
	t.close(UpNotAsked, fmt.Sprintf("Released by %s.", e.By))
}

func (t *turn) finish(e Finish) {
	if t.State != Rescue {
		t.ignore("the box is not up for rescue")
		return
	}
	t.succeed(box.Done, fmt.Sprintf("Finished by %s.", e.By))
}

func (t *turn) hello(e Hello) {
	use := t.use(e.Secret)
	switch {
	case e.From != t.Box:
		if use != notGenuine {
			t.reply = append(t.reply, Alarm{fmt.Sprintf("A secret of job %s, which is for %s, came from %s.", t.ID, t.Box, e.From)})
		}
		t.answer(Refuse)
	case t.State == Held:
		t.answer(Hold)
	case t.State == Queued, t.State == Restarting, t.State == Ended: // there is nothing for an agent to do
		t.answer(Restart)
	case use == notGenuine, e.Session == (Session{}):
		t.answer(Refuse)
	case use == usedBefore && e.Session == t.Session && e.Secret == t.Seed.Secret(t.Secrets):
		t.helloAgain()
	case use == usedBefore:
		t.Alarm = fmt.Sprintf("A one-time secret of job %s was used twice from %s.", t.ID, t.Box)
		t.end(box.Failed, ClassBox, "A one-time secret was used twice.")
		t.answer(t.word())
	default:
		t.come(e)
	}
}

// helloAgain is for an agent that did not get the answer to its hello.
func (t *turn) helloAgain() {
	if t.State == Running {
		t.answer(Work)
		return
	}
	t.answer(t.word())
}

// come is for a box that comes with the secret of its boot file. It is what uses
// up an arming.
func (t *turn) come(e Hello) {
	if t.State == Armed && !t.now.Before(t.Deadline) {
		t.expire()
		t.answer(t.word())
		return
	}
	t.Secrets, t.Session, t.Heard = t.Secrets+1, e.Session, t.now
	switch {
	case e.Stranger != "":
		t.end(box.Refused, ClassBox, e.Stranger)
	case t.State == Running && (t.Cancel || t.Attempt >= t.limits.Attempts):
		t.lose(ClassBox, false, "The box restarted during the last attempt.")
	default:
		t.begin(e)
		return
	}
	t.answer(t.word())
}

// begin gives the session to an agent that may have it.
func (t *turn) begin(e Hello) {
	switch t.State {
	case Running: // the box restarted by itself
		t.Attempt++
	case Rescue: // so it did, and people want it up again
		t.Attempt = 1
	}
	text := fmt.Sprintf("The agent speaks version %d of the protocol, and the server version %d.", e.Protocol, t.limits.Protocol)
	switch {
	case e.Protocol == t.limits.Protocol:
		t.enter(Running, 0, "")
		t.answer(Work)
		return
	case t.Unfit(): // it must not wait for a new maintenance system with its own one
		t.end(box.Failed, ClassServer, text)
	default:
		t.enter(Queued, 0, text)
	}
	t.answer(t.word())
}

// word is what an agent is told to which the job has nothing new to say.
func (t *turn) word() Word {
	switch {
	case t.State == Running && t.Cancel:
		return Stop
	case t.State == Running, t.State == Rescue:
		return GoOn
	case t.State == Held:
		return Hold
	}
	return Restart
}

func (t *turn) report(e Report) {
	if e.Session != t.Session || e.Session == (Session{}) {
		t.answer(Refuse)
		return
	}
	if t.State == Running || t.State == Rescue {
		t.Heard = t.now
	}
	if t.State == Running && e.Writes && !t.Cancel { // else the answer is Stop, and the agent does not write
		t.Wrote = true
	}
	t.answer(t.word())
}

func (t *turn) result(e Result) {
	switch {
	case e.Session != t.Session || e.Session == (Session{}):
		t.answer(Refuse)
		return
	case t.State == Rescue && e.Outcome == box.Done: // `testbox-maintenance finish`
		t.succeed(box.Done, e.Text)
	case t.State == Armed: // its outcome is known, or it was silent for too long
		t.answer(Retry)
		return
	case t.State == Running:
		t.Wrote = t.Wrote || e.Wrote
		t.outcome(e)
		if t.State == Armed {
			t.answer(Retry)
			return
		}
	}
	t.answer(t.word())
}

// outcome takes what the agent says of its action.
func (t *turn) outcome(e Result) {
	class := e.Class
	if class != ClassImage && class != ClassServer && class != ClassNetwork && class != ClassAdmin {
		class = ClassBox
	}
	switch o := t.believed(e.Outcome); o {
	case box.Done, box.BadSectors, box.Differs:
		t.succeed(o, e.Text)
	case box.Refused:
		t.end(o, class, e.Text)
	case box.Rescuing:
		t.Heard = t.now
		t.enter(Rescue, 0, e.Text)
	default: // the agent restarts by itself, so power is let alone
		t.lose(class, false, e.Text)
	}
}

// believed is the outcome that counts. What does not belong to the action is a
// failure, so that nothing unknown is ever taken for success.
func (t *turn) believed(o box.Outcome) box.Outcome {
	switch {
	case o == box.Done && t.Action == box.Rescue: // nobody was let in
	case o == box.Done, o == box.Refused,
		o == box.BadSectors && t.Action != box.Rescue && t.Action != box.RefreshInfo,
		o == box.Differs && t.Action == box.Verify,
		o == box.Rescuing && t.Action == box.Rescue && !t.Cancel:
		return o
	}
	return box.Failed
}

func (t *turn) tick(e Tick) {
	due := t.Due(t.limits)
	if due.IsZero() || t.now.Before(due) {
		t.ignore("nothing is due")
		return
	}
	switch t.State {
	case Queued:
		t.miss(e.Waits)
	case Armed:
		if t.now.Before(t.Deadline) {
			t.askAgain()
			return
		}
		t.expire()
	case Running:
		t.lose(ClassBox, true, fmt.Sprintf("The agent was silent for %s.", t.limits.Silence))
	case Restarting:
		if t.now.Before(t.Deadline) {
			t.askAgain()
			return
		}
		t.Class = ClassBox
		t.close(UpNo, "The box's own system was not seen.")
	}
}

// askAgain lets power be asked for once more.
func (t *turn) askAgain() {
	if t.State == Armed && t.ByHand {
		t.Text = "" // it says why the first time did not help
	}
	t.Half, t.Cycle, t.ByHand = true, true, false
}

// expire ends an arming for which no box came.
func (t *turn) expire() {
	why := "" // nobody restarted it
	if t.ByHand {
		why = " " + t.Text
	}
	switch {
	case t.Attempt == 1 && t.late(t.now):
		class := ClassAdmin // the box may have had no time, or nobody was there who restarts it
		if t.Power && !t.ByHand && t.now.Sub(t.Since) >= afterStart {
			class = ClassBox
		}
		t.end(box.Expired, class, fmt.Sprintf("The box did not start maintenance before %s, when this job had to begin.%s", minute(t.Until), why))
		return
	case t.Attempt == 1:
		t.end(box.Expired, ClassBox, "The box did not start maintenance."+why)
		return
	}
	t.end(box.Failed, ClassBox, "The box did not start maintenance for the next attempt."+why)
}

func (t *turn) defaultAsked(e DefaultAsked) {
	at := instant(e.At)
	switch {
	case t.State != Restarting:
		t.ignore("only a box that has to show its own system is waited for")
	case t.starts():
		t.ignore("it is known that the box starts from its own disks")
	case !at.After(t.Since):
		t.ignore("that was before the boot file was removed")
	default:
		t.Default = at
	}
}

func (t *turn) probed(e Probed) {
	switch {
	case t.State != Restarting:
		t.ignore("nobody waits for the box's own system")
	case !t.starts() || !instant(e.Sent).After(t.Default):
		t.ignore("it may have been the maintenance system that answered")
	default:
		t.close(UpYes, t.Text)
	}
}

func (t *turn) powerFailed(e PowerFailed) {
	if !t.Cycle || e.Step != t.Step {
		t.ignore("the job has gone on since")
		return
	}
	t.Cycle, t.ByHand = false, true
	if t.State == Restarting && t.Text != "" { // what the action led to stays
		t.Text += " " + e.Text
		return
	}
	t.Text = e.Text
}

func (t *turn) armFailed(e ArmFailed) {
	switch {
	case t.State != Armed:
		t.ignore("no new attempt depends on it, and writing the boot file is tried again")
	case e.Step != t.Step:
		t.ignore("the job has gone on since")
	default:
		t.end(box.Failed, ClassServer, "The boot file could not be written: "+e.Text)
	}
}

// settled remembers that the effects of a step were carried out. It is no step
// itself. It may let the box's own system be probed.
func settled(j Job, e Settled) (Job, []Effect) {
	var fx []Effect
	before := j
	if at := instant(e.At); j.State == Restarting && j.Disarmed.IsZero() && !at.Before(j.Since) {
		j.Disarmed = at // that is true of the boot file, even if another step has begun since
	}
	if j.starts() && !before.starts() {
		fx = append(fx, Probe{})
	}
	if e.Step == j.Step {
		j.Settled, j.Cycle, j.Alarm = true, false, ""
	}
	if j == before {
		fx = append(fx, Ignored{"the job has gone on since, or this is known"})
	}
	return j, fx
}

package job

import (
	"fmt"
	"time"

	"testbox-imaging/internal/box"
)

// Effect is what must be done outside. The set is closed. Each effect can be
// carried out any number of times. They are carried out in their order, one
// after the other; when one fails, it is tried again before the next. When the
// job has changed meanwhile, the effects of the new step take their place.
type Effect interface {
	effect()
	String() string // as the table in docs/jobs.md has it
}

// OnlySession ends all sessions of the job but this one. The zero Session ends
// all of them.
type OnlySession struct{ Session Session }

// WriteBootFile makes the box boot into maintenance. It replaces whatever boot
// file the box has.
type WriteBootFile struct {
	Arming box.Arming
	Secret string
}

// RemoveBootFile lets the box start from its own disks. It removes a boot file
// of this arming only.
type RemoveBootFile struct{ Arming box.Arming }

// PowerCycle runs the box's power command. A failure is reported by PowerFailed.
type PowerCycle struct{}

// Probe asks the box's own system for a sign of life, from now on until the job
// has ended. An answer is reported by Probed.
type Probe struct{}

// Alarm tells people what must not be overlooked.
type Alarm struct{ Text string }

// Suspect remembers that the box may be broken.
type Suspect struct{ Text string }

// Notify tells all who follow the job that it has changed. Step tells a
// repetition from a new change.
type Notify struct{ Step int }

// Answer is the answer to the agent's request that led here. There is one for
// each Hello, Report and Result. An agent that gets none asks again.
type Answer struct{ Word Word }

// Ignored says that an event changed nothing, and why.
type Ignored struct{ Because string }

// Word is what an agent is told.
type Word string

// The words.
const (
	Work    Word = "work"    // here is your session, do the action
	GoOn    Word = "go on"   // all is well
	Stop    Word = "stop"    // end where it does no harm, then say Cancelled
	Restart Word = "restart" // restart the box; its boot file says what it starts
	Retry   Word = "retry"   // the same, after the retry time
	Hold    Word = "hold"    // stay up, say so on the console, and say hello again from time to time
	Refuse  Word = "refuse"  // you have no part in this job
)

func (OnlySession) effect()    {}
func (WriteBootFile) effect()  {}
func (RemoveBootFile) effect() {}
func (PowerCycle) effect()     {}
func (Probe) effect()          {}
func (Alarm) effect()          {}
func (Suspect) effect()        {}
func (Notify) effect()         {}
func (Answer) effect()         {}
func (Ignored) effect()        {}

func (e OnlySession) String() string {
	if e.Session == (Session{}) {
		return "end sessions"
	}
	return "end other sessions"
}
func (WriteBootFile) String() string  { return "write boot file" }
func (RemoveBootFile) String() string { return "remove boot file" }
func (PowerCycle) String() string     { return "power cycle" }
func (Probe) String() string          { return "probe" }
func (Alarm) String() string          { return "alarm" }
func (Suspect) String() string        { return "health suspect" }
func (Notify) String() string         { return "notify" }
func (e Answer) String() string       { return fmt.Sprintf("answer %q", e.Word) }
func (e Ignored) String() string      { return "ignored, because " + e.Because }

// Resume gives a job that was read back after a crash, and the effects that may
// not have been carried out. The time in which the server was away does not
// count as silence of the agent. A box that starts has some time left, since it may
// have started while the server was away: then it says hello, or answers a probe, soon.
func Resume(j Job, now time.Time, l Limits) (Job, []Effect) {
	now = instant(now)
	j = j.notLater(now)
	least := map[State]time.Time{Armed: now.Add(min(afterStart, l.Arming)), Restarting: now.Add(min(afterStart, l.Up))}[j.State]
	if j.State == Armed && j.Attempt == 1 && !j.Until.IsZero() && j.Until.Before(least) {
		least = j.Until
	}
	switch {
	case j.State == Running:
		j.Heard = now
	case j.Deadline.Before(least):
		j.Deadline = least
	}
	return j, pending(j)
}

// afterStart is the time that a box has at least after a start of the server. An agent that
// finds no server tries for 10 minutes, waits for 5, and restarts the box.
const afterStart = 20 * time.Minute

// pending are the effects that a job's state asks for. They follow from the job
// alone, so that a crash can lose none of them.
func pending(j Job) []Effect {
	if j.State == Ended && j.Settled || j.Attempt == 0 && j.State == Queued {
		return nil
	}
	fx := standing(j)
	if j.Cycle {
		fx = append(fx, PowerCycle{})
	}
	if j.State == Restarting && j.starts() {
		fx = append(fx, Probe{})
	}
	if j.Alarm != "" {
		fx = append(fx, Alarm{j.Alarm})
	}
	if j.Settled {
		return fx
	}
	if (j.State == Ended || j.State == Held) && !j.Released && j.Class == ClassBox {
		fx = append(fx, Suspect{j.Text})
	}
	return append(fx, Notify{j.Step})
}

// standing are the effects that make sessions and boot file what they must be in
// the job's state. In every state but the first and the last ones the box has a
// boot file whose secret was never used, so that a box that restarts by itself
// is in maintenance again.
func standing(j Job) []Effect {
	if j.Attempt == 0 {
		return nil // nothing was ever given out
	}
	switch j.State {
	case Running, Rescue:
		return []Effect{OnlySession{j.Session}, j.writeBootFile()}
	case Armed, Held:
		return []Effect{OnlySession{}, j.writeBootFile()}
	}
	if !j.Bootable() {
		return []Effect{OnlySession{}} // the job that took over has the boot file
	}
	return []Effect{OnlySession{}, RemoveBootFile{j.Arming}}
}

func (j Job) writeBootFile() WriteBootFile {
	return WriteBootFile{j.Arming, j.Seed.Secret(j.Secrets + 1)}
}

// BootFile is the boot file that the box must have now, or nil if it needs none of this job.
func (j Job) BootFile() *WriteBootFile {
	for _, f := range standing(j) {
		if w, is := f.(WriteBootFile); is {
			return &w
		}
	}
	return nil
}

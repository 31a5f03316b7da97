// Package job decides how a job goes on. A job is one action that is asked of
// one box, once. Next is the whole state machine: it takes a job, an event and
// the time, and says what the job is then and which effects that has. Give is
// the queue: it says which jobs begin now, and what each of the others waits
// for.
//
// Nothing here reads a clock, draws a number, waits or writes. Whoever calls
// Next makes the new job durable, carries out the effects, and reports that by
// Settled. Whoever reads jobs back after a crash calls Resume. docs/jobs.md has
// the table of all states and events, which a test makes from this code.
package job

import (
	"time"

	"testbox-imaging/internal/box"
)

// State is where a job stands.
type State string

// The states, in the order in which a job usually passes through them.
const (
	Queued     State = "queued"     // waits until the queue lets it begin
	Armed      State = "armed"      // the boot file is written, the box has to start
	Running    State = "running"    // an agent has the session
	Restarting State = "restarting" // all is done, and the box has to show that its own system is up
	Held       State = "held"       // a disk is not fit to run, so the box stays in maintenance until an admin decides
	Rescue     State = "rescue"     // the box is up for people
	Ended      State = "ended"      // nothing changes any more
)

// States has all states, in the order of the documents.
var States = []State{Queued, Armed, Running, Restarting, Held, Rescue, Ended}

// Cancelled is the outcome of a job that an admin ended. Only jobs of a server
// have it, so package box does not know it.
const Cancelled box.Outcome = "cancelled"

// Class says where the cause of a failure is. It is "" if nothing failed.
type Class string

// The classes of failures.
const (
	ClassBox     Class = "box"     // the box, its disks, its power
	ClassImage   Class = "image"   // the image, or what the store has of it
	ClassServer  Class = "server"  // this server
	ClassNetwork Class = "network" // what lies between box and server
	ClassAdmin   Class = "admin"   // what was asked for, or somebody's decision
)

// Up says whether the box's own system was seen after the job.
type Up string

// The values of Up. It is "" until the job has ended.
const (
	UpYes      Up = "yes"
	UpNo       Up = "no"
	UpNotAsked Up = "not asked" // nobody asked, or the job did not succeed
)

// Session tells one session of an agent from all others. It is a hash of a
// number that the agent drew when it started, so that an agent whose hello was
// not answered can repeat it, while nobody else can. The zero Session is none.
type Session [32]byte

// Order is what was asked for. It never changes.
type Order struct {
	ID      string
	Box     box.Addr
	Action  box.Action
	Options string     // of the action; nothing here looks at them
	By      string     // who asked
	WaitUp  bool       // the job ends only when the box's own system is seen, as --wait=up asks for
	Power   bool       // the box has a power command, and the job may use it
	Arming  box.Arming // one for all attempts, so that an action that was committed is known as done in the next attempt
	// From and Until say when the job may begin, which is when its box says hello for the first
	// time: not before From, and not at Until or later. The zero time is no limit.
	From  time.Time `json:",omitzero"`
	Until time.Time `json:",omitzero"`
	// Yields lets all jobs go first that do not yield, as those of a schedule make way for
	// what people ask for.
	Yields bool `json:",omitempty"`
}

// Job is all that must be durable for one job. Two jobs can be compared by ==.
type Job struct {
	Order
	Asked time.Time // when it was asked for; this is its place in the queue

	State   State
	Since   time.Time // when State began
	Text    string    // why it is in this state, a whole sentence or ""
	Step    int       // counts all changes but those of Heard and Settled
	Settled bool      // the effects of this step were carried out

	Attempt  int       // the first one is 1; 0 means that it never began
	Deadline time.Time // when the state ends by itself; zero means never, or by silence
	Half     bool      // half of the time until Deadline was over, or PowerAgain, and power was asked for once more
	Cycle    bool      // the power command must be run, or run again
	ByHand   bool      // the power command failed, or does not restart a box that runs, so that people must do it

	Seed    Seed    // of the secrets; it is wiped when the job ends
	Secrets int     // how many secrets were used
	Session Session // the last one that began
	// Heard is when the agent was last heard of. It need not be durable, since Resume
	// begins it anew.
	Heard time.Time

	Cancel   bool // an admin asked the running agent to stop
	Wrote    bool // the agent was let write to a disk
	TookOver bool // the box was held when this job began, and this job took its place
	AllDisks bool // and it restores all disks that may not be fit to run
	Released bool // an admin said that the box may start from its disks as they are

	Outcome  box.Outcome // "" until it is known
	Class    Class
	Alarm    string    // what people must be told, until they were told
	Disarmed time.Time // when the boot file was gone, after success
	Default  time.Time // when the box asked for the default boot file after that
	Up       Up
}

// New is a job that nobody has begun. The seed must be random.
func New(o Order, seed Seed, now time.Time) Job {
	now = instant(now)
	for _, at := range []*time.Time{&o.From, &o.Until} {
		if !at.IsZero() {
			*at = instant(*at)
		}
	}
	return Job{Order: o, Seed: seed, Asked: now, State: Queued, Since: now}
}

// Unfit reports whether a disk of the box must not run as it is. A restore has
// written to it and did not succeed, in this job or in a held one before it.
func (j Job) Unfit() bool {
	restored := j.Action == box.Restore && success(j.Outcome)
	return j.Action == box.Restore && j.Wrote && !restored || j.TookOver && !(restored && j.AllDisks)
}

// Bootable reports whether the box may start from its own disks, as far as this
// job knows.
func (j Job) Bootable() bool { return !j.Unfit() || j.Released }

// success reports whether an outcome says that all was done that was asked for.
func success(o box.Outcome) bool { return o == box.Done || o == box.BadSectors || o == box.Differs }

// instant is a time as the ledger gives it back, without a monotonic clock.
func instant(t time.Time) time.Time { return t.UTC().Round(0) }

// Limits are the server's times and numbers, all of them more than 0. A caller
// may make them for each job, as its options ask.
type Limits struct {
	Attempts int           // how often a job is tried
	Silence  time.Duration // for how long an agent may be silent, also after it was told to stop
	Arming   time.Duration // for how long a box may take to start maintenance
	Up       time.Duration // for how long a box may take to start its own system
	Protocol int           // the version that this server speaks with agents
}

// Due is the time at which a Tick will change the job next. It is zero if no
// Tick does.
func (j Job) Due(l Limits) time.Time {
	switch j.State {
	case Queued:
		return j.Until
	case Running:
		if silent := j.Heard.Add(l.Silence); j.Deadline.IsZero() || silent.Before(j.Deadline) {
			return silent
		}
		return j.Deadline
	case Armed, Restarting:
		if half := j.half(); j.cyclesAtHalf() && half.Before(j.Deadline) {
			return half
		}
		return j.Deadline
	}
	return time.Time{}
}

// late reports whether the job must not begin any more.
func (j Job) late(now time.Time) bool { return !j.Until.IsZero() && !now.Before(j.Until) }

// PowerAgain is after which time power is asked for once more at the latest. A box that is waited for over a whole
// day starts within minutes, or hangs. Later, somebody could be at work with it.
const PowerAgain = 30 * time.Minute

// half is when half of the time until Deadline is over, or PowerAgain is.
func (j Job) half() time.Time {
	wait := j.Deadline.Sub(j.Since)
	if half := wait / 2; half < PowerAgain {
		return j.Since.Add(half)
	}
	return j.Since.Add(PowerAgain)
}

// cyclesAtHalf reports whether power is asked for once more.
// A box that asked for its default boot file starts already, so that one is left
// alone.
func (j Job) cyclesAtHalf() bool { return j.Power && !j.Half && !j.starts() }

// starts reports whether the box was seen to start from its own disks. That it
// asked for the default boot file counts only if that was later than the disarm.
func (j Job) starts() bool { return !j.Disarmed.IsZero() && j.Default.After(j.Disarmed) }

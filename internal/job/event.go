package job

import (
	"time"

	"testbox-imaging/internal/box"
)

// Event is what can happen to a job. The set is closed: these are all events.
type Event interface{ event() }

// Slot lets a queued job begin. Give says when.
type Slot struct {
	// TakesOver says that another job of the box is held. That one gets NewJob, and
	// both are made durable at once.
	TakesOver bool
	// AllDisks says that this job is a restore of all disks that the held job was to
	// restore, and of all those of a job that the held one took over from. If it is
	// not said, the box is held again at the end.
	AllDisks bool
}

// NewJob tells a held job that another job of its box begins and takes over.
type NewJob struct{ ID string }

// Cancel is an admin's word to end a job.
type Cancel struct{ By string }

// Release is an admin's word that a held box may start from its disks as they
// are.
type Release struct{ By string }

// Finish ends a rescue. The agent of the box says the same by Result.
type Finish struct{ By string }

// Hello is how an agent begins a session.
type Hello struct {
	Secret   string
	From     box.Addr // where the request came from
	Session  Session
	Protocol int
	// Stranger says why this is not the machine that was armed, if its UUID or its
	// network cards tell. It is "" if nothing speaks against it.
	Stranger string
}

// Report is a sign of life of an agent.
type Report struct {
	Session Session
	// Writes says that the agent is about to write to a disk. It must not do so
	// before the answer is GoOn.
	Writes bool
}

// Result is what an agent says at its end: the outcome of the action. An agent
// that was told to stop says Cancelled.
type Result struct {
	Session Session
	Outcome box.Outcome
	Class   Class // of a failure or a refusal
	Text    string
	// Wrote says that the agent has written to a disk, whether it asked before or not.
	Wrote bool
}

// Tick says that time has passed. Due tells when one is needed. One that is too
// early or too late does no harm.
type Tick struct {
	// Waits says in a sentence what a queued job waits for. It is "" if that is not known.
	Waits string
}

// DefaultAsked says that the box asked for the default boot file.
type DefaultAsked struct{ At time.Time }

// Probed says that the box's own system answered a probe.
type Probed struct{ Sent time.Time }

// PowerFailed says that the power command of a step failed, or that it does not restart a box
// that runs.
type PowerFailed struct {
	Step int
	Text string // a whole sentence
}

// ArmFailed says that the boot file of a step could not be written, and that it
// is no use to try once more.
type ArmFailed struct {
	Step int
	Text string
}

// Settled says that all effects of a step were carried out.
type Settled struct {
	Step int
	At   time.Time // when the boot file was made right
}

func (Slot) event()         {}
func (NewJob) event()       {}
func (Cancel) event()       {}
func (Release) event()      {}
func (Finish) event()       {}
func (Hello) event()        {}
func (Report) event()       {}
func (Result) event()       {}
func (Tick) event()         {}
func (DefaultAsked) event() {}
func (Probed) event()       {}
func (PowerFailed) event()  {}
func (ArmFailed) event()    {}
func (Settled) event()      {}

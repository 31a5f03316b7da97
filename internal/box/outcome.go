package box

// Outcome is how an action ended. Its text is written to the box's log and to
// last-action.json. The empty Outcome means that nothing is known.
type Outcome string

// The outcomes, as docs/design.md defines them.
const (
	Done       Outcome = "done"                        // durable, logged, disarmed
	Failed     Outcome = "failed"                      // something broke
	Refused    Outcome = "refused"                     // no disk and no image was changed
	BadSectors Outcome = "done with bad sectors"       // like Done, but the image has zeros for sectors that could not be read
	Expired    Outcome = "expired"                     // the arming was too old, nothing was done
	Differs    Outcome = "done, disk and image differ" // verify found differences
	Rescuing   Outcome = "up for rescue"               // an admin can log in
)

// Exit codes of the programs for outcomes. ExitWrong belongs to no outcome. It
// means that the program was called in a wrong way.
const (
	ExitDone       = 0
	ExitFailed     = 1
	ExitWrong      = 2
	ExitRefused    = 3
	ExitBadSectors = 4
	ExitExpired    = 5
	ExitDiffers    = 6
	ExitRescuing   = 7
)

// Class is what an outcome means for the arming and for the box.
type Class int

// The classes.
const (
	Again   Class = iota // still armed, the box tries once more after the retry time
	Ended                // disarmed, the box starts its own disk
	StaysUp              // still armed, the box stays up until an admin ends the rescue
)

// outcomes is the one table of all outcomes, with exit code and class.
var outcomes = []struct {
	outcome Outcome
	code    int
	class   Class
}{
	{Done, ExitDone, Ended},
	{Failed, ExitFailed, Again},
	{Refused, ExitRefused, Again},
	{BadSectors, ExitBadSectors, Ended},
	{Expired, ExitExpired, Ended},
	{Differs, ExitDiffers, Ended},
	{Rescuing, ExitRescuing, StaysUp},
}

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	var all []Outcome
	for _, row := range outcomes {
		all = append(all, row.outcome)
	}
	return all
}

// Known reports whether o is one of Outcomes. An outcome from a file may be any
// text.
func (o Outcome) Known() bool {
	for _, row := range outcomes {
		if row.outcome == o {
			return true
		}
	}
	return false
}

// ExitCode is the exit code for the outcome, as the programs' help texts say.
// An unknown outcome has ExitFailed.
func (o Outcome) ExitCode() int {
	for _, row := range outcomes {
		if row.outcome == o {
			return row.code
		}
	}
	return ExitFailed
}

// Class says what the outcome means for the box. An unknown outcome has Again.
func (o Outcome) Class() Class {
	for _, row := range outcomes {
		if row.outcome == o {
			return row.class
		}
	}
	return Again
}

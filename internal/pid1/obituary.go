package pid1

import (
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
)

// obituaryWait is how long writing a line into the box's log may take. The
// error may be that the area's server is gone, and a hard mount waits for it
// without end.
const obituaryWait = 15 * time.Second

// How an obituary begins.
const (
	wasKilled  = "the agent was killed by signal"
	hasExited  = "the agent exited with status"
	noProgress = "no progress for"
)

// IsObituary reports whether a line of a box's log says that a try ended and
// the agent could not say so itself.
func IsObituary(text string) bool {
	return strings.HasPrefix(text, wasKilled) || strings.HasPrefix(text, hasExited) || strings.HasPrefix(text, noProgress)
}

// obituary writes into the box's log why this try failed. It is for errors that
// the agent did not live to log itself.
func (s *system) obituary(why error) {
	if s.keeps {
		return // the service can reach the log, and its guard ends before the keeper's
	}
	done := make(chan error, 1)
	go func() { done <- s.logError(why) }()
	select {
	case err := <-done:
		if err != nil {
			s.say("the error is not in the box's log: %v", err)
		}
	case <-time.After(obituaryWait):
		s.say("the error is not in the box's log, which does not answer")
	}
}

// Log is the part of the box's log that this package writes to.
type Log interface {
	Error(format string, args ...any)
	Flush() error
}

// OpenLog opens the log of a box that was started with cmd. say prints on the
// consoles what is wrong with the log. OpenLog may never return.
type OpenLog func(cmd *bootcfg.Cmdline, say func(format string, args ...any)) (Log, error)

func (s *system) logError(why error) error {
	log, err := s.openLog(s.cmd, s.say)
	if err != nil {
		return err
	}
	log.Error("%v", why)
	return log.Flush()
}

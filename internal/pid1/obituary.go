package pid1

import (
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
)

// obituaryWait is how long a line in the box's log may take: the error may be
// that the area's server is gone, and a hard mount waits for it without end.
const obituaryWait = 15 * time.Second

// What an obituary begins with.
const (
	wasKilled  = "the agent was killed by signal"
	hasExited  = "the agent exited with status"
	noProgress = "no progress for"
)

// IsObituary reports whether a line of a box's log says that a try ended, and
// that the agent did not live to say it.
func IsObituary(text string) bool {
	return strings.HasPrefix(text, wasKilled) || strings.HasPrefix(text, hasExited) || strings.HasPrefix(text, noProgress)
}

// obituary writes into the box's logs why this try failed. The agent logs its
// own errors; this one it did not live to see.
func (s *system) obituary(why error) {
	if s.keeps {
		return // the service's guard comes first, and it can
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

// Log is the box's log, as far as this package writes to it.
type Log interface {
	Error(format string, args ...any)
	Flush() error
}

// OpenLog opens the log of a box that was started with cmd. say tells on the
// consoles what is not in order with it. It may take for ever.
type OpenLog func(cmd *bootcfg.Cmdline, say func(format string, args ...any)) (Log, error)

func (s *system) logError(why error) error {
	log, err := s.openLog(s.cmd, s.say)
	if err != nil {
		return err
	}
	log.Error("%v", why)
	return log.Flush()
}

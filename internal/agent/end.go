package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/pid1"
)

// Times for when the command line has none.
const (
	// defaultRetry is long enough for an admin to see the error, and for temporary
	// trouble to end, before the next try.
	defaultRetry = 5 * time.Minute
)

// Tests change these.
var (
	// aliveEvery is short enough that a waiting box does not look like one that
	// hangs.
	aliveEvery = 5 * time.Second
	// holdEvery is how often a held box asks what becomes of it.
	holdEvery = 30 * time.Second
)

// say reports the outcome, in the logs if they are open already.
func (s *session) say(outcome box.Outcome, err error) {
	s.cfg.Alive()
	if s.log == nil {
		fmt.Fprintf(s.cfg.Console, "%s: %v\n", outcome, err)
		return
	}
	switch outcome {
	case box.Done, box.Rescuing, box.Differs: // the log has the differences already, and finding them is what verify is for
		for _, w := range s.warnings {
			s.log.Error("%s", w)
		}
		s.log.Announce("%s: %s", s.cmd.Action, outcome)
	case job.Cancelled:
		s.log.Announce("%s: %s: %v", s.cmd.Action, outcome, err)
	case box.Expired:
		s.log.Announce("%s: %s, disarmed", s.cmd.Action, outcome)
	case box.Refused:
		s.log.Error("%s: refused, no disk and no image was changed: %v", s.cmd.Action, err)
	default:
		s.log.Error("%s: %s: %v", s.cmd.Action, outcome, err)
	}
	if err := s.log.Flush(); err != nil {
		fmt.Fprintf(s.cfg.Console, "log: %v\n", err)
	}
}

// conclude tells the other side the outcome, and returns what the box does next.
func (s *session) conclude(outcome box.Outcome, err error) Next {
	if s.arming == nil {
		return nextAfter(outcome)
	}
	end := s.endOf(err)
	end.Outcome = outcome
	return s.arming.Conclude(end)
}

// nextAfter is what a box does that decides it by itself.
func nextAfter(outcome box.Outcome) Next {
	switch outcome.Class() {
	case box.Ended:
		return Restart
	case box.StaysUp:
		return Stay
	}
	return Retry
}

// reboot restarts the machine and does not return.
func (s *session) reboot(ctx context.Context, outcome box.Outcome, next Next) {
	s.waitFor(ctx, next)
	s.restart()
	os.Exit(outcome.ExitCode())
}

// waitFor waits until the box may restart.
func (s *session) waitFor(ctx context.Context, next Next) {
	if next == Hold {
		next = s.hold(ctx)
	}
	if next == Retry {
		s.wait(ctx)
	}
}

// hold keeps the box up until the other side says something else. It returns what
// that is.
func (s *session) hold(ctx context.Context) Next {
	for ctx.Err() == nil {
		fmt.Fprintf(s.cfg.Console, "This box is held, because a disk of it is not fit to run. It restarts when an admin releases it, "+
			"or when there is a new job for it. It asks again in %s.\n", holdEvery)
		s.pause(ctx, holdEvery)
		if next := s.arming.Ask(); next != Hold {
			return next
		}
	}
	return Restart
}

// restart restarts the machine. It returns only if that fails, and then whoever
// started the agent must restart the box. Everything that was done is durable,
// and a clean shutdown could hang on an NFS server that is gone.
func (s *session) restart() {
	io.WriteString(s.cfg.Console, "rebooting\n")
	if err := pid1.Restart(); err != nil {
		fmt.Fprintf(s.cfg.Console, "reboot: %v\n", err)
	}
}

// wait waits for the retry time.
func (s *session) wait(ctx context.Context) {
	retry := defaultRetry
	if s.cmd != nil && s.cmd.Retry > 0 {
		retry = s.cmd.Retry
	}
	if s.log != nil {
		s.log.Info("still armed; rebooting in %s to try again", retry)
	} else {
		fmt.Fprintf(s.cfg.Console, "rebooting in %s to try again\n", retry)
	}
	s.pause(ctx, retry)
}

// pause waits, and shows signs of life meanwhile.
func (s *session) pause(ctx context.Context, wait time.Duration) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for end := time.After(wait); ; {
		select {
		case <-end:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			s.cfg.Alive()
		}
	}
}

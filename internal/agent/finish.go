package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// Limits of what Finish waits for. The areas are mounted hard, so an access to
// a storage server that is gone never ends by itself.
const (
	answerLimit = 30 * time.Second
	syncLimit   = 5 * time.Minute // for a slow disk to which an admin wrote a lot
)

// stayName is a file in memory which says that the box stays up although it is disarmed.
const stayName = "testbox-stay"

// Finish ends the rescue that this box is in. It disarms the box, and records
// and logs that. With Reboot it then reboots the machine, and returns only if
// that fails. It can be called again.
func Finish(cfg Config) box.Outcome {
	s := newSession(cfg)
	err := s.finish()
	outcome := outcomeOf(err)
	if outcome != s.said {
		// A box that is disarmed must not wait here for a server that is gone.
		within(answerLimit, func() (struct{}, error) { s.say(outcome, err); return struct{}{}, nil })
	}
	if outcome == box.Done && cfg.Reboot {
		s.restart()
		return box.Failed
	}
	return outcome
}

// finish disarms before it records, unlike an action. If the rescue comes up
// once more, that does no harm. A rescue that is recorded but cannot be
// disarmed would restart the box forever.
func (s *session) finish() error {
	if err := s.readRescue(); err != nil {
		return err
	}
	if s.cfg.Reboot {
		if err := s.syncDisks(); err != nil {
			return err
		}
	} else if s.cfg.Run != "" { // before the disarm, since Attend sees that it is disarmed
		if err := os.WriteFile(filepath.Join(s.cfg.Run, stayName), nil, 0o600); err != nil {
			return err
		}
	}
	if err := s.openRescueLog(); err != nil {
		s.log.Error("cannot open the log, so this is not logged: %v", err)
	}
	_, err := within(answerLimit, func() (struct{}, error) {
		if err := s.arming.Reach(); err != nil {
			return struct{}{}, err
		}
		s.sayFirst(nil)
		return struct{}{}, s.arming.Disarm(s.endOf(nil))
	})
	if err != nil {
		return fmt.Errorf("%w; the box is still armed and would come up in rescue again, so it is not restarted", err)
	}
	if s.home == nil {
		return nil
	}
	if _, err := within(answerLimit, func() (struct{}, error) { return struct{}{}, s.home.Record(s.endOf(nil)) }); err != nil {
		s.log.Error("the record of what was done is not written: %v", err)
	}
	return nil
}

// readRescue reads the command line. It refuses if the box is not in rescue.
func (s *session) readRescue() error {
	s.joins = true
	if err := s.readCmdline(); err != nil {
		return err
	}
	if s.cmd.Action != box.Rescue {
		if s.cmd.Mode == bootcfg.ServerMode {
			return refuse("this box was started for %s, not for rescue; to stop that, cancel the job at the server", s.cmd.Action)
		}
		return refuse("this box was started for %s, not for rescue; to stop that, run `testbox pxe-conf disarm %s` and restart the box",
			s.cmd.Action, s.cmd.Address)
	}
	return nil
}

// openRescueLog opens the log of a rescue that is up already. If it returns an
// error, the console is the log.
func (s *session) openRescueLog() error {
	home, err := within(answerLimit, func() (Home, error) {
		h, err := s.arming.Open()
		if err == nil {
			h.Clock() // no cache can answer this for a server that is gone
		}
		return h, err
	})
	if err != nil {
		home = nil
	}
	s.openLog(home)
	return err
}

// syncDisks waits until everything that the admin wrote is on the disks.
// reboot(2) does not wait, and it does not unmount file systems.
func (s *session) syncDisks() error {
	fmt.Fprintln(s.cfg.Console, "waiting for the disks to take what was written to them")
	_, err := within(syncLimit, func() (struct{}, error) { unix.Sync(); return struct{}{}, nil })
	if err != nil {
		return fmt.Errorf("the disks have not taken what was written to them: %w; `dmesg` may tell why; "+
			"`testbox-maintenance finish --stay` disarms the box all the same", err)
	}
	return nil
}

var errLate = errors.New("no answer")

// within returns the results of do, or errLate if do takes longer than limit.
// In that case do continues in the background, so it must not change what
// others use.
func within[T any](limit time.Duration, do func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	c := make(chan answer, 1)
	go func() {
		v, err := do()
		c <- answer{v, err}
	}()
	select {
	case a := <-c:
		return a.value, a.err
	case <-time.After(limit):
		var none T
		return none, fmt.Errorf("%w within %v", errLate, limit)
	}
}

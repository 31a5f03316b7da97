// Package agent is the maintenance state machine: it reads what its box was
// armed for, does it, proves it, logs it, disarms the box and reboots it. Paths
// and /sys are values, so that it runs as a process on folders and loop disks
// as well as on a testbox.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"testbox-imaging/internal/box"
)

// Config says where the agent finds things. Only Alive and Console may be nil.
type Config struct {
	Cmdline string // the kernel command line's text
	Sys     fs.FS  // /sys
	Proc    fs.FS  // /proc
	Dev     string // folder of device nodes
	TFTP    string // folder of the mounted TFTP area
	Backup  string // folder of the mounted backup area

	Address box.Addr  // this box; zero: the armed address, if a network card has it
	Host    string    // this box's name; "": the armed one, else by reverse look-up
	Console io.Writer // progress and every log line; nil is silence
	// Terminal says that Console is one: progress then is a line that moves.
	Terminal bool
	// PCIIDs is the file with the names of PCI devices; "" is none.
	PCIIDs string
	// SSHDir has the ssh server's host keys, whose fingerprints rescue tells.
	SSHDir string
	Alive  func() // called at every sign of progress; nil is nobody listening
	Reboot bool   // reboot(2) at the end
}

// Outcome is how an action ended.
type Outcome int

// The outcomes, as docs/design.md defines them.
const (
	Done       Outcome = iota // durable, logged, disarmed
	Failed                    // something broke; still armed, tried again at the next boot
	Refused                   // no disk and no image was changed; still armed
	BadSectors                // like Done, but the image has zeros for sectors that could not be read
	Expired                   // the arming was too old: disarmed, nothing done
	Differs                   // verify found differences; disarmed
	Rescuing                  // the box is up for an admin to log in; it stays up, and armed, until Finish
)

var outcomes = [...]struct {
	name string
	code int
}{
	Done:       {"done", 0},
	Failed:     {"failed", 1},
	Refused:    {"refused", 3},
	BadSectors: {"done with bad sectors", 4},
	Expired:    {"expired", 5},
	Differs:    {"done, disk and image differ", 6},
	Rescuing:   {"up for rescue", 7},
}

func (o Outcome) String() string { return outcomes[o].name }

// ExitCode is the program's exit code for the outcome, as its help tells.
func (o Outcome) ExitCode() int { return outcomes[o].code }

// refusal is an error before the first change to a disk or image.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// refuse makes an error that ends in Refused.
func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// outcomeOf says how an action that returned err ended.
func outcomeOf(err error) Outcome {
	var r refusal
	switch {
	case err == nil:
		return Done
	case errors.Is(err, errBadSectors):
		return BadSectors
	case errors.Is(err, errDiffers):
		return Differs
	case errors.Is(err, errExpired):
		return Expired
	case errors.Is(err, errRescuing):
		return Rescuing
	case errors.As(err, &r):
		return Refused
	}
	return Failed
}

var (
	errBadSectors = errors.New("the image has zeros for sectors that could not be read when it was made")
	errDiffers    = errors.New("disk and image differ")
	errExpired    = errors.New("the arming has expired")
	errRescuing   = errors.New("the box is up for rescue")
)

// Run does what the command line asks for, once, and returns how it ended. With
// Reboot it does not return but reboots the machine; after a failure or a
// refusal it waits first, so that it is seen. A box that is up for rescue is
// left so.
func Run(ctx context.Context, cfg Config) Outcome {
	s := newSession(cfg)
	err := s.run(ctx)
	outcome := outcomeOf(err)
	s.say(outcome, err)
	if cfg.Reboot && outcome != Rescuing {
		s.reboot(ctx, outcome)
	}
	return outcome
}

// Package agent is the maintenance state machine. It reads what its box was
// armed for, does it, proves it, logs it, disarms the box and reboots it. Paths
// and /sys are values, so that it also runs as a process on folders and loop
// disks, not only on a testbox.
//
// session.run has the order of all actions, and session.act does one of them.
// They work over the interfaces in seam.go. Share mode, which implements them,
// is in share.go, sharebackup.go and shareimage.go. Server mode is in the files
// whose names begin with "server".
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

// Config says where the agent finds things. Only Alive and Console may be nil.
type Config struct {
	Cmdline string // the kernel command line's text
	Sys     fs.FS  // /sys
	Proc    fs.FS  // /proc
	Dev     string // folder of device nodes
	// EFIVars is the folder in which UEFI variables are mounted. It is looked at only if
	// /sys says that UEFI firmware has started the machine.
	EFIVars string
	TFTP    string // folder of the mounted TFTP area
	Backup  string // folder of the mounted backup area

	Address box.Addr  // this box; if zero, the armed address, which a network card must have
	Host    string    // this box's name; if "", the armed one or a reverse look-up
	Console io.Writer // gets progress and every log line; may be nil
	// Terminal says that Console is a terminal. Progress is then one changing line.
	Terminal bool
	// PCIIDs is the file with the names of PCI devices, or "".
	PCIIDs string
	// SSHDir has the ssh server's host keys. A rescue logs their fingerprints.
	SSHDir string
	// Run is a folder in memory that lasts until the machine restarts. In server mode
	// it has the token of the session, for the other programs of this start. "" means
	// that there is none.
	Run string
	// RoomMemory is ServerConfig's.
	RoomMemory int64
	Alive      func() // called at every sign of progress; may be nil
	Reboot     bool   // call reboot(2) at the end
}

// refusal is an error that came before the first change to a disk or image.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// refusalOf makes a refusal of an error that came before the first change. Trouble
// of the other side, and its wish to stop, are none.
func refusalOf(err error) error {
	if errors.Is(err, ErrTrouble) || errors.As(err, new(*StopError)) {
		return err
	}
	return refusal{err}
}

// refuse makes an error that leads to box.Refused.
func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// outcomeOf returns the outcome of an action that returned err.
func outcomeOf(err error) box.Outcome {
	var r refusal
	var stop *StopError
	switch {
	case err == nil:
		return box.Done
	case errors.As(err, &stop) && stop.Cancelled:
		return job.Cancelled
	case stop != nil:
		return box.Failed
	case errors.Is(err, errBadSectors):
		return box.BadSectors
	case errors.Is(err, errDiffers):
		return box.Differs
	case errors.Is(err, errExpired):
		return box.Expired
	case errors.Is(err, errRescuing):
		return box.Rescuing
	case errors.As(err, &r):
		return box.Refused
	}
	return box.Failed
}

var (
	errBadSectors = errors.New("the image has zeros for sectors that could not be read when it was made")
	errDiffers    = errors.New("disk and image differ")
	errExpired    = errors.New("the arming has expired")
	errRescuing   = errors.New("the box is up for rescue")
)

// Run does once what the command line asks for, and returns the outcome. With
// Reboot it reboots the machine and does not return. After a failure or a
// refusal it waits first, so that people see it. A box that is up for rescue is
// not rebooted. One whose disk is not fit to run waits until an admin decides.
func Run(ctx context.Context, cfg Config) box.Outcome {
	s := newSession(cfg)
	outcome, next := s.start(ctx)
	if cfg.Reboot && next != Stay {
		s.reboot(ctx, outcome, next)
	}
	return outcome
}

package agent

import (
	"context"
	"errors"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/usedmap"
)

// These interfaces are all that the agent knows of the other side, which is
// whoever armed the box, and the place of its images, records and logs. Share
// mode is one implementation (share.go), and server mode is the other (server.go).
// Every implementation must pass the suite in package conform/agentside.

// Arming is the arming of the box, as the other side knows it now.
type Arming interface {
	// Reach returns an error if the other side cannot be reached.
	Reach() error
	// Open opens the box's place. Each call returns a new Home.
	Open() (Home, error)
	// Clock returns how far the other side's clock is ahead of this machine's.
	Clock() (ahead time.Duration, err error)
	// Agrees compares what the box was started with to what it is armed with now,
	// and returns the version of the maintenance system. If the box is not armed at
	// all, the error is a *NotArmedError. A difference in what decides about disks
	// and images is another error.
	Agrees() (version string, err error)
	// Disarm ends this arming, durably, since its action ended as end says. If the box
	// is not armed any more, that is no error. Disarm never ends another arming than
	// this one.
	Disarm(end End) error
	// SayFirst reports whether the outcome of an action that has ended is logged before
	// Record and Disarm. It must be where nothing can be logged afterwards.
	SayFirst() bool
	// Conclude is called last, with the outcome of whatever class. It returns what the
	// box does next.
	Conclude(end End) Next
	// Ask returns what a box does next that was told Hold.
	Ask() Next
}

// End is how a start of the agent ended.
type End struct {
	Outcome  box.Outcome
	Err      error // why; nil if Outcome is Done
	Receipts []image.Receipt
	Warnings []string      // what must not be overlooked even if the outcome is good
	HostKeys []box.HostKey // of the ssh server, if the box is up for rescue
}

// Next is what a box does when its agent has ended.
type Next int

// What a box can do next.
const (
	Stay    Next = iota // stay up for people
	Restart             // restart at once
	Retry               // restart after the retry time
	Hold                // stay up, and ask again from time to time, since a disk is not fit to run
)

// StopError is why the other side wants a running action to stop.
type StopError struct {
	Text      string
	Cancelled bool // somebody cancelled the action; otherwise the other side has given up this start
}

func (e *StopError) Error() string { return e.Text }

// ErrTrouble is matched by errors of the other side that another try may not have,
// such as one for a server that is away. They are never refusals.
var ErrTrouble = errors.New("the other side has trouble")

// ErrAgain is matched by the error of a Commit which says that some of what was saved
// is not there any more. Saving all disks again, and another Commit, can mend that.
var ErrAgain = errors.New("some of what was saved is not there any more")

// NotArmedError says that the box is not armed any more, or never was.
type NotArmedError struct{ Text string }

func (e *NotArmedError) Error() string { return e.Text }

// Home is the box's place on the other side. It has the box's log, its records,
// its images, and what an admin decided for the box.
type Home interface {
	// Clock is like Arming.Clock. It asks the other side each time, so that no
	// cache can answer for a server that is gone.
	Clock() (ahead time.Duration, err error)
	// Log opens the box's log. host is "unknown" if the name is not known.
	Log(host string) Log
	Records
	Images

	// Watch returns a context for the action. It ends when the other side wants the
	// action to stop, and its cause is a *StopError then.
	Watch(ctx context.Context) (watched context.Context, end context.CancelFunc)
	// Writes is called once before the first write to any disk. If it returns an
	// error, nothing may be written.
	Writes(ctx context.Context) error
	// Progress tells how far the action is. stage is "inventory", "check", "compare",
	// "read", "write", "verify" or "commit". text says in words how far it is. done
	// and total are bytes; a total of 0 is not known. left is how long all of the action
	// still takes; 0 is not known. Progress does not wait.
	Progress(stage, text string, done, total int64, left time.Duration)

	// Firmware returns what is known of the box's firmware from before. An error is only
	// for messages, and what is returned with it counts.
	Firmware() (KnownFirmware, error)
	// SaveFirmware durably saves what this start notes of the box's firmware. A backup
	// that is planned later records the state in it. It may be called again.
	SaveFirmware(n *efi.Note) error

	// Named returns the name that the box has on the other side, or "" if it has none.
	Named() string
	// SetHost tells the other side the host name by which people know the box.
	SetHost(host string) error
	// Selection returns the disks that an admin named for all actions of the box.
	// It is empty if none are named.
	Selection() (match.Selection, error)
	HasInventory() bool
	// SaveInventory saves the files durably. It tries all of them and joins the
	// errors.
	SaveInventory(files []inventory.File) error
}

// Log is the box's log. No call but Flush fails. A line that cannot be written
// is kept and tried again. A Log is safe for concurrent use.
type Log interface {
	Hello() // begins the log of a start
	Info(format string, args ...any)
	Announce(format string, args ...any) // like Info, also for people who look at all boxes
	Error(format string, args ...any)    // an error, also for people who look at all boxes
	// Flush tries to write what could not be written before. The error says what is
	// still missing.
	Flush() error
}

// Voice is how an implementation reports something that is not a returned
// error.
type Voice interface {
	Info(format string, args ...any)
	Error(format string, args ...any)
	// Warn reports what must not be overlooked. It is repeated after a good
	// outcome.
	Warn(format string, args ...any)
}

// Records make an action happen only once, even if power is lost at any moment.
type Records interface {
	// Recover completes or undoes what an earlier start left unfinished. It is
	// called first.
	Recover() error
	// Done returns the outcome with which an earlier start ended this arming's
	// action, and "" if none did. A backup that was committed is done, even if no
	// outcome was recorded.
	Done() box.Outcome
	// Record durably records how the action ended. From then on Done returns it, or
	// the box is not armed any more.
	Record(end End) error
}

// Images are the box's images.
type Images interface {
	// List returns the images that the arming asks to restore or verify. They are
	// all images of one backup. If there are none, that is an error. Images that it
	// returns with an error are only for messages.
	List() ([]Image, error)
	// Plan plans a backup of the chosen disks. disks are all that the box has. An
	// error says why there can be no backup. Plan changes nothing.
	Plan(disks []disk.Disk, choice match.Choice) (Backup, error)
}

// Image is a present image.
type Image interface {
	Info() ImageInfo
	// CheckBytes returns how many bytes Check reads, or 0 if that is not known.
	// reads is false if Check reads nothing.
	CheckBytes() (n int64, reads bool)
	// Check finds out whether the complete image can be used for the disk. It is
	// called before the first write to any disk. It does not read the disk.
	Check(ctx context.Context, d disk.Disk, tell func(done, total int64)) error
	// Layout returns what the image's disk holds. It is called after Check, and is empty
	// if that is not known.
	Layout() usedmap.Layout
	// Job returns the image for package copier. It is called after Check. The
	// caller adds the target and how to fit the image to it.
	Job() copier.Job
	// Close ends the use of the image and of its Job. It may be called without a Check.
	Close()
}

// ImageInfo is what is known of an image. Fields that are not known are empty.
type ImageInfo struct {
	image.Label
	Place string        // where it is, for messages
	Box   string        // dotted address
	Host  string        // that box's host name
	UUID  string        // of the machine whose disk it is
	Bad   []image.Range // what could not be read, and is zeros in the image
}

// whole reports whether the image has everything that its disk had, as far as
// anybody knows.
func (i ImageInfo) whole() bool { return len(i.Bad) == 0 }

// Backup is a backup that is being made. It has the images of all its disks.
// Commit makes them the box's backup together, or none of them.
type Backup interface {
	// Name returns the name of a disk's image.
	Name(d disk.Disk) string
	// Used returns what must be read of a disk, or nil if that is all of it.
	Used(ctx context.Context, d disk.Disk, from copier.Source) (*usedmap.Map, error)
	// Begin begins to write. Host and UUID are the machine's, and "" if unknown. It
	// may be called again after a Commit that failed.
	Begin(host, uuid string) error
	// Save makes the image of a disk. The receipt lacks the names and the identity,
	// which the caller knows.
	Save(ctx context.Context, d disk.Disk, from copier.Source, opt copier.SourceOptions) (image.Receipt, error)
	// Commit makes the images the box's backup. They are durable when it returns
	// nil. If the error is a refusal, nothing has changed.
	Commit(ctx context.Context) error
	// Abort gives up the backup. After Commit it does nothing, so it can be
	// deferred.
	Abort()
}

package agent

import (
	"context"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/match"
)

// These interfaces are all that the agent knows of the other side: of whoever
// armed the box, and of the place where its images, records and logs are. Share
// mode is one implementation (share.go). Package conform/agentside has the suite
// that each has to pass.

// Arming is what the box was armed with, as whoever armed it has it now.
type Arming interface {
	// Reach fails if whoever armed the box cannot be reached.
	Reach() error
	// Open opens the box's place. Each call gives another Home.
	Open() (Home, error)
	// Clock says how far the other side's clock is ahead of this machine's.
	Clock() (ahead time.Duration, err error)
	// Agrees holds what the box was started with against what it is armed with
	// now, and gives the version of the maintenance system. The error is a
	// *NotArmedError if the box is not armed at all. Any difference that decides
	// over disks and images is another error.
	Agrees() (version string, err error)
	// Disarm ends this arming, durably. It is no error if the box is not armed any
	// more, and it never ends another arming than this one.
	Disarm() error
}

// NotArmedError says that the box is not armed any more, or never was.
type NotArmedError struct{ Text string }

func (e *NotArmedError) Error() string { return e.Text }

// Home is the box's place on the other side: its log, its records, its images
// and what an admin has said of it.
type Home interface {
	// Clock is as Arming.Clock. It asks the other side each time, so that no cache
	// can answer for one that is gone.
	Clock() (ahead time.Duration, err error)
	// Log opens the box's log. host is "unknown" if it is not known.
	Log(host string) Log
	Records
	Images

	// SetHost tells by which host name people know the box.
	SetHost(host string) error
	// Selection is the disks that an admin named for all actions of the box, empty
	// if there are none named.
	Selection() (match.Selection, error)
	HasInventory() bool
	// SaveInventory keeps the files durably. It tries each; the errors are joined.
	SaveInventory(files []inventory.File) error
}

// Log is the box's log. No call fails: what cannot be written is kept and tried
// again. Safe for concurrent use.
type Log interface {
	Hello() // begins the log of a start
	Info(format string, args ...any)
	Announce(format string, args ...any) // as Info, and for whoever looks at all boxes
	Error(format string, args ...any)    // likewise
	// Flush tries to write what could not be written before. The error says what is
	// still missing.
	Flush() error
}

// Voice is how an implementation says what it meets beside an error.
type Voice interface {
	Info(format string, args ...any)
	Error(format string, args ...any)
	// Warn says what must not be overlooked: it is said again beside a good outcome.
	Warn(format string, args ...any)
}

// Records make an action happen once, whenever power is lost.
type Records interface {
	// Recover puts in order what an earlier start left undone. It comes first.
	Recover() error
	// Done is the outcome with which an earlier start ended this arming's action,
	// "" if none did. A backup that was committed is done, also if no outcome was
	// recorded.
	Done() box.Outcome
	// Record says durably how the action ended. From then on Done gives it.
	Record(outcome box.Outcome, receipts []image.Receipt) error
}

// Images are the box's images.
type Images interface {
	// List gives the images that the arming asks to restore or verify: all those of
	// one backup. That there are none is an error. Images beside an error are for
	// messages alone.
	List() ([]Image, error)
	// Plan plans a backup of the chosen disks, of all that the box has. An error
	// says why there can be none. Nothing is changed.
	Plan(disks []disk.Disk, choice match.Choice) (Backup, error)
}

// Image is an image that is there.
type Image interface {
	Info() ImageInfo
	// CheckBytes is how many bytes Check reads, as far as that is known. It is false
	// if Check reads nothing.
	CheckBytes() (n int64, reads bool)
	// Check looks whether the image can be used for the disk, whole: it comes before
	// the first write to any disk. It does not look at the disk.
	Check(ctx context.Context, d disk.Disk, tell func(done, total int64)) error
	// Job is the image for package copier, after Check. The caller adds the target
	// and how it is fitted.
	Job() copier.Job
}

// ImageInfo is what is known of an image. What is empty is not known.
type ImageInfo struct {
	image.Label
	Place string        // where it is, for messages
	Box   string        // dotted address
	Host  string        // that box's host name
	UUID  string        // of the machine that it was made of
	Bad   []image.Range // zeros in the image, for what could not be read
}

// whole reports whether the image has all that its disk had, as far as anybody
// knows.
func (i ImageInfo) whole() bool { return len(i.Bad) == 0 }

// Backup is a backup that is being made: the images of all its disks, which
// become the box's backup together by Commit, or not at all.
type Backup interface {
	// Name is what the image of a disk is called.
	Name(d disk.Disk) string
	// Begin begins to write. Host and UUID are the machine's, "" is unknown.
	Begin(host, uuid string) error
	// Save makes the image of a disk. The receipt lacks what the caller knows: the
	// names and the identity.
	Save(ctx context.Context, d disk.Disk, from copier.Source, opt copier.SourceOptions) (image.Receipt, error)
	// Commit makes the images the box's backup. After nil they are, durably. An error
	// that makes the action be refused left everything as it was.
	Commit() error
	// Abort gives the backup up. After Commit it does nothing, so it can be deferred.
	Abort()
}

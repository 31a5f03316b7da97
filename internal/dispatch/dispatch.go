// Package dispatch runs the jobs of a server. Package job decides how a job goes
// on. This package takes what happens to jobs, makes what becomes of them durable
// in the ledger, and carries out the effects. It serves what agents say about
// their jobs, and what admins ask for.
//
// Nothing uses it yet, and its methods do nothing before they are filled in.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wire"
)

// Boots are the boot files of boxes. All methods may be called by several
// goroutines, but never by two for one box.
type Boots interface {
	// Arm makes a box boot into maintenance for a job, with this one-time secret. It
	// replaces whatever boot file the box has, and is durable when it returns. If the
	// error is of package problem, it is no use to try again.
	Arm(ctx context.Context, j job.Job, opt Options, secret string) error
	// Disarm removes a box's boot file durably, if it is of this arming. If there is
	// none, or one of another arming, that is no error.
	Disarm(ctx context.Context, addr box.Addr, arming box.Arming) error
	// Ready returns an error that says why no box can be armed for an action now, such
	// as that no maintenance system is there that speaks the server's protocol. Jobs of
	// this action wait until it returns nil.
	Ready(action box.Action) error
}

// Backups are the backups in the store. All methods may be called by several
// goroutines.
type Backups interface {
	// Of returns the backups of a box, the newest first.
	Of(ctx context.Context, addr box.Addr) ([]*image.Record, error)
	// Find returns the backup that Options.Image names. The error matches
	// fs.ErrNotExist if there is none.
	Find(ctx context.Context, id string) (*image.Record, error)
}

// Config says what a Dispatch works with.
type Config struct {
	Ledger  *ledger.Ledger
	Boots   Boots
	Backups Backups
	Area    *sharedir.Area // the folders of boxes, with logs, inventory and disk-devices.lst
	Limits  job.Limits     // Protocol may be 0, which is wire.Version
	Most    int            // how many boxes may be at work at once; 0 means any number
	// Now is the server's clock; nil means time.Now.
	Now func() time.Time
	Log *slog.Logger // nil means no log
	// Power runs the power command of a box. nil means that no box has one.
	Power func(ctx context.Context, b ledger.Box) error
	// HasPower reports whether a box has a power command. nil means that all boxes
	// have one if Power is not nil.
	HasPower func(b ledger.Box) bool
	// Probe asks the own system of a box for a sign of life. With nil nobody can ask
	// for jobs that wait until the box is up.
	Probe func(ctx context.Context, b ledger.Box) error
	// Places says how many boxes of a group may be at work at once. With 0 the group
	// is closed. nil means that no group has a limit.
	Places func(g ledger.Group) (most int, limited bool)
	// Opens says when jobs of a box may begin again. Zero or past means now, and so
	// does a nil Opens.
	Opens func(b ledger.Box) time.Time
	// Forget ends what a session token has open (boxapi.Server.Forget). It may be set
	// later by SetForget.
	Forget func(token string)
}

// Options are what an admin asks for besides the action.
type Options struct {
	Disks         []string `json:"disks,omitempty"`         // only these, spelled as in disk-devices.lst
	AcceptMachine bool     `json:"acceptMachine,omitempty"` // take a machine in place of the one that is known
	AcceptFailing bool     `json:"acceptFailing,omitempty"` // back up a disk even if much of it cannot be read
	AllUsed       bool     `json:"allUsed,omitempty"`       // back up all of each disk, whatever the file systems say is used
	// Image is the backup to restore or to compare with, by its id, or as BOX@ID. If it
	// is "", the baseline is taken, and the newest backup if there is no baseline.
	// Another box's backup also needs AcceptMachine.
	Image string `json:"image,omitempty"`
}

// Request asks for one job for each of some boxes.
type Request struct {
	Boxes   []box.Addr
	Action  box.Action
	Options Options
	By      string // who asks
	// Key makes it safe to repeat the request. If the same person asked for a job of
	// a box with the same key, that job is returned and no other one is made. With ""
	// each request is a new one.
	Key    string
	WaitUp bool // the job ends only when the box's own system is seen
}

// Status is a job as others see it. Its Seed is always zero.
type Status struct {
	job.Job
	Options Options
	// Wait says what a queued job waits for. It is nil for other jobs, and for one at
	// which the queue has not looked yet.
	Wait *job.Wait
	// Progress is the agent's last report, without its lines. It is nil if there was
	// none since the server's start.
	Progress *wire.Report
	Backup   string          // id of the backup that was made or used, as BOX@ID if it is of another box
	Receipts []image.Receipt // of the last result
	Warnings []string        // of the last result
	Sent     int64           // bytes of objects that crossed the network
}

// Dispatch runs all jobs of a server.
type Dispatch struct{}

var (
	_       boxapi.Authority = (*Dispatch)(nil)
	errTodo                  = errors.New("package dispatch is not filled in yet")
)

// Open reads all jobs from the ledger and goes on with them.
func Open(ctx context.Context, cfg Config) (*Dispatch, error) { return nil, errTodo }

// Close ends the work. Boxes that are at work keep their sessions, and the next
// Open goes on with all jobs.
func (d *Dispatch) Close() {}

// SetForget sets Config.Forget.
func (d *Dispatch) SetForget(forget func(token string)) {}

// SetClosed makes all queued jobs wait. why is a sentence for people. With "" the
// jobs go on.
func (d *Dispatch) SetClosed(why string) {}

// Look tells the queue that something in the ledger has changed that it looks at,
// such as the holder of a box or its groups. Without it the queue sees that within
// a minute.
func (d *Dispatch) Look() {}

// WithWhy adds to a context what the audit log says of a change by an admin: from
// where it came (an address, or "socket"), and why.
func WithWhy(ctx context.Context, from, why string) context.Context { return ctx }

// Add makes the jobs that a request asks for, all of them or none. The statuses
// are in the order of the boxes.
func (d *Dispatch) Add(ctx context.Context, r Request) ([]Status, error) { return nil, errTodo }

// Cancel ends a job. A running agent is told with its next report. The error is a
// refusal if the job cannot be cancelled, and matches ledger.ErrNotFound if there
// is none.
func (d *Dispatch) Cancel(ctx context.Context, id, by string) (Status, error) {
	return Status{}, errTodo
}

// Release lets a held box start from its disks as they are.
func (d *Dispatch) Release(ctx context.Context, addr box.Addr, by string) (Status, error) {
	return Status{}, errTodo
}

// Finish ends the rescue of a box.
func (d *Dispatch) Finish(ctx context.Context, addr box.Addr, by string) (Status, error) {
	return Status{}, errTodo
}

// Job returns a job. The error matches ledger.ErrNotFound if there is none.
func (d *Dispatch) Job(ctx context.Context, id string) (Status, error) { return Status{}, errTodo }

// Jobs lists jobs, the latest first. If next is not "", there is another page.
func (d *Dispatch) Jobs(ctx context.Context, f ledger.JobFilter, p ledger.Page) (all []Status, next string, err error) {
	return nil, "", errTodo
}

// Watch gives the ids of jobs that change from now on. A job that changes several
// times before its id is taken is given once. stop ends that, and closes changes.
func (d *Dispatch) Watch() (changes <-chan string, stop func()) { return nil, func() {} }

// DefaultAsked takes note that a box asked for the default boot file. It returns
// at once.
func (d *Dispatch) DefaultAsked(addr box.Addr, at time.Time) {}

// Sent counts bytes of objects that crossed the network for a session token.
func (d *Dispatch) Sent(token string, bytes int64) {}

// Grant implements boxapi.Authority.
func (d *Dispatch) Grant(ctx context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	return boxapi.Grant{}, errTodo
}

// Hello takes the first word of an agent.
func (d *Dispatch) Hello(ctx context.Context, h *wire.Hello, from netip.Addr) (*wire.Welcome, error) {
	return nil, errTodo
}

// Report takes a sign of life of an agent.
func (d *Dispatch) Report(ctx context.Context, token string, from netip.Addr, r *wire.Report) (*wire.Told, error) {
	return nil, errTodo
}

// Inventory stores a file of the inventory of a box durably.
func (d *Dispatch) Inventory(ctx context.Context, token string, from netip.Addr, name string, data []byte) error {
	return errTodo
}

// Result takes how an agent's action ended. It is durable when the agent is
// answered.
func (d *Dispatch) Result(ctx context.Context, token string, from netip.Addr, r *wire.Result) (*wire.Told, error) {
	return nil, errTodo
}

// Package dispatch runs the jobs of a server. Package job decides how a job goes
// on. This package takes what happens to jobs, makes what becomes of them durable
// in the ledger, and carries out the effects. It serves what agents say about
// their jobs, and what admins ask for.
//
// All that happens to the jobs of one box goes one after the other (lane). What is
// durable when is in docs/design.md.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/sparing"
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
	// Armed reports whether a box has the boot file of an arming, with this secret.
	Armed(ctx context.Context, addr box.Addr, arming box.Arming, secret string) bool
	// CheckBoxes returns an error of package problem if one of these addresses can never
	// be armed, as that of the server itself.
	CheckBoxes(all []box.Addr) error
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
	// Find returns the backup of a box that a name means, as Options.Image says. The
	// error matches fs.ErrNotExist if there is none. An error of package problem says
	// why the name cannot be used, as when the record of the backup that it may mean
	// cannot be read.
	Find(ctx context.Context, addr box.Addr, name string) (*image.Record, error)
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
	// Power switches boxes. nil means that no box has a power command.
	Power Power
	// Starting is how many boxes with a power command may be starting at once; 0 means any number.
	Starting int
	// Probe asks the own system of a box for a sign of life. With nil nobody can ask
	// for jobs that wait until the box is up.
	Probe func(ctx context.Context, b ledger.Box) error
	// Places says how many boxes of a group may be at work at once. With 0 the group
	// is closed. nil means that no group has a limit.
	Places func(g ledger.Group) (most int, limited bool)
	// Opens says when jobs of a box may begin again. Zero or past means now, and so
	// does a nil Opens.
	Opens func(b ledger.Box) time.Time
	// Loaders durably writes the file by which GRUB finds a box's own systems. An error
	// may be about some of the loaders only. nil means that there are no such files.
	Loaders func(addr box.Addr, loaders []bootcfg.LocalLoader) error
	// Forget ends what a session token has open (boxapi.Server.Forget). It may be set
	// later by SetForget.
	Forget func(token string)
}

// Options are what an admin asks for besides the action.
type Options struct {
	Disks         []string `json:"disks,omitempty"`         // only these, spelled as in disk-devices.lst
	Map           []string `json:"map,omitempty"`           // where images belong, as IMAGE=DISK
	ShrinkTable   bool     `json:"shrinkTable,omitempty"`   // a smaller disk will do if it is proved that nothing gets lost
	AcceptMachine bool     `json:"acceptMachine,omitempty"` // take a machine in place of the one that is known
	AcceptFailing bool     `json:"acceptFailing,omitempty"` // back up a disk even if much of it cannot be read
	AllUsed       bool     `json:"allUsed,omitempty"`       // back up all of each disk, whatever the file systems say is used
	// Image is the backup to restore or to compare with: its id, "latest", "latest~1",
	// "baseline", or a date or its beginning. BOX@ before it can only be the box itself. If
	// it is "", the baseline is taken, and the latest backup if there is no baseline.
	Image string `json:"image,omitempty"`
	// From is another box whose backup is used, spelled as the store has it. Image is then
	// one of its backups. "" means the box's own backups.
	From string `json:"from,omitempty"`
	// Hooks are changes of the restored system, in the order of box.Hooks.
	Hooks []box.Hook `json:"hooks,omitempty"`
}

// Dispatch runs all jobs of a server.
type Dispatch struct {
	cfg  Config
	book book
	ctx  context.Context // ends with Close
	stop context.CancelFunc

	clockKick, queueKick chan struct{} // hold one value if there is something to look at
	watching             watchers
	spare                sparing.Limit
	parsing              sync.Mutex // an inventory takes memory, so that one is parsed at a time

	mu      sync.Mutex // guards the fields below
	tasks   map[string]*task
	armings map[box.Arming]*task
	session map[job.Session]*holder
	lanes   map[box.Addr]*lane
	forget  func(token string)
	why     string // why no job begins
	closed  bool
	work    sync.WaitGroup // calls and goroutines
}

// book is what is used of a ledger. Tests put one in its place that fails.
type book interface {
	Update(ctx context.Context, change func(*ledger.Tx) error) error
	View(ctx context.Context, read func(*ledger.Tx) error) error
}

// holder is the task of a session. It is kept after the session's end, so that an
// agent that got no answer gets it when it asks again.
type holder struct {
	t     *task
	token string // "" if it is not known, as after a restart of the server
}

// task is a job that the server has in memory. That is each job that has not ended,
// and each that ended not long ago.
type task struct {
	lane *lane

	// Whoever writes these fields has the lane and the mutex of the Dispatch. Whoever
	// has one of them may read.
	job     job.Job
	doc     document
	unsaved bool      // this step is not settled
	leftAt  time.Time // when what is left of this step is tried again; zero if nothing is left
	heard   time.Time // when the agent was last heard of, by a clock that nobody sets

	// The mutex of the Dispatch guards these fields.
	wait        *job.Wait
	progress    *wire.Report
	sent        int64     // bytes of objects
	peers       peerNotes // what boxes of the same room say of each other
	tickAfter   time.Time // before that no tick is tried
	due         bool      // a goroutine is about to look at what is due
	overstepped bool      // an alarm about the agent is on its way
	asked       time.Time // when the box asked for the default boot file, if the job was not told yet
	guarded     time.Time // when it was last looked whether the boot file is there, by a clock that nobody sets

	// Whoever has the lane may use these fields.
	left     []job.Effect  // effects of this step that are not carried out
	made     time.Time     // when the boot file was made right for this step
	pause    time.Duration // until the next try of what is left
	power    int           // the step whose power command runs; 0 if none
	probing  bool
	over     []string    // tokens of sessions that are to be ended
	number   uint64      // of the last report that was taken in this session
	informed job.Session // the last session that has stored testbox-info.txt
	said     string      // the last line in the box's log that was not the agent's
	log      *boxLog
	alarmed  map[string]time.Time // alarms that changed no job
	missed   bool                 // it was said that somebody removed the boot file
	deaf     bool                 // it was said that the box reaches no other one
}

// Times that nobody needs to set.
const (
	keepEnded  = time.Hour              // an ended job's agent is answered for so long
	firstPause = time.Second            // until an effect that failed is tried again
	mostPause  = time.Minute            // at most
	pollQueue  = time.Minute            // how often the queue looks at the ledger by itself
	pollClock  = time.Minute            // how often it is looked what is due, as somebody may set the server's clock
	guardEvery = time.Minute            // how often it is looked whether a box whose disk must not run has its boot file
	probeEvery = 5 * time.Second        // from one probe to the next
	probeTime  = 4 * time.Second        // for a probe
	laneTime   = 15 * time.Second       // for how long a request waits for its turn
	queuePause = 100 * time.Millisecond // from one look of the queue to the next, which takes tens of milliseconds with 1000 boxes
	slotTime   = 200 * time.Millisecond // for how long the queue waits for a box
	againAfter = 5 * time.Minute        // until a job begins again whose agent spoke another version of the protocol
)

// Open reads all jobs from the ledger and goes on with them. Package dispatch does
// not close the ledger.
func Open(ctx context.Context, cfg Config) (*Dispatch, error) { return openWith(ctx, cfg, cfg.Ledger) }

func openWith(ctx context.Context, cfg Config, b book) (*Dispatch, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Limits.Protocol == 0 {
		cfg.Limits.Protocol = wire.Version
	}
	if l := cfg.Limits; min(l.Attempts, l.Protocol) < 1 || min(l.Silence, l.Arming, l.Up) <= 0 {
		return nil, problem.Wrongf("the limits of jobs must all be more than 0, and are %+v", l)
	}
	d := &Dispatch{
		cfg: cfg, book: b, forget: cfg.Forget,
		clockKick: make(chan struct{}, 1), queueKick: make(chan struct{}, 1),
		tasks: map[string]*task{}, armings: map[box.Arming]*task{}, session: map[job.Session]*holder{}, lanes: map[box.Addr]*lane{},
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := d.read(ctx); err != nil {
		d.stop()
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	d.work.Go(d.clock)
	d.work.Go(d.queue)
	return d, nil
}

// read takes up the jobs of the ledger where an earlier process left them.
func (d *Dispatch) read(ctx context.Context) error {
	var rows []ledger.Job
	err := d.book.View(ctx, func(tx *ledger.Tx) error {
		ended := ledger.JobFilter{States: []string{string(job.Ended)}}
		last, _, err := tx.Jobs(ended, ledger.Page{})
		if err != nil {
			return err
		}
		now := d.cfg.Now()
		rows = slices.DeleteFunc(last, func(r ledger.Job) bool { return r.Ended.IsZero() || now.Sub(r.Ended) > keepEnded })
		for after, more := "", true; more; more = after != "" {
			var page []ledger.Job
			if page, after, err = tx.Jobs(ledger.JobFilter{Open: true}, ledger.Page{After: after}); err != nil {
				return err
			}
			rows = append(rows, page...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(rows) // so that the latest job of a session has it
	for _, r := range rows {
		doc, err := parseDocument(r.Doc)
		if err != nil {
			return fmt.Errorf("job %s of %s: %w", r.ID, r.Box, err)
		}
		t := d.add(doc)
		now := d.cfg.Now()
		if t.job, t.left = job.Resume(t.job, now, d.cfg.Limits); len(t.left) == 0 { // it has ended, or never began
			t.doc.Receipts, t.doc.Warnings = nil, nil
			continue
		}
		t.leftAt, t.unsaved = now, true
		if !t.job.Settled {
			d.recordLast(t) // it may not be there yet
		}
	}
	return nil
}

// add puts a job of the ledger into memory.
func (d *Dispatch) add(doc document) *task {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &task{lane: d.lane(doc.Job.Box), job: doc.Job, doc: doc, sent: doc.Sent, heard: time.Now(), guarded: time.Now(),
		alarmed: map[string]time.Time{}}
	t.lane.tasks[t.job.ID] = t
	d.tasks[t.job.ID] = t
	d.armings[t.job.Arming] = t
	if t.job.Session != (job.Session{}) {
		d.session[t.job.Session] = &holder{t: t}
	}
	return t
}

// drop forgets a job. The mutex is held.
func (d *Dispatch) drop(t *task) {
	delete(d.tasks, t.job.ID)
	delete(t.lane.tasks, t.job.ID)
	delete(d.armings, t.job.Arming)
	if h := d.session[t.job.Session]; h != nil && h.t == t {
		delete(d.session, t.job.Session)
	}
}

// errClosed is what an agent or an admin gets when the server is about to end.
var errClosed = errors.New("the server is about to end")

// enter counts a call, unless the Dispatch is closed.
func (d *Dispatch) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	d.work.Add(1)
	return nil
}

// goes runs f beside, unless the Dispatch is closed.
func (d *Dispatch) goes(f func()) {
	if d.enter() == nil {
		go func() {
			defer d.work.Done()
			f()
		}()
	}
}

// Close ends the work, and waits for what is under way. Boxes that are at work keep
// their sessions, and the next Open goes on with all jobs.
func (d *Dispatch) Close() {
	d.mu.Lock()
	d.closed = true
	tasks := slices.Collect(maps.Values(d.tasks))
	d.mu.Unlock()
	d.stop()
	d.work.Wait()
	for _, t := range tasks {
		t.log.flush()
	}
	d.watching.close()
}

// SetForget sets Config.Forget.
func (d *Dispatch) SetForget(forget func(token string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget = forget
}

// SetClosed makes all queued jobs wait. why is a sentence for people. With "" the
// jobs go on.
func (d *Dispatch) SetClosed(why string) {
	d.mu.Lock()
	d.why = why
	d.mu.Unlock()
	d.Look()
}

// Look tells the queue that something in the ledger has changed that it looks at,
// such as the holder of a box or its groups. Without it the queue sees that within
// a minute.
func (d *Dispatch) Look() { kick(d.queueKick) }

// kick wakes who waits at a channel, which has room for one value.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lane makes all that happens to the jobs of a box go one after the other.
type lane struct {
	turn  chan struct{}    // holds one value while somebody has the lane
	power chan struct{}    // the same for the box's power
	tasks map[string]*task // of the box; the mutex of the Dispatch guards it
}

// lane returns the lane of a box. The mutex is held.
func (d *Dispatch) lane(addr box.Addr) *lane {
	l := d.lanes[addr]
	if l == nil {
		l = &lane{turn: make(chan struct{}, 1), power: make(chan struct{}, 1), tasks: map[string]*task{}}
		d.lanes[addr] = l
	}
	return l
}

// lock takes the lane. An agent's or an admin's call does not wait for ever.
func (l *lane) lock(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *lane) unlock() { <-l.turn }

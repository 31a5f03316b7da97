package api

import (
	"context"
	"errors"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
)

// Keeper looks after the store for admins. It does one thing at a time.
type Keeper interface {
	// Begin begins a piece of work. by is who asks for it. A request that is repeated
	// with its key gets the work that it began, and fresh is false then. If the store is
	// being looked after already, the error is a refusal.
	Begin(q NewUpkeep, by string) (u Upkeep, fresh bool, err error)
	// Look returns a piece of work as it is now. ended is closed when it has ended. An
	// error matches fs.ErrNotExist.
	Look(id string) (u Upkeep, ended <-chan struct{}, err error)
	// Cancel ends a piece of work soon. One that has ended stays as it is.
	Cancel(id string) error
	// Running returns the work of an admin that has not ended, or nil.
	Running() *Upkeep
	// Next returns when the upkeep of each day begins next, and when it has a scrub. The
	// zero time is never.
	Next() (day, scrub time.Time)
	// BootTests returns how far the server's own boot tests are, or nil if it makes none.
	BootTests() *BootTesting
}

// Work is a kind of work on the store.
type Work string

// The kinds of work.
const (
	PlanGC Work = "plan-gc"
	GC     Work = "gc"
	Scrub  Work = "scrub"
)

// The outcomes of work on the store.
const (
	UpkeepDone      = "done"
	UpkeepDamaged   = "damaged"
	UpkeepRefused   = "refused"
	UpkeepFailed    = "failed"
	UpkeepUnproven  = "unproven" // of a boot test
	UpkeepCancelled = "cancelled"
	UpkeepStopped   = "stopped"
)

// NewUpkeep asks for work on the store.
type NewUpkeep struct {
	Work Work   `json:"work" enum:"plan-gc,gc,scrub" doc:"plan-gc says what gc would do, gc gets back the space of deleted backups, scrub reads all of the store"`
	Key  string `json:"key,omitempty" maxLength:"64" doc:"a request that is repeated with its key begins nothing new"`
	Why  string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Upkeep is work on the store that an admin has asked for.
type Upkeep struct {
	ID      string    `json:"id" doc:"its id; it is known until the server ends, and until more work has followed"`
	Work    Work      `json:"work" enum:"plan-gc,gc,scrub"`
	By      string    `json:"by" doc:"who asked for it"`
	Begun   time.Time `json:"begun"`
	State   string    `json:"state" enum:"waiting,working,ended" doc:"waiting: a restore is at work, to which it gives way"`
	Done    int64     `json:"done,omitempty" doc:"bytes of total that a scrub has read"`
	Total   int64     `json:"total,omitempty" doc:"bytes; 0 if it is not known"`
	Outcome string    `json:"outcome,omitempty" enum:"done,damaged,refused,failed,cancelled,stopped" doc:"of work that has ended. damaged: a scrub has found damage; stopped: the server was ended in the middle of it"`
	Text    string    `json:"text,omitempty" doc:"what it did or found, in lines for people"`
	Error   string    `json:"error,omitempty" doc:"what is wrong, in lines for people, unless the outcome is done"`
}

// Ended reports whether nothing changes any more.
func (u *Upkeep) Ended() bool { return u.State == "ended" }

// Store is the store of the server.
type Store struct {
	ID     string  `json:"id" doc:"the id in its file \"store\", which tells it from other stores"`
	Upkeep *Upkeep `json:"upkeep,omitempty" doc:"what an admin has asked for and has not ended"`

	Last      []LastUpkeep `json:"last" doc:"how each kind of work on the store has ended last, also that of the night; it survives a restart of the server"`
	NextDay   *time.Time   `json:"nextDay,omitempty" doc:"when the upkeep of the day begins next; without it there is none"`
	NextScrub *time.Time   `json:"nextScrub,omitempty" doc:"the same for the one that reads all of the store"`
	Boot      *BootTesting `json:"bootTests,omitempty" doc:"the server's own boot tests of backups; without it there are none"`
	Lacking   int          `json:"lacking" doc:"disks of backups that were found to be damaged in the store"`
	Damage    []Lacking    `json:"damage" doc:"the first 200 of them, by box, time and disk"`
	Lost      int          `json:"unreadable" doc:"backups whose record cannot be read"`
	Records   []LostRecord `json:"records" doc:"the first 200 of them"`
}

// The kinds of work of the night that admins cannot ask for.
const (
	CopyLedger   = "copy-ledger"
	Retention    = "retention"
	BootTestWork = "boot-test"
)

// LastUpkeep is how work on the store has ended.
type LastUpkeep struct {
	Work    string    `json:"work" enum:"copy-ledger,retention,gc,scrub,boot-test"`
	By      string    `json:"by,omitempty" doc:"who asked for it; without it, it was the upkeep of the day"`
	Begun   time.Time `json:"begun"`
	Ended   time.Time `json:"ended"`
	Outcome string    `json:"outcome" enum:"done,damaged,unproven,refused,failed" doc:"a boot test is done if the backup has passed it, and else unproven or failed. Of work that an admin has cancelled, or the end of the server, nothing is said"`
	Found   string    `json:"found,omitempty" doc:"what is wrong and what it did or found, in lines for people"`
}

// Lacking is a disk of a backup that is damaged in the store.
type Lacking struct {
	Box    string    `json:"box" doc:"whose the backup is, as the store has it: the address of the box"`
	Name   string    `json:"name,omitempty" doc:"the name of that box"`
	Backup string    `json:"backup" doc:"id of the backup"`
	Time   time.Time `json:"time" doc:"of the backup"`
	Disk   string    `json:"disk"`
	Bytes  int64     `json:"bytes" doc:"of the disk that cannot be read"`
	Found  time.Time `json:"found" doc:"when this was found last"`
}

// LostRecord is a backup whose record cannot be read.
type LostRecord struct {
	Box    string `json:"box"`
	Backup string `json:"backup"`
	Text   string `json:"text" doc:"why, and what to do"`
}

// maxDamage is how many damaged things are listed.
const maxDamage = 200

type UpkeepPath struct {
	Upkeep string `path:"upkeep" maxLength:"64" doc:"id of a piece of work"`
}

var errNoStore = notFound("this server has no store")

func (s *Server) getStore(ctx context.Context, _ *struct{}) (*body[Store], error) {
	if s.cfg.Backups == nil {
		return nil, errNoStore
	}
	v := Store{ID: s.cfg.Backups.UUID(), Last: []LastUpkeep{}}
	if s.cfg.Keeper != nil {
		v.Upkeep = s.cfg.Keeper.Running()
		day, scrub := s.cfg.Keeper.Next()
		v.NextDay, v.NextScrub, v.Boot = timeOrNone(day), timeOrNone(scrub), s.cfg.Keeper.BootTests()
	}
	has, err := s.cfg.Backups.Contents(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		works, err := tx.StoreWorks()
		for _, w := range works {
			v.Last = append(v.Last, LastUpkeep{w.Work, w.By, w.Begun, w.Ended, w.Outcome, w.Found})
		}
		for _, l := range has.Lacking[:min(len(has.Lacking), maxDamage)] {
			if a, wrong := box.ParseAddr(l.Box); wrong == nil && err == nil {
				var b ledger.Box
				if b, err = tx.Box(a); errors.Is(err, ledger.ErrNotFound) {
					err = nil
				}
				names[l.Box] = b.Name
			}
		}
		return err
	})
	v.setDamage(has, names)
	return answer(v, err)
}

// setDamage tells what is damaged. names has the names of boxes by their addresses.
func (v *Store) setDamage(has *store.Contents, names map[string]string) {
	v.Lacking, v.Damage = len(has.Lacking), []Lacking{}
	for _, l := range has.Lacking[:min(len(has.Lacking), maxDamage)] {
		v.Damage = append(v.Damage, Lacking{clean(l.Box), names[l.Box], l.Backup, l.Time, clean(l.Disk), l.Bytes, l.Found})
	}
	v.Lost, v.Records = len(has.Unreadable), []LostRecord{}
	for _, r := range has.Unreadable[:min(len(has.Unreadable), maxDamage)] {
		v.Records = append(v.Records, LostRecord{clean(r.Box), clean(r.ID), clean(r.Error() + "; " + r.Remedy())})
	}
}

func timeOrNone(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Server) addUpkeep(ctx context.Context, in *struct{ Body NewUpkeep }) (*body[Upkeep], error) {
	if s.cfg.Keeper == nil {
		return nil, errNoStore
	}
	q := in.Body
	u, fresh, err := s.cfg.Keeper.Begin(q, callerOf(ctx).name)
	if err != nil || !fresh || q.Work == PlanGC {
		return answer(u, err)
	}
	if err := s.noteUpkeep(ctx, "begin "+string(q.Work), u.ID, q.Why); err != nil {
		s.cfg.Keeper.Cancel(u.ID) // nothing is done of which the audit log does not tell
		return nil, err
	}
	return answer(u, nil)
}

func (s *Server) noteUpkeep(ctx context.Context, what, id, why string) error {
	return s.change(ctx, what, func(_ *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = id, why
		return nil
	})
}

func (s *Server) getUpkeep(ctx context.Context, in *struct {
	UpkeepPath
	Wait int `query:"wait" minimum:"0" maximum:"60" doc:"for so many seconds"`
}) (*body[Upkeep], error) {
	if s.cfg.Keeper == nil {
		return nil, errNoStore
	}
	u, ended, err := s.cfg.Keeper.Look(in.Upkeep)
	if err != nil || in.Wait == 0 || u.Ended() {
		return answer(u, err)
	}
	leave, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer func() { callerOf(ctx).ctl.SetWriteDeadline(time.Now().Add(s.cfg.Patience)) }()
	over := time.NewTimer(time.Duration(in.Wait) * time.Second)
	defer over.Stop()
	select {
	case <-ended:
	case <-over.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.hub.done: // the work ends before the API does
	}
	u, _, err = s.cfg.Keeper.Look(in.Upkeep)
	return answer(u, err)
}

func (s *Server) cancelUpkeep(ctx context.Context, in *struct {
	UpkeepPath
	Body Reason
}) (*body[Upkeep], error) {
	if s.cfg.Keeper == nil {
		return nil, errNoStore
	}
	u, _, err := s.cfg.Keeper.Look(in.Upkeep)
	if err != nil {
		return nil, err
	}
	if err := s.noteUpkeep(ctx, "cancel "+string(u.Work), u.ID, in.Body.Why); err != nil {
		return nil, err
	}
	if err := s.cfg.Keeper.Cancel(u.ID); err != nil {
		return nil, err
	}
	u, _, err = s.cfg.Keeper.Look(u.ID)
	return answer(u, err)
}

package api

import (
	"context"
	"time"

	"testbox-imaging/internal/ledger"
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
}

type UpkeepPath struct {
	Upkeep string `path:"upkeep" maxLength:"64" doc:"id of a piece of work"`
}

var errNoStore = notFound("this server has no store")

func (s *Server) getStore(context.Context, *struct{}) (*body[Store], error) {
	if s.cfg.Backups == nil {
		return nil, errNoStore
	}
	v := Store{ID: s.cfg.Backups.UUID()}
	if s.cfg.Keeper != nil {
		v.Upkeep = s.cfg.Keeper.Running()
	}
	return answer(v, nil)
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
	leave, err := s.stream()
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

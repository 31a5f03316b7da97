package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/store"
)

// upkeep looks after the store and the ledger once a day. While a box restores it goes
// on slowly, as a pacer lets it. What an admin asks for waits instead (giveWay).
type upkeep struct {
	cfg    *Config
	store  *store.Locked
	ledger *ledger.Ledger
	log    *slog.Logger
	now    func() time.Time
	busy   func() bool // whether a restore is at work
	needs  func(context.Context) ([]dispatch.Need, error)
	poll   time.Duration // how often that is asked
	turn   turn

	measuring sync.Mutex // held while the store is measured
	measured  time.Time  // when it was last
}

// turn lets one after the other work on the store.
type turn struct {
	mu   sync.Mutex // guards what
	what string     // what is being done; "" is nothing
	free chan struct{}
}

// take takes the turn. If it is taken, other says by what.
func (t *turn) take(what string) (other string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.what != "" {
		return t.what, false
	}
	t.what, t.free = what, make(chan struct{})
	return "", true
}

// wait waits for the turn and takes it.
func (t *turn) wait(ctx context.Context, what string) error {
	for {
		if _, ok := t.take(what); ok {
			return nil
		}
		t.mu.Lock()
		free := t.free
		t.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give gives the turn back.
func (t *turn) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.what = ""
	close(t.free)
}

// next returns when upkeep begins next after a time, in the time zone of that
// time. On a day on which clocks are put forward over that time of day, it begins
// as much later as they are.
func (u *upkeep) next(after time.Time) time.Time {
	at, err := time.Parse("15:04", u.cfg.Upkeep.At)
	if err != nil {
		return time.Time{}
	}
	for day := 0; ; day++ {
		t := time.Date(after.Year(), after.Month(), after.Day()+day, at.Hour(), at.Minute(), 0, 0, after.Location())
		if t.After(after) {
			return t
		}
	}
}

// run does the upkeep of each day until ctx ends.
func (u *upkeep) run(ctx context.Context) {
	if u.cfg.Upkeep.At == "" {
		return
	}
	for {
		at := u.next(u.now())
		// A timer does not notice that a machine slept or that its clock was set, so
		// the clock is looked at again and again.
		for u.now().Before(at) {
			if pause.For(ctx, min(at.Sub(u.now()), time.Minute)) != nil {
				return
			}
		}
		u.day(ctx, at)
		if ctx.Err() != nil {
			return
		}
	}
}

// errInterrupted is why work ended before it was done.
var errInterrupted = errors.New("a restore began")

// maxTries is how often work is begun that restores interrupt.
const maxTries = 20

// step is a part of the upkeep. It says what it did.
type step struct {
	name  string
	work  string // as the API has it
	alone bool   // it needs the turn
	do    func(context.Context) (did string, err error)
}

// day does all steps of a day. A step that fails does not keep the others from
// being done.
func (u *upkeep) day(ctx context.Context, at time.Time) {
	steps := []step{{"copy of the ledger", api.CopyLedger, false, u.copyLedger}, {"retention", api.Retention, false, u.retain},
		{"collection", string(api.GC), true, u.collect}}
	if u.cfg.Upkeep.Scrub != "" && weekday(u.cfg.Upkeep.Scrub) == at.Weekday() {
		steps = append(steps, step{"scrub", string(api.Scrub), true, u.scrub})
	}
	for _, s := range steps {
		begun := u.now()
		did, err := u.inTurn(ctx, s)
		if ctx.Err() == nil {
			last := api.LastUpkeep{Work: s.work, Begun: begun, Ended: u.now(), Outcome: api.UpkeepDone, Found: foundText(did, err)}
			switch {
			case err != nil && s.work == string(api.Scrub) && did != "": // it has read all
				last.Outcome = api.UpkeepDamaged
			case errors.Is(err, store.ErrLocked):
				last.Outcome = api.UpkeepRefused
			case err != nil:
				last.Outcome = api.UpkeepFailed
			}
			u.note(last)
		}
		switch took := u.now().Sub(begun).Round(time.Second); {
		case ctx.Err() != nil:
			u.log.Info("The server ends, and so does its upkeep.", "step", s.name)
			return
		case err != nil:
			u.log.Error("A step of the upkeep failed.", "step", s.name, "error", err, "took", took)
		default:
			u.log.Info("A step of the upkeep is done.", "step", s.name, "did", did, "took", took)
		}
	}
	u.measure(ctx)
}

// inTurn does a step of the day. If it needs the turn, it waits for it.
func (u *upkeep) inTurn(ctx context.Context, s step) (did string, err error) {
	if s.alone {
		if err := u.turn.wait(ctx, fmt.Sprintf("the %s of the day", s.name)); err != nil {
			return "", err
		}
		defer u.turn.give()
	}
	p := newPacer(u.busy)
	return s.do(store.WithPace(ctx, p.wait))
}

// giveWay does work while no restore is at work. If one begins, the work is ended, and
// begun anew later. waits is told when it begins or
// ends to wait for one.
func (u *upkeep) giveWay(ctx context.Context, do func(context.Context) (string, error), waits func(bool)) (did string, err error) {
	for range maxTries {
		for u.busy() {
			waits(true)
			if err := pause.For(ctx, u.poll); err != nil {
				return "", err
			}
		}
		waits(false)
		inner, cancel := context.WithCancelCause(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for pause.For(inner, u.poll) == nil {
				if u.busy() {
					cancel(errInterrupted)
				}
			}
		}()
		did, err = do(inner)
		interrupted := context.Cause(inner) == errInterrupted
		cancel(nil)
		<-watched
		if err == nil || !interrupted {
			return did, err
		}
	}
	return "", fmt.Errorf("restores interrupted it %d times: %w", maxTries, err)
}

func (u *upkeep) copyLedger(ctx context.Context) (string, error) {
	return u.cfg.LedgerCopy(), u.ledger.CopyTo(ctx, u.cfg.LedgerCopy())
}

// collect gets back the space of what no backup needs.
func (u *upkeep) collect(ctx context.Context) (string, error) {
	plan, err := u.store.PlanGC(ctx)
	if err != nil {
		return "", err
	}
	res, err := u.store.GC(ctx, plan)
	if err != nil {
		return "", err
	}
	return res.String(), nil
}

// scrub reads all of the store. Damage is an error.
func (u *upkeep) scrub(ctx context.Context) (string, error) {
	report, err := u.store.Scrub(ctx, nil)
	if err != nil {
		return "", err
	}
	return report.String(), report.Err()
}

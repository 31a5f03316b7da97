package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
)

// keeper does the upkeep that admins ask for. It implements api.Keeper.
type keeper struct {
	*upkeep
	ctx   context.Context // of all work
	stop  context.CancelCauseFunc
	wait  sync.WaitGroup
	boots *bootTests // nil if there are none

	mu     sync.Mutex // guards the fields below, and the work of each errand
	all    []*errand  // the latest last
	closed bool
}

var _ api.Keeper = (*keeper)(nil)

// errand is a piece of work that an admin has asked for.
type errand struct {
	api.Upkeep
	key    string
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when it has ended
}

// maxErrands is how many pieces of work are known, with what they have said.
const maxErrands = 16

// These end a piece of work.
var (
	errCancelled = errors.New("it was cancelled; what was done until then counts")
	errStopped   = errors.New("the server was ended in the middle of it; what was done until then counts. Run it again when the server runs")
)

func newKeeper(u *upkeep) *keeper {
	k := &keeper{upkeep: u}
	k.ctx, k.stop = context.WithCancelCause(context.Background())
	return k
}

// close ends all work and waits for its end.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop(errStopped)
	k.wait.Wait()
}

// Begin implements api.Keeper.
func (k *keeper) Begin(q api.NewUpkeep, by string) (api.Upkeep, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.all {
		if q.Key != "" && e.key == q.Key && e.By == by && e.Work == q.Work {
			return e.Upkeep, false, nil
		}
	}
	if k.closed {
		return api.Upkeep{}, false, context.Canceled // the client tries again
	}
	if other, ok := k.turn.take(fmt.Sprintf("%s, which %s has asked for", q.Work, by)); !ok {
		return api.Upkeep{}, false, problem.Refusef("the server is looking after its store already (%s); wait for that to end", other)
	}
	e := &errand{key: q.Key, ended: make(chan struct{})}
	e.ID, e.Work, e.By, e.Begun, e.State = strings.ToLower(rand.Text()[:12]), q.Work, by, k.now(), "working"
	ctx, cancel := context.WithCancelCause(k.ctx)
	e.cancel = cancel
	if k.all = append(k.all, e); len(k.all) > maxErrands {
		k.all = k.all[1:] // the turn was free, so this one has ended
	}
	k.wait.Go(func() {
		defer cancel(nil)
		k.do(ctx, e)
	})
	return e.Upkeep, true, nil
}

func (k *keeper) find(id string) (*errand, error) {
	for _, e := range k.all {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, fmt.Errorf("the server knows of no such work on its store (%w); work ends with the server that does it", fs.ErrNotExist)
}

// Look implements api.Keeper.
func (k *keeper) Look(id string) (api.Upkeep, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.find(id)
	if err != nil {
		return api.Upkeep{}, nil, err
	}
	return e.Upkeep, e.ended, nil
}

// Cancel implements api.Keeper.
func (k *keeper) Cancel(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.find(id)
	if err == nil {
		e.cancel(errCancelled)
	}
	return err
}

// BootTests implements api.Keeper.
func (k *keeper) BootTests() *api.BootTesting { return k.boots.state() }

// Running implements api.Keeper.
func (k *keeper) Running() *api.Upkeep {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.all); n > 0 && !k.all[n-1].Ended() {
		u := k.all[n-1].Upkeep
		return &u
	}
	return nil
}

// set changes what is known of a piece of work.
func (k *keeper) set(e *errand, change func(*api.Upkeep)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&e.Upkeep)
}

// do does a piece of work. It gives the turn back before anybody sees that it has
// ended.
func (k *keeper) do(ctx context.Context, e *errand) {
	k.log.Info("An admin has asked for upkeep.", "work", e.Work, "by", e.By)
	damaged := false
	text, err := k.giveWay(ctx, func(ctx context.Context) (string, error) {
		switch e.Work {
		case api.Scrub:
			return k.scrubFor(ctx, e, &damaged)
		case api.GC:
			return k.collectFor(ctx)
		}
		plan, err := k.store.PlanGC(ctx)
		if err != nil {
			return "", err
		}
		return plan.String(), nil
	}, func(waits bool) {
		k.set(e, func(u *api.Upkeep) { u.State = map[bool]string{true: "waiting", false: "working"}[waits] })
	})
	took := k.now().Sub(e.Begun)
	outcome := api.UpkeepFailed
	switch cause := context.Cause(ctx); {
	case err == nil:
		outcome = api.UpkeepDone
	case damaged:
		outcome = api.UpkeepDamaged
	case cause == errCancelled:
		outcome = api.UpkeepCancelled
	case cause == errStopped:
		outcome = api.UpkeepStopped
	case errors.Is(err, store.ErrLocked):
		outcome = api.UpkeepRefused
	}
	if err == nil {
		k.log.Info("The upkeep that an admin has asked for is done.", "work", e.Work, "by", e.By, "did", text, "took", took)
	} else {
		k.log.Error("The upkeep that an admin has asked for did not end well.", "work", e.Work, "by", e.By, "error", err, "took", took)
	}
	if e.Work != api.PlanGC {
		k.note(api.LastUpkeep{Work: string(e.Work), By: e.By, Begun: e.Begun, Ended: k.now(), Outcome: outcome, Found: foundText(text, err)})
	}
	k.turn.give()
	k.set(e, func(u *api.Upkeep) {
		if u.State, u.Outcome, u.Text = "ended", outcome, text; err != nil {
			u.Error = err.Error()
		}
		close(e.ended)
	})
	if e.Work == api.GC {
		k.measure(k.ctx)
	}
}

// scrubFor reads all of the store. damaged says whether the error is the damage.
func (k *keeper) scrubFor(ctx context.Context, e *errand, damaged *bool) (string, error) {
	report, err := k.store.Scrub(ctx, func(at store.ScrubProgress) {
		k.set(e, func(u *api.Upkeep) { u.Done, u.Total = at.Bytes, at.Total })
	})
	if err != nil {
		return "", report.Unended(endOf(ctx, err))
	}
	err = report.Err()
	*damaged = err != nil
	return report.String(), err
}

// collectFor gets space back. What it says has the plan too.
func (k *keeper) collectFor(ctx context.Context) (string, error) {
	plan, err := k.store.PlanGC(ctx)
	if err != nil {
		return "", endOf(ctx, err)
	}
	res, err := k.store.GC(ctx, plan)
	if errors.Is(err, store.ErrLocked) {
		return plan.String(), err
	}
	return plan.String() + res.String(), endOf(ctx, err)
}

// endOf is the reason for which work was ended, in the place of an error that only
// says that it was.
func endOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

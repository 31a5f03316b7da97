package server

import (
	"context"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/store"
)

// measureEvery is how often it is noted what the store has.
const measureEvery = time.Hour

// measureGap is how long after one measure no other one is noted, however much work on
// the store has ended.
const measureGap = 5 * time.Minute

// measureAll notes again and again what the store has, until ctx ends. It reads what the
// records tell at the start, so that the first who asks does not wait for that.
func (u *upkeep) measureAll(ctx context.Context) {
	for {
		u.measure(ctx)
		if pause.For(ctx, measureEvery) != nil {
			return
		}
	}
}

// measure notes what the store has now. No request waits for it, and it makes way for
// restores.
func (u *upkeep) measure(ctx context.Context) {
	u.measuring.Lock()
	defer u.measuring.Unlock()
	if at := u.now(); at.Sub(u.measured) < measureGap && !at.Before(u.measured) {
		return
	}
	size, err := u.size(ctx)
	if err == nil {
		err = u.ledger.Update(ctx, func(tx *ledger.Tx) error { return tx.AddStoreSize(size) })
	}
	if err == nil {
		u.measured = size.Time
	} else if ctx.Err() == nil {
		u.log.Error("It cannot be noted what the store has.", "error", err)
	}
}

// size is what the store has now.
func (u *upkeep) size(ctx context.Context) (ledger.StoreSize, error) {
	has, err := u.store.Contents(store.WithPace(ctx, newPacer(u.busy).wait))
	if err != nil {
		return ledger.StoreSize{}, err
	}
	room, free, _ := u.store.Room() // both are 0 if they are not known
	return ledger.StoreSize{Time: u.now(), Stored: u.store.PackBytes(), Data: has.Data, Room: room, Free: free,
		Backups: int64(has.Backups)}, nil
}

// noteTime is how long it may take to note how work has ended.
const noteTime = 10 * time.Second

// note notes how work on the store has ended, so that it is known after a restart of the
// server too. Work that somebody has ended is not noted, since what the last one found
// counts on.
func (u *upkeep) note(w api.LastUpkeep) {
	if w.Outcome == api.UpkeepCancelled || w.Outcome == api.UpkeepStopped {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), noteTime)
	defer cancel()
	err := u.ledger.Update(ctx, func(tx *ledger.Tx) error {
		return tx.PutStoreWork(ledger.StoreWork{Work: w.Work, By: w.By, Begun: w.Begun, Ended: w.Ended, Outcome: w.Outcome, Found: w.Found})
	})
	if err != nil {
		u.log.Error("It cannot be noted how work on the store has ended.", "work", w.Work, "error", err)
	}
}

// foundText is what work has said, with what is wrong first.
func foundText(text string, err error) string {
	if err == nil {
		return text
	}
	if text == "" {
		return err.Error()
	}
	return err.Error() + "\n" + text
}

// Next implements api.Keeper.
func (u *upkeep) Next() (day, scrub time.Time) {
	if u.cfg.Upkeep.At == "" {
		return time.Time{}, time.Time{}
	}
	day = u.next(u.now())
	if u.cfg.Upkeep.Scrub == "" {
		return day, time.Time{}
	}
	for scrub = day; scrub.Weekday() != weekday(u.cfg.Upkeep.Scrub); {
		scrub = u.next(scrub)
	}
	return day, scrub
}

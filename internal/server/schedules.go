package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/words"
)

// schedules makes the jobs of schedules when they are due.
type schedules struct {
	plans  []*schedule.Plan
	ledger *ledger.Ledger
	jobs   scheduleJobs
	log    *slog.Logger
	now    func() time.Time
	tell   func(api.ScheduleEvent) // whoever follows events
	kick   chan struct{}           // holds a value if somebody has resumed a schedule
	looked map[string]time.Time    // when all that was due was seen last
	spare  sparing.Limit
}

// scheduleJobs are the jobs of a dispatch.Dispatch.
type scheduleJobs interface {
	Check(ctx context.Context, r dispatch.Request) error
	AddAll(ctx context.Context, requests []dispatch.Request, more func(*ledger.Tx, []dispatch.Added) error) ([]dispatch.Added, error)
}

// These say how often schedules are looked at. A timer does not notice that a machine slept or
// that its clock was set.
const (
	scheduleEvery = time.Minute
	scheduleAgain = 10 * time.Second // after a failure
)

func newSchedules(plans []*schedule.Plan, l *ledger.Ledger, jobs scheduleJobs, log *slog.Logger, now func() time.Time) *schedules {
	return &schedules{plans: plans, ledger: l, jobs: jobs, log: log, now: now, tell: func(api.ScheduleEvent) {},
		kick: make(chan struct{}, 1), looked: map[string]time.Time{}}
}

// wake makes run look at once.
func (s *schedules) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// sync brings the ledger up to the configuration.
func (s *schedules) sync(ctx context.Context) error {
	var did []string
	err := s.ledger.Update(ctx, func(tx *ledger.Tx) (err error) {
		now := s.now()
		if did, err = schedule.Sync(tx, s.plans, now); err != nil {
			return err
		}
		for _, text := range did {
			if err := tx.AddAudit(ledger.Entry{Time: now, Who: "server", What: "change schedules", Why: text}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, text := range did {
		s.log.Info(text)
	}
	for _, p := range s.plans {
		s.log.Info(p.Describe(s.now()), "schedule", p.Name)
	}
	return nil
}

// run makes what is due until ctx ends.
func (s *schedules) run(ctx context.Context) {
	if len(s.plans) == 0 {
		return
	}
	for {
		now := s.now()
		next := now.Add(scheduleEvery)
		for _, p := range s.plans {
			at, err := s.look(ctx, p)
			if err != nil && ctx.Err() == nil {
				if more, ok := s.spare.Take(p.Name); ok {
					s.log.Error("A schedule cannot make its jobs, and tries it again."+more, "schedule", p.Name, "error", err)
				}
				at = now.Add(scheduleAgain)
			}
			if !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		timer := time.NewTimer(max(next.Sub(s.now()), 0))
		select {
		case <-timer.C:
		case <-s.kick:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// look makes what is due of one schedule. It returns when to look again; the zero time is no
// need to.
func (s *schedules) look(ctx context.Context, p *schedule.Plan) (time.Time, error) {
	now := s.now()
	var entry schedule.Entry
	var boxes []ledger.Box
	var lost []schedule.Left
	open := map[box.Addr]string{}
	quiet, next := false, time.Time{}
	err := s.ledger.View(ctx, func(tx *ledger.Tx) error {
		all, err := schedule.Entries(tx)
		if err != nil {
			return err
		}
		entry = all[p.Name]
		looked := entry.Last
		if at := s.looked[p.Name]; at.After(looked) {
			looked = at
		}
		if next, quiet = p.Quiet(looked, now); quiet || entry.Pause != nil {
			return nil
		}
		boxes, lost, err = schedule.Members(tx, p, api.Boxes)
		if err != nil {
			return err
		}
		return openJobs(tx, p, now, open)
	})
	switch {
	case err != nil:
		return time.Time{}, err
	case entry.Name == "": // nobody removes it while the server runs
		return time.Time{}, errors.New("the ledger does not have it; restart the server")
	case entry.Pause != nil:
		return time.Time{}, nil
	case quiet:
		s.looked[p.Name] = now
		return next, nil
	}
	found := p.Look(entry.Last, now, boxes, open)
	if found.Settled {
		found.Left = append(found.Left, lost...)
		if err := s.settle(ctx, p, entry, &found, now); err != nil {
			return time.Time{}, err
		}
	}
	s.looked[p.Name] = now
	return found.Next, nil
}

// openJobs reads the jobs of a schedule that have not ended. One of a start in the future, as a clock leaves it that was
// wrong, waits for its time, and keeps its box from no other start.
func openJobs(tx *ledger.Tx, p *schedule.Plan, now time.Time, open map[box.Addr]string) error {
	for page := (ledger.Page{}); ; {
		some, next, err := tx.Jobs(ledger.JobFilter{Open: true, By: p.By()}, page)
		if err != nil {
			return err
		}
		for _, j := range some {
			if start := p.StartOf(j.Key); !start.After(now) {
				open[j.Box] = j.ID
			}
		}
		if page.After = next; next == "" {
			return nil
		}
	}
}

// settle makes the jobs that are due, and makes durable with them that they are made. What has
// no job is said.
func (s *schedules) settle(ctx context.Context, p *schedule.Plan, entry schedule.Entry, found *schedule.Found, now time.Time) error {
	var requests []dispatch.Request
	due := found.Due
	found.Due = nil
	for _, b := range due {
		r := dispatch.Request{Boxes: []box.Addr{b.Address}, Action: p.Action, By: p.By(), Key: p.Key(b.Start),
			From: b.Start, Until: b.Until, Yields: true}
		if err := s.jobs.Check(ctx, r); err != nil {
			if ctx.Err() != nil {
				return err
			}
			found.Left = append(found.Left, schedule.Left{What: b.Address.String(), Why: err.Error()})
			continue
		}
		found.Due, requests = append(found.Due, b), append(requests, r)
	}
	made := 0
	_, err := s.jobs.AddAll(ctx, requests, func(tx *ledger.Tx, all []dispatch.Added) error {
		made = 0
		for _, a := range all {
			if a.Made {
				made++
			}
		}
		return p.Settle(tx, entry, *found, made, now)
	})
	if errors.Is(err, schedule.ErrChanged) {
		return nil // the next look sees it
	}
	if err != nil {
		return err
	}
	say := func(level slog.Level, what, text string) {
		if text != "" {
			s.log.Log(ctx, level, text, "schedule", p.Name)
			s.tell(api.ScheduleEvent{Schedule: p.Name, Time: now, What: what, Text: text})
		}
	}
	if found.SetBack {
		say(slog.LevelWarn, "clock", schedule.SetBackText(entry.Last, now))
	}
	say(slog.LevelWarn, "missed", found.MissedText())
	if len(found.Due) > 0 {
		text := "Jobs are made for " + words.Count(made, "box", "boxes") + "."
		if made < len(found.Due) {
			text += " The others have theirs since before."
		}
		say(slog.LevelInfo, "start", text)
	}
	say(slog.LevelWarn, "left-out", schedule.LeftText(found.Left))
	return nil
}

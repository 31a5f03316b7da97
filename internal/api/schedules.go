package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/schedule"
)

// Schedule is what the server does again and again.
type Schedule struct {
	Name    string     `json:"name"`
	When    string     `json:"when" example:"0 2 * * mon-fri" doc:"minute, hour, day of the month, month, day of the week"`
	Zone    string     `json:"zone,omitempty" example:"Europe/Berlin" doc:"time zone; without it, the one of the server"`
	Window  []string   `json:"window,omitempty" doc:"when jobs may begin; without it, always"`
	Spread  string     `json:"spread,omitempty" example:"1h" doc:"the boxes begin spread over so much time"`
	Late    string     `json:"late" example:"1h" doc:"how much later a job may begin"`
	Action  box.Action `json:"action"`
	Targets []string   `json:"targets" doc:"boxes, groups and labels"`
	Boxes   int        `json:"boxes" doc:"how many boxes these are now"`
	Text    string     `json:"text" doc:"when it comes, in words"`
	// The times have the offset of the schedule's zone.
	Next     time.Time      `json:"next,omitzero" doc:"the next start; without it, it is paused"`
	Last     time.Time      `json:"last,omitzero" doc:"the last start for which jobs were made"`
	Made     int            `json:"made,omitempty" doc:"how many jobs were made when that was last looked at"`
	Outcomes map[string]int `json:"outcomes,omitempty" doc:"the latest job of each box that the schedule has made: how many ended how, or are in which state"`
	Missed   *ScheduleNote  `json:"missed,omitempty" doc:"starts that were not made, the latest time that there were some"`
	Left     *ScheduleNote  `json:"leftOut,omitempty" doc:"boxes and words that got no job at the last start"`
	Paused   *SchedulePause `json:"paused,omitempty" doc:"no starts are made"`
	Problems []string       `json:"problems,omitempty" doc:"targets that mean no box, each with the reason"`
}

// ScheduleNote is a sentence that people must be told.
type ScheduleNote struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// SchedulePause says that no starts are made.
type SchedulePause struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"`
}

// ScheduleEvent is something that a schedule has done.
type ScheduleEvent struct {
	Schedule string    `json:"schedule"`
	Time     time.Time `json:"time"`
	What     string    `json:"what" doc:"start, missed, left-out, clock, pause or resume"`
	Text     string    `json:"text"`
}

// RunSchedule asks for the jobs of a schedule now.
type RunSchedule struct {
	Key string `json:"key,omitempty" maxLength:"200" doc:"the same request with the same key gives the jobs that there are, so it can be repeated"`
	Why string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// ScheduleRun is what came of that.
type ScheduleRun struct {
	Jobs    []Job    `json:"jobs"`
	LeftOut []string `json:"leftOut,omitempty" doc:"boxes that got no job, each with the reason"`
}

// BoxSchedule is a schedule that a box belongs to.
type BoxSchedule struct {
	Name   string     `json:"name"`
	Action box.Action `json:"action"`
	Next   time.Time  `json:"next,omitzero" doc:"when it is due next; without it, the schedule is paused"`
}

// SchedulePath is the schedule in a path.
type SchedulePath struct {
	Schedule string `path:"schedule" maxLength:"50" doc:"name of a schedule"`
}

// plan finds a schedule.
func (s *Server) plan(name string) (*schedule.Plan, error) {
	for _, p := range s.cfg.Schedules {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, notFound("there is no schedule %.80q; schedules are in the configuration of the server", name)
}

// finder finds the boxes that a word means.
type finder = func(*ledger.Tx, string) ([]ledger.Box, error)

// foundOnce finds what each word means once. Many schedules have the same boxes, as those of each night and of each week.
func foundOnce() finder {
	type found struct {
		boxes []ledger.Box
		err   error
	}
	known := map[string]found{}
	return func(tx *ledger.Tx, word string) ([]ledger.Box, error) {
		f, has := known[word]
		if !has {
			f.boxes, f.err = Boxes(tx, word)
			known[word] = f
		}
		return f.boxes, f.err
	}
}

// planBoxes finds the boxes of a schedule. lost says which words mean none, and why.
func planBoxes(tx *ledger.Tx, p *schedule.Plan, find finder) (all []ledger.Box, lost []string, err error) {
	boxes, left, err := schedule.Members(tx, p, find)
	for _, l := range left {
		lost = append(lost, l.What+": "+l.Why)
	}
	return boxes, lost, err
}

func (s *Server) listSchedules(ctx context.Context, _ *struct{}) (*body[[]Schedule], error) {
	out := []Schedule{}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		entries, err := schedule.Entries(tx)
		if err != nil {
			return err
		}
		find := foundOnce()
		for _, p := range s.cfg.Schedules {
			v, err := s.scheduleOf(tx, p, entries[p.Name], find)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return answer(out, err)
}

func (s *Server) getSchedule(ctx context.Context, in *SchedulePath) (*body[Schedule], error) {
	return answer(s.schedule(ctx, in.Schedule))
}

func (s *Server) schedule(ctx context.Context, name string) (v Schedule, err error) {
	p, err := s.plan(name)
	if err != nil {
		return v, err
	}
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		entries, err := schedule.Entries(tx)
		if err == nil {
			v, err = s.scheduleOf(tx, p, entries[p.Name], Boxes)
		}
		return err
	})
	return v, err
}

func (s *Server) scheduleOf(tx *ledger.Tx, p *schedule.Plan, e schedule.Entry, find finder) (Schedule, error) {
	now := s.cfg.Now()
	v := Schedule{Name: p.Name, When: p.When, Zone: p.Zone, Window: p.Window, Action: p.Action, Targets: p.Boxes, Text: p.Describe(now),
		Late: p.LateText(), Made: e.Made, Missed: (*ScheduleNote)(e.Missed), Left: (*ScheduleNote)(e.Left), Paused: (*SchedulePause)(e.Pause)}
	if p.Spread > 0 {
		v.Spread = p.SpreadText()
	}
	if !e.Start.IsZero() {
		v.Last = p.In(e.Start)
	}
	boxes, lost, err := planBoxes(tx, p, find)
	if err != nil {
		return v, err
	}
	v.Boxes, v.Problems = len(boxes), lost
	if e.Pause == nil {
		v.Next = p.First(now)
		for i, b := range boxes {
			if at := p.Next(b.Address, now); i == 0 || at.Before(v.Next) {
				v.Next = at
			}
		}
	}
	v.Outcomes, err = outcomes(tx, p.By(), boxes)
	return v, err
}

// outcomes counts how the latest job of each box stands that somebody has asked for. It looks through the latest jobs, and
// ends when it has one of each box. So it reads little more than there are boxes, however many jobs there were.
func outcomes(tx *ledger.Tx, by string, boxes []ledger.Box) (map[string]int, error) {
	known := map[box.Addr]bool{}
	for _, b := range boxes {
		known[b.Address] = true
	}
	all := map[string]int{}
	read := 0
	for p := (ledger.Page{Limit: max(1, len(boxes))}); len(known) > 0 && read < ledger.MaxPage; {
		jobs, next, err := tx.Jobs(ledger.JobFilter{By: by}, p)
		if err != nil {
			return nil, err
		}
		for _, row := range jobs {
			if !known[row.Box] { // it has a later one, or is not of the schedule any more
				continue
			}
			delete(known, row.Box)
			word := row.State
			if row.State == string(job.Ended) {
				j, err := dispatch.Brief(row)
				if err != nil {
					return nil, fmt.Errorf("job %s: %w", row.ID, err)
				}
				word = string(j.Outcome)
			}
			all[word]++
		}
		read += len(jobs)
		if p.After = next; next == "" {
			break
		}
	}
	return all, nil
}

// pauseSchedule and resumeSchedule are durable. The server looks at the ledger each time.
func (s *Server) pauseSchedule(ctx context.Context, in *struct {
	SchedulePath
	Body Reason
}) (*body[Schedule], error) {
	c := callerOf(ctx)
	pause := &schedule.Pause{By: c.name, Since: s.cfg.Now().UTC(), Why: in.Body.Why}
	return s.setPause(ctx, in.Schedule, "pause", in.Body.Why, pause)
}

func (s *Server) resumeSchedule(ctx context.Context, in *struct {
	SchedulePath
	Body Reason
}) (*body[Schedule], error) {
	return s.setPause(ctx, in.Schedule, "resume", in.Body.Why, nil)
}

func (s *Server) setPause(ctx context.Context, name, what, why string, pause *schedule.Pause) (*body[Schedule], error) {
	p, err := s.plan(name)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	err = s.change(ctx, what+" a schedule", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = name, why
		return p.SetPause(tx, pause, now)
	})
	if err != nil {
		return nil, err
	}
	s.TellSchedule(ScheduleEvent{Schedule: name, Time: now, What: what, Text: because(callerOf(ctx).name+" did so", why)})
	if s.cfg.Rescheduled != nil {
		s.cfg.Rescheduled()
	}
	return answer(s.schedule(ctx, name))
}

// runSchedule makes the jobs of a schedule now, as those of the caller. Nothing of its own times
// changes by that.
func (s *Server) runSchedule(ctx context.Context, in *struct {
	SchedulePath
	Body RunSchedule
}) (*body[ScheduleRun], error) {
	c, q := callerOf(ctx), in.Body
	p, err := s.plan(in.Schedule)
	if err != nil {
		return nil, err
	}
	var boxes []ledger.Box
	var lost []string
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		boxes, lost, err = planBoxes(tx, p, Boxes)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := dispatch.Request{Action: p.Action, By: c.name, Key: q.Key}
	out := ScheduleRun{Jobs: []Job{}, LeftOut: lost}
	for _, b := range boxes {
		why := schedule.Unfit(b)
		if why == "" {
			why = s.refuses(c, b)
		}
		one := r
		if one.Boxes = []box.Addr{b.Address}; why == "" {
			if err := s.cfg.Jobs.Check(ctx, one); err != nil {
				why = err.Error()
			}
		}
		if why != "" && !s.repeats(ctx, one) {
			out.LeftOut = append(out.LeftOut, b.Address.String()+": "+why)
			continue
		}
		r.Boxes = append(r.Boxes, b.Address)
	}
	if len(r.Boxes) == 0 {
		return nil, problem.Refusef("no box of the schedule %s can have a job now: %s", p.Name, strings.Join(out.LeftOut, "; "))
	}
	all, err := s.cfg.Jobs.Add(dispatch.WithWhy(ctx, c.from, because("the schedule "+p.Name, q.Why)), r)
	if err != nil {
		return nil, err
	}
	out.Jobs, err = s.seen(ctx, c, all)
	return answer(out, err)
}

// addSchedules says when a box is due next.
func (s *Server) addSchedules(tx *ledger.Tx, b ledger.Box, v *Box) error {
	if len(s.cfg.Schedules) == 0 {
		return nil
	}
	entries, err := schedule.Entries(tx)
	if err != nil {
		return err
	}
	for _, p := range s.cfg.Schedules {
		for _, word := range p.Boxes {
			is, err := isTarget(tx, word, b)
			if err != nil {
				return err
			}
			if !is {
				continue
			}
			due := BoxSchedule{Name: p.Name, Action: p.Action}
			if entries[p.Name].Pause == nil {
				due.Next = p.Next(b.Address, s.cfg.Now())
			}
			v.Schedules = append(v.Schedules, due)
			break
		}
	}
	return nil
}

// TellSchedule tells all who follow events what a schedule has done, but not those who may see only
// the boxes of a group. It does not wait for them.
func (s *Server) TellSchedule(e ScheduleEvent) {
	data, err := json.Marshal(e)
	if err != nil {
		s.cfg.Log.Error("an event of a schedule cannot be passed on", "error", err)
		return
	}
	s.hub.push(change{event: "schedule", data: data})
}

package labpage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
	"testbox-imaging/internal/schedule"
)

const (
	ahead      = 14    // days that the calendar shows
	maxStarts  = 20000 // starts of one schedule that are looked at
	shownTimes = 4     // starts of one schedule on one day that are named
)

// calendarData is what the page of the calendar shows.
type calendarData struct {
	Schedules []scheduleRow
	Days      []calendarDay
	May       struct{ Run, Pause, Resume bool }
}

type scheduleRow struct {
	api.Schedule
	Results []string // how its latest jobs stand
}

// calendarDay has the starts of one day, as the zones of the schedules have it.
type calendarDay struct {
	Date   string
	Starts []starts
}

// starts are those of one schedule on one day.
type starts struct {
	Name, Action string
	Boxes        int
	Times        []string // the first ones
	More         int
	Last         string // the last one of the day, if it is not named above
	Spread, Zone string
	first        time.Time
}

func (p *Pages) calendar(r *http.Request, v Visitor) (any, error) {
	var all []api.Schedule
	if err := v.Ask(r.Context(), "list-schedules", nil, nil, &all); err != nil {
		return nil, err
	}
	d := &calendarData{}
	d.May.Run, d.May.Pause, d.May.Resume = v.May("run-schedule"), v.May("pause-schedule"), v.May("resume-schedule")
	days := map[string][]starts{}
	now := p.now()
	for _, s := range all {
		row := scheduleRow{Schedule: s}
		for _, word := range slices.Sorted(maps.Keys(s.Outcomes)) {
			row.Results = append(row.Results, fmt.Sprintf("%d %s", s.Outcomes[word], word))
		}
		d.Schedules = append(d.Schedules, row)
		if s.Paused == nil {
			addStarts(days, s, now)
		}
	}
	for _, date := range slices.Sorted(maps.Keys(days)) {
		list := days[date]
		slices.SortFunc(list, func(a, b starts) int { return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.Name, b.Name)) })
		day, err := time.Parse(time.DateOnly, date)
		if err != nil {
			return nil, err
		}
		d.Days = append(d.Days, calendarDay{day.Format("Monday, 2 January"), list})
	}
	return d, nil
}

// addStarts adds the starts of a schedule in the next days, each to its day.
func addStarts(days map[string][]starts, s api.Schedule, now time.Time) {
	spread, _ := time.ParseDuration(s.Spread) // the boxes begin within it, and the page says so
	plan, err := schedule.New(s.Name, schedule.Config{When: s.When, Zone: s.Zone, Window: s.Window, Spread: spread, Action: s.Action,
		Boxes: s.Targets})
	if err != nil {
		return // its next start is in the list of schedules all the same
	}
	end := now.Add(ahead * 24 * time.Hour)
	at := now
	for range maxStarts {
		next := plan.First(at)
		if !next.After(at) || next.After(end) {
			return
		}
		at = next
		date, clock := at.Format(time.DateOnly), at.Format("15:04")
		list := days[date]
		i := slices.IndexFunc(list, func(o starts) bool { return o.Name == s.Name })
		if i < 0 {
			i = len(list)
			list = append(list, starts{Name: s.Name, Action: string(s.Action), Boxes: s.Boxes, Spread: s.Spread,
				Zone: at.Format("MST"), first: at})
		}
		if o := &list[i]; len(o.Times) < shownTimes {
			o.Times = append(o.Times, clock)
		} else {
			o.More++
			o.Last = clock
		}
		days[date] = list
	}
}

var scheduleTasks = []*task{
	{Name: "pause", Title: "Pause a schedule", Button: "Pause", Back: "/calendar", route: "pause-schedule", fill: fillSchedule,
		send:  sendPause,
		About: "It makes no jobs until it is resumed, also after a restart of the server. Jobs that it has made stay."},
	{Name: "resume", Title: "Resume a schedule", Button: "Resume", Back: "/calendar", route: "resume-schedule", fill: fillSchedule,
		send:  sendResume,
		About: "It goes on with its next start. What it would have done while it was paused is not made up for."},
	{Name: "run", Title: "Run a schedule now", Button: "Make the jobs now", Back: "/calendar", route: "run-schedule",
		fill: fillSchedule, send: sendRun,
		About: "Each box of the schedule gets its job now, as a job of yours. The next start of the schedule stays as it is."},
}

func fillSchedule(ctx context.Context, v Visitor, f *form) error {
	var s api.Schedule
	if err := v.Ask(ctx, "get-schedule", boxpage.Params{"schedule": f.On}, nil, &s); err != nil {
		return err
	}
	f.say("When", s.Text)
	f.say("Action", string(s.Action))
	f.say("Boxes", fmt.Sprint(s.Boxes))
	if s.Paused != nil {
		f.say("Paused by", s.Paused.By)
	}
	return nil
}

func sendPause(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	err := v.Ask(ctx, "pause-schedule", boxpage.Params{"schedule": q.Get("on")}, api.Reason{Why: q.Get("why")}, nil)
	return "/calendar", nil, err
}

func sendResume(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	err := v.Ask(ctx, "resume-schedule", boxpage.Params{"schedule": q.Get("on")}, api.Reason{Why: q.Get("why")}, nil)
	return "/calendar", nil, err
}

func sendRun(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	key := q.Get("key")
	if key == "" || len(key) > 100 {
		return "", nil, refused(http.StatusBadRequest, "the form has lost its key; open the page of the action again")
	}
	var run api.ScheduleRun
	err := v.Ask(ctx, "run-schedule", boxpage.Params{"schedule": q.Get("on")}, api.RunSchedule{Key: key, Why: q.Get("why")}, &run)
	to := "/jobs?key=" + url.QueryEscape(key)
	if err != nil || len(run.LeftOut) == 0 {
		return to, nil, err
	}
	return "", &done{Title: "Not all boxes got a job", Text: fmt.Sprintf("%d jobs were made.", len(run.Jobs)), Left: run.LeftOut, To: to,
		Link: "To the jobs"}, nil
}

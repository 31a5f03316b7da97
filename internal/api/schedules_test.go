package api_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/schedule"
)

// picky refuses jobs of one box.
type picky struct {
	*runner
	no box.Addr
}

func (p picky) Check(_ context.Context, r dispatch.Request) error {
	if r.Boxes[0] == p.no {
		return problem.Refusef("it has no backup")
	}
	return nil
}

func newScheduleRig(t *testing.T) (r *rig, nightly *schedule.Plan) {
	t.Helper()
	nightly, err := schedule.New("nightly", schedule.Config{When: "30 2 * * *", Zone: "Europe/Berlin", Action: box.Backup,
		Boxes: []string{"group:rack", "10.0.0.9", "nobody"}, Late: 2 * time.Hour})
	must(t, err)
	weekly, err := schedule.New("weekly", schedule.Config{When: "@weekly", Zone: "UTC", Action: box.Verify, Boxes: []string{"group:rack"}})
	must(t, err)
	woken := 0
	r = newRigWith(t, func(cfg *api.Config) {
		cfg.Schedules = []*schedule.Plan{nightly, weekly}
		cfg.Rescheduled = func() { woken++ }
		cfg.Jobs = picky{cfg.Jobs.(*runner), addr(t, "10.0.0.3")}
	})
	t.Cleanup(func() {
		if woken == 0 {
			t.Error("nobody looks at a schedule that was resumed")
		}
	})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		_, err := schedule.Sync(tx, []*schedule.Plan{nightly, weekly}, r.clock())
		return err
	}))
	r.group("rack")
	rack := []string{"rack"}
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: rack})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Groups: rack, Holder: ledger.Holder{Name: "bob"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.3"), Groups: rack})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutBox(ledger.Box{Address: addr(t, "10.0.0.4"), Groups: rack, Health: ledger.Maintenance, Reason: "a new disk"})
	}))
	r.box(ledger.Box{Address: addr(t, "10.0.0.9")})
	return r, nightly
}

// TestSchedules lists, pauses, resumes and runs schedules.
func TestSchedules(t *testing.T) {
	r, nightly := newScheduleRig(t)
	c := r.root()
	var all []api.Schedule
	c.want(200, "GET", "/api/v1/schedules", nil, &all)
	next := time.Date(2026, 11, 30, 1, 30, 0, 0, time.UTC)
	if len(all) != 2 || all[0].Name != "nightly" || !all[0].Next.Equal(next) || all[0].Boxes != 5 || all[0].Late != "2h" ||
		!strings.Contains(all[0].Text, "Mon 30 Nov 2026 02:30 CET") || len(all[0].Problems) != 1 || all[0].Paused != nil {
		t.Fatalf("%+v", all)
	}
	if _, offset := all[0].Next.Zone(); offset != 3600 {
		t.Errorf("the next start is %s, and not by the clock of its zone", all[0].Next)
	}
	var b api.Box
	c.want(200, "GET", "/api/v1/boxes/10.0.0.1", nil, &b)
	if len(b.Schedules) != 2 || b.Schedules[0].Name != "nightly" || !b.Schedules[0].Next.Equal(next) || b.Schedules[1].Action != box.Verify {
		t.Errorf("%+v", b.Schedules)
	}

	var v api.Schedule
	viewer := r.with(r.token(ledger.Token{Role: ledger.Viewer, Name: "eve"}))
	viewer.want(200, "GET", "/api/v1/schedules/nightly", nil, &v)
	v = api.Schedule{}
	c.want(200, "POST", "/api/v1/schedules/nightly/pause", api.Reason{Why: "exams"}, &v)
	if v.Paused == nil || v.Paused.By != r.me || v.Paused.Why != "exams" || !v.Next.IsZero() {
		t.Errorf("%+v", v)
	}
	c.refused(api.CodeRefused, "POST", "/api/v1/schedules/nightly/pause", "{}")
	b = api.Box{}
	c.want(200, "GET", "/api/v1/boxes/10.0.0.1", nil, &b)
	if !b.Schedules[0].Next.IsZero() {
		t.Errorf("%+v", b.Schedules)
	}
	v = api.Schedule{}
	c.want(200, "POST", "/api/v1/schedules/nightly/resume", "{}", &v)
	if v.Paused != nil || !v.Next.Equal(next) {
		t.Errorf("%+v", v)
	}
	c.refused(api.CodeRefused, "POST", "/api/v1/schedules/nightly/resume", "{}")
	c.refused(api.CodeNotFound, "POST", "/api/v1/schedules/no/run", "{}")

	var ran api.ScheduleRun
	for range 2 { // the same key makes no second jobs
		c.want(201, "POST", "/api/v1/schedules/nightly/run", api.RunSchedule{Key: "k", Why: "before the upgrade"}, &ran)
		left := strings.Join(ran.LeftOut, "; ")
		if len(ran.Jobs) != 2 || ran.Jobs[0].ID != "j1" || ran.Jobs[0].By != r.me || ran.Jobs[1].Box != "10.0.0.9" || len(ran.LeftOut) != 4 {
			t.Errorf("%+v", ran)
		}
		for _, want := range []string{"bob has reserved", "it has no backup", "it is in maintenance (a new disk)", "nobody"} {
			if !strings.Contains(left, want) {
				t.Errorf("%q is not said: %s", want, left)
			}
		}
	}

	// What the schedule itself has made is counted by box, the latest job of each.
	for i, o := range []box.Outcome{box.Failed, box.Done, box.Expired} {
		a := addr(t, []string{"10.0.0.1", "10.0.0.1", "10.0.0.9"}[i])
		made, err := r.runner.Add(t.Context(), dispatch.Request{Boxes: []box.Addr{a}, Action: box.Backup, By: nightly.By()})
		must(t, err)
		r.runner.set(t, made[0].ID, func(st *dispatch.Status) { st.State, st.Outcome, st.Settled = job.Ended, o, true })
		r.pass(time.Second)
	}
	c.want(200, "GET", "/api/v1/schedules/nightly", nil, &v)
	if len(v.Outcomes) != 2 || v.Outcomes["done"] != 1 || v.Outcomes["expired"] != 1 {
		t.Errorf("%+v", v.Outcomes)
	}

	// What it has missed is said until something else is.
	now := r.clock()
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		entries, err := schedule.Entries(tx)
		must(t, err)
		e := entries["nightly"]
		late := e.Last.Add(3 * 24 * time.Hour)
		return nightly.Settle(tx, e, nightly.Look(e.Last, late, []ledger.Box{{Address: addr(t, "10.0.0.1")}}, nil), 0, late)
	}))
	c.want(200, "GET", "/api/v1/schedules/nightly", nil, &v)
	if v.Missed == nil || !strings.Contains(v.Missed.Text, "3 starts were missed") || !v.Missed.At.After(now) {
		t.Errorf("%+v", v.Missed)
	}
	_, figures := c.do("GET", "/metrics", nil)
	for _, what := range []string{"next", "missed"} {
		if !strings.Contains(string(figures), `testbox_schedule_time_seconds{schedule="nightly",what="`+what+`"} 1.7`) {
			t.Errorf("the metrics do not have %s:\n%s", what, figures)
		}
	}
	_, audit := c.do("GET", "/api/v1/audit", nil)
	for _, want := range []string{"pause a schedule", "resume a schedule", "3 starts were missed"} {
		if !strings.Contains(string(audit), want) {
			t.Errorf("the audit log does not have %q", want)
		}
	}
}

// TestScheduleUnreadable: what the ledger has of a schedule may be of a newer version. Then it makes nothing until
// somebody resumes it.
func TestScheduleUnreadable(t *testing.T) {
	r, _ := newScheduleRig(t)
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutSchedule(ledger.Schedule{Name: "nightly", Spec: "x", Target: "x", Settings: []byte(`{"pause":"yes"}`), LastRun: r.clock()})
	}))
	var v api.Schedule
	r.root().want(200, "GET", "/api/v1/schedules/nightly", nil, &v)
	if v.Paused == nil || v.Paused.By != "server" || !strings.Contains(v.Paused.Why, "cannot be read") {
		t.Errorf("%+v", v.Paused)
	}
	v = api.Schedule{}
	if r.root().want(200, "POST", "/api/v1/schedules/nightly/resume", "{}", &v); v.Paused != nil {
		t.Errorf("%+v", v.Paused)
	}
}

// TestScheduleEvents: who follows events is told what schedules do, unless only boxes of a group are to be seen.
func TestScheduleEvents(t *testing.T) {
	r, _ := newScheduleRig(t)
	all, stop := r.root().follow("")
	defer stop()
	limited, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack", Name: "rack"})).follow("")
	defer stop()
	next(t, all)
	next(t, limited)
	for _, text := range []string{"one", "two"} {
		r.api.TellSchedule(api.ScheduleEvent{Schedule: "nightly", Time: r.clock(), What: "missed", Text: text})
	}
	r.root().want(200, "POST", "/api/v1/schedules/nightly/pause", "{}", nil)
	r.root().want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, nil)
	for _, want := range []string{`"text":"one"`, `"text":"two"`, `"what":"pause"`} {
		if e := next(t, all); e.name != "schedule" || !strings.Contains(e.data, want) {
			t.Errorf("the event is %+v, and %s is wanted", e, want)
		}
	}
	for _, events := range []<-chan event{all, limited} {
		if e := next(t, events); e.name != "job" {
			t.Errorf("%+v", e)
		}
	}
}

// TestOutcomes: the latest job of each box counts, also of one that had its job long before those of the others.
func TestOutcomes(t *testing.T) {
	nightly, err := schedule.New("nightly", schedule.Config{When: "30 2 * * *", Zone: "UTC", Action: box.Backup,
		Boxes: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}})
	must(t, err)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Schedules = []*schedule.Plan{nightly} })
	add := func(n int, a string, o box.Outcome) {
		t.Helper()
		at := r.clock().Add(time.Duration(n-100) * time.Hour)
		row := ledger.Job{ID: fmt.Sprintf("job%d", n), Box: addr(t, a), State: string(job.Ended), Created: at, Changed: at, Ended: at,
			By: nightly.By(), Doc: fmt.Appendf(nil, `{"format":1,"job":{"outcome":%q}}`, o)}
		must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.AddJob(row) }))
	}
	add(0, "10.0.0.2", box.Failed)
	add(1, "10.0.0.3", box.Failed)
	for n := range 30 {
		add(2+n, "10.0.0.1", box.Failed)
	}
	add(40, "10.0.0.1", box.Done)
	add(41, "10.0.0.77", box.Failed) // is not of the schedule any more
	var s api.Schedule
	r.root().want(200, "GET", "/api/v1/schedules/nightly", nil, &s)
	if want := map[string]int{"done": 1, "failed": 2}; !maps.Equal(s.Outcomes, want) {
		t.Errorf("%v, not %v", s.Outcomes, want)
	}
}

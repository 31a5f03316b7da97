package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/sharedir"
)

// noBoots are boot files that nobody keeps.
type noBoots struct{}

func (noBoots) Arm(context.Context, job.Job, dispatch.Options, string) error { return nil }
func (noBoots) Disarm(context.Context, box.Addr, box.Arming) error           { return nil }
func (noBoots) Armed(context.Context, box.Addr, box.Arming, string) bool     { return true }
func (noBoots) CheckBoxes([]box.Addr) error                                  { return nil }
func (noBoots) Ready(box.Action) error                                       { return nil }
func (noBoots) Of(context.Context, box.Addr) ([]*image.Record, error)        { return nil, nil }
func (noBoots) Find(context.Context, box.Addr, string) (*image.Record, error) {
	return nil, fs.ErrNotExist
}

// calendarRig is a server as far as schedules need one. It keeps its ledger and its clock when it
// is started anew.
type calendarRig struct {
	*testing.T
	ledger   *ledger.Ledger
	area     *sharedir.Area
	cfg      Config
	dispatch *dispatch.Dispatch
	s        *schedules
	cut      string // kills the server "before" or "after" the next AddAll

	mu     sync.Mutex // guards the fields below
	clock  time.Time
	events []api.ScheduleEvent
}

func newCalendarRig(t *testing.T, now time.Time) *calendarRig {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, sharedir.Marker), nil, 0o644))
	area, err := sharedir.Open(durable.OS{}, dir)
	must(t, err)
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"), ledger.Options{})
	must(t, err)
	r := &calendarRig{T: t, ledger: l, area: area, clock: now}
	t.Cleanup(func() {
		if r.dispatch != nil {
			r.dispatch.Close()
		}
		l.Close()
	})
	return r
}

func (r *calendarRig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

// errKilled is what a server gets that was killed.
var errKilled = errors.New("the server was killed")

// Check and AddAll implement scheduleJobs.
func (r *calendarRig) Check(ctx context.Context, q dispatch.Request) error {
	return r.dispatch.Check(ctx, q)
}

func (r *calendarRig) AddAll(ctx context.Context, all []dispatch.Request, more func(*ledger.Tx, []dispatch.Added) error) (
	[]dispatch.Added, error) {
	cut := r.cut
	r.cut = ""
	if cut == "before" {
		return nil, errKilled
	}
	added, err := r.dispatch.AddAll(ctx, all, more)
	if err == nil && cut == "after" {
		return nil, errKilled
	}
	return added, err
}

// start starts the server, also after it was killed or with another configuration.
func (r *calendarRig) start() {
	r.Helper()
	if r.dispatch != nil {
		r.dispatch.Close()
	}
	limits := job.Limits{Attempts: 3, Silence: 5 * time.Minute, Arming: 24 * time.Hour, Up: time.Hour}
	var err error
	r.dispatch, err = dispatch.Open(r.Context(), dispatch.Config{Ledger: r.ledger, Boots: noBoots{}, Backups: noBoots{}, Area: r.area,
		Limits: limits, Now: r.now})
	must(r.T, err)
	plans, err := r.cfg.Plans()
	must(r.T, err)
	r.s = newSchedules(plans, r.ledger, r, slog.New(slog.DiscardHandler), r.now)
	r.s.tell = func(e api.ScheduleEvent) { r.events = append(r.events, e) }
	must(r.T, r.s.sync(r.Context()))
}

// look sets the clock and looks at all schedules.
func (r *calendarRig) look(now time.Time) error {
	r.Helper()
	r.mu.Lock()
	r.clock = now
	r.mu.Unlock()
	for _, p := range r.s.plans {
		if _, err := r.s.look(r.Context(), p); err != nil {
			return err
		}
	}
	return nil
}

// jobs are all jobs of schedules, the oldest first, as "BOX START".
func (r *calendarRig) jobs() (all []string) {
	r.Helper()
	must(r.T, r.ledger.View(r.Context(), func(tx *ledger.Tx) error {
		jobs, _, err := tx.Jobs(ledger.JobFilter{}, ledger.Page{})
		for _, j := range slices.Backward(jobs) {
			start, _, _ := strings.Cut(j.Key, " ")
			all = append(all, j.Box.String()+" "+start)
		}
		return err
	}))
	return all
}

// end ends all jobs, so that the next start finds none.
func (r *calendarRig) end() {
	r.Helper()
	jobs, _, err := r.dispatch.Jobs(r.Context(), ledger.JobFilter{Open: true}, ledger.Page{})
	must(r.T, err)
	for _, j := range jobs {
		r.dispatch.Cancel(r.Context(), j.ID, "ann") // some have ended by themselves
		deadline := time.Now().Add(time.Minute)
		for {
			if st, err := r.dispatch.Job(r.Context(), j.ID); err != nil || st.Settled || time.Now().After(deadline) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// audit returns what the audit log has of a kind, the oldest first.
func (r *calendarRig) audit(what string) (all []string) {
	r.Helper()
	must(r.T, r.ledger.View(r.Context(), func(tx *ledger.Tx) error {
		entries, _, err := tx.Audit(ledger.AuditFilter{What: what}, ledger.Page{})
		for _, e := range slices.Backward(entries) {
			all = append(all, e.Why)
		}
		return err
	}))
	return all
}

func moment(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	must(t, err)
	at, err := time.ParseInLocation("2006-01-02 15:04 -0700", text, loc)
	if err != nil {
		at, err = time.ParseInLocation("2006-01-02 15:04", text, loc)
	}
	must(t, err)
	return at
}

// TestScheduleTimes walks schedules over the days that are hard. Each step is a look at a time. It says
// which starts have their jobs then, in UTC, and what was said of starts that were missed.
func TestScheduleTimes(t *testing.T) {
	type step struct {
		at     string
		start  string // of the job that is made, in UTC; "" is none
		missed string // a part of what is said; "" is nothing
		off    bool   // the server was off before
	}
	for name, c := range map[string]struct {
		zone  string
		s     Schedule
		begin string
		steps []step
	}{
		"a usual night": {"Europe/Berlin", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2026-11-30 02:29"}, {at: "2026-11-30 02:30", start: "2026-11-30T01:30"}, {at: "2026-11-30 02:31"}, {at: "2026-11-30 12:00"},
			{at: "2026-12-01 02:30", start: "2026-12-01T01:30"}}},
		"the clock is put forward": {"Europe/Berlin", Schedule{When: "30 2 * * *"}, "2026-03-28 12:00", []step{
			{at: "2026-03-29 01:59"}, {at: "2026-03-29 03:00 +0200", start: "2026-03-29T01:00"}, {at: "2026-03-29 03:30 +0200"},
			{at: "2026-03-30 02:30", start: "2026-03-30T00:30"}}},
		"the clock is put back": {"Europe/Berlin", Schedule{When: "30 2 * * *"}, "2026-10-24 12:00", []step{
			{at: "2026-10-25 02:30 +0200", start: "2026-10-25T00:30"}, {at: "2026-10-25 02:59 +0200"}, {at: "2026-10-25 02:30 +0100"},
			{at: "2026-10-25 02:31 +0100"}, {at: "2026-10-26 02:30", start: "2026-10-26T01:30"}}},
		"the year ends": {"America/New_York", Schedule{When: "59 23 31 12 *"}, "2026-12-01 00:00", []step{
			{at: "2026-12-31 23:58"}, {at: "2026-12-31 23:59", start: "2027-01-01T04:59"}, {at: "2027-01-01 00:00"},
			{at: "2027-12-31 23:59", start: "2028-01-01T04:59"}}},
		"a leap day": {"UTC", Schedule{When: "0 3 29 2 *"}, "2026-11-29 00:00", []step{
			{at: "2027-03-01 03:00"}, {at: "2028-02-29 03:00", start: "2028-02-29T03:00"}, {at: "2028-03-01 03:00"}}},
		"off over the time, and back soon": {"UTC", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2026-11-30 03:10", start: "2026-11-30T02:30", off: true}, {at: "2026-11-30 03:11"}}},
		"off over the time, and back late": {"UTC", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2026-11-30 03:30", missed: "The start of Mon 30 Nov 2026 02:30 UTC was missed.", off: true},
			{at: "2026-11-30 03:31", off: true}, {at: "2026-12-01 02:30", start: "2026-12-01T02:30"}}},
		"off for days": {"UTC", Schedule{When: "30 2 * * *", Late: Duration(2 * time.Hour)}, "2026-11-29 12:00", []step{
			{at: "2026-12-03 04:00", start: "2026-12-03T02:30", missed: "3 starts were missed", off: true}, {at: "2026-12-03 05:00"}}},
		"off until the window is closed": {"UTC", Schedule{When: "0 1 * * *", Window: []string{"01:00-05:00"}, Late: Duration(12 * time.Hour)},
			"2026-11-29 12:00", []step{{at: "2026-11-30 05:00", missed: "was missed", off: true},
				{at: "2026-12-01 04:59", start: "2026-12-01T01:00"}}},
		"the clock was set forward by mistake, and is set right": {"UTC", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2036-05-05 02:30", start: "2036-05-05T02:30", missed: "More than 100 starts were missed"},
			{at: "2026-11-29 12:01"}, {at: "2026-11-30 02:30", start: "2026-11-30T02:30"}, {at: "2026-11-30 02:31"}}},
		"the clock is set back a little": {"UTC", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2026-11-30 02:31", start: "2026-11-30T02:30"}, {at: "2026-11-30 02:20"}, {at: "2026-11-30 02:30"}, {at: "2026-11-30 02:40"},
			{at: "2026-12-01 02:30", start: "2026-12-01T02:30"}}},
		"the clock is set back by hours": {"UTC", Schedule{When: "30 2 * * *"}, "2026-11-29 12:00", []step{
			{at: "2026-11-30 02:30", start: "2026-11-30T02:30"}, {at: "2026-11-29 22:00"},
			{at: "2026-11-30 02:30"}, // this start has its job already
			{at: "2026-12-01 02:30", start: "2026-12-01T02:30"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newCalendarRig(t, moment(t, c.zone, c.begin))
			c.s.Zone, c.s.Action, c.s.Boxes = c.zone, "backup", []string{"10.0.0.1"}
			r.cfg.Schedules = map[string]Schedule{"nightly": c.s}
			r.start()
			jobs, missed := 0, 0
			for _, s := range c.steps {
				if s.off {
					r.start()
				}
				must(t, r.look(moment(t, c.zone, s.at)))
				all := r.jobs()
				if s.start != "" {
					jobs++
				}
				if len(all) != jobs || s.start != "" && all[jobs-1] != "10.0.0.1 "+s.start+":00Z" {
					t.Fatalf("at %s there are the jobs %q, and a start of %q is wanted", s.at, all, s.start)
				}
				said := r.audit("missed")
				if s.missed != "" {
					missed++
				}
				if len(said) != missed || s.missed != "" && !strings.Contains(said[missed-1], s.missed) {
					t.Fatalf("at %s it is said that %q, and %q is wanted", s.at, said, s.missed)
				}
				r.end()
			}
			if len(r.audit("clock was set back")) > 1 {
				t.Errorf("%q", r.audit("clock was set back"))
			}
		})
	}
}

// TestScheduleKilled kills the server at each point of a start. There is neither a second job
// nor a silent loss.
func TestScheduleKilled(t *testing.T) {
	begin := moment(t, "UTC", "2026-11-29 12:00")
	for _, cut := range []string{"", "before", "after"} {
		for back, made := range map[string]bool{"2026-11-30 02:31": true, "2026-11-30 03:29": true, "2026-11-30 09:00": false} {
			t.Run(fmt.Sprintf("killed %s, back at %s", cut, back), func(t *testing.T) {
				t.Parallel()
				r := newCalendarRig(t, begin)
				r.cfg.Schedules = map[string]Schedule{"nightly": {When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"group:rack"}}}
				must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
				for n := range 3 {
					knows(t, r.ledger, ledger.Box{Address: addressOf(t, fmt.Sprintf("10.0.0.%d", n+1)), Groups: []string{"rack"}})
				}
				r.start()
				r.cut = cut
				if err := r.look(moment(t, "UTC", "2026-11-30 02:30")); (err != nil) != (cut != "") {
					t.Fatal(err)
				}
				r.start()
				must(t, r.look(moment(t, "UTC", back)))
				must(t, r.look(moment(t, "UTC", back).Add(time.Minute)))
				r.start()
				must(t, r.look(moment(t, "UTC", back).Add(2*time.Minute)))
				want, missed := 3, 0
				if cut == "before" && !made {
					want, missed = 0, 1
				}
				if jobs, said := r.jobs(), r.audit("missed"); len(jobs) != want || len(said) != missed {
					t.Errorf("there are the jobs %q, and it is said that %q", jobs, said)
				}
			})
		}
	}
}

// TestScheduleLeavesOut: what is due and gets no job is said, with the reason. A reserved box waits in the queue.
func TestScheduleLeavesOut(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	s := Schedule{When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"label:nightly", "10.0.0.9", "no-such-box", "group:none"}}
	r.cfg.Schedules = map[string]Schedule{"nightly": s}
	label := []string{"nightly"}
	knows(t, r.ledger,
		ledger.Box{Address: addressOf(t, "10.0.0.1"), Labels: label},
		ledger.Box{Address: addressOf(t, "10.0.0.2"), Labels: label, Health: ledger.Suspect, Reason: "it was slow"},
		ledger.Box{Address: addressOf(t, "10.0.0.3"), Labels: label, Health: ledger.Maintenance, Reason: "a new disk"},
		ledger.Box{Address: addressOf(t, "10.0.0.4"), Labels: label, Health: ledger.Bad, Reason: "its disk fails"},
		ledger.Box{Address: addressOf(t, "10.0.0.5"), Labels: label, Health: ledger.Retired, Reason: "sold"},
		ledger.Box{Address: addressOf(t, "10.0.0.6"), Labels: label, Holder: ledger.Holder{Name: "bob"}},
		ledger.Box{Address: addressOf(t, "10.0.0.9"), Health: ledger.Retired, Reason: "sold too"})
	r.start()
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:30")))
	const at = " 2026-11-30T02:30:00Z"
	got := r.jobs()
	slices.Sort(got)
	if !slices.Equal(got, []string{"10.0.0.1" + at, "10.0.0.2" + at, "10.0.0.6" + at}) {
		t.Errorf("%q", got)
	}
	begun, _, err := r.dispatch.Jobs(t.Context(), ledger.JobFilter{}, ledger.Page{})
	must(t, err)
	from, until := moment(t, "UTC", "2026-11-30 02:30"), moment(t, "UTC", "2026-11-30 03:30")
	for _, j := range begun {
		if j.By != "schedule nightly" || !j.From.Equal(from) || !j.Until.Equal(until) || !j.Yields || j.Action != box.Backup {
			t.Errorf("%+v", j.Order)
		}
	}
	said := strings.Join(r.audit("leave boxes out"), "\n")
	for _, want := range []string{"10.0.0.3, since it is in maintenance (a new disk)", "10.0.0.4, since it is bad (its disk fails)",
		"10.0.0.9, since it is retired (sold too)", "no-such-box, since there is no box", "group:none, since "} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said: %s", want, said)
		}
	}
	if strings.Contains(said, "10.0.0.5") {
		t.Errorf("a retired box of a label is said each night: %s", said)
	}

	// A box whose job of the night before has not ended gets no second one.
	must(t, r.look(moment(t, "UTC", "2026-12-01 02:30")))
	if now := r.jobs(); len(now) != 3 || !strings.Contains(strings.Join(r.audit("leave boxes out"), "\n"), "of this schedule has not ended") {
		t.Errorf("%q, %q", now, r.audit("leave boxes out"))
	}
	whats := map[string]int{}
	for _, e := range r.events {
		if e.Schedule != "nightly" || e.Text == "" || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
		whats[e.What]++
	}
	if whats["start"] != 1 || whats["left-out"] != 2 {
		t.Errorf("%v", whats)
	}

	// A verify needs a backup.
	r.end()
	s.Action, s.Boxes = "verify", []string{"10.0.0.1"}
	r.cfg.Schedules = map[string]Schedule{"nightly": s}
	r.start()
	must(t, r.look(moment(t, "UTC", "2026-12-02 02:30")))
	if all := r.audit("leave boxes out"); !strings.Contains(all[len(all)-1], "10.0.0.1, since ") || len(r.jobs()) != 3 {
		t.Errorf("%q", all)
	}
}

// TestSchedulePause: while a schedule is paused it makes nothing, also after a restart, and it makes up for nothing.
func TestSchedulePause(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	r.cfg.Schedules = map[string]Schedule{"nightly": {When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"10.0.0.1"}}}
	r.start()
	set := func(pause *schedule.Pause) {
		t.Helper()
		must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error { return r.s.plans[0].SetPause(tx, pause, r.now()) }))
	}
	set(&schedule.Pause{By: "ann", Since: r.now()})
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:30")))
	r.start()
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:31")))
	set(nil)
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:32")))
	if jobs, said := r.jobs(), r.audit("missed"); len(jobs)+len(said) != 0 {
		t.Errorf("%q, %q", jobs, said)
	}
	must(t, r.look(moment(t, "UTC", "2026-12-01 02:30")))
	if jobs := r.jobs(); len(jobs) != 1 {
		t.Errorf("%q", jobs)
	}
	r.end()

	// Another time counts from now on, and what is not in the configuration any more is forgotten.
	r.look(moment(t, "UTC", "2026-12-01 12:00"))
	r.cfg.Schedules = map[string]Schedule{"nightly": {When: "45 11 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"10.0.0.1"}}}
	r.start()
	must(t, r.look(moment(t, "UTC", "2026-12-01 12:01")))
	if jobs, said := r.jobs(), r.audit("missed"); len(jobs) != 1 || len(said) != 0 {
		t.Errorf("%q, %q", jobs, said)
	}
	r.cfg.Schedules = nil
	r.start()
	must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, err := tx.Schedules()
		if len(all) != 0 {
			t.Errorf("%+v", all)
		}
		return err
	}))
}

// TestScheduleSpread: boxes are spread, each of them begins once, and a server that looks seldom makes what it can.
func TestScheduleSpread(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	s := Schedule{When: "0 2 * * *", Zone: "UTC", Action: "refresh-info", Boxes: []string{"label:all"}, Spread: Duration(2 * time.Hour)}
	r.cfg.Schedules = map[string]Schedule{"spread": s}
	const boxes = 30
	for n := range boxes {
		knows(t, r.ledger, ledger.Box{Address: addressOf(t, fmt.Sprintf("10.0.0.%d", n+1)), Labels: []string{"all"}})
	}
	r.start()
	steps := 0
	before := 0
	for at := moment(t, "UTC", "2026-11-30 01:50"); at.Before(moment(t, "UTC", "2026-11-30 06:00")); at = at.Add(10 * time.Minute) {
		must(t, r.look(at))
		if n := len(r.jobs()); n > before {
			before = n
			steps++
		}
		if at.Hour() == 3 && at.Minute() == 0 {
			r.start()
		}
	}
	each := map[string]bool{}
	for _, j := range r.jobs() {
		addr, _, _ := strings.Cut(j, " ")
		if each[addr] {
			t.Errorf("%s has a second job", addr)
		}
		each[addr] = true
	}
	if len(each) != boxes || steps < 6 || len(r.audit("missed")) != 0 {
		t.Errorf("%d boxes began in %d steps, and it is said that %q", len(each), steps, r.audit("missed"))
	}
}

// TestScheduleOfWrongClock: a job that a wrong clock has made for a time that is years away keeps its box from no
// start before that.
func TestScheduleOfWrongClock(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	r.cfg.Schedules = map[string]Schedule{"nightly": {When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"10.0.0.1"}}}
	knows(t, r.ledger, ledger.Box{Address: addressOf(t, "10.0.0.1"), Holder: ledger.Holder{Name: "bob"}}) // so that it waits
	r.start()
	must(t, r.look(moment(t, "UTC", "2036-05-05 02:30")))
	must(t, r.look(moment(t, "UTC", "2026-11-29 12:01")))
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:30")))
	if jobs := r.jobs(); !slices.Equal(jobs, []string{"10.0.0.1 2036-05-05T02:30:00Z", "10.0.0.1 2026-11-30T02:30:00Z"}) {
		t.Errorf("%q, left out: %q", jobs, r.audit("leave boxes out"))
	}
	must(t, r.look(moment(t, "UTC", "2026-12-01 02:30")))
	if jobs := r.jobs(); len(jobs) != 2 && len(jobs) != 3 { // the job of the day before may have ended as expired already
		t.Errorf("%q", jobs)
	}
}

// TestScheduleRefusedJobs: if the jobs cannot be made, the start is tried again, and at last it is missed.
func TestScheduleRefusedJobs(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	r.cfg.Schedules = map[string]Schedule{"nightly": {When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"10.0.0.1"}}}
	r.start()
	for _, at := range []string{"02:30", "02:31", "03:29"} {
		r.cut = "before"
		if err := r.look(moment(t, "UTC", "2026-11-30 "+at)); !errors.Is(err, errKilled) {
			t.Fatal(at, err)
		}
	}
	must(t, r.look(moment(t, "UTC", "2026-11-30 03:30")))
	if jobs, said := r.jobs(), r.audit("missed"); len(jobs) != 0 || len(said) != 1 {
		t.Errorf("%q, %q", jobs, said)
	}
}

// TestScheduleFullQueue: a box for which somebody has asked for as many jobs as there may be is left out, and does not keep the
// others from theirs.
func TestScheduleFullQueue(t *testing.T) {
	r := newCalendarRig(t, moment(t, "UTC", "2026-11-29 12:00"))
	r.cfg.Schedules = map[string]Schedule{"nightly": {When: "30 2 * * *", Zone: "UTC", Action: "backup", Boxes: []string{"label:old"}}}
	for _, text := range []string{"10.0.0.1", "10.0.0.2"} {
		addr, err := box.ParseAddr(text)
		must(t, err)
		must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: addr, Health: ledger.Good, Labels: []string{"old"}})
		}))
	}
	r.start()
	full, err := box.ParseAddr("10.0.0.1")
	must(t, err)
	for range 100 {
		_, err := r.dispatch.Add(t.Context(), dispatch.Request{Boxes: []box.Addr{full}, Action: box.Backup, By: "ann"})
		must(t, err)
	}
	must(t, r.look(moment(t, "UTC", "2026-11-30 02:30")))
	jobs := slices.DeleteFunc(r.jobs(), func(j string) bool { return j == "10.0.0.1 " })
	if len(jobs) != 1 || !strings.HasPrefix(jobs[0], "10.0.0.2 ") {
		t.Errorf("%q", jobs)
	}
	said := r.audit("leave boxes out")
	if len(said) != 1 || !strings.Contains(said[0], "10.0.0.1, since 10.0.0.1 has 100 jobs that have not ended") {
		t.Errorf("%q", said)
	}
}

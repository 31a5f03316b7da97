package page

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/page/boxpage"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/words"
)

// action is something that is asked of boxes.
type action struct {
	Name   string // as in paths
	Title  string
	About  string // what it does to a box
	Button string
	Did    string // what is said of a box to which it was done
	Danger bool   // it overwrites or cuts off something
	route  string
	Job    box.Action // of an action that is a job; "" if it is none
	form   func(*preview, url.Values)
	send   func(ctx context.Context, v *api.Visitor, addr string, q url.Values, why string) error
}

// actions are all that can be asked on a page, in the order of the menus.
var actions = []*action{
	{Name: "backup", Title: "Back up", Button: "Back up", route: "add-jobs", Job: box.Backup,
		About: "The box restarts into maintenance, its disks are read, and it starts its own system again."},
	{Name: "restore", Title: "Restore", Button: "Overwrite and restore", Danger: true, route: "add-jobs", Job: box.Restore,
		About: "The box restarts into maintenance, and the disks named below are overwritten with the backup. " +
			"What is on them now is lost. If one of them was replaced, the disk in its place is overwritten."},
	{Name: "verify", Title: "Verify", Button: "Verify", route: "add-jobs", Job: box.Verify,
		About: "The box restarts into maintenance, and its disks are compared with the backup. Nothing is written."},
	{Name: "refresh-info", Title: "Take inventory", Button: "Take inventory", route: "add-jobs", Job: box.RefreshInfo,
		About: "The box restarts into maintenance and says what it is made of."},
	{Name: "rescue", Title: "Rescue", Button: "Start the rescue system", route: "add-jobs", Job: box.Rescue,
		About: "The box restarts into a system for people, and stays there until somebody ends that."},
	{Name: "cancel", Title: "Cancel the jobs", Button: "Cancel", Danger: true, route: "cancel-job", send: cancel,
		Did:   "It was told to stop.",
		About: "Jobs that wait end. A box that is at work stops where that does no harm. One that has written to a disk stays in maintenance."},
	{Name: "finish", Title: "End the rescue", Button: "End the rescue", route: "finish-box", send: finish,
		About: "The box restarts into its own system."},
	{Name: "release", Title: "Release", Button: "Release", Danger: true, route: "release-box", send: release,
		About: "The box starts from its disks as they are, although they may be half written."},
	{Name: "hold", Title: "Reserve", Button: "Reserve", route: "hold-box", form: holdForm, send: hold,
		About: "Others' jobs are refused until the time is over, or until it is given back."},
	{Name: "unhold", Title: "Give back", Button: "Give back", route: "unhold-box", send: unhold,
		About: "Others can use the box again."},
	{Name: "health", Title: "Set the health", Button: "Set", route: "set-box", form: healthForm, send: setHealth,
		About: "The health is what people think of the box. A retired box gets no jobs."},
	{Name: "power", Title: "Switch the power", Button: "Switch", Danger: true, route: "power-box", form: powerForm, send: switchPower,
		About: "The power command of the box is run. What the box does not have on its disks is lost."},
}

func actionOf(name string) *action {
	if i := slices.IndexFunc(actions, func(a *action) bool { return a.Name == name }); i >= 0 {
		return actions[i]
	}
	return nil
}

// preview is the page that says what an action will do, with the form that asks for it.
type preview struct {
	Action  *action
	Boxes   []target
	Refused int
	Key     string // makes the form count once, however often it is sent
	Fields  []field
	Back    string
	Again   string // path of the preview of the same, after it was not done
	Why     string
	Up      bool
	Choices *choices // nil for an action that has none
	Hooks   []hookChoice
	Disks   []api.DiskHealth // of the box, if there is one alone
	Alike   []api.AlikeDisks
}

// target is what an action will do to one box.
type target struct {
	api.CheckedJob
	Jobs []api.Job // those that are cancelled
	Text string    // what became of it
	Done bool
	// To has the disks to which the map sends images, and Astray those images of the map that the backup does not have.
	To     map[string]string
	Astray []string
}

// field is a field of the form.
type field struct {
	Name, Label, Value, Hint string
	Options                  []string
}

func holdForm(p *preview, _ url.Values) {
	p.Fields = append(p.Fields, field{Name: "for", Label: "For how long", Value: "4h", Options: strings.Fields("1h 4h 8h 24h 72h 168h")})
}

func healthForm(p *preview, _ url.Values) {
	all := []string{}
	for _, h := range []ledger.Health{ledger.Good, ledger.Suspect, ledger.Bad, ledger.Maintenance, ledger.Retired} {
		all = append(all, string(h))
	}
	p.Fields = append(p.Fields, field{Name: "health", Label: "Health", Options: all})
}

func powerForm(p *preview, _ url.Values) {
	all := []string{string(power.Cycle), string(power.On), string(power.Off)}
	p.Fields = append(p.Fields, field{Name: "power", Label: "What to do", Options: all})
}

// preview shows what an action will do. Nothing is done.
func (s *Site) preview(w http.ResponseWriter, r *http.Request) {
	p, err := s.previewOf(r, r.URL.Query())
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.page(w, r, http.StatusOK, p.Action.Title, "act.tmpl", p)
}

func (s *Site) previewOf(r *http.Request, q url.Values) (*preview, error) {
	v, a := visitorOf(r), actionOf(r.PathValue("action"))
	boxes := q["box"]
	switch {
	case a == nil:
		return nil, refused(http.StatusNotFound, "there is no such action")
	case !v.May(a.route):
		return nil, refused(http.StatusForbidden, "this is not for your role, which is %s", v.Role())
	case a.Name == "cancel" && q.Get("job") != "":
		var j api.Job
		if err := v.Ask(r.Context(), "get-job", boxpage.Params{"job": q.Get("job")}, nil, &j); err != nil {
			return nil, err
		}
		return &preview{Action: a, Boxes: []target{{CheckedJob: api.CheckedJob{Box: j.Box, Name: j.Name}, Jobs: []api.Job{j}}},
			Key: "page-" + rand.Text(), Back: "/jobs/" + url.PathEscape(j.ID)}, nil
	case len(boxes) == 0:
		return nil, refused(http.StatusBadRequest, "no box was chosen. Go back, and choose at least one")
	}
	p := &preview{Action: a, Key: "page-" + rand.Text(), Back: "/", Why: q.Get("why"), Up: q.Get("up") != ""}
	if len(boxes) == 1 {
		p.Back = "/boxes/" + url.PathEscape(boxes[0])
	}
	if a.form != nil {
		a.form(p, q)
	}
	if a.Job == "" { // the boxes alone are wanted, and what they do
		for _, word := range boxes {
			var b api.Box
			if err := v.Ask(r.Context(), "get-box", boxpage.Params{"box": word}, nil, &b); err != nil {
				return nil, err
			}
			t := target{CheckedJob: api.CheckedJob{Box: b.Address, Name: b.Name}}
			if a.Name == "cancel" {
				var err error
				if t.Jobs, err = openJobs(r.Context(), v, b.Address); err != nil {
					return nil, err
				}
				if len(t.Jobs) == 0 {
					t.Refused = "it has no job that could be cancelled"
					p.Refused++
				}
			} else if b.Last != nil && b.Last.State != job.Ended {
				t.Open = b.Last
			}
			p.Boxes = append(p.Boxes, t)
		}
		return p, nil
	}
	var c choices
	if a.chooses() {
		c = choicesOf(q)
	}
	list, err := checked(r.Context(), v, a, boxes, c)
	if c.wrong(err) {
		for _, word := range boxes {
			list.Jobs = append(list.Jobs, api.CheckedJob{Box: word, Refused: textOf(err)})
		}
	} else if err != nil {
		return nil, err
	}
	for _, j := range list.Jobs {
		p.Boxes = append(p.Boxes, target{CheckedJob: j})
		if j.Refused != "" {
			p.Refused++
		}
	}
	if a.chooses() {
		p.choose(r.Context(), v, c)
	}
	return p, nil
}

// checked asks what jobs would do.
func checked(ctx context.Context, v *api.Visitor, a *action, boxes []string, c choices) (list api.CheckedJobs, err error) {
	ask := api.NewJobs{Action: a.Job, Targets: boxes}
	if ask.Options, err = c.options(); err == nil {
		err = v.Ask(ctx, "check-jobs", nil, ask, &list)
	}
	return list, err
}

// chooses reports whether the action uses a backup, so that there is more to choose.
func (a *action) chooses() bool { return a.Job == box.Restore || a.Job == box.Verify }

// act does what a form of a preview asks for. Each job has the form's key, so a form that is sent again
// makes no second job. The answer names what was done, and is made after it was done.
func (s *Site) act(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.Fail(w, r, refused(http.StatusBadRequest, "the form cannot be read: %v", err))
		return
	}
	q, v, a := r.PostForm, visitorOf(r), actionOf(r.PathValue("action"))
	switch {
	case a == nil:
		s.Fail(w, r, refused(http.StatusNotFound, "there is no such action"))
		return
	case !v.May(a.route):
		s.Fail(w, r, refused(http.StatusForbidden, "this is not for your role, which is %s", v.Role()))
		return
	case a.chooses() && (q.Get("show") != "" || choicesOf(q).Shown() != q.Get("shown")):
		// Nothing is done that its page has not shown before.
		undone(w)
		http.Redirect(w, r, a.chosen(q), http.StatusSeeOther)
		return
	case len(q["box"]) == 0:
		s.Fail(w, r, refused(http.StatusBadRequest, "no box was chosen"))
		return
	case a.Job == "":
		s.each(w, r, a, q)
		return
	}
	if key := q.Get("key"); key == "" || len(key) > 100 {
		s.Fail(w, r, refused(http.StatusBadRequest, "the form has lost its key; open the page of the action again"))
		return
	}
	jobs, failed, err := s.addJobs(r.Context(), v, a, q)
	switch {
	case err != nil:
		s.Fail(w, r, err)
	case failed != nil:
		s.page(w, r, http.StatusConflict, a.Title, "result.tmpl", failed)
	case len(jobs) == 1:
		http.Redirect(w, r, "/jobs/"+url.PathEscape(jobs[0].ID), http.StatusSeeOther)
	default:
		http.Redirect(w, r, "/jobs?key="+url.QueryEscape(q.Get("key")), http.StatusSeeOther)
	}
}

// addJobs makes the jobs. A job that uses a backup is made for each box alone, since each has its own backup, the one
// that the preview named. If some of them cannot be made, the answer says which.
func (s *Site) addJobs(ctx context.Context, v *api.Visitor, a *action, q url.Values) (jobs []api.Job, some *preview, err error) {
	ask := api.NewJobs{Action: a.Job, Targets: slices.Clone(q["box"]), Key: q.Get("key"), Why: q.Get("why"), WaitUp: q.Get("up") != ""}
	if !a.chooses() {
		for i, addr := range q["box"] {
			if slices.Contains(q["known"], addr) { // if it was forgotten since, it does not become a box again
				ask.Targets[i] = "box:" + addr
			}
		}
		var list api.JobList
		err := v.Ask(ctx, "add-jobs", nil, ask, &list)
		return list.Jobs, nil, err
	}
	c := choicesOf(q)
	if ask.Options, err = c.options(); err != nil {
		return nil, nil, err
	}
	images, marks := byBox(q["meant"]), byBox(q["mark"]) // the backup is BOX@ID
	some = &preview{Action: a, Back: "/"}
	for _, addr := range q["box"] {
		if images[addr] == "" || marks[addr] == "" {
			return nil, nil, refused(http.StatusBadRequest, "the form does not name the backup of %s, so nothing was done", addr)
		}
	}
	for _, addr := range q["box"] {
		one := ask
		one.Targets, one.Options.Image, one.Marks = []string{"box:" + addr}, images[addr], map[string]string{addr: marks[addr]}
		if c.From != "" { // the API has the backup of another box in two words
			one.Options.From, one.Options.Image, _ = strings.Cut(images[addr], "@")
		}
		var list api.JobList
		t := target{CheckedJob: api.CheckedJob{Box: addr}}
		if err := v.Ask(ctx, "add-jobs", nil, one, &list); err != nil || len(list.Jobs) == 0 {
			some.Refused++
			t.Refused = "it is not for you any more"
			if err != nil {
				t.Refused = textOf(err)
			}
		} else {
			jobs = append(jobs, list.Jobs...)
			t.Done, t.Text = true, "It has the job "+list.Jobs[0].ID+"."
		}
		some.Boxes = append(some.Boxes, t)
	}
	if some.Refused == 0 {
		return jobs, nil, nil
	}
	again := maps.Clone(q)
	again["box"] = nil // a box that has its job now would be written twice
	for _, t := range some.Boxes {
		if !t.Done {
			again.Add("box", t.Box)
		}
	}
	some.Again = a.chosen(again)
	return jobs, some, nil
}

// byBox takes apart what a form has of each box, as ADDRESS=TEXT.
func byBox(words []string) map[string]string {
	all := map[string]string{}
	for _, word := range words {
		addr, text, _ := strings.Cut(word, "=")
		all[addr] = text
	}
	return all
}

// each does what is no job to each box, and says what became of it.
func (s *Site) each(w http.ResponseWriter, r *http.Request, a *action, q url.Values) {
	v := visitorOf(r)
	done(w) // also if it fails: it may have begun, and the next try is for whoever has seen how this one went
	p := &preview{Action: a, Back: "/"}
	for _, addr := range q["box"] {
		t := target{CheckedJob: api.CheckedJob{Box: addr}}
		if err := a.send(r.Context(), v, addr, q, q.Get("why")); err != nil {
			p.Refused++
			t.Refused = textOf(err)
		} else {
			t.Done, t.Text = true, cmp.Or(a.Did, "Done.")
		}
		p.Boxes = append(p.Boxes, t)
	}
	if p.Refused == 0 && len(p.Boxes) == 1 {
		http.Redirect(w, r, "/boxes/"+url.PathEscape(p.Boxes[0].Box), http.StatusSeeOther)
		return
	}
	status := http.StatusOK
	if p.Refused > 0 {
		status = http.StatusConflict
	}
	s.page(w, r, status, a.Title, "result.tmpl", p)
}

func textOf(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Error()
	}
	return err.Error()
}

func of(addr string) boxpage.Params { return boxpage.Params{"box": addr} }

// openJobs are the jobs of a box that have not ended, the latest first.
func openJobs(ctx context.Context, v *api.Visitor, addr string) (all []api.Job, err error) {
	for p := (boxpage.Params{"box": addr, "open": "true"}); ; {
		var list api.JobList
		if err := v.Ask(ctx, "list-jobs", p, nil, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Jobs...)
		if p["after"] = list.Next; list.Next == "" {
			return all, nil
		}
	}
}

// cancel cancels the jobs of a box that the form names, those that wait first. Others may have been added since.
func cancel(ctx context.Context, v *api.Visitor, addr string, q url.Values, why string) error {
	named, failed := 0, []string{}
	for _, word := range q["job"] { // ADDRESS=JOB
		of, id, _ := strings.Cut(word, "=")
		if of != addr || id == "" {
			continue
		}
		named++
		if err := v.Ask(ctx, "cancel-job", boxpage.Params{"job": id}, api.Reason{Why: why}, nil); err != nil {
			failed = append(failed, id+": "+textOf(err))
		}
	}
	switch {
	case named == 0:
		return refused(http.StatusBadRequest, "the form names no job of it")
	case len(failed) > 0:
		return refused(http.StatusConflict, "%d of %s: %s", len(failed), words.Count(named, "job"), strings.Join(failed, "; "))
	}
	return nil
}

func finish(ctx context.Context, v *api.Visitor, addr string, _ url.Values, why string) error {
	return v.Ask(ctx, "finish-box", of(addr), api.Reason{Why: why}, nil)
}

func release(ctx context.Context, v *api.Visitor, addr string, _ url.Values, why string) error {
	return v.Ask(ctx, "release-box", of(addr), api.Reason{Why: why}, nil)
}

func hold(ctx context.Context, v *api.Visitor, addr string, q url.Values, why string) error {
	d, err := time.ParseDuration(q.Get("for"))
	if err != nil || d < time.Minute {
		return refused(http.StatusBadRequest, "say for how long the box is reserved")
	}
	return v.Ask(ctx, "hold-box", of(addr), api.Holder{Reason: why, For: int64(d / time.Second)}, nil)
}

func unhold(ctx context.Context, v *api.Visitor, addr string, _ url.Values, why string) error {
	p := of(addr)
	p["why"] = why
	return v.Ask(ctx, "unhold-box", p, nil, nil)
}

func setHealth(ctx context.Context, v *api.Visitor, addr string, q url.Values, why string) error {
	h := q.Get("health")
	return v.Ask(ctx, "set-box", of(addr), api.SetBox{Health: &h, HealthReason: &why}, nil)
}

func switchPower(ctx context.Context, v *api.Visitor, addr string, q url.Values, why string) error {
	var got api.Switched
	err := v.Ask(ctx, "power-box", of(addr), api.SwitchBox{Action: power.Action(q.Get("power")), Why: why}, &got)
	if err == nil && got.Outcome != api.PowerDone {
		err = refused(http.StatusConflict, "the power command has not succeeded (%s): %s", got.Outcome, got.Text)
	}
	return err
}

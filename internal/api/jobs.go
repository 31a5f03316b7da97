package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// jobOf is a job as the API gives it. name is that of its box.
func jobOf(st dispatch.Status, name string) Job {
	j := Job{
		ID: st.ID, Box: st.Box.String(), Name: name, Action: st.Action, Options: Options(st.Options), By: st.By,
		WaitUp: st.WaitUp, Power: st.Power && !st.ByHand,
		Asked: st.Asked, State: st.State, Since: st.Since, Settled: st.Settled, Step: st.Step,
		Text: st.Text, Attempt: st.Attempt, Deadline: st.Deadline, Until: st.Until,
		Cancel: st.Cancel && st.State != job.Ended, Wrote: st.Wrote, Outcome: st.Outcome, Class: st.Class, Up: st.Up,
		Bootable: st.Bootable(), Backup: st.Backup, Receipts: st.Receipts, Warnings: st.Warnings, HostKeys: st.HostKeys, Sent: st.Sent,
	}
	if st.Wait != nil {
		j.Wait = &Wait{st.Wait.Place, st.Wait.Reason, st.Wait.Text}
	}
	if p := st.Progress; p != nil && st.State == job.Running {
		j.Progress = &Progress{Step: p.Step, Text: p.Text, Done: p.Done, Total: p.Total}
		if p.Room != nil {
			j.Progress.Left = p.Room.Left
		}
	}
	j.Room = roomOf(st)
	return j
}

// seen gives those jobs that the caller may see, with the names of their boxes.
func (s *Server) seen(ctx context.Context, c *caller, all []dispatch.Status) (jobs []Job, err error) {
	jobs = []Job{}
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		var addrs []box.Addr
		hidden := map[box.Addr]bool{}
		for _, st := range all {
			if _, known := hidden[st.Box]; known {
				continue
			}
			addrs = append(addrs, st.Box)
			if hidden[st.Box] = false; c.group == "" {
				continue
			}
			b, err := tx.Box(st.Box)
			if err != nil && !errors.Is(err, ledger.ErrNotFound) {
				return err
			}
			hidden[st.Box] = !c.sees(b)
		}
		names, err := tx.BoxNames(addrs)
		for _, st := range all {
			if !hidden[st.Box] {
				jobs = append(jobs, jobOf(st, names[st.Box]))
			}
		}
		return err
	})
	return jobs, err
}

func (s *Server) listJobs(ctx context.Context, in *struct {
	Box   string   `query:"box" maxLength:"253" doc:"jobs of this box"`
	State []string `query:"state" maxItems:"7" enum:"queued,armed,running,restarting,held,rescue,ended" doc:"jobs in one of these states"`
	Open  bool     `query:"open" doc:"only jobs that have not ended"`
	By    string   `query:"by" maxLength:"200" doc:"jobs that this person asked for"`
	Key   string   `query:"key" maxLength:"200" doc:"jobs that were asked for with this key"`
	PageInput
}) (*body[JobList], error) {
	c := callerOf(ctx)
	f := ledger.JobFilter{States: in.State, Open: in.Open, By: in.By, Key: in.Key}
	if in.Box != "" {
		err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
			b, err := findBox(tx, c, in.Box)
			f.Box = b.Address
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	all, next, err := s.cfg.Jobs.Jobs(ctx, f, in.page())
	if err != nil {
		return nil, err
	}
	if in.Open { // the ledger counts a job as open until its last effects are carried out
		all = slices.DeleteFunc(all, func(st dispatch.Status) bool { return st.State == job.Ended })
	}
	jobs, err := s.seen(ctx, c, all)
	return answer(JobList{jobs, next}, err)
}

// job reads a job that the caller may see.
func (s *Server) job(ctx context.Context, id string) (Job, error) {
	st, err := s.cfg.Jobs.Job(ctx, id)
	if err != nil {
		return Job{}, err
	}
	return s.one(ctx, st)
}

// one is a job as the API gives it, if the caller may see it.
func (s *Server) one(ctx context.Context, st dispatch.Status) (Job, error) {
	jobs, err := s.seen(ctx, callerOf(ctx), []dispatch.Status{st})
	if err == nil && len(jobs) == 0 {
		err = notFound("there is no job %s", st.ID)
	}
	if err != nil {
		return Job{}, err
	}
	return jobs[0], nil
}

// JobPath is the job in a path.
type JobPath struct {
	Job string `path:"job" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"id of a job"`
}

// Resting reports whether a job has come to where nothing more happens by itself.
func (j *Job) Resting() bool {
	return j.Settled && slices.Contains([]job.State{job.Ended, job.Held, job.Rescue}, j.State)
}

// WaitInput asks to wait for jobs.
type WaitInput struct {
	Wait int `query:"wait" minimum:"0" maximum:"3600" doc:"for so many seconds"`
}

func (s *Server) getJob(ctx context.Context, in *struct {
	JobPath
	WaitInput
}) (*body[Job], error) {
	w, err := s.waits(ctx, in.Wait)
	if err != nil {
		return nil, err
	}
	defer w.end()
	return answer(w.rests(in.Job))
}

// waiting is a request that may wait for jobs.
type waiting struct {
	s    *Server
	ctx  context.Context
	over <-chan time.Time // nil if nothing is waited for
	late bool             // the time is over
	end  func()
}

// waits begins to wait for so many seconds. With 0 nothing is waited for.
func (s *Server) waits(ctx context.Context, seconds int) (*waiting, error) {
	w := &waiting{s: s, ctx: ctx, late: seconds == 0, end: func() {}}
	if w.late {
		return w, nil
	}
	leave, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	w.over = time.After(time.Duration(seconds) * time.Second)
	w.end = func() { // the time in which the answer must be read begins when there is one
		callerOf(ctx).ctl.SetWriteDeadline(time.Now().Add(s.cfg.Patience))
		leave()
	}
	return w, nil
}

// rests gives a job when it has come to where nothing more happens by itself, or when the
// time is over.
func (w *waiting) rests(id string) (Job, error) {
	look := time.NewTicker(w.s.cfg.Heartbeat)
	defer look.Stop()
	for {
		// The place comes before the job, so that no change is missed in between.
		at := w.s.hub.cursor()
		j, err := w.s.job(w.ctx, id)
		if err != nil || w.late || j.Resting() {
			return j, err
		}
		select {
		case <-at.more():
		case <-look.C:
			if !w.s.still(w.ctx, callerOf(w.ctx)) {
				return Job{}, unauthorized("the token has ended")
			}
		case <-w.over:
			w.late = true
			return j, nil
		case <-w.ctx.Done():
			return Job{}, w.ctx.Err()
		case <-w.s.hub.done:
			w.late = true
			return j, nil
		}
	}
}

// targets finds the boxes that a request names, each of them once and in the order of
// the words.
func (s *Server) targets(tx *ledger.Tx, c *caller, list []string) ([]ledger.Box, error) {
	var all []ledger.Box
	known := map[box.Addr]bool{}
	for _, word := range list {
		some, err := target(tx, c, word)
		if err != nil {
			return nil, err
		}
		for _, b := range some {
			if !known[b.Address] {
				known[b.Address] = true
				all = append(all, b)
			}
		}
		if len(all) > maxTargets {
			return nil, problem.Wrongf("a request may be about at most %d boxes", maxTargets)
		}
	}
	return all, nil
}

// Boxes finds the boxes that a word of the configuration means, as targets of a request are
// found.
func Boxes(tx *ledger.Tx, word string) ([]ledger.Box, error) { return target(tx, &caller{}, word) }

func target(tx *ledger.Tx, c *caller, word string) ([]ledger.Box, error) {
	one, many, err := meaning(tx, c, word)
	if err != nil {
		return nil, err
	}
	if many != (ledger.BoxFilter{}) {
		return members(tx, c, many, word)
	}
	return []ledger.Box{one}, nil
}

// isTarget reports whether a word of the configuration means a box, among others. It does not read the others.
func isTarget(tx *ledger.Tx, word string, b ledger.Box) (bool, error) {
	one, many, err := meaning(tx, &caller{}, word)
	var none *problem.Error
	switch {
	case errors.As(err, &none):
		return false, nil // the word means no box
	case err != nil:
		return false, err
	case many.Group != "":
		return b.Health != ledger.Retired && slices.Contains(b.Groups, many.Group), nil
	case many.Label != "":
		return b.Health != ledger.Retired && slices.Contains(b.Labels, many.Label), nil
	}
	return one.Address == b.Address, nil
}

// meaning finds what a word means: one box, or those that a filter finds.
func meaning(tx *ledger.Tx, c *caller, word string) (one ledger.Box, many ledger.BoxFilter, err error) {
	kind, name, _ := strings.Cut(word, ":")
	switch kind {
	case "box":
		one, err = findBox(tx, c, name)
		return one, many, err
	case "group", "label":
		if name == "" {
			return one, many, problem.Wrongf("%q has no name", word)
		}
		if kind == "label" {
			return one, ledger.BoxFilter{Label: name}, nil
		}
		return one, ledger.BoxFilter{Group: name}, nil
	}
	one, err = findBox(tx, c, word)
	var p *Problem
	if err != nil && (!errors.As(err, &p) || p.Code != CodeNotFound) {
		return one, many, err
	}
	isGroup, groupErr := hasGroup(tx, word)
	switch {
	case groupErr != nil:
		return one, many, groupErr
	case err == nil && isGroup:
		return one, many, problem.Wrongf("%q is the name of a box and of a group; say box:%s or group:%s", word, word, word)
	case err == nil:
		return one, many, nil
	case isGroup:
		return one, ledger.BoxFilter{Group: word}, nil
	}
	// A box that nobody has seen yet can be asked for by its address, as at the very
	// first backup.
	addr, parseErr := box.ParseAddr(word)
	if parseErr == nil && c.group == "" {
		return ledger.Box{Address: addr, Health: ledger.Good}, many, nil
	}
	if _, notIP := netip.ParseAddr(word); notIP == nil && parseErr != nil {
		return one, many, problem.Wrongf("%w", parseErr)
	}
	return one, many, notFound("there is no box and no group %.80q; a box is named by its address, name, MAC or UUID", word)
}

// members are the boxes that a filter finds and that the caller may see, without those
// that are retired.
func members(tx *ledger.Tx, c *caller, f ledger.BoxFilter, word string) ([]ledger.Box, error) {
	all, err := groupBoxes(tx, f)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b ledger.Box) bool { return !c.sees(b) || b.Health == ledger.Retired })
	if len(all) == 0 {
		return nil, problem.Wrongf("no box belongs to %.80q; retired boxes do not count", word)
	}
	return all, nil
}

func (s *Server) addJobs(ctx context.Context, in *struct {
	WaitInput
	Body NewJobs
}) (*body[JobList], error) {
	c, q := callerOf(ctx), in.Body
	wait, err := s.waits(ctx, in.Wait) // first, so that no job is made if there is no place to wait
	if err != nil {
		return nil, err
	}
	defer wait.end()
	var boxes []ledger.Box
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		if boxes, err = s.targets(tx, c, q.Targets); err != nil {
			return err
		}
		return s.sources(tx, c, &q.Options)
	})
	if err != nil {
		return nil, err
	}
	r := dispatch.Request{Action: q.Action, Options: dispatch.Options(q.Options), By: c.name, Key: q.Key, WaitUp: q.WaitUp}
	var refusals []string
	for _, b := range boxes {
		r.Boxes = append(r.Boxes, b.Address)
		if why := s.refuses(c, b); why != "" {
			refusals = append(refusals, why)
		}
	}
	if len(refusals)+len(q.Marks) > 0 && !s.repeats(ctx, r) {
		if len(refusals) > 0 {
			return nil, problem.Refusef("%s. No job was made", strings.Join(refusals, "; "))
		}
		if err := s.asShown(ctx, r, boxes, q.Marks); err != nil {
			return nil, err
		}
	}
	all, err := s.cfg.Jobs.Add(dispatch.WithWhy(ctx, c.from, q.Why), r)
	if err != nil {
		return nil, err
	}
	jobs, err := s.seen(ctx, c, all)
	if err != nil || in.Wait == 0 {
		return answer(JobList{Jobs: jobs}, err)
	}
	for i := range jobs {
		if jobs[i], err = wait.rests(jobs[i].ID); err != nil {
			return nil, err
		}
	}
	return answer(JobList{Jobs: jobs}, nil)
}

// sources makes the box whose backup is asked for the one that the store has, and refuses one
// that the caller may not see: who restores a backup can read all of it.
func (s *Server) sources(tx *ledger.Tx, c *caller, o *Options) error {
	word := o.From
	if owner, _, other := strings.Cut(o.Image, "@"); word == "" && other {
		word = owner
	}
	if word == "" {
		return nil
	}
	b, err := findBox(tx, c, word)
	switch {
	case err != nil && c.group == "" && errors.As(err, new(*Problem)):
		return nil // the store can have backups of what is no box of the server's
	case err != nil:
		return err
	case o.From != "":
		o.From = b.Address.String()
	case c.group != "" && b.Address.String() != word: // the store has a box of this name, which is another one
		return noBox(word)
	}
	return nil
}

// repeats reports whether all jobs of a request are there since before.
func (s *Server) repeats(ctx context.Context, r dispatch.Request) bool {
	if r.Key == "" {
		return false
	}
	for _, addr := range r.Boxes {
		some, _, err := s.cfg.Jobs.Jobs(ctx, ledger.JobFilter{Box: addr, By: r.By, Key: r.Key}, ledger.Page{Limit: 1})
		if err != nil || len(some) == 0 {
			return false
		}
	}
	return true
}

// refuses says why a box gets no jobs of a caller, and "" if it does.
func (s *Server) refuses(c *caller, b ledger.Box) string {
	if by := s.heldBy(b); by != "" && by != c.name {
		return fmt.Sprintf("%s has reserved the box %s%s; `testbox box unhold` gives it back", by, b.Address, holdText(b.Holder))
	}
	if b.Health == ledger.Retired {
		return fmt.Sprintf("the box %s is retired (%s); `testbox box health %s good` takes it back", b.Address, b.Reason, b.Address)
	}
	return ""
}

func (s *Server) cancelJob(ctx context.Context, in *struct {
	JobPath
	Body Reason
}) (*body[Job], error) {
	c := callerOf(ctx)
	j, err := s.job(ctx, in.Job) // which says whether the caller may see it
	if err != nil {
		return nil, err
	}
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		b, err := findBox(tx, c, j.Box)
		switch {
		case errors.As(err, new(*Problem)): // the job of a box that was forgotten
			return nil
		case err != nil:
			return err
		case c.owns(j.By):
			return nil
		}
		return s.mayTake(c, b)
	})
	if err != nil {
		return nil, err
	}
	st, err := s.cfg.Jobs.Cancel(dispatch.WithWhy(ctx, c.from, in.Body.Why), in.Job, c.name)
	if err != nil {
		return nil, err
	}
	return answer(s.one(ctx, st))
}

// act does to a box what only a person can decide.
func (s *Server) act(ctx context.Context, word, why string,
	do func(ctx context.Context, addr box.Addr, by string) (dispatch.Status, error)) (*body[Job], error) {
	c := callerOf(ctx)
	var b ledger.Box
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		if b, err = findBox(tx, c, word); err != nil {
			return err
		}
		return s.mayTake(c, b)
	})
	if err != nil {
		return nil, err
	}
	st, err := do(dispatch.WithWhy(ctx, c.from, why), b.Address, c.name)
	if err != nil {
		return nil, err
	}
	return answer(s.one(ctx, st))
}

func (s *Server) releaseBox(ctx context.Context, in *struct {
	BoxPath
	Body Reason
}) (*body[Job], error) {
	return s.act(ctx, in.Box, in.Body.Why, s.cfg.Jobs.Release)
}

func (s *Server) finishBox(ctx context.Context, in *struct {
	BoxPath
	Body Reason
}) (*body[Job], error) {
	return s.act(ctx, in.Box, in.Body.Why, s.cfg.Jobs.Finish)
}

package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/wire"
)

// queue lets jobs begin, whenever something has changed or a time has come.
func (d *Dispatch) queue() {
	for {
		next, err := d.give()
		if err != nil && d.ctx.Err() == nil {
			d.cfg.Log.Error("the queue stands still, and it is tried again", "error", err)
		}
		timer := time.NewTimer(max(next.Sub(d.cfg.Now()), 0))
		select {
		case <-timer.C:
		case <-d.queueKick:
		case <-d.ctx.Done():
		}
		timer.Stop()
		if pause.For(d.ctx, queuePause) != nil { // whatever changes meanwhile is seen together
			return
		}
	}
}

// give lets those jobs begin that may. It returns when to look again.
func (d *Dispatch) give() (next time.Time, err error) {
	now := d.cfg.Now()
	next = now.Add(pollQueue)
	d.mu.Lock()
	lab := job.Lab{Closed: d.why, Most: d.cfg.Most, Starting: d.cfg.Starting, Boxes: map[box.Addr]job.BoxFacts{}, Groups: map[string]int{}}
	queued := map[box.Action]string{} // why the action has no maintenance system
	for _, t := range d.tasks {
		if t.job.State == job.Ended {
			continue
		}
		lab.Jobs = append(lab.Jobs, t.job)
		lab.Boxes[t.job.Box] = job.BoxFacts{}
		if t.job.State == job.Queued {
			queued[t.job.Action] = ""
		}
	}
	d.mu.Unlock()
	if len(queued) == 0 {
		return now.Add(time.Hour), nil
	}
	if err := d.facts(&lab); err != nil {
		return now.Add(10 * firstPause), err
	}
	for action := range queued {
		if err := d.cfg.Boots.Ready(action); err != nil {
			queued[action] = wire.Clean(err.Error())
		}
	}
	for _, j := range lab.Jobs {
		b := lab.Boxes[j.Box]
		if again := j.Since.Add(againAfter); j.State == job.Queued && j.Attempt > 0 && again.After(b.Opens) {
			b.Opens = again // its agent spoke another version of the protocol a moment ago
			lab.Boxes[j.Box] = b
		}
		for _, at := range []time.Time{b.Opens, b.HeldUntil, j.From} {
			if at.After(now) && at.Before(next) {
				next = at
			}
		}
	}
	begin, wait := waiting(lab, queued, now)
	d.setWaits(wait)
	for _, g := range begin {
		err := d.begin(g)
		if err == nil {
			continue
		}
		next = now.Add(10 * firstPause)
		if errors.Is(err, errLedger) { // no other job can begin
			return next, err
		}
		d.cfg.Log.Warn("a job cannot begin, and it is tried again", "job", g.ID, "error", err)
	}
	return next, nil
}

// errBoxBusy is the error of a job that may begin, while an earlier job of its box is
// not done with the box, as when the folder of boot files hangs.
var errBoxBusy = errors.New("the server is busy with this box")

// waiting is job.Give, with jobs that wait for a maintenance system by their action
// and not by their box. Such a job claims nothing, so the others do not see it.
func waiting(lab job.Lab, noSystem map[box.Action]string, now time.Time) ([]job.Grant, []job.Wait) {
	lacks := func(j job.Job) bool { return j.State == job.Queued && lab.Closed == "" && noSystem[j.Action] != "" }
	all := lab.Jobs
	lab.Jobs = slices.DeleteFunc(slices.Clone(all), lacks)
	begin, wait := job.Give(lab, now)
	asked := map[string]job.Job{}
	for _, j := range all {
		asked[j.ID] = j
		if lacks(j) {
			wait = append(wait, job.Wait{ID: j.ID, Reason: job.ForSystem, Text: noSystem[j.Action]})
		}
	}
	slices.SortFunc(wait, func(a, b job.Wait) int {
		return job.Compare(asked[a.ID], asked[b.ID])
	})
	for i := range wait {
		wait[i].Place = i + 1
	}
	return begin, wait
}

// fewBoxes is up to how many boxes are read one by one.
const fewBoxes = 32

// facts reads what the ledger has of the boxes of a lab, and of groups.
func (d *Dispatch) facts(lab *job.Lab) error {
	know := func(b ledger.Box) {
		if _, asked := lab.Boxes[b.Address]; !asked {
			return
		}
		f := job.BoxFacts{Groups: b.Groups, Holder: b.Holder.Name, HeldUntil: b.Holder.Expires}
		if d.cfg.Opens != nil {
			f.Opens = d.cfg.Opens(b)
		}
		lab.Boxes[b.Address] = f
	}
	return d.book.View(d.ctx, func(tx *ledger.Tx) error {
		groups, err := tx.Groups()
		if err != nil {
			return err
		}
		for _, g := range groups {
			if d.cfg.Places == nil {
				break
			}
			if most, limited := d.cfg.Places(g); limited {
				lab.Groups[g.Name] = most
			}
		}
		if len(lab.Boxes) > fewBoxes {
			return eachBox(tx, know)
		}
		for addr := range lab.Boxes {
			b, err := tx.Box(addr)
			if err != nil && !errors.Is(err, ledger.ErrNotFound) {
				return err
			}
			b.Address = addr
			know(b)
		}
		return nil
	})
}

func eachBox(tx *ledger.Tx, f func(ledger.Box)) error {
	for after, more := "", true; more; more = after != "" {
		var page []ledger.Box
		var err error
		if page, after, err = tx.Boxes(ledger.BoxFilter{}, ledger.Page{After: after}); err != nil {
			return err
		}
		for _, b := range page {
			f(b)
		}
	}
	return nil
}

// setWaits notes what the queued jobs wait for.
func (d *Dispatch) setWaits(wait []job.Wait) {
	var changed []string
	d.mu.Lock()
	for _, w := range wait {
		t := d.tasks[w.ID]
		if t == nil || t.job.State != job.Queued {
			continue
		}
		if t.wait == nil || t.wait.Reason != w.Reason || t.wait.Text != w.Text {
			changed = append(changed, w.ID)
		}
		t.wait = &w
	}
	d.mu.Unlock()
	for _, id := range changed {
		d.watching.changed(id)
	}
}

// begin lets a job begin. It is durable on return, together with the end of the held
// job that makes way for it. Effects are carried out beside, so that a boot file that
// takes long holds up no other box.
func (d *Dispatch) begin(g job.Grant) error {
	d.mu.Lock()
	t, held := d.tasks[g.ID], d.tasks[g.TakesOver]
	d.mu.Unlock()
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, slotTime)
	defer cancel()
	if err := t.lane.lock(ctx); err != nil {
		return errBoxBusy
	}
	if !d.mayBegin(t, held, g) {
		t.lane.unlock()
		d.Look()
		return nil
	}
	moves, err := d.slot(t, held)
	if err == nil {
		err = d.commit(moves...)
	}
	if err != nil {
		t.lane.unlock()
		return err
	}
	d.work.Add(1) // the queue itself is counted, so this is in time
	go func() {
		defer d.work.Done()
		defer t.lane.unlock()
		for _, m := range moves {
			d.carry(m)
		}
	}()
	return nil
}

// mayBegin reports whether the jobs of a box still are as the queue saw them.
func (d *Dispatch) mayBegin(t, held *task, g job.Grant) bool {
	if t.job.State != job.Queued || (g.TakesOver != "") != (held != nil) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range t.lane.tasks {
		switch other.job.State {
		case job.Armed, job.Running, job.Restarting, job.Rescue:
			return false
		case job.Held:
			if other != held {
				return false
			}
		}
	}
	return held == nil || held.job.State == job.Held
}

// slot makes the moves by which a job begins. A job that takes over a held box makes
// it good only if it is a restore of all that is unfit to run there. So its backup is
// chosen now.
func (d *Dispatch) slot(t, held *task) ([]*move, error) {
	if held == nil {
		return []*move{d.happens(t, job.Slot{})}, nil
	}
	doc := t.doc
	doc.Owes = held.doc.leaves()
	all := false
	if t.job.Action == box.Restore {
		p, refusal, err := d.prepare(d.ctx, t.job, doc)
		if err != nil {
			return nil, err
		}
		if refusal == "" {
			doc.Image = p.image
			all = p.scope.coversAll(doc.Owes)
		}
	}
	m := d.happens(t, job.Slot{TakesOver: true, AllDisks: all})
	m.doc = &doc
	return []*move{d.happens(held, job.NewJob{ID: t.job.ID}), m}, nil
}

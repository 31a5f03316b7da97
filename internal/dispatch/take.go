package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/wire"
)

// move is what becomes of a job by an event. It is made with the lane of the job's
// box, which is kept until the move is carried out.
type move struct {
	t    *task
	next job.Job
	fx   []job.Effect
	doc  *document              // the rest of the document, if that changes too
	more func(*ledger.Tx) error // is made durable together with the job; nil if nothing is
}

// happens says what an event makes of a job.
func (d *Dispatch) happens(t *task, e job.Event) *move {
	next, fx := job.Next(t.job, e, d.cfg.Now(), d.cfg.Limits)
	return &move{t: t, next: next, fx: fx}
}

// word is what an agent is told by a move, or "".
func (m *move) word() job.Word {
	for _, f := range m.fx {
		if a, is := f.(job.Answer); is {
			return a.Word
		}
	}
	return ""
}

// ignored says why an event changed nothing, or "".
func (m *move) ignored() string {
	for _, f := range m.fx {
		if i, is := f.(job.Ignored); is {
			return i.Because
		}
	}
	return ""
}

// durable reports whether a move changes what must be durable.
func (m *move) durable() bool {
	before := m.t.job
	before.Heard = m.next.Heard
	return before != m.next || m.doc != nil || m.more != nil
}

// errLedger is matched by the errors of commit.
var errLedger = errors.New("it cannot be written into the ledger")

// commit makes moves durable as one. If it fails, nothing has changed, but that the
// agent was heard of.
func (d *Dispatch) commit(moves ...*move) error {
	if slices.ContainsFunc(moves, (*move).durable) {
		err := d.book.Update(d.ctx, func(tx *ledger.Tx) error {
			for _, m := range moves {
				if err := d.save(tx, m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, m := range moves {
				if h := m.next.Heard; h.After(m.t.job.Heard) && m.t.job.State == job.Running {
					m.t.job.Heard, m.t.heard = h, time.Now()
				}
			}
			return fmt.Errorf("job %s: %w: %w", moves[0].t.job.ID, errLedger, err)
		}
	}
	for _, m := range moves {
		d.become(m)
	}
	return nil
}

// working is the session that a job grants something to, or the zero Session.
func working(j job.Job) job.Session {
	if j.State == job.Running || j.State == job.Rescue {
		return j.Session
	}
	return job.Session{}
}

// save writes a move into the ledger.
func (d *Dispatch) save(tx *ledger.Tx, m *move) error {
	before, doc := m.t.job, m.t.doc
	if m.doc != nil {
		doc = *m.doc
	}
	doc.Job = m.next
	row, err := doc.row()
	if err == nil {
		err = tx.UpdateJob(row)
	}
	if err != nil {
		return err
	}
	if working(before) != working(m.next) || before.Attempt != m.next.Attempt {
		if err := d.saveSession(tx, m.next); err != nil {
			return err
		}
	}
	if err := d.saveWarnings(tx, m); err != nil || m.more == nil {
		return err
	}
	return m.more(tx)
}

// saveSession makes the session of a job the only one that it has in the ledger.
func (d *Dispatch) saveSession(tx *ledger.Tx, j job.Job) error {
	all, err := tx.Sessions(j.ID)
	if err != nil {
		return err
	}
	now, keep := d.cfg.Now(), working(j)
	for _, s := range all {
		if job.Session(s.Hash) != keep {
			if err := tx.DeleteSession(s.Hash); err != nil {
				return err
			}
		}
	}
	if keep == (job.Session{}) {
		return nil
	}
	return tx.PutSession(ledger.Session{Hash: ledger.Hash(keep), Job: j.ID, Attempt: j.Attempt, Address: j.Box, Created: now, Used: now})
}

// server is who makes changes in the audit log that nobody asked for.
const server = "server"

// saveWarnings writes into the ledger what people must know of a move.
func (d *Dispatch) saveWarnings(tx *ledger.Tx, m *move) error {
	now, before := d.cfg.Now(), m.t.job
	if a := m.next.Alarm; a != "" && a != before.Alarm {
		err := tx.AddAudit(ledger.Entry{Time: now, Who: server, What: "alarm", On: m.next.Box.String(), Why: a})
		if err != nil {
			return err
		}
	}
	if missed(before, m.next) {
		err := tx.AddAudit(ledger.Entry{Time: now, Who: server, What: "job did not begin", On: m.next.ID,
			Why: fmt.Sprintf("%s of %s, asked for by %s: %s", m.next.Action, m.next.Box, m.next.By, m.next.Text)})
		if err != nil {
			return err
		}
	}
	if before.Outcome == m.next.Outcome && before.Class == m.next.Class {
		return nil // it was said before
	}
	for _, f := range m.fx {
		if s, is := f.(job.Suspect); is {
			return d.suspect(tx, m.next, s.Text)
		}
	}
	return nil
}

// missed reports whether a job has ended because it did not begin in time.
func missed(before, next job.Job) bool {
	return !next.Until.IsZero() && next.Outcome == box.Expired && before.Outcome != box.Expired
}

// suspect notes that a box may be broken, unless that is known or an admin has said
// something else of it.
func (d *Dispatch) suspect(tx *ledger.Tx, j job.Job, why string) error {
	b, err := tx.Box(j.Box)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil || b.Health != ledger.Good {
		return err
	}
	b.Health, b.Reason = ledger.Suspect, wire.Clean(fmt.Sprintf("Job %s: %s", j.ID, why))
	b.Reason = strings.ToValidUTF8(b.Reason[:min(len(b.Reason), ledger.MaxText)], "")
	return errors.Join(tx.PutBox(b), tx.AddAudit(ledger.Entry{Time: d.cfg.Now(), Who: server, What: "box is suspect", On: j.Box.String(),
		Why: b.Reason}))
}

// become makes a move that is durable the state of the job.
func (d *Dispatch) become(m *move) {
	t := m.t
	before, changed := t.job, m.durable()
	d.mu.Lock()
	if !before.Heard.Equal(m.next.Heard) {
		t.heard = time.Now()
	}
	t.job = m.next
	if m.doc != nil {
		t.doc = *m.doc
	}
	t.doc.Job = t.job
	if t.job.State != job.Queued {
		t.wait = nil
	}
	if before.Session != t.job.Session {
		if h := d.session[before.Session]; h != nil && h.t == t {
			if h.token != "" {
				t.over = append(t.over, h.token)
			}
			delete(d.session, before.Session)
		}
		d.session[t.job.Session] = &holder{t: t}
		t.progress, t.number = nil, 0
		t.log.begin()
	}
	if before.Step != t.job.Step {
		t.left, t.leftAt, t.unsaved, t.pause, t.made = nil, time.Time{}, true, 0, time.Time{}
	}
	if t.job.State == job.Ended && t.job.Settled {
		t.doc.Receipts, t.doc.Warnings = nil, nil // the ledger has them
	}
	d.mu.Unlock()
	if !changed {
		return
	}
	d.watching.changed(t.job.ID)
	if missed(before, t.job) {
		d.cfg.Log.Warn("a job did not begin in time", "job", t.job.ID, "box", t.job.Box.String(), "by", t.job.By, "why", t.job.Text)
	}
	kick(d.clockKick)
	if before.State != t.job.State {
		kick(d.queueKick)
	}
}

// errLater is what an agent gets if an effect failed that comes before its answer.
var errLater = errors.New("the server could not do what comes before the answer to this request, and tries it again")

// take makes a move durable and carries it out. It returns what the agent is told.
func (d *Dispatch) take(m *move) (job.Word, error) {
	if err := d.commit(m); err != nil {
		return "", err
	}
	return d.carry(m)
}

// carry carries out the effects of a move that is durable, and settles its step. What
// fails is tried again later.
func (d *Dispatch) carry(m *move) (job.Word, error) {
	t, step := m.t, m.t.job.Step
	pending := t.unsaved && t.leftAt.IsZero() // the effects are those of the step, and nothing of it is waiting
	word, rest, err := d.effects(t, m.fx)
	switch {
	case t.job.Step != step: // the job has ended instead, and what it needs is carried out or noted
		return "", errLater
	case err != nil && pending:
		d.later(t, rest)
		return "", err
	case err != nil: // a repeated request; what the step itself needs is noted already
		return "", err
	case pending:
		d.settle(t)
	case t.unsaved && slices.ContainsFunc(m.fx, isBootFile): // it goes again, so the rest may go too
		d.mu.Lock()
		t.leftAt = d.cfg.Now()
		d.mu.Unlock()
		kick(d.clockKick)
	}
	return word, nil
}

// later notes effects that must be tried again.
func (d *Dispatch) later(t *task, left []job.Effect) {
	t.pause = min(max(2*t.pause, firstPause), mostPause)
	t.left = slices.DeleteFunc(slices.Clone(left), func(f job.Effect) bool { _, is := f.(job.Answer); return is })
	d.mu.Lock()
	t.leftAt = d.cfg.Now().Add(t.pause)
	d.mu.Unlock()
	kick(d.clockKick)
}

// again tries effects that failed before.
func (d *Dispatch) again(t *task) {
	step := t.job.Step
	_, rest, err := d.effects(t, t.left)
	switch {
	case t.job.Step != step: // the job has ended instead, and what it needs is carried out or noted
	case err != nil:
		d.later(t, rest)
	default:
		t.left = nil
		d.settle(t)
	}
}

// settle makes durable that all effects of the job's step were carried out. The power
// command may still run; then its end settles the step.
func (d *Dispatch) settle(t *task) {
	if t.power == t.job.Step {
		d.mu.Lock()
		t.leftAt = time.Time{}
		d.mu.Unlock()
		return
	}
	at := t.made
	if at.IsZero() {
		at = d.cfg.Now()
	}
	m := d.happens(t, job.Settled{Step: t.job.Step, At: at})
	if err := d.commit(m); err != nil {
		d.cfg.Log.Error("it is tried again", "error", err)
		d.later(t, nil)
		return
	}
	d.mu.Lock()
	t.leftAt, t.unsaved = time.Time{}, false
	d.mu.Unlock()
	d.effects(t, m.fx) // a probe, which cannot fail
}

// effects carries out effects in their order. It stops at the first that fails, and
// returns it with all behind it.
func (d *Dispatch) effects(t *task, fx []job.Effect) (word job.Word, rest []job.Effect, err error) {
	for i, f := range fx {
		switch f := f.(type) {
		case job.Answer:
			return f.Word, nil, nil
		case job.WriteBootFile:
			err = d.cfg.Boots.Arm(d.ctx, t.job, t.doc.Options, f.Secret)
			if err != nil && refused(err) && t.job.State == job.Armed {
				d.cfg.Log.Error("a boot file is refused", "job", t.job.ID, "error", err)
				if _, err := d.take(d.happens(t, job.ArmFailed{Step: t.job.Step, Text: wire.Clean(err.Error())})); err != nil {
					return "", fx[i:], err
				}
				return "", nil, errLater
			}
		case job.RemoveBootFile:
			err = d.cfg.Boots.Disarm(d.ctx, t.job.Box, f.Arming)
		default:
			d.do(t, f)
		}
		if err != nil {
			d.log(slog.LevelError, t.job.ID, "a boot file is not right, and it is tried again", "job", t.job.ID, "what", f.String(),
				"error", err)
			return "", fx[i:], fmt.Errorf("%w: %s: %w", errLater, f, err)
		}
		if isBootFile(f) {
			t.made = d.cfg.Now()
		}
	}
	return "", nil, nil
}

func isBootFile(f job.Effect) bool {
	switch f.(type) {
	case job.WriteBootFile, job.RemoveBootFile:
		return true
	}
	return false
}

func refused(err error) bool {
	var p *problem.Error
	return errors.As(err, &p)
}

// do carries out an effect that does not fail.
func (d *Dispatch) do(t *task, f job.Effect) {
	switch f := f.(type) {
	case job.OnlySession:
		d.endSessions(t, f.Session)
	case job.PowerCycle:
		d.powerCycle(t)
	case job.Probe:
		d.probe(t)
	case job.Alarm:
		d.alarm(t, f.Text)
	case job.Notify:
		d.say(t)
		d.watching.changed(t.job.ID)
	}
}

// endSessions ends what sessions have open that are over.
func (d *Dispatch) endSessions(t *task, keep job.Session) {
	d.mu.Lock()
	over, forget := t.over, d.forget
	t.over = nil
	if h := d.session[t.job.Session]; h != nil && h.t == t && t.job.Session != keep && h.token != "" {
		over, h.token = append(over, h.token), ""
	}
	d.mu.Unlock()
	if forget != nil {
		for _, token := range over {
			forget(token)
		}
	}
}

// alarmAgain is after which time the same alarm is written into the audit log once
// more. A box could fill it otherwise.
const alarmAgain = 10 * time.Minute

// alarm tells people. An alarm that changes the job is in the audit log already.
func (d *Dispatch) alarm(t *task, text string) {
	now := d.cfg.Now()
	if text != t.job.Alarm {
		if last, said := t.alarmed[text]; said && now.Sub(last) < alarmAgain || len(t.alarmed) > 100 {
			return
		}
		t.alarmed[text] = now
		err := d.book.Update(d.ctx, func(tx *ledger.Tx) error {
			return tx.AddAudit(ledger.Entry{Time: now, Who: server, What: "alarm", On: t.job.Box.String(), Why: text})
		})
		if err != nil {
			delete(t.alarmed, text)
			d.cfg.Log.Error("an alarm cannot be written into the audit log", "error", err)
		}
	}
	d.cfg.Log.Error(text, "alarm", true, "job", t.job.ID, "box", t.job.Box.String())
}

// Overstep takes note that an agent asked for what its job does not allow, and was
// refused. It returns at once. The texts of what are few, and each is told once in
// alarmAgain, so that a box cannot fill the audit log.
func (d *Dispatch) Overstep(token, what string) {
	d.mu.Lock()
	h := d.session[sessionOf(token)]
	if h == nil || h.t.overstepped {
		d.mu.Unlock()
		return
	}
	t := h.t
	t.overstepped = true
	text := fmt.Sprintf("The agent of job %s on %s tried %s. It was refused.", t.job.ID, t.job.Box, what)
	d.mu.Unlock()
	d.goes(func() {
		if t.lane.lock(d.ctx) == nil {
			d.alarm(t, text)
			t.lane.unlock()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		t.overstepped = false
	})
}

// say writes a line into the box's log about where its job stands.
func (d *Dispatch) say(t *task) {
	j := t.job
	text := fmt.Sprintf("job %s: %s", j.ID, j.State)
	if j.State != job.Ended && j.State != job.Queued && j.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", j.Attempt)
	}
	if j.Outcome != "" {
		text += ", " + string(j.Outcome)
	}
	if j.Text != "" {
		text += ": " + j.Text
	}
	if text != t.said {
		t.said = text
		d.openLog(t, "")
		t.log.say(j.State == job.Ended || j.State == job.Held, text)
	}
}

// box returns what the ledger has of a job's box.
func (d *Dispatch) box(ctx context.Context, j job.Job) (b ledger.Box, err error) {
	err = d.book.View(ctx, func(tx *ledger.Tx) error {
		b, err = d.boxOf(tx, j.Box)
		return err
	})
	return b, err
}

// boxOf returns what the ledger has of a box.
func (d *Dispatch) boxOf(tx *ledger.Tx, addr box.Addr) (ledger.Box, error) {
	b, err := tx.Box(addr)
	if errors.Is(err, ledger.ErrNotFound) { // an admin has deleted it
		return ledger.Box{Address: addr, Health: ledger.Good}, nil
	}
	return b, err
}

// probe asks the box's own system for a sign of life until the job has ended.
func (d *Dispatch) probe(t *task) {
	if t.probing || d.cfg.Probe == nil {
		return
	}
	t.probing = true
	d.goes(func() {
		for {
			d.mu.Lock()
			j := t.job
			d.mu.Unlock()
			if j.State == job.Restarting {
				sent := d.cfg.Now()
				if d.runProbe(j) == nil {
					d.event(t, job.Probed{Sent: sent})
				}
			}
			if t.lane.lock(d.ctx) != nil {
				return
			}
			t.probing = t.job.State == job.Restarting
			on := t.probing
			t.lane.unlock()
			if !on || pause.For(d.ctx, probeEvery) != nil {
				return
			}
		}
	})
}

func (d *Dispatch) runProbe(j job.Job) error {
	ctx, cancel := context.WithTimeout(d.ctx, probeTime)
	defer cancel()
	b, err := d.box(ctx, j)
	if err != nil {
		return err
	}
	return d.cfg.Probe(ctx, b)
}

// event lets something happen to a job that nobody waits for.
func (d *Dispatch) event(t *task, e job.Event) error {
	if err := t.lane.lock(d.ctx); err != nil {
		return err
	}
	defer t.lane.unlock()
	m := d.happens(t, e)
	if err := d.commit(m); err != nil {
		d.cfg.Log.Error("it is tried again", "error", err)
		return err
	}
	d.carry(m) // what fails is noted
	return nil
}

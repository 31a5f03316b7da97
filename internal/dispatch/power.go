package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/wire"
)

// Power switches boxes. All methods may be called by several goroutines, but Restart and Switch
// never by two for one box. They end by themselves after a time. groups are all groups. What they do may have to wait for its
// turn, so they ask may right before they begin it. Its error refuses that, and is returned. It can be nil.
type Power interface {
	// Has reports whether a box has a power command.
	Has(b ledger.Box, groups []ledger.Group) bool
	// Restart switches a box off and on, or on if nothing else is possible. The first try is 1.
	Restart(ctx context.Context, b ledger.Box, groups []ledger.Group, try int, may func() error) (Switched, error)
	// Switch does for a box what an admin asks for. If nothing was begun, the error is of package problem.
	Switch(ctx context.Context, b ledger.Box, groups []ledger.Group, a power.Action, may func() error) (Switched, error)
}

// Switched is what came of a power command.
type Switched struct {
	By     string // name of the power command; "" if the box has none
	Output string
	Again  bool // after an error: another try may succeed
	// Short says in a sentence why a box that runs may not have been restarted, although there is no error.
	Short string
}

const (
	powerPause  = 10 * time.Second // from one try of a power command to the next
	powerWait   = 15 * time.Second // for how long an admin waits for the power command of a job
	mostOfPower = 200              // lines of the output of a power command in the log of a box
)

// powerCycle runs the box's power command beside everything else. Its end settles the
// step.
func (d *Dispatch) powerCycle(t *task) {
	step := t.job.Step
	if t.power == step {
		return
	}
	t.power = step
	d.goes(func() {
		short, err := d.runPower(t, step)
		if t.lane.lock(d.ctx) != nil {
			return
		}
		defer t.lane.unlock()
		if t.power == step {
			t.power = 0
		}
		if err != nil {
			short = fmt.Sprintf("The power command failed: %v.", err)
		}
		switch {
		case t.job.Step != step:
		case short != "":
			d.cfg.Log.Error(short, "job", t.job.ID, "box", t.job.Box.String())
			if m := d.happens(t, job.PowerFailed{Step: step, Text: wire.Clean(short)}); d.commit(m) == nil {
				d.carry(m)
			} else {
				d.later(t, append(slices.Clone(t.left), job.PowerCycle{}))
			}
		case t.left == nil && t.leftAt.IsZero():
			d.settle(t)
		}
	})
}

// errWentOn keeps a power command from being begun for a job that does not wait for it any more.
var errWentOn = errors.New("the job has gone on")

// runPower runs the power command of a step, once more if it fails, as long as the job is still there. A command
// that runs is not stopped when the job goes on, since it may have switched the box off.
func (d *Dispatch) runPower(t *task, step int) (short string, err error) {
	if d.cfg.Power == nil { // the job was made before a change of the configuration
		return "The server has no power command any more. Restart the box.", nil
	}
	select {
	case t.lane.power <- struct{}{}:
		defer func() { <-t.lane.power }()
	case <-d.ctx.Done():
		return "", d.ctx.Err()
	}
	var j job.Job
	waits := func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if j = t.job; j.Step != step {
			return errWentOn
		}
		return nil
	}
	for try := 1; ; try++ {
		if waits() != nil {
			return "", nil
		}
		b, groups, err := d.boxInGroups(d.ctx, j.Box)
		if err != nil {
			return "", err
		}
		did, err := d.cfg.Power.Restart(d.ctx, b, groups, try, waits)
		if errors.Is(err, errWentOn) { // the box has come by itself, and may write to a disk
			return "", nil
		}
		d.logPower(j.Box, did, "restart", err)
		if err == nil || !did.Again {
			return did.Short, err
		}
		d.cfg.Log.Warn("A power command failed, and is tried again.", "job", j.ID, "box", j.Box.String(), "error", err)
		if err := pause.For(d.ctx, powerPause); err != nil {
			return "", err
		}
	}
}

// boxInGroups returns what the ledger has of a box, and all groups.
func (d *Dispatch) boxInGroups(ctx context.Context, addr box.Addr) (b ledger.Box, groups []ledger.Group, err error) {
	err = d.book.View(ctx, func(tx *ledger.Tx) error {
		if b, err = d.boxOf(tx, addr); err == nil {
			groups, err = tx.Groups()
		}
		return err
	})
	return b, groups, err
}

// logPower writes into the log of a box what its power command said, and how it ended.
func (d *Dispatch) logPower(addr box.Addr, did Switched, what string, err error) {
	l := d.laneOf(addr)
	if l.lock(d.ctx) != nil {
		return
	}
	defer l.unlock()
	log := d.logOf(addr)
	if log == nil {
		return
	}
	lines := slices.Collect(strings.SplitSeq(strings.TrimRight(did.Output, "\n"), "\n"))
	if left := len(lines) - mostOfPower; left > 0 {
		lines = append(lines[:mostOfPower/2:mostOfPower/2], append([]string{fmt.Sprintf("[%d lines are left out]", left)},
			lines[len(lines)-mostOfPower/2:]...)...)
	}
	for _, line := range lines {
		if line != "" {
			log.say(false, "power: "+line)
		}
	}
	name := "the power command " + did.By
	if did.By == "" {
		name = "no power command"
	}
	switch {
	case err != nil:
		log.say(true, fmt.Sprintf("power: %s (%s): %v", what, name, err))
	default:
		log.say(false, strings.TrimSpace(fmt.Sprintf("power: %s (%s): done. %s", what, name, did.Short)))
	}
	log.flush()
}

// laneOf returns the lane of a box.
func (d *Dispatch) laneOf(addr box.Addr) *lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lane(addr)
}

// logOf is the log of a box for what belongs to no job.
func (d *Dispatch) logOf(addr box.Addr) *boxLog {
	t := &task{job: job.Job{Order: job.Order{Box: addr}}}
	d.openLog(t, "")
	return t.log
}

// SwitchPower does what an admin asks of the power of a box, and waits for it. While a box is at work it is
// refused, unless it is forced. If ctx ends, the command goes on, since it may have switched the box off, and the error
// is ErrPowerRuns.
func (d *Dispatch) SwitchPower(ctx context.Context, addr box.Addr, a power.Action, by string, force bool) (Switched, error) {
	if err := d.enter(); err != nil {
		return Switched{}, err
	}
	defer d.work.Done()
	switch {
	case by == "":
		return Switched{}, problem.Wrongf("it is not said who asks for this")
	case d.cfg.Power == nil:
		return Switched{}, problem.Refusef("the configuration of this server has no power command")
	}
	l := d.laneOf(addr)
	turn, cancel := context.WithTimeout(ctx, powerWait)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	select {
	case l.power <- struct{}{}:
	case <-turn.Done():
		if d.ctx.Err() != nil {
			return Switched{}, errClosed
		}
		return Switched{}, problem.Refusef("the power command of %s runs already; look at the log of the box, and try again later", addr)
	}
	b, groups, err := d.beginSwitch(ctx, addr, a, by, force)
	if err != nil {
		<-l.power
		return Switched{}, err
	}
	type result struct {
		did Switched
		err error
	}
	ended := make(chan result, 1)
	var may func() error
	if !force {
		may = func() error { return d.mayLosePower(addr) }
	}
	d.work.Add(1) // this call is counted, so it is in time
	go func() {
		defer d.work.Done()
		did, err := d.cfg.Power.Switch(d.ctx, b, groups, a, may)
		<-l.power
		if did.By == "" {
			ended <- result{did, err}
			return
		}
		d.logPower(addr, did, string(a)+", as "+wire.Clean(by)+" asked for", err)
		if err != nil {
			d.cfg.Log.Warn("Somebody asked for a box to be switched, and that failed.", "box", addr.String(), "action", string(a),
				"by", by, "error", err)
		} else {
			d.cfg.Log.Info("A box was switched, as somebody asked for.", "box", addr.String(), "action", string(a), "by", by)
		}
		ended <- result{did, err}
	}()
	select {
	case r := <-ended:
		return r.did, r.err
	case <-ctx.Done():
		return Switched{}, ErrPowerRuns
	}
}

// ErrPowerRuns says that a power command was begun, and has not ended in the time that the caller has.
var ErrPowerRuns = errors.New("the power command still runs; the log of the box will say how it ends")

// beginSwitch refuses a power command that must not run now, and notes one that is about to.
func (d *Dispatch) beginSwitch(ctx context.Context, addr box.Addr, a power.Action, by string, force bool) (
	b ledger.Box, groups []ledger.Group, err error) {
	if err := d.mayLosePower(addr); err != nil && !force {
		return b, nil, err
	}
	if b, groups, err = d.boxInGroups(ctx, addr); err != nil || !d.cfg.Power.Has(b, groups) {
		return b, groups, err // Switch says why it has none
	}
	text := ""
	if force {
		text = "forced"
	}
	entry := d.entry(ctx, by, "power "+string(a), addr.String(), text)
	err = d.book.Update(ctx, func(tx *ledger.Tx) error { return tx.AddAudit(entry) })
	return b, groups, err
}

// mayLosePower refuses to switch a box at which somebody or something is at work.
func (d *Dispatch) mayLosePower(addr box.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.lane(addr).tasks {
		switch t.job.State {
		case job.Running:
			return problem.Refusef("%s is at work for job %s, and may be writing to a disk; cancel the job, wait for its end, or force it",
				addr, t.job.ID)
		case job.Rescue:
			return problem.Refusef("%s is up for rescue by job %s, and somebody may be at work there; finish that, or force it", addr, t.job.ID)
		}
	}
	return nil
}

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// Readdress gives a box another address in the ledger, with its jobs, and notes there that
// its files and backups are still to follow (ledger.Move). It is refused while the box has a
// job, or somebody else's job needs a backup of it. edit changes the box besides.
func (d *Dispatch) Readdress(ctx context.Context, from, to box.Addr, by string, edit func(*ledger.Box)) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.work.Done()
	needs, err := d.Needs(ctx)
	if err != nil {
		return err
	}
	for _, n := range needs {
		if n.Box == from.String() {
			return problem.Refusef("a backup of %s is needed: %s", from, n.Why)
		}
	}
	both := []box.Addr{from, to}
	slices.SortFunc(both, func(a, b box.Addr) int { return a.IP().Compare(b.IP()) }) // so that two of these do not wait for each other
	for _, a := range both {
		l := d.laneOf(a)
		wait, cancel := context.WithTimeout(ctx, laneTime)
		defer cancel()
		if err := l.lock(wait); err != nil {
			return err
		}
		defer l.unlock()
	}
	entry := d.entry(ctx, by, "readdress box", to.String(), "it was "+from.String())
	if err := d.book.Update(ctx, func(tx *ledger.Tx) error { return d.readdress(tx, from, to, edit, entry) }); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range slices.Collect(maps.Values(d.lane(from).tasks)) {
		d.drop(t) // they have ended, and the ledger has them under the new address
	}
	return nil
}

func (d *Dispatch) readdress(tx *ledger.Tx, from, to box.Addr, edit func(*ledger.Box), entry ledger.Entry) error {
	b, err := tx.Box(from)
	if err != nil {
		return err
	}
	if _, err := tx.Box(to); err == nil {
		return problem.Refusef("there is a box %s already; if that is the same machine, forget it first (`testbox box forget %s`)", to, to)
	} else if !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	for _, a := range []box.Addr{from, to} {
		open, _, err := tx.Jobs(ledger.JobFilter{Box: a, Open: true}, ledger.Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(open) > 0 {
			return problem.Refusef("%s has the job %s, which has not ended; cancel it or wait", a, open[0].ID)
		}
	}
	for p := (ledger.Page{}); ; {
		some, next, err := tx.Jobs(ledger.JobFilter{Box: from}, p)
		if err != nil {
			return err
		}
		for _, old := range some {
			if err := readdressJob(tx, old, from, to); err != nil {
				return fmt.Errorf("job %s: %w", old.ID, err)
			}
		}
		if p.After = next; next == "" {
			break
		}
	}
	b.Address = to
	edit(&b)
	return errors.Join(tx.DeleteBox(from), tx.PutBox(b), tx.AddMove(ledger.Move{Address: to, Old: from, Begun: d.cfg.Now()}),
		tx.AddAudit(entry))
}

// readdressJob gives a job that has ended to another box.
func readdressJob(tx *ledger.Tx, old ledger.Job, from, to box.Addr) error {
	doc, err := parseDocument(old.Doc)
	if err != nil {
		return err
	}
	doc.Job.Box = to
	if doc.Image != nil && doc.Image.Box == from.String() {
		doc.Image.Box = to.String()
	}
	row, err := doc.row()
	if err != nil {
		return err
	}
	return tx.UpdateJob(row)
}

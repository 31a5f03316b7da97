package dispatch

import (
	"context"
	"fmt"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

type armedFunc = func(box.Addr, box.Arming) (bool, error)

// Outdated lets no job of a ledger that is an old copy go on, as job.Outdated says. No
// server may work with the ledger. armed reports whether a box has a boot file of an
// arming. It returns how many jobs were changed.
func Outdated(ctx context.Context, l *ledger.Ledger, armed armedFunc, now time.Time) (changed int, err error) {
	err = l.Update(ctx, func(tx *ledger.Tx) error {
		var open []ledger.Job
		for after, more := "", true; more; more = after != "" {
			var page []ledger.Job
			if page, after, err = tx.Jobs(ledger.JobFilter{Open: true}, ledger.Page{After: after}); err != nil {
				return err
			}
			open = append(open, page...)
		}
		changed = 0
		for _, r := range open {
			is, err := outdated(tx, r, armed, now)
			if err != nil {
				return fmt.Errorf("job %s of %s: %w", r.ID, r.Box, err)
			}
			if is {
				changed++
			}
		}
		return nil
	})
	return changed, err
}

func outdated(tx *ledger.Tx, r ledger.Job, armed armedFunc, now time.Time) (changed bool, err error) {
	doc, err := parseDocument(r.Doc)
	if err != nil {
		return false, err
	}
	has, err := armed(doc.Job.Box, doc.Job.Arming)
	if err != nil {
		return false, err
	}
	next := job.Outdated(doc.Job, has, now)
	if next == doc.Job {
		return false, nil
	}
	doc.Job = next
	row, err := doc.row()
	if err == nil {
		err = tx.UpdateJob(row)
	}
	if err == nil {
		err = tx.AddAudit(ledger.Entry{Time: now, Who: server, What: "job of an old copy", On: r.ID, Why: next.Text})
	}
	if err != nil {
		return false, err
	}
	sessions, err := tx.Sessions(r.ID)
	if err != nil {
		return false, err
	}
	for _, s := range sessions {
		if err := tx.DeleteSession(s.Hash); err != nil {
			return false, err
		}
	}
	return true, nil
}

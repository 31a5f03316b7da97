package dispatch

import (
	"context"
	"fmt"
	"slices"

	"testbox-imaging/internal/job"
)

// Need is a backup that a job needs. It must not be deleted before the job has ended.
type Need struct {
	Box string // of the backup
	ID  string // of the backup
	Job string // id of the job
	Why string // which job needs it, and what ends that, for people
}

// Needs returns the backups that jobs need. A job that has begun needs the one that it
// began with, also while its box is held. A job that waits needs the one that it would
// begin with now.
func (d *Dispatch) Needs(ctx context.Context) (all []Need, err error) {
	type open struct {
		job job.Job
		doc document
	}
	var jobs []open
	d.mu.Lock()
	for _, t := range d.tasks {
		if usesImage(t.job.Action) && t.job.State != job.Ended && t.job.State != job.Restarting {
			jobs = append(jobs, open{t.job, t.doc})
		}
	}
	d.mu.Unlock()
	slices.SortFunc(jobs, func(a, b open) int { return a.job.Asked.Compare(b.job.Asked) })
	for _, o := range jobs {
		ref := o.doc.Image
		if ref == nil {
			r, refusal, err := d.choose(ctx, o.job.Box, o.doc)
			if err != nil {
				return nil, err
			}
			if refusal != "" {
				continue // it cannot begin, and nothing is lost for it
			}
			ref = &imageRef{r.Box, r.ID}
		}
		all = append(all, Need{Box: ref.Box, ID: ref.ID, Job: o.job.ID, Why: needText(o.job)})
	}
	return all, nil
}

func needText(j job.Job) string {
	text := fmt.Sprintf("job %s, a %s of %s, needs it and is %s", j.ID, j.Action, j.Box, j.State)
	if j.State == job.Held {
		return text + "; restore that box, or release it"
	}
	return text + "; wait for its end, or cancel it"
}

// NeedOf returns the first of some needs that is of a backup, or nil.
func NeedOf(all []Need, box, id string) *Need {
	for i := range all {
		if all[i].Box == box && all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

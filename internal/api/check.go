package api

import (
	"context"
	"errors"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/store"
)

// checkJobs says what a request for jobs would do. It makes the checks of that request box by box,
// so that each box has an answer of its own.
func (s *Server) checkJobs(ctx context.Context, in *struct{ Body NewJobs }) (*body[CheckedJobs], error) {
	c, q := callerOf(ctx), in.Body
	var boxes []ledger.Box
	var groups []ledger.Group
	var last map[box.Addr]*LastJob
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		if boxes, err = s.targets(tx, c, q.Targets); err != nil {
			return err
		}
		if groups, err = tx.Groups(); err != nil {
			return err
		}
		last, err = s.lastJobs(tx, boxes)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := CheckedJobs{Jobs: []CheckedJob{}}
	for _, b := range boxes {
		v := CheckedJob{Box: b.Address.String(), Name: b.Name}
		if j := last[b.Address]; j != nil && j.State != job.Ended {
			v.Open = j
		}
		if p := setting.For(b, groups, s.cfg.Site).Power; p != setting.None {
			v.Power = p
		}
		v.Refused = s.refuses(c, b)
		r := dispatch.Request{Boxes: []box.Addr{b.Address}, Action: q.Action, Options: dispatch.Options(q.Options), By: c.name, WaitUp: q.WaitUp}
		if v.Refused == "" {
			v.Refused, err = refusal(s.cfg.Jobs.Check(ctx, r))
		}
		if err == nil && v.Refused == "" && (q.Action == box.Restore || q.Action == box.Verify) {
			v.Refused, err = s.addMeant(ctx, r, &v)
		}
		if err != nil {
			return nil, err
		}
		out.Jobs = append(out.Jobs, v)
	}
	return answer(out, nil)
}

// refusal takes the text out of an error of package problem. All other errors stay errors.
func refusal(err error) (string, error) {
	var p *problem.Error
	if errors.As(err, &p) {
		return clean(err.Error()), nil
	}
	return "", err
}

// addMeant adds the backup that a job would use.
func (s *Server) addMeant(ctx context.Context, r dispatch.Request, v *CheckedJob) (refused string, err error) {
	record, err := s.cfg.Jobs.Meant(ctx, r)
	if err != nil {
		return refusal(err)
	}
	var damages store.Damages
	if s.cfg.Backups != nil {
		if damages, err = s.cfg.Backups.Damages(ctx); err != nil {
			return "", err
		}
	}
	b := backupOf(record, damages)
	v.Backup = &b
	return "", nil
}

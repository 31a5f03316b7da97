package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
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
	unknown := map[box.Addr]bool{}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		if boxes, err = s.targets(tx, c, q.Targets); err != nil {
			return err
		}
		if err := s.sources(tx, c, &q.Options); err != nil {
			return err
		}
		for _, b := range boxes {
			if _, err := tx.Box(b.Address); errors.Is(err, ledger.ErrNotFound) {
				unknown[b.Address] = true
			} else if err != nil {
				return err
			}
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
		v := CheckedJob{Box: b.Address.String(), Name: b.Name, New: unknown[b.Address]}
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
			v.Refused, err = s.addMeant(ctx, r, b, &v)
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
func (s *Server) addMeant(ctx context.Context, r dispatch.Request, of ledger.Box, v *CheckedJob) (refused string, err error) {
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
	v.Backup, v.Mark = &b, markOf(of, record)
	return "", nil
}

// markOf stands for what somebody confirms who has been shown a box and the backup for it.
func markOf(b ledger.Box, r *image.Record) string {
	text := fmt.Sprintf("%s %q %q %q %q %s", b.Address, b.Name, b.UUID, r.Box, r.ID, r.Time.UTC().Format(time.RFC3339Nano))
	for _, d := range r.Disks {
		text += fmt.Sprintf(" %q %d %s", d.Name, d.Disk.Size, d.Root)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// asShown refuses a request if a box, or the backup that is meant for it, is not what somebody was shown
// and has confirmed. marks are those of the check.
func (s *Server) asShown(ctx context.Context, r dispatch.Request, boxes []ledger.Box, marks map[string]string) error {
	found := 0
	for _, b := range boxes {
		mark, given := marks[b.Address.String()]
		if !given {
			continue
		}
		found++
		r.Boxes = []box.Addr{b.Address}
		record, err := s.cfg.Jobs.Meant(ctx, r)
		if err != nil {
			return err
		}
		if markOf(b, record) != mark {
			return problem.Refusef("the box %s, or the backup that is meant for it, is not what was shown before it was confirmed. "+
				"No job was made; look at it again", b.Address)
		}
	}
	if found != len(marks) {
		return problem.Wrongf("a mark is for a box that the request is not about")
	}
	return nil
}

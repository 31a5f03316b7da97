package api

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// lastJobs reads the latest job of each box that has one.
func (s *Server) lastJobs(tx *ledger.Tx, boxes []ledger.Box) (map[box.Addr]*LastJob, error) {
	addrs := make([]box.Addr, len(boxes))
	for i, b := range boxes {
		addrs[i] = b.Address
	}
	found, err := tx.LastJobs(addrs)
	if err != nil {
		return nil, err
	}
	out := make(map[box.Addr]*LastJob, len(found))
	for addr, j := range found {
		if out[addr], err = lastOf(j); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lastOf reads a job of the ledger.
func lastOf(j ledger.Job) (*LastJob, error) {
	var doc struct{ Job job.Job }
	if err := json.Unmarshal(j.Doc, &doc); err != nil {
		return nil, fmt.Errorf("the job %s in the ledger: %w", j.ID, err)
	}
	return &LastJob{ID: j.ID, Action: doc.Job.Action, State: job.State(j.State), Since: doc.Job.Since, Outcome: doc.Job.Outcome,
		Class: doc.Job.Class, Up: doc.Job.Up, By: j.By, Text: doc.Job.Text}, nil
}

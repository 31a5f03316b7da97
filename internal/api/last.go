package api

import (
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
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
func lastOf(row ledger.Job) (*LastJob, error) {
	j, err := dispatch.Brief(row)
	if err != nil {
		return nil, err
	}
	return &LastJob{ID: row.ID, Action: j.Action, State: job.State(row.State), Since: j.Since, Outcome: j.Outcome, Class: j.Class, Up: j.Up,
		By: row.By, Text: j.Text}, nil
}

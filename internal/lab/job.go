package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
)

// Job is what the server's command line says of a job.
type Job struct {
	ID       string          `json:"id"`
	State    string          `json:"state"`
	Settled  bool            `json:"settled"` // what its state asks for is done, such as the boot file
	Outcome  box.Outcome     `json:"outcome"`
	Up       string          `json:"up"` // whether the own system answers: yes, no, "" if nobody asked
	Text     string          `json:"text"`
	Attempt  int             `json:"attempt"`
	Sent     int64           `json:"sent"` // bytes of objects that crossed the network
	Receipts []image.Receipt `json:"receipts"`
	HostKeys []string        `json:"hostKeys"` // of a box that is up for rescue
}

// Asked is a job that an admin waits for.
type Asked struct {
	lab  *Lab
	box  *Machine
	text string
	err  error
	done chan struct{}
}

// Ask asks the server for an action as an admin does, with `testbox ACTION BOX
// --wait`, and returns when the box is armed.
func (l *Lab) Ask(ctx context.Context, m *Machine, action box.Action, args ...string) (*Asked, error) {
	a := &Asked{lab: l, box: m, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.text, a.err = l.Testbox(ctx, append([]string{string(action), m.Addr.String(), "--wait", "--json"}, args...)...)
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !l.armed(ctx, m) {
		select {
		case <-a.done:
			return nil, errors.Join(a.err, fmt.Errorf("box %s was never armed: %s", m.Addr, a.text))
		case <-tick.C:
		}
	}
	return a, nil
}

// armed reports whether a box has its boot file, and the server has looked at it for the
// last time. A file that somebody changes before that is not the server's.
func (l *Lab) armed(ctx context.Context, m *Machine) bool {
	if !exists(l.BootFile(m.Addr)) {
		return false
	}
	j, err := l.LastJob(ctx, m)
	return err == nil && j.State != "queued" && (j.State != "armed" || j.Settled)
}

// Wait waits for the job's end. An error says that the action was not done, or that
// the box is still armed.
func (a *Asked) Wait() (*Job, error) {
	<-a.done
	if a.err != nil {
		return nil, a.err
	}
	jobs, err := parseJobs(a.text)
	if err != nil {
		return nil, err
	}
	if exists(a.lab.BootFile(a.box.Addr)) {
		return nil, fmt.Errorf("the job has ended, and the box is still armed: %s is there", a.lab.BootFile(a.box.Addr))
	}
	return &jobs[0], nil
}

// Job has the server do an action: it asks for it, restarts the box when that is
// armed, and waits for the job's end.
func (l *Lab) Job(ctx context.Context, m *Machine, action box.Action, args ...string) (*Job, error) {
	a, err := l.Ask(ctx, m, action, args...)
	if err != nil {
		return nil, err
	}
	if err := m.Restart(); err != nil {
		return nil, err
	}
	return a.Wait()
}

// LastJob is the latest job of a box.
func (l *Lab) LastJob(ctx context.Context, m *Machine) (*Job, error) {
	text, err := l.Testbox(ctx, "jobs", "--json", m.Addr.String())
	if err != nil {
		return nil, err
	}
	jobs, err := parseJobs(text)
	if err != nil {
		return nil, err
	}
	return &jobs[0], nil
}

// parseJobs parses what --json prints: a list of jobs, the latest first.
func parseJobs(text string) (jobs []Job, err error) {
	from := strings.IndexByte(text, '[')
	if from < 0 {
		from = len(text)
	}
	if err := json.NewDecoder(strings.NewReader(text[from:])).Decode(&jobs); err != nil || len(jobs) == 0 {
		return nil, fmt.Errorf("these are no jobs in JSON (%v): %s", err, text)
	}
	return jobs, nil
}

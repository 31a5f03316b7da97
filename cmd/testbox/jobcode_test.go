package main

import (
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

// TestJobCode: no job that is not known to be done has the exit code of one.
func TestJobCode(t *testing.T) {
	for _, st := range job.States {
		for _, o := range append(box.Outcomes(), job.Cancelled, "", "nonsense") {
			for _, up := range []job.Up{"", job.UpYes, job.UpNo, job.UpNotAsked} {
				j := api.Job{State: st, Outcome: o, Up: up, Settled: true}
				if code := jobCode(api.Job{State: st, Outcome: o, Up: up}); code != exitPending {
					t.Errorf("the state %s, whose effects are not carried out, has the exit code %d", st, code)
				}
				if done := st == job.Ended && o == box.Done && up != job.UpNo; (jobCode(j) == exitDone) != done {
					t.Errorf("%+v has the exit code %d", j, jobCode(j))
				}
			}
		}
	}
	for _, c := range []struct {
		j    api.Job
		want int
	}{
		{api.Job{State: job.Queued}, exitPending},
		{api.Job{State: job.Restarting, Outcome: box.Done}, exitPending},
		{api.Job{State: job.Rescue}, exitRescue},
		{api.Job{State: job.Held, Outcome: box.Refused}, exitFailed},
		{api.Job{State: job.Held, Outcome: job.Cancelled}, exitFailed},
		{api.Job{State: job.Ended, Outcome: box.Refused}, exitRefused},
		{api.Job{State: job.Ended, Outcome: box.Refused, Wrote: true}, exitFailed},
		{api.Job{State: job.Ended, Outcome: job.Cancelled}, exitCancelled},
		{api.Job{State: job.Ended, Outcome: box.Done, Up: job.UpNo}, exitNotUp},
		{api.Job{State: job.Ended, Outcome: box.Expired}, exitExpired},
		{api.Job{State: job.Ended, Outcome: box.BadSectors, Up: job.UpYes}, exitBadSectors},
		{api.Job{State: job.Ended, Outcome: box.Differs}, exitDiffer},
		{api.Job{State: job.Ended, Outcome: "nonsense"}, exitFailed},
	} {
		c.j.Settled = true
		if got := jobCode(c.j); got != c.want {
			t.Errorf("%+v has the exit code %d, not %d", c.j, got, c.want)
		}
	}
}

// TestJobInTime: who looks at a job of a schedule is told until when it has to begin.
func TestJobInTime(t *testing.T) {
	until := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	j := api.Job{ID: "1", Box: "10.0.0.1", Action: box.Backup, State: job.Armed, Attempt: 1, Until: until}
	const want = "armed; restart the box (it has to begin before 2026-11-30 06:00 UTC)"
	if text := jobText(j); !strings.Contains(text, want) {
		t.Errorf("%s", text)
	}
	j.State = job.Running
	if text := jobText(j); strings.Contains(text, "begin") {
		t.Errorf("%s", text)
	}
}

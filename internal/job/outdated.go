package job

import (
	"time"

	"testbox-imaging/internal/box"
)

// Outdated is what becomes of a job in a ledger that is an old copy. What came after
// the copy is not known, so the job must not be done, since it may have been done then.
// armed says that the box has a boot file of the job's arming. Then the job has not ended
// since, and a restore may have written to a disk.
func Outdated(j Job, armed bool, now time.Time) Job {
	if j.State == Ended || armed && (j.State == Held || j.State == Rescue) {
		return j
	}
	t := turn{Job: j, now: instant(now)}
	t.Step, t.Settled = t.Step+1, false
	t.Attempt = max(t.Attempt, 1) // a boot file may have been written since
	if armed {
		t.Wrote = t.Wrote || t.Action == box.Restore
	} else { // it was removed when the job had ended
		t.Wrote, t.TookOver = false, false
	}
	const text = "The ledger was lost, and what became of this job after its copy is not known."
	if t.State == Restarting {
		t.close(UpNotAsked, text)
	} else {
		t.end(Cancelled, ClassAdmin, text)
	}
	return t.Job
}

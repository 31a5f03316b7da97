package dispatch

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// Brief is a job as the ledger has it, for long lists. A running Dispatch may know
// more of it.
func Brief(row ledger.Job) (job.Job, error) {
	var doc struct{ Job job.Job }
	if err := json.Unmarshal(row.Doc, &doc); err != nil {
		return job.Job{}, fmt.Errorf("job %s: %w", row.ID, err)
	}
	doc.Job.Seed = job.Seed{}
	return doc.Job, nil
}

package dispatch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// Summary is what long lists say of a job.
type Summary struct {
	Action  box.Action
	State   job.State
	Since   time.Time
	Outcome box.Outcome
	Class   job.Class
	Up      job.Up
	Text    string
}

// Brief is a job as the ledger has it, for long lists. A running Dispatch may know
// more of it. It reads no more of the document than it needs, since a list of all boxes
// reads a thousand of them.
func Brief(row ledger.Job) (s Summary, err error) {
	fail := func(err error) (Summary, error) {
		return s, fmt.Errorf("job %s: its document is not readable: %w", row.ID, err)
	}
	in := json.NewDecoder(bytes.NewReader(row.Doc))
	if _, err := in.Token(); err != nil {
		return fail(err)
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fail(err)
		}
		if name, _ := key.(string); strings.EqualFold(name, "job") {
			if err := in.Decode(&s); err != nil {
				return fail(err)
			}
			return s, nil
		}
		var other json.RawMessage
		if err := in.Decode(&other); err != nil {
			return fail(err)
		}
	}
	return fail(errors.New("it has no job"))
}

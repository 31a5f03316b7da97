package api_test

import (
	"fmt"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

// BenchmarkBoxes lists 1000 boxes with the states of their latest jobs.
func BenchmarkBoxes(b *testing.B) {
	r := newRig(b)
	var targets []string
	must(b, r.ledger.Update(b.Context(), func(tx *ledger.Tx) error {
		for i := range 1000 {
			a := addr(b, fmt.Sprintf("10.1.%d.%d", i/250, i%250))
			targets = append(targets, a.String())
			err := tx.PutBox(ledger.Box{Address: a, Name: fmt.Sprintf("box-%d", i), Health: ledger.Good, Labels: []string{"ssd"},
				MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", i/250, i%250)}})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	c := r.root()
	for i := 0; i < len(targets); i += 100 {
		c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: targets[i:][:100]}, nil)
	}
	for b.Loop() {
		var list api.BoxList
		c.want(200, "GET", "/api/v1/boxes?limit=1000", nil, &list)
		if len(list.Boxes) != 1000 || list.Boxes[999].Last == nil {
			b.Fatalf("%d boxes", len(list.Boxes))
		}
	}
}

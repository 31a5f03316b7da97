package page_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// BenchmarkBoxes shows a page of 1000 boxes, with 100 jobs of each box in the ledger. Each page is read anew, since
// what was read is kept for a second.
func BenchmarkBoxes(b *testing.B) {
	r := newRig(b)
	must(b, r.lab.Ledger.Update(b.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
	at := time.Now().Add(-1000 * time.Hour)
	for i := range 1000 {
		a := addr(b, fmt.Sprintf("10.1.%d.%d", i/250, i%250+1))
		must(b, r.lab.Ledger.Update(b.Context(), func(tx *ledger.Tx) error {
			err := tx.PutBox(ledger.Box{Address: a, Name: fmt.Sprintf("box-%d", i), Health: ledger.Good, Labels: []string{"ssd"},
				Groups: []string{"rack"}, MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", i/250, i%250)}, LastSeen: at})
			for n := range 100 {
				id := fmt.Sprintf("j%d-%d", i, n)
				j := job.New(job.Order{ID: id, Box: a, Action: box.Backup, By: "x"}, job.Seed{}, at)
				j.State, j.Outcome, j.Settled = job.Ended, box.Done, true
				d, jsonErr := json.Marshal(map[string]any{"format": 1, "job": j})
				if err == nil {
					err = jsonErr
				}
				if err == nil {
					err = tx.AddJob(ledger.Job{ID: id, Box: a, State: string(job.Ended), Created: at.Add(time.Duration(n) * time.Minute), Changed: at,
						Ended: at, By: "x", Doc: d})
				}
			}
			return err
		}))
	}
	c := r.as(ledger.Token{Name: "v", Role: ledger.Operator})
	for b.Loop() {
		b.StopTimer()
		r.site.Forget()
		b.StartTimer()
		if text := c.shows("/"); strings.Count(text, "<tr id=") != 1000 {
			b.Fatalf("%d rows", strings.Count(text, "<tr id="))
		}
	}
}

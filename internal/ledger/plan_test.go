package ledger

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
)

// TestOpenJobsAreFewRows holds that a list of jobs that have not ended reads these alone, however many jobs a box or a
// person has had.
func TestOpenJobsAreFewRows(t *testing.T) {
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, err := box.ParseAddr("10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	type plan struct{ ID, Parent, Unused, Text string }
	scan := func(r row) (p plan, err error) { return p, r.Scan(&p.ID, &p.Parent, &p.Unused, &p.Text) }
	err = l.View(t.Context(), func(tx *Tx) error {
		for _, c := range []struct {
			filter JobFilter
			index  string
		}{
			{JobFilter{}, "jobs_created"},
			{JobFilter{Open: true}, "jobs_open"},
			{JobFilter{Open: true, Box: addr}, "jobs_open"},
			{JobFilter{Open: true, By: "nightly"}, "jobs_open"},
			{JobFilter{Open: true, By: "nightly", Box: addr, States: []string{"held"}}, "jobs_open"},
			{JobFilter{Box: addr}, "jobs_box"},
			{JobFilter{By: "nightly"}, "jobs_by"},
			{JobFilter{By: "nightly", Ended: time.Unix(1, 0)}, "jobs_by"},
		} {
			w, err := c.filter.where()
			if err != nil {
				return err
			}
			plans, err := many(tx, scan, "EXPLAIN QUERY PLAN "+selectJobs(w), append(w.args, 100)...)
			if err != nil {
				return err
			}
			if len(plans) != 1 || !strings.Contains(plans[0].Text, "USING INDEX "+c.index) {
				t.Errorf("%+v is read by %+v, and not by the index %s alone", c.filter, plans, c.index)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

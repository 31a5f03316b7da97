package dispatch

import (
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

func TestBrief(t *testing.T) {
	j := job.New(job.Order{ID: "j", Box: here, Action: box.Restore, By: "ann"}, job.Seed{1}, time.Unix(1e9, 5))
	j.State, j.Outcome, j.Class, j.Up, j.Text = job.Held, box.Failed, job.ClassBox, job.UpNo, "it broke"
	row, err := document{Job: j, Key: "k", Receipts: []image.Receipt{{Image: "sda"}}, Warnings: []string{"w"}}.row()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Brief(row)
	want := Summary{j.Action, j.State, j.Since, j.Outcome, j.Class, j.Up, j.Text}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, doc := range []string{``, `{}`, `[]`, `{"format":1}`, `{"format":1,"job":{"State":`, `{"job":7}`, `{"format":1,"job":{"State":"ended"`} {
		if got, err := Brief(ledger.Job{ID: "j", Doc: []byte(doc)}); err == nil {
			t.Errorf("%s is taken for %+v", doc, got)
		}
	}
}

package dispatch

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
)

// A job comes back from the ledger as it was, so that two of them can be compared.
func TestDocument(t *testing.T) {
	j := job.New(job.Order{ID: "1", Box: here, Action: box.Restore, By: "ann", WaitUp: true, Power: true, Arming: "0123456789abcdef"},
		job.Seed{1, 2}, time.Now())
	j, _ = job.Next(j, job.Slot{TakesOver: true, AllDisks: true}, time.Now(), limits)
	j, _ = job.Next(j, job.Hello{Secret: j.Seed.Secret(1), From: here, Session: job.Session{3}, Protocol: limits.Protocol}, time.Now(), limits)
	j, _ = job.Next(j, job.Report{Session: j.Session, Writes: true}, time.Now(), limits)
	doc := document{Format: docFormat, Job: j, Key: "k", Options: Options{Disks: []string{"sda"}, Map: []string{"sda=sdb"}, Image: "latest~1"},
		Image: &imageRef{"10.1.1.1", "20260101-000000"}, Receipts: receipt, Warnings: []string{"w"}, Sent: 5,
		Scopes: []scope{{Box: "10.1.1.1", Names: []string{"sda"}, Disks: []string{"sda"},
			Map: []string{"sda=sdb"}, List: "x"}}, Owes: []scope{{Unknown: true}}}
	row, err := doc.row()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseDocument(row.Doc)
	if err != nil || got.Job != j || !reflect.DeepEqual(got, doc) {
		t.Errorf("%+v becomes %+v, %v", doc, got, err)
	}
	if row.State != "running" || row.Key != "k" || row.By != "ann" || !row.Ended.IsZero() || !row.Created.Equal(j.Asked) {
		t.Errorf("the row is %+v", row)
	}
}

// What is not known is never taken for good, and a list that grows is given up.
func TestScopes(t *testing.T) {
	s := scope{Box: "a", Names: []string{"sda"}}
	if s.covers(scope{Unknown: true}) || (scope{Unknown: true}).covers(s) || !s.covers(s) || s.covers(scope{Box: "b", Names: s.Names}) {
		t.Error("a scope covers what it does not")
	}
	if m := (scope{Box: "a", Names: s.Names, Map: []string{"sda=sdb"}}); m.covers(s) || s.covers(m) || !m.covers(m) || m.equal(s) {
		t.Error("a restore by another map may have written to other disks")
	}
	if m := scopeOf(&image.Record{}, Options{Map: []string{"sdb=x", "sda=y"}}, nil).Map; !slices.Equal(m, []string{"sda=y", "sdb=x"}) {
		t.Errorf("the map is remembered as %q", m)
	}
	held := document{Job: job.Job{Order: job.Order{Action: box.Restore}, Wrote: true}}
	if all := held.leaves(); len(all) != 1 || s.coversAll(all) {
		t.Errorf("a restore that has written to nobody knows what leaves %+v", all)
	}
	held.Scopes = []scope{s, s}
	held.Owes = []scope{s}
	if all := held.leaves(); len(all) != 1 || !s.coversAll(all) {
		t.Errorf("it leaves %+v", all)
	}
	for n := range 4000 {
		held.Owes = append(held.Owes, scope{Box: "a", Names: []string{boxAddr(n + 1).String()}})
	}
	if all := held.leaves(); len(all) != 1 || !all[0].Unknown {
		t.Errorf("it leaves %d scopes", len(all))
	}
	r := &image.Record{Box: "a"}
	for range maxScoped + 1 {
		r.Disks = append(r.Disks, image.RecordedDisk{Name: "sda"})
	}
	if !scopeOf(r, Options{}, nil).Unknown {
		t.Error("a backup of very many disks is remembered disk by disk")
	}
}

// FuzzDocument reads whatever a damaged ledger may have.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"format":1,"job":{"ID":"1","Box":"10.1.1.1","State":"armed"},"options":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parseDocument(data)
		if err != nil {
			return
		}
		row, err := doc.row()
		if err != nil {
			return // such as a time that JSON does not have
		}
		again, err := parseDocument(row.Doc)
		if err != nil || again.Job != doc.Job {
			t.Errorf("%+v becomes %+v, %v", doc, again, err)
		}
		doc.leaves()
		statusOf(doc)
	})
}

// FuzzEvidence keeps any result small.
func FuzzEvidence(f *testing.F) {
	f.Add([]byte(`[{"image":"sda","disk":"sda","differ":[{"off":0,"len":1}]}]`), 3, "w")
	f.Fuzz(func(t *testing.T, data []byte, times int, warning string) {
		var receipts []image.Receipt
		if json.Unmarshal(data, &receipts) != nil || times < 0 || times > 1000 || len(warning) > 1024 {
			return
		}
		receipts, warnings := evidence(slices.Repeat(receipts, min(times, 100)), slices.Repeat([]string{warning}, times))
		if kept, err := json.Marshal([]any{receipts, warnings}); err != nil || len(kept) > maxEvidence {
			t.Errorf("%d bytes are kept, %v", len(kept), err)
		}
	})
}

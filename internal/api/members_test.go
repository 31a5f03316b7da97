package api_test

import (
	"errors"
	"slices"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/schedule"
)

// TestSchedulesOfABox: the page of a box names the schedules in which the box is, which it finds without the other boxes.
func TestSchedulesOfABox(t *testing.T) {
	words := []string{"group:rack", "rack", "group:none", "label:gpu", "label:none", "10.0.0.1", "box:10.0.0.1", "web", "box:web", "both",
		"group:both", "box:both", "52:54:00:00:00:01", "564d4a2c-11f5-8e2b-dead-000000000001", "nobody", "10.0.0.77",
		"GROUP:rack", "group:Rack", "Rack",
		"10.0.0.0/8"}
	var plans []*schedule.Plan
	for i, w := range words {
		p, err := schedule.New("s"+string(rune('a'+i)), schedule.Config{When: "30 2 * * *", Zone: "UTC", Action: box.Backup, Boxes: []string{w}})
		if err != nil {
			t.Fatalf("%s: %v", w, err)
		}
		plans = append(plans, p)
	}
	r := newRigWith(t, func(cfg *api.Config) { cfg.Schedules = plans })
	r.group("rack")
	r.group("both")
	boxes := []ledger.Box{
		{Address: addr(t, "10.0.0.1"), Name: "web", Groups: []string{"rack"}, Labels: []string{"gpu"}, MACs: []string{"52:54:00:00:00:01"},
			UUID: "564d4a2c-11f5-8e2b-dead-000000000001"},
		{Address: addr(t, "10.0.0.2"), Name: "both", Groups: []string{"rack", "both"}},
		{Address: addr(t, "10.0.0.3"), Groups: []string{"both"}, Labels: []string{"gpu"}},
		{Address: addr(t, "10.0.0.4"), Name: "old", Groups: []string{"rack"}, Labels: []string{"gpu"}, Health: ledger.Retired, Reason: "old"},
	}
	in := 0
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		for _, b := range boxes {
			if b.Health == "" {
				b.Health = ledger.Good
			}
			if err := tx.PutBox(b); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, b := range boxes {
		var v api.Box
		r.root().want(200, "GET", "/api/v1/boxes/"+b.Address.String(), nil, &v)
		var want []string
		must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
			for _, p := range plans {
				some, err := api.Boxes(tx, p.Boxes[0])
				if wrong := (*problem.Error)(nil); err != nil && !errors.As(err, &wrong) {
					return err
				}
				if slices.ContainsFunc(some, func(o ledger.Box) bool { return o.Address == b.Address }) {
					want = append(want, p.Name)
				}
			}
			return nil
		}))
		var got []string
		for _, s := range v.Schedules {
			got = append(got, s.Name)
		}
		if in += len(got); !slices.Equal(got, want) {
			t.Errorf("%s is in %q, and not in %q", b.Address, want, got)
		}
	}
	if in < 10 {
		t.Errorf("the boxes are in %d schedules", in)
	}
}

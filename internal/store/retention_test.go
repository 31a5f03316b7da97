package store

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/image"
)

func TestRetention(t *testing.T) {
	rs := backupsAt("a", "2026-09-30 12:00:00", "2026-10-15 12:00:00", "2026-11-08 23:00:00", "2026-11-09 01:00:00",
		"2026-11-25 08:00:00", "2026-11-26 08:00:00", "2026-11-26 20:00:00", "2026-11-27 08:00:00")
	rs[1].Pinned = true
	for _, tt := range []struct {
		policy Policy
		keep   []int
	}{
		{Policy{}, []int{1, 7}}, // the last one in any case
		{Policy{Last: 3}, []int{1, 5, 6, 7}},
		{Policy{Daily: 2}, []int{1, 6, 7}},
		{Policy{Daily: 3}, []int{1, 4, 6, 7}},
		{Policy{Weekly: 3}, []int{1, 2, 3, 7}}, // Sunday the 8th and Monday the 9th are in two weeks
		{Policy{Monthly: 2}, []int{1, 7}},      // October's is pinned too
		{Policy{Monthly: 9}, []int{0, 1, 7}},
		{Policy{Last: 1, Daily: 2, Weekly: 2}, []int{1, 3, 6, 7}},
		{Policy{Last: 100}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		var got []int
		for i, k := range PlanRetention(rs, tt.policy) {
			if k.Record != rs[i] {
				t.Fatal("the plan is not in the order of the records")
			}
			if len(k.Why) > 0 {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, tt.keep) {
			t.Errorf("%+v keeps %v, not %v", tt.policy, got, tt.keep)
		}
	}
}

// TestRetentionNeverTakesTooMuch: whatever the policy, what is protected stays,
// no box is left with nothing, and to keep more never deletes more.
func TestRetentionNeverTakesTooMuch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rs []*image.Record
		for range rapid.IntRange(1, 30).Draw(t, "records") {
			at := time.Unix(rapid.Int64Range(0, 400*86400).Draw(t, "time"), 0).UTC()
			rs = append(rs, &image.Record{
				Box: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "box"), ID: at.Format("20060102-150405"), Time: at,
				Pinned: rapid.IntRange(0, 9).Draw(t, "pinned") == 0, Baseline: rapid.IntRange(0, 9).Draw(t, "baseline") == 0,
			})
		}
		n := rapid.IntRange(0, 5)
		p := Policy{n.Draw(t, "last"), n.Draw(t, "daily"), n.Draw(t, "weekly"), n.Draw(t, "monthly")}
		more := Policy{p.Last + 1, p.Daily, p.Weekly + 2, p.Monthly}
		plan, larger := PlanRetention(rs, p), PlanRetention(rs, more)
		kept := map[string]int{}
		for i, k := range plan {
			if len(k.Why) > 0 {
				kept[k.Record.Box]++
			} else if k.Record.Pinned || k.Record.Baseline {
				t.Fatal("a protected backup is deleted")
			}
			if len(k.Why) > 0 && len(larger[i].Why) == 0 {
				t.Fatalf("%+v keeps %s, %+v does not", p, k.Record.ID, more)
			}
		}
		for _, r := range rs {
			if kept[r.Box] == 0 {
				t.Fatalf("box %s is left with nothing", r.Box)
			}
		}
	})
}

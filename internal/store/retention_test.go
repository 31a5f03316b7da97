package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// always keeps the same of each box.
func always(p Policy) func(string) Policy { return func(string) Policy { return p } }

// TestRetentionByBox: each box has a policy of its own, and of a box without one all is kept.
func TestRetentionByBox(t *testing.T) {
	var rs []*image.Record
	for _, name := range []string{"a", "b", "c"} {
		rs = append(rs, backupsAt(name, "2026-11-25 08:00:00", "2026-11-26 08:00:00", "2026-11-27 08:00:00")...)
	}
	keep := func(name string) Policy { return map[string]Policy{"a": {Last: 1}, "b": {Daily: 2}}[name] }
	kept := map[string]int{}
	for _, k := range PlanRetention(rs, keep, nil, rs[2].Time) {
		if len(k.Why) > 0 {
			kept[k.Record.Box]++
		}
	}
	if kept["a"] != 1 || kept["b"] != 2 || kept["c"] != 3 {
		t.Errorf("%v", kept)
	}
}

func TestRetention(t *testing.T) {
	rs := backupsAt("a", "2026-09-30 12:00:00", "2026-10-15 12:00:00", "2026-11-08 23:00:00", "2026-11-09 01:00:00",
		"2026-11-25 08:00:00", "2026-11-26 08:00:00", "2026-11-26 20:00:00", "2026-11-27 08:00:00")
	rs[1].Pinned = true
	for _, tt := range []struct {
		policy Policy
		keep   []int
	}{
		{Policy{}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{Policy{Last: 1}, []int{1, 7}},
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
		for i, k := range PlanRetention(rs, always(tt.policy), nil, rs[7].Time) {
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
			at := birth.Add(time.Duration(rapid.Int64Range(-40*86400, 400*86400).Draw(t, "time")) * time.Second)
			rs = append(rs, &image.Record{
				Box: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "box"), ID: at.Format("20060102-150405"), Time: at,
				Pinned: rapid.IntRange(0, 9).Draw(t, "pinned") == 0, Baseline: rapid.IntRange(0, 9).Draw(t, "baseline") == 0,
			})
		}
		now := birth.Add(300 * 24 * time.Hour)
		damages := Damages{}
		for i, r := range rs {
			for _, name := range rapid.SampledFrom([][]string{{"sda"}, {"sdb"}, {"sda", "sdb"}}).Draw(t, "disks") {
				d := image.RecordedDisk{Name: name, Root: rootOf(fmt.Sprint(i, name))}
				switch rapid.IntRange(0, 3).Draw(t, "damage") {
				case 0:
					d.Bad = []image.Range{{Len: 512}}
				case 1:
					damages[d.Root] = Damage{Root: d.Root, Bytes: 1}
				}
				r.Disks = append(r.Disks, d)
			}
		}
		n := rapid.IntRange(0, 5)
		p := Policy{n.Draw(t, "last"), n.Draw(t, "daily"), n.Draw(t, "weekly"), n.Draw(t, "monthly")}
		more := Policy{p.Last + 1, p.Daily, p.Weekly + 2, p.Monthly}
		if p == (Policy{}) {
			more = p // which keeps all
		}
		plan, larger := PlanRetention(rs, always(p), damages, now), PlanRetention(rs, always(more), damages, now)
		kept := map[string]int{}
		keptDisk, whole, keptWhole := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for i, k := range plan {
			if len(k.Why) > 0 {
				kept[k.Record.Box]++
			} else if k.Record.Pinned || k.Record.Baseline {
				t.Fatal("a protected backup is deleted")
			}
			// A larger policy may need no extra backup for its last whole disk.
			if extra := strings.HasPrefix(strings.Join(k.Why, ""), "last whole"); len(k.Why) > 0 && len(larger[i].Why) == 0 && !extra {
				t.Fatalf("%+v keeps %s, %+v does not", p, k.Record.ID, more)
			}
			if misdated(k.Record, now) != "" && len(k.Why) == 0 {
				t.Fatal("a backup whose date is wrong is deleted")
			}
			for j := range k.Record.Disks {
				d := &k.Record.Disks[j]
				name := k.Record.Box + " " + d.Name
				whole[name] = whole[name] || damages.Whole(d)
				keptDisk[name] = keptDisk[name] || len(k.Why) > 0
				keptWhole[name] = keptWhole[name] || len(k.Why) > 0 && damages.Whole(d)
			}
		}
		for _, r := range rs {
			if kept[r.Box] == 0 {
				t.Fatalf("box %s is left with nothing", r.Box)
			}
		}
		for name := range keptDisk {
			if keptDisk[name] && whole[name] && !keptWhole[name] {
				t.Fatalf("%s is left with damaged images only", name)
			}
		}
	})
}

// rootOf is a name that each text has of its own.
func rootOf(text string) object.Name { return object.NameOf([]byte(text)) }

// TestRetentionOfDamaged: the last whole backup of each disk stays, whatever
// else is kept, as long as the disk is in what is kept.
func TestRetentionOfDamaged(t *testing.T) {
	rs := backupsAt("a", "2026-11-20 12:00:00", "2026-11-21 12:00:00", "2026-11-22 12:00:00", "2026-11-23 12:00:00", "2026-11-24 12:00:00")
	for i, r := range rs {
		for j := range r.Disks {
			r.Disks[j].Root = rootOf(fmt.Sprintf("%d%d", i, j))
		}
	}
	rs[0].Disks = append(rs[0].Disks, image.RecordedDisk{Name: "sdc", Root: rootOf("gone")})
	bad := []image.Range{{Len: 512}}
	rs[4].Disks[0].Bad, rs[3].Disks[0].Bad, rs[2].Disks[0].Bad = bad, bad, bad // sda: whole in 0 and 1
	rs[4].Disks[1].Bad = bad                                                   // sdb: 3 is damaged in the store
	damages := Damages{rootOf("31"): {Root: rootOf("31"), Bytes: 1}}
	for last, want := range map[int]string{1: "1: last whole sda; 2: last whole sdb; 4: last", 4: "1: last; 2: last; 3: last; 4: last"} {
		var got []string
		for i, k := range PlanRetention(rs, always(Policy{Last: last}), damages, rs[4].Time) {
			if len(k.Why) > 0 {
				got = append(got, fmt.Sprint(i, ": ", strings.Join(k.Why, ", ")))
			}
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("the last %d: kept are %s, not %s", last, strings.Join(got, "; "), want)
		}
	}
	gone := func(some ...int) func(*image.Record) bool {
		return func(r *image.Record) bool { return slices.Contains(some, slices.Index(rs, r)) }
	}
	for want, some := range map[string][]int{"[]": {0, 3}, "[sda]": {0, 1}, "[sda sdb]": {0, 1, 2}} {
		if got := fmt.Sprint(LastWhole(rs, gone(some...), damages, "a")); got != want {
			t.Errorf("without %v there is no whole %s, not %s", some, got, want)
		}
	}
	if got := LastWhole(rs, gone(0, 1, 2, 3, 4), damages, "a"); len(got) > 0 {
		t.Errorf("all are deleted on purpose: %v", got)
	}
}

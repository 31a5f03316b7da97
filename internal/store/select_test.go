package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/image"
)

// backupsAt are records of a box, the oldest first.
func backupsAt(box string, times ...string) (out []*image.Record) {
	for _, text := range times {
		t, err := time.Parse("2006-01-02 15:04:05", text)
		if err != nil {
			panic(err)
		}
		out = append(out, &image.Record{Format: 1, Box: box, ID: t.Format("20060102-150405"), Time: t,
			Disks: []image.RecordedDisk{{Name: "sda"}, {Name: "sdb"}}})
	}
	return out
}

func TestSelect(t *testing.T) {
	rs := backupsAt("10.0.0.1", "2026-10-31 23:59:59", "2026-11-01 00:00:00", "2026-11-27 08:00:00", "2026-11-27 10:30:00")
	rs = append(rs, backupsAt("10.0.0.2", "2026-11-27 09:00:00")...)
	rs[1].Baseline = true
	for text, want := range map[string]int{
		"10.0.0.1": 1, "10.0.0.1@baseline": 1, "10.0.0.1@latest": 3, "10.0.0.1@latest~0": 3, "10.0.0.1@latest~3": 0,
		"10.0.0.1@2026": 3, "10.0.0.1@2026-10": 0, "10.0.0.1@2026-11-27": 3, "10.0.0.1@2026-11-27T08": 2, "10.0.0.1@20261127-08": 2,
		"10.0.0.1@2026-11-27T08:00:00Z": 2, "10.0.0.1@20261031-235959": 0, "10.0.0.1@2026-11-27 10:30": 3,
		"10.0.0.1:sdb": 1, "10.0.0.1@latest~1:sda": 2, "10.0.0.1@2026-11-27T10:30:sda": 3, "10.0.0.2": 4,
		"10.0.0.1@latest~4": -1, "10.0.0.1@2025": -1, "10.0.0.2@baseline": -1, "10.0.0.3": -1, "10.0.0.1:sdc": -1, "10.0.0.1@20261127-000000": -1,
	} {
		sel, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		r, err := Select(rs, nil, sel, time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC))
		no := ErrNoBackup
		if sel.Disk == "sdc" {
			no = ErrNoImage
		}
		switch {
		case want < 0 && !errors.Is(err, no):
			t.Errorf("%s: %+v, %v", text, r, err)
		case want >= 0 && (err != nil || r != rs[want]):
			t.Errorf("%s is %+v, %v, not %s", text, r, err, rs[want].ID)
		}
	}
}

func TestSelectorRefused(t *testing.T) {
	for _, text := range []string{
		"", "@latest", ":sda", "a b", "10.0.0.1@", "10.0.0.1@lates", "10.0.0.1@latest~", "10.0.0.1@latest~-1", "10.0.0.1@latest~01",
		"10.0.0.1@20", "10.0.0.1@2026-1", "10.0.0.1@2026-1-2", "10.0.0.1@2026-11-2", "10.0.0.1@20261127T1", "10.0.0.1@2026-11-27T10:30:00:00",
		"10.0.0.1@yesterday", "../x", "-x", "10.0.0.1@2026@2026",
	} {
		if sel, err := ParseSelector(text); err == nil {
			t.Errorf("%q is taken for %+v", text, sel)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "web@latest~1:sda", "web@2026-11-27T10:30", "web@baseline"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sel, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(sel.String())
		if err != nil || again != sel {
			t.Fatalf("%q is %+v, and that is %+v, %v", text, sel, again, err)
		}
		Select(backupsAt(sel.Box, "2026-11-27 08:00:00"), nil, sel, time.Now())
	})
}

// TestWrongClocks: what a clock said that was wrong is not followed.
func TestWrongClocks(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		times  []string
		after  map[int]int // of a backup -> the one that was there
		latest []int       // the last one, the one before, and so on
		keep   []int       // by keep-last 1
	}{
		"all right":                      {[]string{"2026-11-26", "2026-11-27"}, nil, []int{1, 0}, []int{1}},
		"one in 2037":                    {[]string{"2026-11-26", "2026-11-27", "2037-01-01"}, nil, []int{1, 0}, []int{1, 2}},
		"one in 2037, others after it":   {[]string{"2026-11-26", "2026-11-27", "2037-01-01"}, map[int]int{1: 2, 0: 2}, []int{1, 0}, []int{1, 2}},
		"one in 1970":                    {[]string{"1970-01-01", "2026-11-26", "2026-11-27"}, nil, []int{2, 1}, []int{0, 2}},
		"the last one in 1970":           {[]string{"1970-01-01", "2026-11-26", "2026-11-27"}, map[int]int{0: 2}, []int{0, 2, 1}, []int{0}},
		"the last two in 1970":           {[]string{"1970-01-01", "1970-01-02", "2026-11-27"}, map[int]int{0: 2, 1: 0}, []int{1, 0, 2}, []int{1}},
		"a month too early":              {[]string{"2026-10-27", "2026-11-01", "2026-11-27"}, map[int]int{0: 2}, []int{0, 2, 1}, []int{0}},
		"a day ahead, which has passed":  {[]string{"2026-11-26", "2026-11-27"}, map[int]int{0: 1}, []int{0, 1}, []int{0}},
		"all in the future":              {[]string{"2030-01-01", "2031-01-01"}, nil, []int{1, 0}, []int{0, 1}},
		"a circle":                       {[]string{"2026-11-26", "2026-11-27"}, map[int]int{0: 1, 1: 0}, nil, nil},
		"after one that is not there":    {[]string{"2026-11-26", "2026-11-27"}, map[int]int{0: 99}, []int{1, 0}, []int{1}},
		"in 1970, after one that is not": {[]string{"1970-01-01", "2026-11-27"}, map[int]int{0: 99}, []int{1}, []int{0, 1}},
	} {
		for i := range c.times {
			c.times[i] += " 08:00:00"
		}
		rs := backupsAt("a", c.times...)
		for i, j := range c.after {
			rs[i].After = "20200101-000000"
			if j < len(rs) {
				rs[i].After = rs[j].ID
			}
		}
		for n := range len(rs) + 1 {
			r, err := Select(rs, nil, Selector{Box: "a", When: fmt.Sprintf("latest~%d", n)}, now)
			if c.latest == nil {
				continue // any order will do
			}
			if n < len(c.latest) && (err != nil || r != rs[c.latest[n]]) || n >= len(c.latest) && err == nil {
				t.Errorf("%s: latest~%d is %v, %v", name, n, r, err)
			}
		}
		var keep []int
		for i, k := range PlanRetention(rs, always(Policy{Last: 1}), nil, now) {
			if len(k.Why) > 0 {
				keep = append(keep, i)
			}
		}
		if c.keep != nil && !slices.Equal(keep, c.keep) {
			t.Errorf("%s: kept are %v, not %v", name, keep, c.keep)
		}
	}
}

func TestNear(t *testing.T) {
	rs := append(backupsAt("web-1", "2026-11-27 08:00:00"), backupsAt("10.40.41.42", "2026-11-27 08:00:00")...)
	for name, want := range map[string]string{
		"web1": "[web-1]", "WEB-1": "[web-1]", "wbe-1": "[web-1]", "web": "[web-1]", "10.40.41.43": "[10.40.41.42]",
		"10.40.14.42": "[10.40.41.42]",
		"typo":        "[]", "x": "[]", "database": "[]",
	} {
		if got := fmt.Sprint(Near(rs, name)); got != want {
			t.Errorf("near %s are %s, not %s", name, got, want)
		}
	}
}

// TestSelectDamaged: where a record that cannot be read may be the one that is
// meant, no other backup is taken for it.
func TestSelectDamaged(t *testing.T) {
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	rs := backupsAt("a", "2026-11-01 00:00:00", "2026-11-20 08:00:00", "2026-11-20 08:00:00", "2026-11-21 10:00:00")
	rs[2].ID += "-9"
	late := backupsAt("a", "2026-11-22 10:00:00")
	late[0].After = "20261123-100000" // that one's clock was wrong
	base := backupsAt("a", "2026-11-02 00:00:00")
	base[0].Baseline = true
	for _, tt := range []struct {
		what    string
		of      []*image.Record
		damaged string
		when    string
		want    string // the id, or "refused"
		instead string
	}{
		{"the newest", rs, "20261121-100001", "latest", "refused", "20261121-100000"},
		{"the newest of a second", rs, "20261121-100000-2", "latest", "refused", "20261121-100000"},
		{"an older one", rs, "20261121-095959", "latest", "20261121-100000", ""},
		{"an older one, counted", rs, "20261121-095959", "latest~1", "refused", "20261120-080000-9"},
		{"the tenth of a second is after the ninth", rs[:3], "20261120-080000-10", "latest", "refused", "20261120-080000-9"},
		{"the second of a second is before the ninth", rs[:3], "20261120-080000-2", "latest", "20261120-080000-9", ""},
		{"one dated in the future", rs, "20370101-000000", "latest", "20261121-100000", ""},
		{"one of a clock that lost its time", rs, "19700101-000010", "latest", "refused", "20261121-100000"},
		{"one that a readable one came after", append(rs[:4:4], late...), "20261123-100000", "latest", "20261122-100000", ""},
		{"a baseline, perhaps", rs, "20261102-000000", "", "refused", "20261121-100000"},
		{"a baseline, perhaps", rs, "20261102-000000", "baseline", "refused", ""},
		{"a readable baseline", append(rs[:4:4], base...), "20261121-100001", "", "20261102-000000", ""},
		{"a readable baseline", append(rs[:4:4], base...), "20261121-100001", "baseline", "20261102-000000", ""},
		{"of that day, later", rs, "20261120-090000", "2026-11-20", "refused", "20261120-080000-9"},
		{"of that day, earlier", rs, "20261120-070000", "2026-11-20", "20261120-080000-9", ""},
		{"of another day", rs, "20261122-070000", "2026-11-20", "20261120-080000-9", ""},
		{"alone of that day", rs, "20261122-070000", "2026-11-22", "refused", ""},
		{"by id", rs, "20261122-070000", "20261122-070000", "refused", ""},
		{"another id", rs, "20261122-070000", "20261101-000000", "20261101-000000", ""},
		{"too far back", rs, "20261110-000000", "latest~4", "refused", ""},
		{"alone", nil, "20261122-070000", "", "refused", ""},
	} {
		of := slices.Clone(tt.of)
		slices.SortFunc(of, compareRecords)
		broken := errors.New("broken")
		damaged := []*RecordError{{"a", tt.damaged, broken}, {"b", "20261127-000000", broken}, {"a", "x", broken}}
		r, err := Select(of, damaged, Selector{Box: "a", When: tt.when}, now)
		got, instead := "refused", ""
		var unreadable *UnreadableError
		if err == nil {
			got = r.ID
		} else if !errors.As(err, &unreadable) {
			t.Errorf("%s, %q: %v", tt.what, tt.when, err)
			continue
		} else if unreadable.Instead != nil {
			instead = unreadable.Instead.ID
		}
		if got != tt.want || instead != tt.instead {
			t.Errorf("%s, %q: %s, instead of it %q, %v", tt.what, tt.when, got, instead, err)
		}
	}
}

// TestAfterDamaged: a new backup comes after one that is dated later, also if
// that one's record cannot be read.
func TestAfterDamaged(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 3))
	ahead := mustBackup(t, s, "a", time.Now().Add(10*time.Minute), d)
	name := recordName("a", ahead.ID)
	flip(t, blobs, name, 999)
	if r := mustBackup(t, s, "a", time.Time{}, d); r.After != ahead.ID {
		t.Errorf("it comes after %q, not %s", r.After, ahead.ID)
	}
	flip(t, blobs, name, 999)
}

// TestSelectedIsMeant: what is taken beside records that cannot be read is what
// would be taken if they could be. What a damaged record said of itself beside
// its time, that it is the baseline or comes after another, nobody knows: a
// baseline is in no doubt if one can be read.
func TestSelectedIsMeant(t *testing.T) {
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		day := 24 * time.Hour
		age := rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour, day, day + time.Hour, -time.Hour, 30 * 365 * day})
		ages := rapid.SliceOfN(age, 1, 8).Draw(t, "ages")
		var all, readable []*image.Record
		var damaged []*RecordError
		taken := map[string]int{}
		for i, age := range ages {
			r := &image.Record{Box: "a", Time: now.Add(-age), Disks: []image.RecordedDisk{{Name: "sda"}}}
			r.ID = r.Time.Format(idTime)
			if taken[r.ID]++; taken[r.ID] > 1 {
				r.ID += fmt.Sprintf("-%d", taken[r.ID])
			}
			all = append(all, r)
			if rapid.Bool().Draw(t, "damaged") {
				damaged = append(damaged, &RecordError{"a", r.ID, errors.New("broken")})
				continue
			}
			readable = append(readable, r)
			if i > 0 && rapid.Bool().Draw(t, "after") {
				r.After = all[rapid.IntRange(0, i-1).Draw(t, "which")].ID
			}
		}
		if i := rapid.IntRange(0, 2*len(all)).Draw(t, "baseline"); i < len(all) {
			all[i].Baseline = true
		}
		slices.SortFunc(all, compareRecords)
		slices.SortFunc(readable, compareRecords)
		when := rapid.SampledFrom([]string{"", "latest", "latest~1", "latest~2", "baseline",
			"2026-11", "2026-11-27", "20261127-000000", "20261127-000000-2"}).Draw(t, "when")
		got, err := Select(readable, damaged, Selector{Box: "a", When: when}, now)
		want, wantErr := Select(all, nil, Selector{Box: "a", When: when}, now)
		if err == nil && (wantErr != nil || got.ID != want.ID) {
			t.Fatalf("%q is %s, and would be %v, %v", when, got.ID, want, wantErr)
		}
		if errors.Is(err, ErrNoBackup) && wantErr == nil {
			t.Fatalf("%q is nothing, and would be %s", when, want.ID)
		}
	})
}

// TestOrderStays: what is left when backups are deleted, or have their time put
// right, is in the order that it was in.
func TestOrderStays(t *testing.T) {
	s := newStore(t, &mem.Store{})
	d := newDisk(seeds(1, 3))
	var rs []*image.Record
	for i, text := range []string{
		"2026-11-20 08:00:00", "2026-11-21 08:10:00", "2026-11-21 08:00:00", "1970-01-01 00:00:05", "2026-11-21 08:05:00", "1970-01-01 00:00:04",
	} {
		r := recordOf("a", backupsAt("a", text)[0].Time, d)
		if i > 1 {
			r.After = rs[i-1].ID // as a clock that goes back makes it
		}
		b := s.Begin()
		must(t, d.save(t.Context(), b))
		must(t, b.Commit(t.Context(), r))
		b.Close()
		rs = append(rs, r)
	}
	wantOrder := func(what string, want ...int) {
		t.Helper()
		all := records(t, s)
		for n, i := range want {
			r, err := Select(all, nil, Selector{Box: "a", When: fmt.Sprintf("latest~%d", n)}, time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC))
			if err != nil || r.ID != rs[i].ID {
				t.Fatalf("%s: latest~%d is %v, %v, not %s", what, n, r, err, rs[i].ID)
			}
		}
	}
	wantOrder("all", 5, 4, 3, 2, 1, 0)
	must(t, s.Delete(t.Context(), rs[2], rs[3]))
	wantOrder("two deleted", 5, 4, 1, 0)
	var err error
	rs[1], err = s.SetTime(t.Context(), "a", rs[1].ID, rs[1].Time.Add(time.Minute))
	must(t, err)
	wantOrder("a time put right", 5, 4, 1, 0)
	must(t, s.DeleteDamaged(t.Context(), &RecordError{"a", rs[4].ID, errors.New("broken")}))
	wantOrder("one given up", 5, 1, 0)
	must(t, s.Delete(t.Context(), rs[1]))
	wantOrder("one is left", 5, 0)
	must(t, s.Delete(t.Context(), rs[0], rs[5]))
}

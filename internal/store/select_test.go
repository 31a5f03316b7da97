package store

import (
	"errors"
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

// backupsAt are records of a box, the oldest first.
func backupsAt(box string, times ...string) (out []*image.Record) {
	for _, text := range times {
		t, err := time.Parse("2006-01-02 15:04:05", text)
		if err != nil {
			panic(err)
		}
		out = append(out, &image.Record{Format: 1, Box: box, ID: t.Format("20060102-150405"), Time: t, Disks: []image.RecordedDisk{{Name: "sda"}, {Name: "sdb"}}})
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
		r, err := Select(rs, sel)
		switch {
		case want < 0 && !errors.Is(err, ErrNoImage):
			t.Errorf("%s: %+v, %v", text, r, err)
		case want >= 0 && (err != nil || r != rs[want]):
			t.Errorf("%s is %+v, %v, not %s", text, r, err, rs[want].ID)
		}
	}
}

func TestSelectorRefused(t *testing.T) {
	for _, text := range []string{
		"", "@latest", ":sda", "a b", "10.0.0.1@", "10.0.0.1@lates", "10.0.0.1@latest~", "10.0.0.1@latest~-1", "10.0.0.1@latest~01",
		"10.0.0.1@20", "10.0.0.1@2026-11-27T10:30:00:00", "10.0.0.1@yesterday", "../x", "-x", "10.0.0.1@2026@2026",
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
		Select(backupsAt(sel.Box, "2026-11-27 08:00:00"), sel)
	})
}

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
)

// folderSize is the length of all files in a folder.
func folderSize(t testing.TB, path string) (n int64) {
	t.Helper()
	must(t, filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, infoErr := d.Info()
			must(t, infoErr)
			n += info.Size()
		}
		return err
	}))
	return n
}

// near reports whether two numbers of bytes are the same but for a share.
func near(a, b, percent int64) bool { return (a-b)*100 <= b*percent && (b-a)*100 <= b*percent }

// TestStatsAddUp: every byte of the store's files is in one of the figures.
func TestStatsAddUp(t *testing.T) {
	path := folder(t)
	s := openDir(t, path, false)
	d, e, f := newDisk(seeds(1, 80)), newDisk(seeds(1, 80), seeds(200, 80)), newDisk(seeds(400, 40))
	mustBackup(t, s.Store, "10.0.0.1", day(1), d)
	mustBackup(t, s.Store, "10.0.0.2", day(1), e)
	mustBackup(t, s.Store, "10.0.0.2", day(2), e)
	must(t, s.Delete(t.Context(), mustBackup(t, s.Store, "10.0.0.3", day(1), f)))
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(path, "packs", "data-00000099.tmp"), make([]byte, 5000), 0o600)) // of a process that was killed
	s = openDir(t, path, true)
	defer s.Close()
	st, err := s.Stats(t.Context())
	must(t, err)
	if st.Alone+st.Shared+st.Unused+st.Writing != st.Stored || st.Stored+st.Records+st.Index+st.Other != st.Files ||
		st.Files != folderSize(t, path) {
		t.Errorf("%+v do not add up to the %d bytes that there are", st, folderSize(t, path))
	}
	if st.Boxes[0].Alone > st.Stored/20 || !near(st.Boxes[1].Alone, 80*2100, 15) || !near(st.Shared, 80*2100, 15) ||
		!near(st.Unused, 40*2100, 15) || st.Other < 5000 {
		t.Errorf("%+v", st)
	}
}

// TestFreed: a deletion says about what a collection then gets back.
func TestFreed(t *testing.T) {
	blobs, s := onBlobs(t)
	keep, gone := newDisk(mixed(seeds(1, 30), seeds(300, 30))), newDisk(mixed(seeds(1, 30), seeds(600, 90)))
	mustBackup(t, s, "10.0.0.1", day(1), keep)
	r, twin := mustBackup(t, s, "10.0.0.2", day(1), gone), mustBackup(t, s, "10.0.0.2", day(2), gone)
	if n, err := s.Freed(t.Context(), records(t, s)[1:2]); err != nil || n != 0 {
		t.Errorf("%d bytes would come back, of what another backup needs too: %v", n, err)
	}
	said, err := s.Freed(t.Context(), records(t, s)[1:])
	must(t, err)
	before, _ := stored(t, blobs)
	must(t, s.Delete(t.Context(), r, twin))
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	gain := plan.Gain()
	res, err := s.GC(t.Context(), plan)
	must(t, err)
	after, _ := stored(t, blobs)
	if res.Freed != before-after || !near(gain, res.Freed, 5) || !near(said, res.Freed, 10) {
		t.Errorf("%d bytes became %d: %d said before, %d planned, %d said after", before, after, said, gain, res.Freed)
	}
	flip(t, blobs, recordName("10.0.0.1", "20261101-100000"), 900)
	if n, err := s.Freed(t.Context(), nil); err == nil {
		t.Errorf("%d bytes, though nobody knows what a damaged record needs", n)
	}
}

// TestPlanBesideAWriter: what a running backup has written is not offered.
func TestPlanBesideAWriter(t *testing.T) {
	path := folder(t)
	w := openDir(t, path, false)
	must(t, w.Delete(t.Context(), mustBackup(t, w.Store, "10.0.0.1", day(1), newDisk(seeds(1, 40)))))
	must(t, w.Close())
	w = openDir(t, path, false)
	b := w.Begin()
	d := newDisk(seeds(100, 40))
	must(t, d.save(t.Context(), b))
	w.objects.sealAll()
	r := openDir(t, path, true)
	plan, err := r.PlanGC(t.Context())
	must(t, err)
	removed, size, _ := plan.count(GCRemove)
	if removed != 2 || plan.Fresh != 2 || !near(size, plan.FreshLen, 10) || plan.Gain() != size {
		t.Errorf("%d packs would go, %d are new\n%v", removed, plan.Fresh, plan)
	}
	if text := plan.String(); !strings.Contains(text, "another process writes to the store (process ") || strings.Contains(text, firstWord) {
		t.Error(text)
	}
	st, err := r.Stats(t.Context())
	if err != nil || st.Writing != plan.FreshLen || !near(st.Unused, size, 1) {
		t.Errorf("%+v, %v", st, err)
	}
	must(t, r.Close())
	if _, err := OpenDir(t.Context(), path, nil, false, nil); !errors.Is(err, ErrLocked) || strings.Contains(err.Error(), firstWord) {
		t.Errorf("%v", err)
	}
	record := recordOf("10.0.0.2", day(2), d)
	must(t, b.Commit(t.Context(), record))
	b.Close()
	must(t, w.Close())
	r = openDir(t, path, true)
	defer r.Close()
	if plan, err = r.PlanGC(t.Context()); err != nil || plan.Beside != "" || plan.Fresh != 0 {
		t.Errorf("%v, %v", plan, err)
	}
}

// TestSpaceOfDamage: of what a page that is lost may need, nothing is promised.
func TestSpaceOfDamage(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	mustBackup(t, s, "10.0.0.1", day(1), newDisk(seeds(1, 20)))
	mustBackup(t, s, "10.0.0.2", day(1), newDisk(seeds(50, 20)))
	flip(t, blobs, packsOf(t, blobs, trees)[0], 8*120)
	st, err := s.Stats(t.Context())
	if err != nil || st.Dead != -1 || st.Unknown == "" || st.Alone+st.Shared+st.Unused != st.Stored {
		t.Errorf("%+v, %v", st, err)
	}
	if n, err := s.Freed(t.Context(), records(t, s)[1:]); err == nil {
		t.Errorf("%d bytes, though nobody knows what a damaged image needs", n)
	}
}

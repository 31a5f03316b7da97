package store

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
)

// commit makes a backup of a small disk.
func commit(t testing.TB, s *Store, box string, seed byte) *image.Record {
	t.Helper()
	b := s.Begin()
	defer b.Close()
	disk := []byte(strings.Repeat(string('a'+rune(seed)), 8192))
	r := &image.Record{Format: image.RecordFormat, Box: box, Disks: []image.RecordedDisk{{
		Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Root: conform.SaveImage(t, b, disk), Data: 8192,
	}}}
	if err := b.Commit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMarks(t *testing.T) {
	s := open(t, &mem.Store{})
	a, b := commit(t, s, "x", 0), commit(t, s, "x", 1)
	other := commit(t, s, "y", 2)
	ctx := t.Context()
	must(t, s.SetBaseline(ctx, "y", other.ID, true))
	must(t, s.SetBaseline(ctx, "x", a.ID, true))
	must(t, s.SetBaseline(ctx, "x", b.ID, true))
	must(t, s.SetPinned(ctx, "x", a.ID, true))
	must(t, s.SetNote(ctx, "x", a.ID, "kept"))
	rs, damaged, err := s.Records(ctx)
	if err != nil || len(damaged) > 0 || len(rs) != 3 {
		t.Fatal(rs, damaged, err)
	}
	if rs[0].Baseline || !rs[1].Baseline || !rs[2].Baseline || !rs[0].Pinned || rs[0].Note != "kept" {
		t.Errorf("marks: %+v %+v %+v", rs[0], rs[1], rs[2])
	}
	must(t, s.SetBaseline(ctx, "x", b.ID, false))
	if r, err := s.Record(ctx, "x", b.ID); err != nil || r.Baseline {
		t.Error("a baseline is not taken back", err)
	}
	if err := s.SetPinned(ctx, "x", "20200101-000000", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup that is not there is pinned: %v", err)
	}
	if err := s.SetNote(ctx, "x", a.ID, strings.Repeat("x", image.MaxNote+1)); err == nil {
		t.Error("a note of any length is taken")
	}
}

func TestRecordsOf(t *testing.T) {
	blobs := &mem.Store{}
	s := open(t, blobs)
	a, b := commit(t, s, "10.0.0.1", 0), commit(t, s, "10.0.0.1", 1)
	commit(t, s, "10.0.0.11", 2) // its name begins like that of the other box
	spoilt := commit(t, s, "10.0.0.2", 3)
	must(t, blob.WriteAll(t.Context(), blobs, recordName("10.0.0.2", spoilt.ID), []byte("spoilt")))
	rs, damaged, err := s.RecordsOf(t.Context(), "10.0.0.1")
	if err != nil || len(damaged) > 0 || len(rs) != 2 || rs[0].ID != a.ID || rs[1].ID != b.ID {
		t.Errorf("the box has %v, %v, %v", rs, damaged, err)
	}
	if rs, damaged, err := s.RecordsOf(t.Context(), "10.0.0.2"); err != nil || len(rs) > 0 || len(damaged) != 1 {
		t.Errorf("the box with a damaged record has %v, %v, %v", rs, damaged, err)
	}
	for _, none := range []string{"10.0.0.3", "", "..", "10.0.0.1/x"} {
		if rs, damaged, err := s.RecordsOf(t.Context(), none); err != nil || len(rs)+len(damaged) > 0 {
			t.Errorf("box %q has %v, %v, %v", none, rs, damaged, err)
		}
	}
}

func TestDelete(t *testing.T) {
	s := open(t, &mem.Store{})
	a, b := commit(t, s, "x", 0), commit(t, s, "x", 1)
	must(t, s.Delete(t.Context(), a))
	must(t, s.Delete(t.Context(), a)) // it is gone
	rs, _, err := s.Records(t.Context())
	if err != nil || len(rs) != 1 || rs[0].ID != b.ID {
		t.Fatal(rs, err)
	}
	if s.Delete(t.Context(), &image.Record{Box: "..", ID: "20261127-000000"}) == nil ||
		s.Delete(t.Context(), &image.Record{Box: "x", ID: "../../store"}) == nil {
		t.Error("any path is deleted")
	}
}

// TestDamagedRecords: each flipped bit of a record is found, and the record is
// said to be damaged, never passed over.
func TestDamagedRecords(t *testing.T) {
	blobs := &mem.Store{}
	s := open(t, blobs)
	r := commit(t, s, "x", 0)
	name := recordName("x", r.ID)
	text, err := blob.ReadAll(t.Context(), blobs, name, 1<<20)
	must(t, err)
	for i := range text {
		spoilt := append([]byte(nil), text...)
		spoilt[i] ^= 1 << (i % 8)
		must(t, blob.WriteAll(t.Context(), blobs, name, spoilt))
		rs, damaged, err := s.Records(t.Context())
		if err != nil || len(rs) != 0 || len(damaged) != 1 || damaged[0].Box != "x" || damaged[0].ID != r.ID {
			t.Fatalf("byte %d: %v %v %v", i, rs, damaged, err)
		}
	}
	// One that says that it is another, and one with a name that none has.
	must(t, blob.WriteAll(t.Context(), blobs, name, text))
	must(t, blob.WriteAll(t.Context(), blobs, recordName("y", r.ID), text))
	must(t, blob.WriteAll(t.Context(), blobs, recordPrefix+"z/latest", text))
	rs, damaged, err := s.Records(t.Context())
	if err != nil || len(rs) != 1 || len(damaged) != 2 {
		t.Errorf("%v %v %v", rs, damaged, err)
	}
}

func TestIDsAndTimes(t *testing.T) {
	s := open(t, &mem.Store{})
	at := time.Date(2026, 3, 1, 12, 0, 0, 123, time.FixedZone("", 3600))
	for _, want := range []string{"20260301-110000", "20260301-110000-2", "20260301-110000-3"} {
		b := s.Begin()
		r := &image.Record{Box: "x", Time: at, Disks: []image.RecordedDisk{{
			Name: "sda", Disk: image.Identity{Size: 512, SectorSize: 512}, Root: conform.SaveImage(t, b, make([]byte, 512)), Zero: 512,
		}}}
		must(t, b.Commit(t.Context(), r))
		b.Close()
		if r.ID != want {
			t.Errorf("id %s, want %s", r.ID, want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	s := open(f, &mem.Store{})
	r := commit(f, s, "x", 0)
	f.Add(seal("record", r.Marshal()))
	f.Add([]byte("testbox-record 1 \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := unseal("record", text)
		if err != nil {
			body = text // the checksum would hide the parser
		}
		if r, err := image.ParseRecord(body); err == nil {
			if _, err := image.ParseRecord(r.Marshal()); err != nil {
				t.Fatalf("%+v does not survive: %v", r, err)
			}
		}
	})
}

// TestRecordsBesideSetTime: a backup whose time is changed has another name
// from then on. Whoever lists the backups meanwhile must not miss it, or a
// collection would take what only this backup needs.
func TestRecordsBesideSetTime(t *testing.T) {
	h := &hooked{Store: &mem.Store{}}
	s := newStore(t, h)
	d := newDisk(seeds(1, 30))
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	for n := 2; n < 4; n++ { // at the plan's look, and at that before packs are removed
		set := 0
		h.before = func(op string) {
			if op != "read "+recordName(r.Box, r.ID) || set > 0 {
				return
			}
			set++
			var err error
			r, err = s.SetTime(t.Context(), r.Box, r.ID, day(n))
			must(t, err)
		}
		if all, damaged, err := s.Records(t.Context()); err != nil || len(all) != 1 || len(damaged) > 0 || all[0].ID != r.ID {
			t.Errorf("while the time is set to %s, the backups are %v, %v, %v", day(n), all, damaged, err)
		}
		if set != 1 {
			t.Fatal("no time was set meanwhile")
		}
	}
	h.before = nil
	mustGC(t, s)
	mustRestore(t, s, r, d)
}

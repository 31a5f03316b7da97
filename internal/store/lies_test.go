package store

import (
	"context"
	"errors"
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// liar is a disk of two chunks whose page gives wrong lengths of both.
func liar(t testing.TB, s *Session) *image.Record {
	t.Helper()
	put := func(kind object.Kind, raw []byte) object.Name {
		must(t, putMissing(t.Context(), s, kind, raw))
		return object.NameOf(raw)
	}
	one, two := cell(1), append(cell(2), cell(3)...)
	p := &chunk.Page{Extents: []chunk.Extent{{Content: image.Zero, Len: 512}, {Content: image.Data, Len: 3 * cellSize}}}
	p.Chunks = []chunk.Ref{{Name: put(object.Chunk, one), Len: len(two)}, {Name: put(object.Chunk, two), Len: len(one)}}
	r := &chunk.Root{Size: p.Len(), SectorSize: 512, Pages: []object.Name{put(object.Page, p.Marshal())}}
	d := image.RecordedDisk{Name: "sda", Disk: image.Identity{Size: r.Size, SectorSize: 512}, Root: put(object.Root, r.Marshal()),
		Data: 3 * cellSize, Zero: 512}
	return &image.Record{Format: image.RecordFormat, Box: "liar", Time: day(1), Disks: []image.RecordedDisk{d}}
}

// TestWrongLengths: a page that gives a wrong length of a chunk is no backup, also
// not when the page was there before the session, or the index was made anew.
func TestWrongLengths(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	for _, what := range []string{"new", "there already", "in another process"} {
		if what == "in another process" {
			must(t, s.Close())
			s = openStore(t, Config{Blobs: blobs})
		}
		session := s.Begin()
		r := liar(t, session)
		if err := session.Commit(t.Context(), r); !errors.Is(err, chunk.ErrWrong) || IsLost(err) {
			t.Errorf("%s: %v", what, err)
		}
		must(t, session.Close())
	}
	if got := records(t, s); len(got) != 0 {
		t.Errorf("there are %v", got)
	}
}

// TestScrubNamesLiars: of a record that was committed with wrong lengths, a scrub and
// a verify say so, and the list of damaged images has it.
func TestScrubNamesLiars(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	good := mustBackup(t, s, "good", day(1), newDisk(seeds(1, 3)))
	session := s.Begin()
	r := liar(t, session)
	must(t, s.objects.closure(t.Context(), good)) // seals all packs
	must(t, s.Catalogue.addRecord(t.Context(), r))
	must(t, session.Close())
	found, err := s.Verify(t.Context(), r, "sda", 2, func(int64) {})
	if err != nil || found == nil || found.Bytes != 3*cellSize {
		t.Errorf("a verify finds %+v, %v", found, err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, chunk.ErrWrong) {
		t.Errorf("a check says %v", err)
	}
	report := mustScrub(t, s)
	if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].String(), "made wrongly") || len(report.Faults[0].Costs) != 1 ||
		report.Faults[0].Costs[0].Bytes != 3*cellSize || report.Err() == nil {
		t.Errorf("a scrub finds %v", report)
	}
	damages, err := s.Damages(t.Context())
	must(t, err)
	if damages.Whole(&r.Disks[0]) || !damages.Whole(&good.Disks[0]) || len(damages) != 1 {
		t.Errorf("damaged are %v", damages)
	}
	must(t, s.Delete(t.Context(), r))
	mustGC(t, s)
	if report := mustScrub(t, s); report.Err() != nil {
		t.Errorf("without the backup: %v", report)
	}
	mustRestore(t, s, good, newDisk(seeds(1, 3)))
	must(t, s.Check(context.Background()))
}

package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// specimen is a store that is copied for each of many tests, with backups that
// share much, with what a deleted one left, and with damage that is healed.
type specimen struct {
	blobs *mem.Store
	state *faults.Volatile
	saved []savedBackup
}

type savedBackup struct {
	record *image.Record
	disks  []fakeDisk
}

const stateDir = "/"

func newSpecimen(t testing.TB) *specimen {
	t.Helper()
	sp := &specimen{blobs: &mem.Store{}, state: faults.NewVolatile()}
	must(t, Init(t.Context(), sp.blobs))
	s := sp.open(t)
	a, b, c := newDisk(seeds(1, 20), seeds(30, 10)), newDisk(mixed(seeds(1, 20), seeds(50, 20))), newDisk(seeds(50, 10))
	gone := mustBackup(t, s, "10.0.0.3", day(1), newDisk(mixed(seeds(50, 10), seeds(100, 10))))
	for i, disks := range [][]fakeDisk{{a}, {b, c}, {c}} {
		sp.saved = append(sp.saved, savedBackup{mustBackup(t, s, "10.0.0."+fmt.Sprint(1+i%2), day(1+i), disks...), disks})
	}
	must(t, s.Delete(t.Context(), gone))
	flip(t, sp.blobs, packsOf(t, sp.blobs, chunks)[0], 8*3000)
	report, err := s.Scrub(t.Context(), nil)
	if err != nil || report.Err() == nil {
		t.Fatalf("%v, %v", report, err)
	}
	sp.heal(t, s)
	must(t, s.Close())
	return sp
}

// heal makes all the backups again, and deletes the new ones.
func (sp *specimen) heal(t testing.TB, s *Store) {
	t.Helper()
	for _, b := range sp.saved {
		must(t, s.Delete(t.Context(), mustBackup(t, s, b.record.Box, day(20), b.disks...)))
	}
}

func (sp *specimen) clone() *specimen {
	return &specimen{sp.blobs.Clone(), sp.state.Crash(func() bool { return true }), sp.saved}
}

func (sp *specimen) open(t testing.TB) *Store {
	t.Helper()
	return openStore(t, Config{Blobs: sp.blobs, State: sp.state, Dir: stateDir, Log: func(string, ...any) {}})
}

// files are the names of all files, those of packs first, with their lengths.
func (sp *specimen) files(t testing.TB) []blob.Info {
	t.Helper()
	list, err := sp.blobs.List(t.Context(), "")
	must(t, err)
	size, err := durable.Size(sp.state, stateDir+indexName)
	must(t, err)
	return append(list, blob.Info{Name: indexName, Size: size})
}

// flip flips a bit of one of the files.
func (sp *specimen) flip(t testing.TB, name string, bit int64) {
	t.Helper()
	if name != indexName {
		flip(t, sp.blobs, name, bit)
		return
	}
	b, err := durable.ReadFile(sp.state, stateDir+name, 1<<30)
	must(t, err)
	b[bit/8] ^= 1 << (bit % 8)
	must(t, durable.WriteFile(sp.state, stateDir+name, b, 0o600))
}

// restore tries each backup, and gives the error of each.
func (sp *specimen) restore(t testing.TB, s *Store) (out []error) {
	t.Helper()
	for _, b := range sp.saved {
		err := b.restored(s)
		if errors.Is(err, errWrong) {
			t.Errorf("%s of %s: %v", b.record.ID, b.record.Box, err)
		}
		out = append(out, err)
	}
	return out
}

// restored restores a backup by its record.
func (b savedBackup) restored(s *Store) error {
	r, err := s.Record(context.Background(), b.record.Box, b.record.ID)
	if err != nil {
		return err
	}
	for i, d := range b.disks {
		if err := d.restored(context.Background(), s, r.Disks[i].Root); err != nil {
			return err
		}
	}
	return nil
}

// TestBitFlips: whatever bit flips, a scrub finds it and names the backups that
// it costs; all others restore exactly, and those fail or are exact. After the
// boxes were backed up again, the store is whole.
func TestBitFlips(t *testing.T) {
	sp := newSpecimen(t)
	n := testenv.Effort(200, 2500)
	r := rand.New(rand.NewPCG(1, 2))
	files := sp.files(t)
	for i := range n {
		f := files[r.IntN(len(files))]
		bit := r.Int64N(f.Size * 8)
		testFlip(t, sp.clone(), f.Name, bit, i%2 == 0, i%8 < 2)
		if t.Failed() {
			t.Fatalf("flipped was bit %d of byte %d of %s (%d bytes), number %d", bit%8, bit/8, f.Name, f.Size, i)
		}
	}
}

// testFlip flips a bit while the store is open, or before.
func testFlip(t *testing.T, sp *specimen, name string, bit int64, whileOpen, heal bool) {
	var s *Store
	if whileOpen {
		s = sp.open(t)
		sp.flip(t, name, bit)
	} else {
		sp.flip(t, name, bit)
		var logged []string
		var err error
		s, err = Open(t.Context(), Config{Blobs: sp.blobs, State: sp.state, Dir: stateDir, PackSize: smallPacks,
			Log: func(f string, a ...any) { logged = append(logged, fmt.Sprintf(f, a...)) }})
		if name == storeName {
			if err == nil {
				t.Error("the store opened")
			}
			return
		}
		must(t, err)
	}
	report, err := s.Scrub(t.Context(), nil)
	must(t, err)
	if !report.found(name, bit/8) {
		t.Errorf("a scrub did not find it: %v", report)
	}
	if report.Err() == nil && !report.knows(name, bit/8) {
		t.Errorf("a scrub calls it whole: %v", report)
	}
	damaged := report.Images()
	for i, err := range sp.restore(t, s) {
		b := sp.saved[i].record
		if named := slices.Contains(damaged, b.Box+" "+b.ID); named != (err != nil) {
			t.Errorf("%s of %s is named: %v, but its restore: %v\n%v", b.ID, b.Box, named, err, report)
		}
	}
	if !strings.HasPrefix(name, recordPrefix) && heal { // a backup heals no record
		testHealing(t, sp, s)
	}
}

// testHealing backs the boxes up again.
func testHealing(t *testing.T, sp *specimen, s *Store) {
	sp.heal(t, s)
	wantHealed(t, sp, s)
	wantHealed(t, sp, sp.open(t))
	must(t, s.RebuildIndex(t.Context()))
	wantHealed(t, sp, s)
	mustGC(t, s)
	if report, err := s.Scrub(t.Context(), nil); err != nil || len(report.Faults) > 0 {
		t.Errorf("after a collection: %v, %v", report, err)
	}
	wantHealed(t, sp, s)
	must(t, s.Check(t.Context()))
}

// found reports whether a fault tells of a byte of a file.
func (r *ScrubReport) found(name string, off int64) bool {
	return slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.covers(name, off) })
}

// knows reports whether the byte was in an object that was damaged before.
func (r *ScrubReport) knows(name string, off int64) bool {
	return slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Known && f.covers(name, off) })
}

func (f Fault) covers(name string, off int64) bool {
	return f.File == name && (f.Len == 0 || f.Off <= off && off < f.Off+f.Len)
}

// wantHealed wants all backups to restore, and a scrub to say so.
func wantHealed(t *testing.T, sp *specimen, s *Store) {
	t.Helper()
	report, err := s.Scrub(t.Context(), nil)
	if err != nil || report.Err() != nil {
		t.Errorf("after the next backup: %v, %v", report, err)
	}
	for _, err := range sp.restore(t, s) {
		if err != nil {
			t.Errorf("after the next backup: %v", err)
		}
	}
}

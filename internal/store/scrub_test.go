package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

func mustScrub(t testing.TB, s *Store) *ScrubReport {
	t.Helper()
	report, err := s.Scrub(t.Context(), nil)
	must(t, err)
	return report
}

// TestScrubNamesPlaces: of a chunk that is lost, a scrub tells where on which
// disks it was.
func TestScrubNamesPlaces(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d, e := newDisk(seeds(1, 4), seeds(1, 1)), newDisk(seeds(50, 2), seeds(1, 2))
	a := mustBackup(t, s, "10.0.0.1", day(1), d)
	b := mustBackup(t, s, "10.0.0.2", day(1), newDisk(seeds(70, 3)), e)
	flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*1000) // in cell 1, the first of the first pack
	report := mustScrub(t, s)
	t.Log(report)
	if len(report.Faults) != 1 || report.Err() == nil {
		t.Fatalf("there are %d faults", len(report.Faults))
	}
	f := report.Faults[0]
	if f.Off != 40 || len(f.Objects) != 1 || f.Known {
		t.Errorf("the fault is %+v", f)
	}
	want := []Cost{
		{a.Box, a.ID, "sda", 2 * cellSize, []image.Range{{Off: 0, Len: cellSize}, {Off: chunk.RegionSize, Len: cellSize}}},
		{b.Box, b.ID, "sdb", cellSize, []image.Range{{Off: chunk.RegionSize, Len: cellSize}}},
	}
	if !slices.EqualFunc(f.Costs, want, func(x, y Cost) bool { return x.String() == y.String() }) {
		t.Errorf("it costs %v, want %v", f.Costs, want)
	}
	if got := report.Images(); !slices.Equal(got, []string{a.Box + " " + a.ID, b.Box + " " + b.ID}) {
		t.Errorf("images are %v", got)
	}
}

// TestScrubOfLostFiles: files are deleted or cut by hand, before and after the
// store is opened. What a scrub does not name restores, and the next backup
// heals all but records.
func TestScrubOfLostFiles(t *testing.T) {
	sp := newSpecimen(t)
	for _, f := range sp.files(t) {
		if f.Name == storeName || f.Name == badName || f.Name == indexName {
			continue
		}
		for how, keep := range map[string]int64{"deleted": -1, "empty": 0, "cut in its head": 30, "cut in the middle": f.Size / 2,
			"cut by a byte": f.Size - 1} {
			for _, when := range []string{"before", "after"} {
				if keep >= f.Size {
					continue
				}
				t.Run(strings.Join([]string{f.Name, how, when, "opening"}, " "), func(t *testing.T) {
					sp := sp.clone()
					s := sp.open(t)
					cut(t, sp.blobs, f.Name, keep)
					if when == "before" {
						s = sp.open(t)
					}
					testLoss(t, sp, s, f.Name, how)
				})
			}
		}
	}
}

// cut leaves the first bytes of a blob; -1 is none and no blob.
func cut(t testing.TB, blobs blob.Store, name string, keep int64) {
	t.Helper()
	if keep < 0 {
		must(t, blobs.Remove(context.Background(), name))
		return
	}
	b, err := blob.ReadAll(context.Background(), blobs, name, 1<<30)
	must(t, err)
	must(t, blob.WriteAll(context.Background(), blobs, name, slices.Clone(b[:keep])))
}

func testLoss(t *testing.T, sp *specimen, s *Store, name, how string) {
	report := mustScrub(t, s)
	damaged := report.Images()
	isRecord := strings.HasPrefix(name, recordPrefix)
	for i, err := range sp.restore(t, s) {
		b := sp.saved[i].record
		named := slices.Contains(damaged, b.Box+" "+b.ID)
		if isRecord && errors.Is(err, fs.ErrNotExist) {
			continue // a record that is not there is a deleted backup
		}
		if named != (err != nil) {
			t.Errorf("%s of %s is named: %v, but its restore: %v\n%v", b.ID, b.Box, named, err, report)
		}
	}
	if isRecord {
		if how != "deleted" && !report.found(name, 0) {
			t.Errorf("it is not found: %v", report)
		}
		return
	}
	testHealing(t, sp, s)
}

// TestScrubWithoutStore: when the disk with the store is away, nothing is taken
// for lost.
func TestScrubWithoutStore(t *testing.T) {
	sp := newSpecimen(t)
	for what, err := range map[string]error{"away": fs.ErrNotExist, "unreachable": syscall.EHOSTDOWN, "unreadable": syscall.EIO} {
		t.Run(what, func(t *testing.T) {
			sp := sp.clone()
			broken := &failing{Store: sp.blobs}
			s := openStore(t, Config{Blobs: broken, State: sp.state, Dir: stateDir})
			broken.fails = func(string, int64) error { return err }
			if report, err := s.Scrub(t.Context(), nil); err == nil {
				t.Errorf("it was done: %v", report)
			}
			broken.fails = nil
			for _, err := range sp.restore(t, s) {
				must(t, err)
			}
			wantHealed(t, sp, s)
		})
	}
}

// TestScrubOfBadSectors: what the disk cannot read is lost, the rest of the
// pack is not. What it can read again is there again.
func TestScrubOfBadSectors(t *testing.T) {
	sp := newSpecimen(t)
	broken := &failing{Store: sp.blobs}
	s := openStore(t, Config{Blobs: broken, State: sp.state, Dir: stateDir})
	name := packsOf(t, sp.blobs, chunks)[1]
	broken.fails = func(of string, end int64) error {
		if of == name && end > 8000 {
			return syscall.EIO
		}
		return nil
	}
	report := mustScrub(t, s)
	if report.Err() == nil || len(report.Images()) == 0 {
		t.Fatalf("nothing is lost: %v", report)
	}
	broken.fails = nil
	wantHealed(t, sp, s)
	must(t, s.Check(t.Context()))
}

// TestScrubStops: an error that is no disk's ends a scrub, and nothing is
// marked.
func TestScrubStops(t *testing.T) {
	sp := newSpecimen(t)
	broken := &failing{Store: sp.blobs}
	s := openStore(t, Config{Blobs: broken, State: sp.state, Dir: stateDir})
	broken.fails = func(of string, _ int64) error {
		if of == packsOf(t, sp.blobs, trees)[0] {
			return syscall.ETIMEDOUT
		}
		return nil
	}
	if report, err := s.Scrub(t.Context(), nil); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("%v, %v", report, err)
	}
	broken.fails = nil // else the second scrub may end by it before it is cancelled
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Scrub(ctx, func(ScrubProgress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wantHealed(t, sp, s)
	must(t, s.Check(t.Context()))
}

// failing is a blob.Store whose reads can fail.
type failing struct {
	blob.Store
	fails func(name string, end int64) error // end of the read
}

func (f *failing) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if f.fails != nil {
		if err := f.fails(name, off+int64(len(p))); err != nil {
			return 0, &fs.PathError{Op: "read", Path: name, Err: err}
		}
	}
	return f.Store.ReadAt(ctx, name, p, off)
}

package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
)

// filling is a blob.Store on a disk that can get full.
type filling struct {
	*mem.Store
	room atomic.Int64 // bytes that can still be written
}

func (f *filling) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	w, err := f.Store.Create(ctx, name, over)
	return &fillingWriter{Writer: w, f: f}, err
}

func (f *filling) Remove(ctx context.Context, name string) error {
	if size, err := f.Size(ctx, name); err == nil {
		f.room.Add(size)
	}
	return f.Store.Remove(ctx, name)
}

type fillingWriter struct {
	blob.Writer
	f    *filling
	took int64
	done bool
}

func (w *fillingWriter) Write(p []byte) (int, error) {
	w.took += int64(len(p))
	if w.f.room.Add(-int64(len(p))) < 0 {
		return 0, syscall.ENOSPC
	}
	return w.Writer.Write(p)
}

func (w *fillingWriter) Commit() error {
	w.done = true
	return w.Writer.Commit()
}

func (w *fillingWriter) Abort() {
	if !w.done {
		w.done = true
		w.f.room.Add(w.took)
	}
	w.Writer.Abort()
}

// TestDiskFull: a backup that finds no room fails and spoils nothing, and a
// collection gains what it can get without room, and then the rest.
func TestDiskFull(t *testing.T) {
	blobs := &filling{Store: &mem.Store{}}
	blobs.room.Store(1 << 30)
	s := newStore(t, blobs)
	// The first half of it shares packs with d, the rest is by itself.
	gone := mustBackup(t, s, "10.0.0.1", day(1), newDisk(mixed(seeds(1, 20), seeds(100, 20)), seeds(20, 5)), newDisk(seeds(200, 60)))
	d := newDisk(seeds(1, 20), seeds(20, 5))
	r := mustBackup(t, s, "10.0.0.1", day(2), d)
	blobs.room.Store(10 << 10)
	if _, err := backup(t.Context(), s, "10.0.0.2", day(3), newDisk(seeds(300, 60))); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a backup on a full disk: %v", err)
	}
	mustRestore(t, s, r, d)
	must(t, s.Delete(t.Context(), gone))
	blobs.room.Store(0)
	rounds := 0
	for ; ; rounds++ {
		plan, err := s.PlanGC(t.Context())
		must(t, err)
		if plan.Gain() == 0 || rounds > 3 {
			break
		}
		res, err := s.GC(t.Context(), plan)
		t.Logf("round %d: %v%v", rounds, res, err)
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if res.Freed <= 0 {
			t.Errorf("round %d freed %d bytes", rounds, res.Freed)
		}
		mustRestore(t, s, r, d)
	}
	if rounds < 1 || rounds > 2 {
		t.Errorf("it took %d rounds", rounds)
	}
	mustBackup(t, s, "10.0.0.2", day(4), newDisk(seeds(300, 20)))
}

// TestScrubOnAFullDisk: what a scrub finds is in its report also where it cannot
// be written down, and that is said; with room, it is written down.
func TestScrubOnAFullDisk(t *testing.T) {
	blobs := &filling{Store: &mem.Store{}}
	blobs.room.Store(1 << 30)
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 10))
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*1000)
	flip(t, blobs, storeName, 8*90)
	blobs.room.Store(0)
	report, err := s.Scrub(t.Context(), nil)
	must(t, err)
	t.Log(report.Err())
	if len(report.Faults) != 2 || report.Faults[1].Off != 40 || !slices.Equal(report.Images(), []string{r.Box + " " + r.ID}) {
		t.Errorf("the report is %v", report)
	}
	text := report.Err().Error()
	for _, want := range []string{"2 faults, which damage 1 backup", "could not be written down"} {
		if !errors.Is(report.Unnoted, syscall.ENOSPC) || !strings.Contains(text, want) {
			t.Errorf("it says %v, without %q", text, want)
		}
	}
	wantDamaged(t, s)
	blobs.room.Store(1 << 20)
	report = mustScrub(t, s)
	if report.Unnoted != nil || report.Err() == nil {
		t.Errorf("with room: %v, %v", report.Err(), report.Unnoted)
	}
	wantDamaged(t, s, r.Box)
	s = openStore(t, Config{Blobs: blobs}) // the store's name is right again
	blobs.room.Store(1 << 30)
	mustBackup(t, s, "10.0.0.1", day(2), d)
	mustRestore(t, s, r, d)
	must(t, s.Check(t.Context()))
}

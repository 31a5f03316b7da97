package store

import (
	"context"
	"errors"
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

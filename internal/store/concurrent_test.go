package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/testenv"
)

// TestAtOnce: boxes are backed up, restored, deleted, collected, scrubbed and
// indexed at the same time; `go test -race` looks at it too.
func TestAtOnce(t *testing.T) {
	blobs, err := dir.New(durable.OS{}, t.TempDir())
	must(t, err)
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs, Log: func(string, ...any) {}})
	length := testenv.Effort(500*time.Millisecond, 8*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for box := range 3 {
		wg.Go(func() { liveBox(t, ctx, s, box) })
		wg.Go(func() { readImages(t, ctx, s, uint64(box)) })
	}
	wg.Go(func() {
		defer cancel()
		// A busy machine needs longer for one round of each kind.
		for round, start := 0, time.Now(); round < 3 || time.Since(start) < length; round++ {
			careFor(t, ctx, s, round)
		}
	})
	wg.Wait()
	mustGC(t, s)
	must(t, s.Check(t.Context()))
}

// liveBox backs a box up again and again, and keeps its last two backups.
func liveBox(t *testing.T, ctx context.Context, s *Store, box int) {
	r := rand.New(rand.NewPCG(uint64(box), 0))
	var kept []savedBackup
	for i := 0; ctx.Err() == nil; i++ {
		var cells []uint64
		for range 30 {
			cells = append(cells, r.Uint64N(60)+1)
		}
		d := newDisk(cells)
		record, err := backup(context.Background(), s, fmt.Sprint("box", box), day(1).Add(time.Duration(i)*time.Second), d)
		if err != nil {
			t.Errorf("box %d, backup %d: %v", box, i, err)
			return
		}
		if kept = append(kept, savedBackup{record, []fakeDisk{d}}); len(kept) > 2 {
			err := s.Delete(context.Background(), kept[0].record)
			for errors.Is(err, ErrHeld) { // by readImages, which is soon done
				time.Sleep(time.Millisecond)
				err = s.Delete(context.Background(), kept[0].record)
			}
			if err != nil {
				t.Errorf("box %d, delete: %v", box, err)
			}
			kept = kept[1:]
		}
		for _, b := range kept {
			if err := b.restored(s); err != nil {
				t.Errorf("box %d, backup %s: %v", box, b.record.ID, err)
				return
			}
		}
	}
}

// readImages reads whichever images there are, as restores do: what it could
// open it reads to its end.
func readImages(t *testing.T, ctx context.Context, s *Store, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for n := 0; ctx.Err() == nil; n++ {
		records, _, err := s.Records(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		if len(records) == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		r := records[rnd.IntN(len(records))]
		im, err := s.OpenImage(context.Background(), r, "sda")
		if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			continue
		}
		if err == nil {
			time.Sleep(time.Duration(rnd.IntN(int(20 * time.Millisecond))))
			err = errors.Join(im.Check(context.Background(), 1, nil), im.Close())
		}
		if err != nil {
			t.Errorf("image %d, of %s %s: %v", n, r.Box, r.ID, err)
			return
		}
	}
}

// careFor does what an admin does beside backups.
func careFor(t *testing.T, ctx context.Context, s *Store, round int) {
	plan, err := s.PlanGC(ctx)
	if err == nil {
		_, err = s.GC(ctx, plan)
	}
	var report *ScrubReport
	if err == nil && round%3 == 0 {
		if report, err = s.Scrub(ctx, nil); err == nil && len(report.Faults) > 0 {
			t.Errorf("scrub: %v", report)
		}
	}
	if err == nil && round%3 == 1 {
		err = s.RebuildIndex(ctx)
	}
	if err != nil {
		t.Errorf("round %d: %v", round, err)
	}
}

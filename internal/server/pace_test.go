package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// worked has goroutines work for some time in pieces of some length, and returns which
// share of the time they have worked.
func worked(t *testing.T, p *pacer, goroutines int, piece, lasts time.Duration) float64 {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	busy, until := time.Duration(0), time.Time{} // when somebody worked, and until when that is counted
	begun := time.Now()
	for range goroutines {
		all.Go(func() {
			for time.Since(begun) < lasts {
				if err := p.wait(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now := time.Now()
				end := now.Add(piece)
				if now.After(until) {
					until = now
				}
				busy, until = busy+end.Sub(until), end
				mu.Unlock()
				time.Sleep(piece) // the work
			}
		})
	}
	all.Wait()
	return busy.Seconds() / time.Since(begun).Seconds()
}

// TestPacer holds how much of the time upkeep works, alone and beside restores.
func TestPacer(t *testing.T) {
	for what, c := range map[string]struct {
		restoring   bool
		goroutines  int
		piece       time.Duration
		least, most float64
	}{
		"alone":                       {false, 8, time.Millisecond, 0.99, 1},
		"beside restores":             {true, 1, time.Millisecond, 0.08, 0.105},
		"beside restores, goroutines": {true, 8, time.Millisecond, 0.08, 0.11},
		"beside restores, slow disk":  {true, 1, 700 * time.Millisecond, 0.08, 0.11},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(func() bool { return c.restoring })
				if share := worked(t, p, c.goroutines, c.piece, max(10*time.Second, 100*c.piece)); share < c.least || share > c.most {
					t.Errorf("it works for %.3f of the time, and not from %.2f to %.2f", share, c.least, c.most)
				}
			})
		})
	}
}

// TestPacerNotices holds that work gets slow soon after a restore began, and fast again
// soon after the last one, and that it ends with the server.
func TestPacerNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		from, to := 10*time.Second, 20*time.Second
		p := newPacer(func() bool { at := time.Since(begun); return at >= from && at < to })
		share := func(lasts time.Duration) float64 { return worked(t, p, 1, time.Millisecond, lasts) }
		if s := share(from); s < 0.99 {
			t.Errorf("before the restore it works for %.2f of the time", s)
		}
		share(paceLook)
		if s := share(8 * time.Second); s > 0.11 {
			t.Errorf("beside the restore it works for %.2f of the time", s)
		}
		share(paceBehind + 2*time.Second)
		if s := share(10 * time.Second); s < 0.99 {
			t.Errorf("after the restore it works for %.2f of the time", s)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		p := newPacer(func() bool { return true })
		time.AfterFunc(time.Minute, func() { cancel(errStopped) })
		var err error
		for err == nil {
			err = p.wait(ctx)
			time.Sleep(3 * time.Second)
		}
		if !errors.Is(err, errStopped) {
			t.Errorf("when the server ends: %v", err)
		}
	})
}

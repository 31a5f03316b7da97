package boxapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/wire"
)

// TestMemoryShares: a client that takes all it can get leaves the others theirs, and
// a large request comes through although small ones never cease.
func TestMemoryShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100)
		ctx, cancel := context.WithCancel(t.Context())
		get := func(client string, n int64) bool {
			wait := time.Second
			if n > 90 {
				wait = time.Minute
			}
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			err := m.acquire(short, client, n)
			if err != nil && !errors.Is(err, wire.ErrBusy) {
				t.Errorf("%s: %v", client, err)
			}
			return err == nil
		}
		for range 10 {
			if !get("greedy", 10) {
				t.Fatal("a client that is alone does not get all")
			}
		}
		if get("other", 10) {
			t.Fatal("there is more than all")
		}
		done := make(chan bool)
		go func() { done <- get("other", 40) }()
		synctest.Wait()
		m.release("greedy", 10)
		go get("greedy", 10) // it waits for its own share, which is a half now
		synctest.Wait()
		for range 3 {
			m.release("greedy", 10)
		}
		if !<-done {
			t.Error("another client did not get its share")
		}
		cancel()
		synctest.Wait()
		if m.used != 100 || len(m.waiting) != 0 || len(m.waits) != 0 {
			t.Errorf("%d are used, %d wait", m.used, len(m.waiting))
		}
		m.release("greedy", 60)
		m.release("other", 40)
		ctx = t.Context()
		for range 8 {
			get("greedy", 10)
		}
		if !get("other", 5) || get("greedy", 10) || !get("other", 15) {
			t.Error("a client gets more than its share while another one is there")
		}
		m.release("greedy", 80)
		m.release("other", 20)

		if !get("small", 20) {
			t.Fatal("no memory")
		}
		go func() { done <- get("large", 95) }()
		synctest.Wait()
		if get("small2", 10) {
			t.Error("a small request overtakes a large one")
		}
		m.release("small", 20)
		if !<-done {
			t.Error("the large request got nothing")
		}
	})
}

// TestMemoryHolds: many clients at once never hold more than all, and nothing is lost.
func TestMemoryHolds(t *testing.T) {
	m := newMemory(1000)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(c)))
			for range 2000 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(2000))*time.Microsecond)
				client, n := fmt.Sprint("client ", r.IntN(3)), int64(r.IntN(400)+1)
				if m.acquire(ctx, client, n) == nil {
					m.mu.Lock()
					if m.used > m.all {
						t.Errorf("%d are used", m.used)
					}
					m.mu.Unlock()
					m.release(client, n)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if m.used != 0 || len(m.by) != 0 || len(m.waits) != 0 || len(m.waiting) != 0 {
		t.Errorf("there remain %d, %v, %v, %d", m.used, m.by, m.waits, len(m.waiting))
	}
}

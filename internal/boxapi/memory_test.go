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
		m := newMemory(100, time.Hour)
		var held released
		ctx, cancel := context.WithCancel(t.Context())
		get := func(client string, n int64) bool {
			wait := time.Second
			if n > 90 {
				wait = time.Minute
			}
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			release, err := m.acquire(short, client, n, func() {})
			held.add(client, n, release)
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
		held.give("greedy", 10)
		go get("greedy", 10) // it waits for its own share, which is a half now
		synctest.Wait()
		for range 3 {
			held.give("greedy", 10)
		}
		if !<-done {
			t.Error("another client did not get its share")
		}
		cancel()
		synctest.Wait()
		if m.used != 100 || len(m.waiting) != 0 || len(m.waits) != 0 {
			t.Errorf("%d are used, %d wait", m.used, len(m.waiting))
		}
		held.give("greedy", 60)
		held.give("other", 40)
		ctx = t.Context()
		for range 8 {
			get("greedy", 10)
		}
		if !get("other", 5) || get("greedy", 10) || !get("other", 15) {
			t.Error("a client gets more than its share while another one is there")
		}
		held.give("greedy", 80)
		held.give("other", 20)

		if !get("small", 20) {
			t.Fatal("no memory")
		}
		go func() { done <- get("large", 95) }()
		synctest.Wait()
		if get("small2", 10) {
			t.Error("a small request overtakes a large one")
		}
		held.give("small", 20)
		if !<-done {
			t.Error("the large request got nothing")
		}
	})
}

// released has what clients can give back.
type released struct {
	mu sync.Mutex // guards by
	by map[string][]func()
}

func (r *released) add(client string, n int64, release func()) {
	if release == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string][]func(){}
	}
	key := fmt.Sprint(client, n)
	r.by[key] = append(r.by[key], release)
}

// give gives back n bytes of a client, which it took at once or by 10 or by 5 each.
func (r *released) give(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, size := range []int{n, 10, 15, 5} {
		key := fmt.Sprint(client, size)
		for ; n >= size && len(r.by[key]) > 0; n -= size {
			r.by[key][0]()
			r.by[key] = r.by[key][1:]
		}
	}
	if n > 0 {
		panic(fmt.Sprintf("%s does not hold %d bytes more", client, n))
	}
}

// TestMemoryPress: who holds more than its share must give it back if others wait for
// long, and who has just come, or holds no more than its share, need not.
func TestMemoryPress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100, 5*time.Second)
		var yielded []string
		var mu sync.Mutex
		get := func(client string, n int64) func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			release := func() {}
			release, err := m.acquire(ctx, client, n, func() {
				mu.Lock()
				defer mu.Unlock()
				yielded = append(yielded, fmt.Sprint(client, n))
				go release()
			})
			if err != nil {
				t.Errorf("%s: %v", client, err)
			}
			return release
		}
		modest := get("modest", 20)
		time.Sleep(time.Second)
		get("greedy", 80)
		start := time.Now()
		get("other", 20)
		if took := time.Since(start); took > 6*time.Second || fmt.Sprint(yielded) != "[greedy80]" {
			t.Errorf("after %v %v were given back", took, yielded)
		}
		modest()
		time.Sleep(time.Minute)
		if len(yielded) != 1 {
			t.Errorf("%v were given back", yielded)
		}
	})
}

// TestMemoryHolds: many clients at once never hold more than all, and nothing is lost.
func TestMemoryHolds(t *testing.T) {
	m := newMemory(1000, time.Millisecond)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(c)))
			for range 2000 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(2000))*time.Microsecond)
				client, n := fmt.Sprint("client ", r.IntN(3)), int64(r.IntN(400)+1)
				if release, err := m.acquire(ctx, client, n, func() {}); err == nil {
					m.mu.Lock()
					if m.used > m.all {
						t.Errorf("%d are used", m.used)
					}
					m.mu.Unlock()
					release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if m.used != 0 || len(m.by) != 0 || len(m.waits) != 0 || len(m.waiting)+len(m.holds) != 0 {
		t.Errorf("there remain %d, %v, %v, %d", m.used, m.by, m.waits, len(m.waiting))
	}
}

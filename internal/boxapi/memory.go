package boxapi

import (
	"context"
	"slices"
	"sync"
)

// memory is a semaphore of bytes for all requests together. A client may hold at
// most an equal share of all, so one that is slow or greedy leaves the others
// theirs. A client that holds nothing may have more, so that the largest object is
// never refused.
type memory struct {
	mu      sync.Mutex // guards the fields below
	all     int64
	used    int64
	by      map[string]int64 // what each client holds
	waits   map[string]int   // how many requests of a client wait
	waiting []*waiter        // in the order in which they came
}

type waiter struct {
	client string
	n      int64
	ready  chan struct{}
}

func newMemory(all int64) *memory {
	return &memory{all: all, by: map[string]int64{}, waits: map[string]int{}}
}

// acquire waits until a client may have n bytes more. It fails when ctx ends.
func (m *memory) acquire(ctx context.Context, client string, n int64) error {
	w := &waiter{client, n, make(chan struct{})}
	m.mu.Lock()
	m.waiting = append(m.waiting, w)
	m.waits[client]++
	m.hand()
	m.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.waiting, w); i >= 0 {
		m.waiting = slices.Delete(m.waiting, i, i+1)
		m.left(client)
		m.hand()
		return errBusy("the server has too much to do at the moment")
	}
	return nil // it was handed over meanwhile
}

func (m *memory) release(client string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
	if m.by[client] -= n; m.by[client] == 0 {
		delete(m.by, client)
	}
	m.hand()
}

// hand gives memory to those who wait. Who waits for memory of all, and not for its
// own share, is not overtaken. Otherwise small requests would keep a large one waiting
// for ever.
func (m *memory) hand() {
	share := m.all / int64(max(1, m.clients()))
	for i := 0; i < len(m.waiting); {
		w := m.waiting[i]
		if held := m.by[w.client]; held > 0 && held+w.n > share {
			i++
			continue
		}
		if m.used+w.n > m.all && m.used > 0 {
			return
		}
		m.used += w.n
		m.by[w.client] += w.n
		m.left(w.client)
		m.waiting = slices.Delete(m.waiting, i, i+1)
		close(w.ready)
	}
}

// clients counts those that hold memory or wait for it.
func (m *memory) clients() int {
	n := len(m.by)
	for c := range m.waits {
		if m.by[c] == 0 {
			n++
		}
	}
	return n
}

// left notes that a request of a client does not wait any more.
func (m *memory) left(client string) {
	if m.waits[client]--; m.waits[client] == 0 {
		delete(m.waits, client)
	}
}

package boxapi

import (
	"context"
	"slices"
	"sync"
	"time"
)

// memory is a semaphore of bytes for all requests together. A client may hold at
// most an equal share of all, so one that is slow or greedy leaves the others
// theirs. A client that holds nothing may have more, so that the largest object is
// never refused. What a client took while nobody else wanted any, it must give back
// when others wait for long.
type memory struct {
	patience time.Duration // how long others wait

	mu      sync.Mutex // guards the fields below
	all     int64
	used    int64
	by      map[string]int64      // what each client holds
	waits   map[string]int        // how many requests of a client wait
	waiting []*holding            // in the order in which they came
	holds   map[*holding]struct{} // what is held
}

// holding is memory that a request holds, or waits for.
type holding struct {
	client string
	n      int64
	since  time.Time // when it got it
	yield  func()    // asks the request to end, so that it can be repeated
	ready  chan struct{}
}

func newMemory(all int64, patience time.Duration) *memory {
	return &memory{patience: patience, all: all, by: map[string]int64{}, waits: map[string]int{}, holds: map[*holding]struct{}{}}
}

// acquire waits until a client may have n bytes more. It fails when ctx ends. The
// caller calls release. yield is called if others need the memory, at most once.
func (m *memory) acquire(ctx context.Context, client string, n int64, yield func()) (release func(), err error) {
	w := &holding{client: client, n: n, yield: sync.OnceFunc(yield), ready: make(chan struct{})}
	m.mu.Lock()
	m.waiting = append(m.waiting, w)
	m.waits[client]++
	m.hand()
	m.mu.Unlock()
	select {
	case <-w.ready: // at once, as most of the time
		return func() { m.release(w) }, nil
	default:
	}
	press := time.NewTicker(m.patience)
	defer press.Stop()
	for {
		select {
		case <-w.ready:
			return func() { m.release(w) }, nil
		case <-press.C:
			m.press(w)
			continue
		case <-ctx.Done():
		}
		break
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.waiting, w); i >= 0 {
		m.waiting = slices.Delete(m.waiting, i, i+1)
		m.left(client)
		m.hand()
		return nil, errBusy("the server has too much to do at the moment")
	}
	return func() { m.release(w) }, nil // it was handed over meanwhile
}

func (m *memory) release(h *holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.holds[h]; !ok {
		return
	}
	delete(m.holds, h)
	m.used -= h.n
	if m.by[h.client] -= h.n; m.by[h.client] == 0 {
		delete(m.by, h.client)
	}
	m.hand()
}

func (m *memory) share() int64 { return m.all / int64(max(1, m.clients())) }

// press asks for memory back for one who has waited for long. Requests that have held
// theirs for as long must end, the oldest first, if their client holds more than its
// share.
func (m *memory) press(w *holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	share := m.share()
	if held := m.by[w.client]; !slices.Contains(m.waiting, w) || held > 0 && held+w.n > share {
		return
	}
	var old []*holding
	for h := range m.holds {
		if h.client != w.client && m.by[h.client] > share && time.Since(h.since) >= m.patience {
			old = append(old, h)
		}
	}
	slices.SortFunc(old, func(a, b *holding) int { return a.since.Compare(b.since) })
	for lack := m.used + w.n - m.all; len(old) > 0 && lack > 0; old = old[1:] {
		lack -= old[0].n
		go old[0].yield()
	}
}

// hand gives memory to those who wait. Who waits for memory of all, and not for its
// own share, is not overtaken. Otherwise small requests would keep a large one waiting
// for ever.
func (m *memory) hand() {
	share := m.share()
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
		w.since = time.Now()
		m.holds[w] = struct{}{}
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

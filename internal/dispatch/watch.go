package dispatch

import "sync"

// watchers are all who follow the jobs.
type watchers struct {
	mu   sync.Mutex
	all  map[*watcher]bool
	done bool
}

// watcher is one of them.
type watcher struct {
	changes chan string
	ids     map[string]bool // that changed and were not given yet; the mutex of watchers guards it
	news    chan struct{}   // holds one value if there are some
	end     chan struct{}
}

// Watch gives the ids of jobs that change from now on. A job that changes several
// times before its id is taken is given once. stop ends that, and closes changes,
// as Close does.
func (d *Dispatch) Watch() (changes <-chan string, stop func()) {
	ws := &d.watching
	w := &watcher{changes: make(chan string), ids: map[string]bool{}, news: make(chan struct{}, 1), end: make(chan struct{})}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.done {
		close(w.changes)
		return w.changes, func() {}
	}
	if ws.all == nil {
		ws.all = map[*watcher]bool{}
	}
	ws.all[w] = true
	go ws.run(w)
	return w.changes, func() { ws.stop(w) }
}

func (ws *watchers) stop(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all[w] {
		delete(ws.all, w)
		close(w.end)
	}
}

func (ws *watchers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.done = true
	for w := range ws.all {
		delete(ws.all, w)
		close(w.end)
	}
}

func (ws *watchers) run(w *watcher) {
	defer close(w.changes)
	for {
		select {
		case <-w.news:
		case <-w.end:
			return
		}
		ws.mu.Lock()
		ids := w.ids
		w.ids = map[string]bool{}
		ws.mu.Unlock()
		for id := range ids {
			select {
			case w.changes <- id:
			case <-w.end:
				return
			}
		}
	}
}

// changed tells all that a job has changed.
func (ws *watchers) changed(id string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		w.ids[id] = true
		kick(w.news)
	}
}

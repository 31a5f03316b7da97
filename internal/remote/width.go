package remote

import (
	"errors"
	"sync"

	"testbox-imaging/internal/wire"
)

// width is how many objects go into one request. Many in one cost less than one in
// each. But on a line that breaks often a long request never comes through. So the
// width is halved when a connection breaks, and grows by one with each request that
// was answered.
type width struct {
	mu   sync.Mutex // guards lost
	lost int        // how much less than wire.MaxObjects it is
}

// now is the width. It is at least 1.
func (w *width) now() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return wire.MaxObjects - w.lost
}

// note notes how a request ended. A server that is busy has not lost anything.
func (w *width) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var away *awayError
	var said *wire.Problem
	switch {
	case err == nil:
		w.lost = max(0, w.lost-1)
	case errors.As(err, &away) && !errors.As(err, &said):
		w.lost += (wire.MaxObjects - w.lost) / 2
	}
}

package proc

import (
	"sync"
	"syscall"

	"testbox-imaging/internal/image"
)

// faultSet is what a FUSE server does wrong; the zero faultSet is nothing.
// Counts are of changing requests since the set was given, if not said otherwise.
type faultSet struct {
	FreezeAt  int           // from the n-th request of any kind on, all wait until the next set
	Limited   bool          // Room counts
	Room      int64         // bytes that can still be written; then ENOSPC
	LateFull  bool          // the want of room is told by fsync and close alone
	FailAt    int           // the n-th changing request, from 1, fails with EIO
	HoldAt    int           // the n-th changing request waits for a release, then fails with EIO undone
	DropAt    int           // the n-th changing request is answered as done, and is not done
	DropEvery int           // of all 4 KiB blocks that are written, every n-th is not
	BadReads  []image.Range // reads that touch one fail with EIO
}

// control is a later message: new faults, or the release of a held request.
type control struct {
	Set     *faultSet
	Release bool
}

// serverState is the answer to each message.
type serverState struct {
	Err     string
	Total   int    // requests since the faults were set
	Changes int    // changing ones of them
	Held    string // the request that is being held; "" is none
	Dropped int    // requests or blocks dropped since the faults were set
}

// gate is what every request passes.
type gate struct {
	mu       sync.Mutex
	cond     *sync.Cond
	faults   faultSet
	state    serverState
	released bool
	full     bool // something was not written for want of room
	blocks   int  // written since the faults were set
}

// pass waits while the server is frozen.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unfrozen()
}

// unfrozen counts a request. g.mu is held.
func (g *gate) unfrozen() {
	g.state.Total++
	for n := g.state.Total; g.faults.FreezeAt > 0 && n >= g.faults.FreezeAt; {
		g.cond.Wait()
	}
}

// change is passed by a request that changes something.
func (g *gate) change(what string) syscall.Errno {
	_, errno := g.changeData(what)
	return errno
}

// changeData is passed by a request that changes a file's data. drop says to
// answer that it is done without doing it.
func (g *gate) changeData(what string) (drop bool, errno syscall.Errno) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unfrozen()
	g.state.Changes++
	switch g.state.Changes {
	case g.faults.FailAt:
		return false, syscall.EIO
	case g.faults.DropAt:
		g.state.Dropped++
		return true, 0
	case g.faults.HoldAt:
		g.state.Held, g.released = what, false
		for !g.released {
			g.cond.Wait()
		}
		g.state.Held = ""
		return false, syscall.EIO
	}
	return false, 0
}

// room is asked by a write of n bytes. skip says to answer that it is done
// without doing it.
func (g *gate) room(n int) (skip bool, errno syscall.Errno) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.faults.Limited {
		return false, 0
	}
	if int64(n) <= g.faults.Room {
		g.faults.Room -= int64(n)
		return false, 0
	}
	g.full = true
	if g.faults.LateFull {
		return true, 0
	}
	return false, syscall.ENOSPC
}

// dropBlock counts a block that is written and reports whether it is dropped.
func (g *gate) dropBlock() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blocks++
	if every := g.faults.DropEvery; every == 0 || g.blocks%every != 0 {
		return false
	}
	g.state.Dropped++
	return true
}

// flushed tells a fsync or close of what write kept to itself.
func (g *gate) flushed() syscall.Errno {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full && g.faults.LateFull {
		return syscall.ENOSPC
	}
	return 0
}

func (g *gate) bad(off int64, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.faults.BadReads {
		if off < r.End() && r.Off < off+int64(n) {
			return true
		}
	}
	return false
}

func (g *gate) handle(c control) serverState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.Set != nil {
		g.faults, g.full, g.blocks = *c.Set, false, 0
		g.state.Total, g.state.Changes, g.state.Dropped = 0, 0, 0
	}
	if c.Release {
		g.released = true
	}
	g.cond.Broadcast()
	return g.state
}

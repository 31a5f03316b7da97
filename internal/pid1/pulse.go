package pid1

import (
	"sync/atomic"
	"time"
)

// pulse knows when the last sign of progress was.
type pulse struct {
	stall time.Duration
	start time.Time    // times count from here and are monotonic, since the box's wall clock may jump
	last  atomic.Int64 // nanoseconds after start
	rests atomic.Bool
}

func newPulse(stall time.Duration) *pulse { return &pulse{stall: stall, start: time.Now()} }

// beat records a sign of progress.
func (p *pulse) beat() {
	p.last.Store(int64(time.Since(p.start)))
	p.rests.Store(false)
}

// rest says that signs are not needed until the next one comes by itself.
func (p *pulse) rest() { p.rests.Store(true) }

// alive reports whether the last sign is younger than the stall time. While
// signs are not needed, it is true.
func (p *pulse) alive() bool {
	return p.rests.Load() || time.Since(p.start)-time.Duration(p.last.Load()) < p.stall
}

// guard calls dead once there was no sign for the stall time, and then returns.
func (p *pulse) guard(dead func()) {
	for p.alive() {
		time.Sleep(min(time.Second, p.stall/4))
	}
	dead()
}

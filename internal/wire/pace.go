package wire

import "time"

// Pace bounds how slow the other side may be. It allows for Quiet, and for the time
// that the bytes so far would have taken at MinRate. Time that a side spent by itself
// does not count, since only reads and writes are noted.
type Pace struct {
	Quiet time.Duration
	used  time.Duration // of Quiet
}

// NewPace returns a Pace. If quiet is 0, it is QuietWait.
func NewPace(quiet time.Duration) *Pace {
	if quiet <= 0 {
		quiet = QuietWait
	}
	return &Pace{Quiet: quiet}
}

// Left returns how long the next read or write may take. It is never less than a
// millisecond.
func (p *Pace) Left() time.Duration { return max(p.Quiet-p.used, time.Millisecond) }

// Note notes a read or write of n bytes.
func (p *Pace) Note(n int, took time.Duration) {
	p.used = max(0, p.used+took-time.Duration(n)*time.Second/MinRate)
}

package server

import (
	"context"
	"time"

	"testbox-imaging/internal/pause"
)

// These say how fast upkeep goes while a box restores.
const (
	paceShare  = 10                    // it works for a tenth of the time
	paceWork   = 40 * time.Millisecond // for so long at once
	pacePause  = 10 * time.Second      // and pauses for so long at most, if a piece of work took long
	paceLook   = time.Second           // how often it is looked whether a box restores
	paceBehind = 5 * time.Second       // for how long the end of a restore makes no difference, since the next may come
)

// pacer lets upkeep go on beside restores, but slowly, so that it takes little of the
// processors and of the disk from them. In a lab that restores all the time there
// would be no upkeep otherwise. All goroutines of the work share its time.
type pacer struct {
	busy func() bool   // whether a restore is at work
	turn chan struct{} // guards the fields below; it holds a value while somebody has it, also in a pause, so that all wait

	begun  time.Time // when this piece of work began
	looked time.Time
	last   time.Time // when a restore was seen
}

func newPacer(busy func() bool) *pacer { return &pacer{busy: busy, turn: make(chan struct{}, 1)} }

// wait pauses if there was enough work for now. It fits store.WithPace.
func (p *pacer) wait(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	now := time.Now()
	if now.Sub(p.looked) >= paceLook {
		if p.looked = now; p.busy() {
			p.last = now
		}
	}
	worked := now.Sub(p.begun)
	switch {
	case p.begun.IsZero() || p.last.IsZero() || now.Sub(p.last) > paceBehind:
		p.begun = now
	case worked >= paceWork:
		if err := pause.For(ctx, min((paceShare-1)*worked, pacePause)); err != nil {
			return err
		}
		p.begun = time.Now()
	}
	return context.Cause(ctx)
}

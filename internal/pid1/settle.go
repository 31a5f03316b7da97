package pid1

import (
	"context"
	"os"
	"slices"
	"time"

	"testbox-imaging/internal/disk"
)

// How long to wait for disks. USB and SAS disks appear up to 5 s after their
// controller's driver, one after the other.
const (
	settleQuiet = 5 * time.Second        // without anything new, if there are disks and each controller is ready
	settleNone  = 15 * time.Second       // without anything new, otherwise
	settleMax   = 2 * time.Minute        // in all, once each controller is ready
	settleLong  = 10 * time.Minute       // in all
	settlePoll  = 250 * time.Millisecond // between two looks at the disks
	settleScan  = 4                      // looks at the disks before each scan, since a scan walks all of /sys
)

// settling is what settle looks at.
type settling struct {
	scan    func() int               // loads drivers for new devices and returns how many, or 1 while somebody else loads some
	disks   func() string            // the names of all disks in one text
	unready func() []disk.Controller // controllers that show no disk yet
	beat    func()
	say     func(string, ...any)
}

// settle waits until no more disks appear. A disk that appears after the agent
// has looked would be missing in a backup. So a box on a slow machine, or with a
// slow server, gets more time while one of its controllers has not shown its
// disks.
func settle(ctx context.Context, s settling) {
	start := time.Now()
	seen, ready := s.disks(), start // ready is when the last controller became ready
	var unready []disk.Controller
	// Quiet time is what was slept between looks. On a machine so busy that this
	// process seldom runs, the clock goes on while nobody looks, and whoever loads
	// the drivers waits as long.
	var still time.Duration
	for {
		for range settleScan {
			select {
			case <-ctx.Done():
				return
			case <-time.After(settlePoll):
			}
			s.beat()
			still += settlePoll
			if now := s.disks(); now != seen {
				seen, still = now, 0
			}
		}
		loaded := s.scan()
		unready = s.unready()
		if loaded > 0 || slices.ContainsFunc(unready, func(c disk.Controller) bool { return c.Driven }) {
			still = 0
		}
		quiet := settleQuiet
		if len(unready) > 0 {
			ready = time.Now()
		}
		if seen == "" || len(unready) > 0 {
			quiet = settleNone
		}
		if still >= quiet || time.Since(ready) >= settleMax || time.Since(start) >= settleLong {
			break
		}
	}
	for _, c := range unready {
		s.say("controller %s; disks behind it cannot be seen", c)
	}
	if seen == "" {
		s.say("no disk was found; if the box has one, the maintenance system lacks its driver")
		return
	}
	s.say("disks: %s", seen)
}

// settleDisks is settle on this machine.
func (s *system) settleDisks(ctx context.Context, scan func() int) {
	sys := os.DirFS("/sys")
	settle(ctx, settling{
		scan: scan, disks: blockDevices(sys), unready: func() []disk.Controller { return disk.Unready(sys) }, beat: s.beat, say: s.say,
	})
}

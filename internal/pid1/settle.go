package pid1

import (
	"context"
	"time"
)

// How long to wait for disks. USB and SAS disks appear up to 5 s after their
// controller's driver, one after the other.
const (
	settleQuiet = 5 * time.Second        // without anything new, if there are disks
	settleNone  = 10 * time.Second       // without anything new, if there is no disk
	settleMax   = 2 * time.Minute        // in all
	settlePoll  = 250 * time.Millisecond // between two looks at the disks
	settleScan  = 4                      // one scan in so many polls, since a scan walks all of /sys
)

// settle waits until no more disks appear. scan loads drivers for new devices
// and returns how many. disks returns the names of all disks in one text.
func settle(ctx context.Context, scan func() int, disks func() string, say func(string, ...any)) {
	start := time.Now()
	seen, last := disks(), start
	for poll := 1; time.Since(start) < settleMax; poll++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settlePoll):
		}
		fresh := poll%settleScan == 0 && scan() > 0
		if now := disks(); now != seen || fresh {
			seen, last = now, time.Now()
		}
		quiet := time.Since(last)
		if quiet >= settleNone || seen != "" && quiet >= settleQuiet {
			break
		}
	}
	if seen == "" {
		say("no disk was found; if the box has one, the maintenance system lacks its driver")
		return
	}
	say("disks: %s", seen)
}

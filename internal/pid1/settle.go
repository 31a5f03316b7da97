package pid1

import (
	"context"
	"time"
)

// How long disks are waited for. USB and SAS disks come up to 5 s after their
// controller's driver, one after the other.
const (
	settleQuiet = 5 * time.Second        // nothing new for so long, and there are disks
	settleNone  = 10 * time.Second       // nothing new for so long, and there is no disk
	settleMax   = 2 * time.Minute        // in all
	settlePoll  = 250 * time.Millisecond //
	settleScan  = 4                      // polls to a scan for new devices, which walks all of /sys
)

// settle waits until no more disks appear. scan loads drivers for new devices
// and says how many; disks names all disks in one text.
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

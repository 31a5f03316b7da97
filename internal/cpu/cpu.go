// Package cpu knows how many processors there are for work that needs one, and
// lets reads and writes of disks block beside it.
package cpu

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// blocked is how many reads and writes of disks block at once.
const blocked = 8

var count = runtime.GOMAXPROCS(0)

// Count is how many processors this process may use: those of the machine that
// it is not kept from, or what the environment's GOMAXPROCS says.
func Count() int { return count }

// Used is how much processor time this process has used so far.
func Used() time.Duration {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// LetDisksBlock is for the beginning of a program. A read that goes past the
// page cache blocks its thread, and Go's scheduler takes a while to see that:
// until then the thread keeps one of GOMAXPROCS places. On a machine with two
// processors two reads would keep all others from work, so there are more
// places than processors. docs/performance.md has the gain.
func LetDisksBlock() { runtime.GOMAXPROCS(count + blocked) }

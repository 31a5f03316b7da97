package realfs

import (
	"syscall"
	"testing"
	"time"
)

// ProcessorTime is the processor time that this process has used so far. The
// clock is no measure on a machine that has other work.
func ProcessorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

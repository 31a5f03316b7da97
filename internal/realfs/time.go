package realfs

import (
	"syscall"
	"testing"
	"time"
)

// ProcessorTime is what this process took so far: what a machine with other
// work says of a clock means nothing.
func ProcessorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

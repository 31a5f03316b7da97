package copier

import (
	"fmt"
	"time"

	"testbox-imaging/internal/cpu"
)

// load measures what limits the speed of a pass that writes.
type load struct {
	start time.Time
	used  time.Duration // processor time of this process at the start
}

func beginLoad() load { return load{time.Now(), cpu.Used()} }

// busyShare is the share of the time from which on something counts as the limit.
const busyShare = 0.8

// text says what bound the pass: the processors, the disk, or where the image
// comes from.
func (l load) text(fetch, write float64) string {
	processors := min(1, float64(cpu.Used()-l.used)/float64(cpu.Count())/float64(max(1, time.Since(l.start))))
	return boundText(processors, fetch, write)
}

func boundText(processors, fetch, write float64) string {
	what := "nothing bound the writing all the time"
	switch {
	case processors >= busyShare: // then all others wait for them too
		what = "the processors bound the writing"
	case write >= busyShare:
		what = "the disk bound the writing"
	case fetch >= busyShare:
		what = "the store of the image bound the writing"
	}
	return fmt.Sprintf("%s (of the time, the processors worked %.0f %%, the image was read and unpacked %.0f %%, the disk written %.0f %%)",
		what, 100*processors, 100*fetch, 100*write)
}

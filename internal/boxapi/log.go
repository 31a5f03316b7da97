package boxapi

import (
	"sync"
	"time"

	"testbox-imaging/internal/words"
)

const (
	logBurst = 200         // lines at once
	logEvery = time.Second // and then one each time
)

// sparing passes on so many lines of a log and no more, so that no box can fill it.
type sparing struct {
	log func(format string, args ...any)

	mu      sync.Mutex // guards the fields below
	paid    time.Time  // up to when lines were passed on, with one each logEvery
	dropped int        // since the last line
}

func (s *sparing) Log(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.paid.Sub(now) > logBurst*logEvery {
		s.dropped++
		return
	}
	if s.paid.Before(now) {
		s.paid = now
	}
	s.paid = s.paid.Add(logEvery)
	if s.dropped > 0 {
		s.log("%s not logged, since they were too many", words.Count(s.dropped, "line was", "lines were"))
		s.dropped = 0
	}
	s.log(format, args...)
}

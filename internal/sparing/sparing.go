// Package sparing keeps a log from being filled by what strangers can cause.
package sparing

import (
	"sync"
	"time"

	"testbox-imaging/internal/words"
)

const (
	// Every is how much time lies between two lines of one kind and from one sender.
	Every = 5 * time.Minute
	// most is of how many senders and kinds this is remembered. All others share one line.
	most = 256
)

// Limit lets one line through for each key in the time Every, and counts the others. A key
// says who caused the line, and of which kind it is. The zero Limit is ready. All methods
// may be called by several goroutines.
type Limit struct {
	mu   sync.Mutex // guards the fields below
	said map[string]*line
	left int // lines that were left out, of keys that are forgotten
}

// line is the last line of a key that was let through.
type line struct {
	at   time.Time
	left int // out since then
}

// Take reports whether a line may be written now. more is a text for its end, which says
// how many lines were left out before. It is "" if none was.
func (l *Limit) Take(key string) (more string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	known := l.said[key]
	if known == nil {
		known = l.add(key, now)
	}
	if !known.at.IsZero() && now.Sub(known.at) < Every {
		known.left++
		return "", false
	}
	left := known.left + l.left
	known.at, known.left, l.left = now, 0, 0
	if left > 0 {
		more = "; " + words.Count(left, "line was", "lines were") + " left out before, to spare the log"
	}
	return more, true
}

// add makes room for a key, or returns what all share that have no room.
func (l *Limit) add(key string, now time.Time) *line {
	if l.said == nil {
		l.said = map[string]*line{}
	}
	if len(l.said) >= most {
		for k, v := range l.said {
			if now.Sub(v.at) >= Every {
				l.left += v.left
				delete(l.said, k)
			}
		}
	}
	if len(l.said) >= most {
		key = ""
		if l.said[key] != nil {
			return l.said[key]
		}
	}
	l.said[key] = &line{}
	return l.said[key]
}

package sparing

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// One line of each sender comes through in the time, with a count of those before it.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		for i, step := range []struct {
			wait time.Duration
			key  string
			ok   bool
			more string
		}{
			{0, "a", true, ""}, {0, "a", false, ""}, {0, "b", true, ""}, {Every - time.Second, "a", false, ""},
			{time.Second, "a", true, "; 2 lines were left out before, to spare the log"},
			{0, "a", false, ""}, {Every, "a", true, "; 1 line was left out before, to spare the log"}, {0, "b", true, ""},
		} {
			time.Sleep(step.wait)
			if more, ok := l.Take(step.key); ok != step.ok || more != step.more {
				t.Errorf("step %d: %q, %v", i, more, ok)
			}
		}
	})
}

// Many senders fill neither the log nor the memory, and what is left out is counted.
func TestManySenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		lines := 0
		const rounds, each = 10, 20_000
		for range rounds {
			for n := range each {
				if _, ok := l.Take(fmt.Sprint(n)); ok {
					lines++
				}
			}
			time.Sleep(Every)
		}
		if lines > rounds*(most+1) || lines < rounds {
			t.Errorf("%d lines came through", lines)
		}
		if n := len(l.said); n > most+1 {
			t.Errorf("%d senders are remembered", n)
		}
		if more, ok := l.Take("another"); !ok || !strings.Contains(more, "lines were left out before") {
			t.Errorf("a line that comes later: %q, %v", more, ok)
		}
	})
}

package boxapi

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSparing: what comes again and again does not fill the log, and what comes later is in
// it.
func TestSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		s := &sparing{log: func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }}
		for n := range 100_000 {
			s.Log("line %d", n)
			time.Sleep(time.Millisecond)
		}
		if n := len(lines); n > 2*(logBurst+100) || lines[logBurst-1] != fmt.Sprint("line ", logBurst-1) {
			t.Errorf("there are %d lines", n)
		}
		time.Sleep(time.Hour)
		lines = nil
		s.Log("later")
		if len(lines) != 2 || lines[1] != "later" || !strings.Contains(lines[0], "not logged") {
			t.Errorf("the log has %q", lines)
		}
	})
}

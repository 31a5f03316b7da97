package s3

import (
	"testing"
	"time"
)

// Hurry makes retries come at once until the test ends.
func Hurry(t *testing.T) {
	before := pauses
	pauses = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}
	t.Cleanup(func() { pauses = before })
}

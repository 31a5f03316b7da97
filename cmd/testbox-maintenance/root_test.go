package main

import (
	"io"
	"strings"
	"testing"
)

// The verbs that start the debian form do nothing when called in a wrong way.
func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{nil, {"nosuch"}, {"root"}, {"root", "relative"}, {"root", ""}, {"root", "/a", "/b"},
		{"service", "now"}} {
		var said strings.Builder
		if code := dispatch(args, io.Discard, &said); code != 2 || !strings.Contains(said.String(), "usage: testbox-maintenance") {
			t.Errorf("%q: exit code %d, %q", args, code, said.String())
		}
	}
}

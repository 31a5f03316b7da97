package main

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"testbox-imaging/internal/setup"
)

// TestSetupSays: what has several lines, as errors of apt have, is said in lines, and what is
// not for a terminal does not reach it.
func TestSetupSays(t *testing.T) {
	var out bytes.Buffer
	r := &setupRun{p: printer{out: &out, err: &out}}
	r.say(setup.Right, "one", "It %s.", "is so")
	r.say(setup.Wrong, "maintenance system", "It could not be built: %v", errors.New("download failed\nE: no \x1b[31mroute\nE: end\n"))
	if got, want := out.String(), "[so] one: It is so.\n[MISSING] maintenance system: It could not be built: download failed\n"+
		"    E: no ?[31mroute\n    E: end\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !slices.Equal(r.missing, []string{"maintenance system"}) {
		t.Errorf("missing: %q", r.missing)
	}
}

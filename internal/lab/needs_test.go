package lab

import (
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

// TestNeeds: a program that is not here is said, with what installs it, before
// a lab makes anything.
func TestNeeds(t *testing.T) {
	testenv.Root(t)
	defer func(all []string) { needed = all }(needed)
	needed = append(needed, "no-such-program")
	t.Setenv("TMPDIR", t.TempDir())
	for what, err := range map[string]error{"Check": Check(), "New": func() error { _, err := New(t.Context(), Options{}); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "no-such-program") || !strings.Contains(err.Error(), "scripts/deps") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNeedsAreHere(t *testing.T) {
	needLab(t)
	if err := Check(); err != nil {
		t.Error(err)
	}
}

package lab

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
)

// TestReset: another process presses the reset button of a box, and is told why
// where there is none to press.
func TestReset(t *testing.T) {
	needLab(t)
	t.Setenv("TMPDIR", t.TempDir()) // no other lab is asked
	l := startLab(t)
	dir := filepath.Dir(l.Dir)
	other, err := box.ParseAddr("10.40.41.43")
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	if err := Reset(empty, BoxAddr(0)); !errors.Is(err, ErrNoLab) || !strings.HasSuffix(err.Error(), " in "+empty) {
		t.Errorf("without a lab: %v", err)
	}
	done := make(chan box.Addr, 10)
	if err := l.Listen(func(a box.Addr) { done <- a }); err != nil {
		t.Fatal(err)
	}
	if err := Reset(dir, other); err == nil || !strings.Contains(err.Error(), "only 10.40.41.42") {
		t.Errorf("of a box that is not there: %v", err)
	}
	if err := Reset(dir, BoxAddr(0)); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a != BoxAddr(0) {
		t.Errorf("box %s was reset", a)
	}
	l.machines[0].PowerOff()
	if err := Reset(dir, BoxAddr(0)); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("of a box that is off: %v", err)
	}
	if len(done) > 0 {
		t.Error("a box was reset")
	}
	for _, c := range []struct {
		action string
		on     bool
	}{{"on", true}, {"on", true}, {"cycle", true}, {"off", false}, {"off", false}, {"cycle", true}} {
		if err := Switch(l.Dir, BoxAddr(0), c.action); err != nil || (l.machines[0].alive() == nil) != c.on {
			t.Fatalf("%s: it is on: %v, %v", c.action, l.machines[0].alive() == nil, err)
		}
		<-done
	}
	if err := Switch(l.Dir, BoxAddr(0), "burn"); !errors.Is(err, ErrWhich) {
		t.Errorf("what cannot be done: %v", err)
	}
	l.Close(false)
	if err := Reset(dir, BoxAddr(0)); !errors.Is(err, ErrNoLab) {
		t.Errorf("after its end: %v", err)
	}
}

package child_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"testbox-imaging/internal/child"
)

// TestInterrupted: the context's end reaches what a program started, and is the
// error; what it was told to do when asked to end is done.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	// The trap is set behind the fork: a child that had not given it up yet
	// would lose the signal.
	cmd := child.Command(ctx, "sh", "-c", `(sleep 15; echo late) & trap 'echo cleaned >clean' TERM; echo up; wait; wait`)
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "up\n" {
		t.Fatal(line, err)
	}
	cancel()
	if more, err := io.ReadAll(r); err != nil || len(more) > 0 { // it ends when both have
		t.Errorf("after the end: %q, %v", more, err)
	}
	if err := child.Err(ctx, cmd.Wait()); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if text, err := os.ReadFile(dir + "/clean"); err != nil || string(text) != "cleaned\n" {
		t.Errorf("it did not clean: %q, %v", text, err)
	}
}

func TestErr(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	failed := child.Command(t.Context(), "false").Run()
	for _, c := range []struct {
		ctx       context.Context
		err, want error
	}{{t.Context(), failed, failed}, {t.Context(), nil, nil}, {ended, failed, context.Canceled}, {ended, nil, nil}} {
		if got := child.Err(c.ctx, c.err); got != c.want {
			t.Errorf("Err(%v, %v) is %v", c.ctx.Err(), c.err, got)
		}
	}
	if err := child.Err(ended, child.Command(ended, "true").Run()); err != context.Canceled {
		t.Errorf("started after the end: %v", err)
	}
}

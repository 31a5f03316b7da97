// Package child runs other programs, so that an interruption of ours ends them
// too, and is what the error says.
package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Grace is how long a program may take to end when it was asked to.
const Grace = 10 * time.Second

// Command is a program that ends with ctx. It gets no signals of the terminal,
// since they would end it before ctx ends, and its error would be the wrong one.
// When ctx ends, it and what it started are asked to end, and it is killed
// after Grace. Hold what Run or Wait returns against Err.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = Grace
	return cmd
}

// Err is err, or the context's own error where a program failed because the
// context ended.
func Err(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

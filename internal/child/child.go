// Package child runs other programs. When our own program is interrupted, they
// end too, and the error is that of the interruption.
package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Grace is how long a program may take to end after it was asked to.
const Grace = 10 * time.Second

// Command returns a program that ends when ctx ends. It then gets SIGTERM,
// together with the processes that it started, and is killed after Grace. It
// does not get signals of the terminal. Such a signal would end it before ctx
// ends, and the error would be the wrong one. Pass what Run or Wait returns
// through Err.
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

// Err returns err. If ctx has ended, a failed program gives the error of ctx
// instead.
func Err(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

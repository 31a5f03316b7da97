package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"testbox-imaging/internal/child"
)

// How often SSH tries, and how long it waits between two tries.
const (
	sshTries = 10
	sshWait  = 5 * time.Second
)

// Disconnected reports whether an error of SSH says that there was no
// connection, or that it was lost. The command may not have run then. ssh(1)
// exits with 255 in this case, and no command of ours does.
func Disconnected(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == 255
}

// SSH runs a command on the box and returns what it printed. It logs in as the
// user with the private key, as an admin on the storage server would. A busy
// machine drops connections, so SSH tries again if there was no connection or
// if it was lost. So the command must be one that may run twice.
func (m *Machine) SSH(ctx context.Context, user, key, command string) (text string, err error) {
	for try := 1; ; try++ {
		text, err = m.SSHOnce(ctx, user, key, command)
		if !Disconnected(err) || try == sshTries {
			return text, err
		}
		select {
		case <-time.After(sshWait):
		case <-ctx.Done():
			return text, err
		}
	}
}

// SSHOnce is SSH with only one try, for a command that ends the box's system.
// The box makes its host key at its start, so the key is not checked.
func (m *Machine) SSHOnce(ctx context.Context, user, key, command string) (string, error) {
	cmd := child.Command(ctx, program("ssh"), "-F", "/dev/null", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "ConnectTimeout=20", "-o", "ConnectionAttempts=5", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=6",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		user+"@"+m.Addr.String(), command)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.lab.ns.do(cmd.Start); err != nil {
		return "", err
	}
	err := child.Err(ctx, cmd.Wait())
	text := strings.TrimSpace(out.String())
	if err != nil {
		return text, fmt.Errorf("ssh %s@%s %q: %w: %s", user, m.Addr, command, err, text)
	}
	return text, nil
}

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// SSH runs a command on the box as the user, with the private key, as an admin
// on the storage server would, and returns what it printed. The box's host key
// is made at its start, so it is not checked here.
func (m *Machine) SSH(ctx context.Context, user, key, command string) (string, error) {
	cmd := exec.CommandContext(ctx, program("ssh"), "-F", "/dev/null", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=6",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		user+"@"+m.Addr.String(), command)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.lab.ns.do(cmd.Start); err != nil {
		return "", err
	}
	err := cmd.Wait()
	text := strings.TrimSpace(out.String())
	if err != nil {
		return text, fmt.Errorf("ssh %s@%s %q: %w: %s", user, m.Addr, command, err, text)
	}
	return text, nil
}

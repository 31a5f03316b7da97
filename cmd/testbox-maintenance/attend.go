package main

import (
	"context"
	"io"

	"testbox-imaging/internal/agent"
)

const attendUsage = `usage: testbox-maintenance attend [flags]

In rescue of a server: asks the server from time to time whether the rescue is
over, and restarts the box then. The service starts it by itself.

Exit codes: 0 there is no server to ask; 1 failed; 2 wrong use; 3 refused, the box
is not in rescue.

Flags:
`

func attend(args []string, stdout, stderr io.Writer) int {
	fl := newAgentFlags("attend", attendUsage, stdout, stderr)
	cfg, ok := fl.config(args)
	if !ok || !fl.noArgs() || !fl.isRoot() {
		return 2
	}
	cfg.Reboot = true
	return agent.Attend(context.Background(), cfg).ExitCode()
}

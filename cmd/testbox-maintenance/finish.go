package main

import (
	"io"

	"testbox-imaging/internal/agent"
)

const finishUsage = `usage: testbox-maintenance finish [--stay] [flags]

Ends the rescue that this box is in: disarms it, logs 'rescue: done', and
restarts it at once. Unmount what you mounted before. If the box was disarmed or
armed anew meanwhile, that is left as it is. In server mode the server disarms it.

Exit codes: 0 done; 1 failed, the box is not restarted; 2 wrong use; 3 refused,
the box is not in rescue.

Flags:
`

func finish(args []string, stdout, stderr io.Writer) int {
	fl := newAgentFlags("finish", finishUsage, stdout, stderr)
	stay := fl.Bool("stay", false, "do not restart the box; without this, finish can be called again to do so")
	cfg, ok := fl.config(args)
	if !ok || !fl.noArgs() || !fl.isRoot() {
		return 2
	}
	cfg.Reboot = !*stay
	return agent.Finish(cfg).ExitCode()
}

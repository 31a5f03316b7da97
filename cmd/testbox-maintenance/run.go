package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/progress"
)

const runUsage = `usage: testbox-maintenance run [flags]

Does once what the kernel command line asks for, and logs it in the backup area or
at the server.

Exit codes: 0 done; 1 failed; 2 wrong use; 3 refused, no disk or image was
changed; 4 done, but the image has zeros for unreadable sectors; 5 the arming had expired:
disarmed, nothing done; 6 done, and verify found that disk and image differ;
7 up for rescue: the box stays up, and armed, until 'testbox-maintenance finish'.

Flags:
`

func run(args []string, stdout, stderr io.Writer) int {
	fl := newAgentFlags("run", runUsage, stdout, stderr)
	fl.StringVar(&fl.cfg.PCIIDs, "pci-ids", "/usr/share/misc/pci.ids", "names of PCI devices, for the inventory")
	fl.StringVar(&fl.cfg.SSHDir, "ssh", "/etc/ssh", "folder of the ssh server's host keys, whose fingerprints rescue logs")
	fl.Int64Var(&fl.cfg.RoomMemory, "room-memory", 0, "bytes of memory for chunks that other boxes can have of this one "+
		"(default: a quarter of what is free, at most 512 MiB)")
	fl.BoolVar(&fl.cfg.Reboot, "reboot", false, "reboot when done, but not in rescue; after a failure or refusal wait first, so that an "+
		"admin can see it")
	cfg, ok := fl.config(args)
	if !ok || !fl.noArgs() {
		return 2
	}
	cfg.Terminal = progress.IsTerminal(os.Stdout)
	cfg.Alive = pid1.Heartbeat()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return agent.Run(ctx, cfg).ExitCode()
}

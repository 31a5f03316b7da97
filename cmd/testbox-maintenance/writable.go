package main

import (
	"fmt"
	"io"

	"testbox-imaging/internal/agent"
)

const writableUsage = `usage: testbox-maintenance writable [--off] [flags] [DISK... | all]

In rescue, lets disks and their partitions be written, which the kernel refuses
until then. DISK is a kernel name, a path below /dev, a by-id link or a serial.
Without one, lists the disks of the box and says which are read-only.

Exit codes: 0 done; 1 failed; 2 wrong use; 3 refused, nothing was changed.

Flags:
`

func writable(args []string, stdout, stderr io.Writer) int {
	fl := newAgentFlags("writable", writableUsage, stdout, stderr)
	off := fl.Bool("off", false, "protect the disks again")
	cfg, ok := fl.config(args)
	if !ok || !fl.isRoot() {
		return 2
	}
	switch {
	case fl.NArg() > 0:
		return agent.Writable(cfg, fl.Args(), *off).ExitCode()
	case *off:
		fmt.Fprintln(stderr, "testbox-maintenance: --off needs the names of disks, or all")
		return 2
	}
	return agent.Disks(cfg).ExitCode()
}

package main

import (
	"fmt"
	"io"

	"testbox-imaging/internal/pid1"
)

const rootUsage = `usage: testbox-maintenance root DIR

In the initramfs of the debian form, as root: brings up the network, mounts or fetches the
root that the kernel command line names, read-only with a layer in memory over
it, on DIR. What keeps the box from hanging stays behind as a process.

Exit codes: 0 mounted; 1 failed; 2 wrong use.
`

func root(args []string, _, stderr io.Writer) int {
	if len(args) != 1 || len(args[0]) == 0 || args[0][0] != '/' {
		fmt.Fprint(stderr, rootUsage)
		return 2
	}
	return pid1.Root(args[0])
}

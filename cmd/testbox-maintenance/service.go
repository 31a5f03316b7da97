package main

import (
	"fmt"
	"io"

	"testbox-imaging/internal/pid1"
)

const serviceUsage = `usage: testbox-maintenance service

What testbox-maintenance.service runs in the debian form: mounts the two areas of
share mode, runs the agent, and reboots the box when that ends or nothing moves any
more.

Exit codes: 0 the box is in rescue, it stays up; 1 failed, the box reboots;
2 wrong use.
`

func service(args []string, _, stderr io.Writer) int {
	if len(args) != 0 {
		fmt.Fprint(stderr, serviceUsage)
		return 2
	}
	return pid1.Service(logOpener())
}

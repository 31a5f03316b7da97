package main

import (
	"github.com/spf13/cobra"
)

func newDiskCmd() *cobra.Command {
	return newGroupCmd("disk", "Look into a disk", `Looks at the disk of this machine, or at a file with the bytes of one. Nothing is written.`, newDiskMapCmd())
}

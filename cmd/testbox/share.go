package main

import "github.com/spf13/cobra"

func newShareCmd(w world) *cobra.Command {
	return newGroupCmd("share", "Set up the storage server of share mode",
		`Share mode needs no daemon of ours: boxes boot by TFTP from one exported folder and keep their
images in another.`, newShareInitCmd(w))
}

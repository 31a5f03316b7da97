package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newStoreCmd(w world) *cobra.Command {
	return newGroupCmd("store", "Make a store of backups, look after it, copy it",
		`A store is a folder with the backups of any number of boxes, or a folder with the index of one
whose backups are in S3-compatible object storage. One process writes to it at a time; others can
read beside it. If that is a server, `+"`gc` and `scrub`"+` go through it.`,
		newStoreInitCmd(), newStoreTakeOverCmd(w), newStoreStatsCmd(w), newStoreScrubCmd(w), newStoreGCCmd(w), newStoreRebuildCmd(w),
		newStoreCopyCmd(w))
}

// storeArg reads the store from the argument, for commands that have no other
// arguments.
func storeArg(o *storeFlag, args []string) error {
	switch len(args) {
	case 0:
		return nil
	case 1:
		o.dir = args[0]
		return nil
	}
	return errors.New("give one folder")
}

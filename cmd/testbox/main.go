// Command testbox is for the admin and the storage server. It arms boxes, sets
// up the share and builds maintenance systems. It keeps images of disks in a
// store, and restores them at a shell. It runs the virtual lab. exit.go decides
// its exit codes.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/version"
)

// newRootCmd builds the tree of commands. Each command has a file of its own.
func newRootCmd(w world) *cobra.Command {
	root := newGroupCmd("testbox", "Back up and restore the disks of test machines over the network",
		`testbox arms test machines ("boxes") for an action: at its next start from the network an
armed box boots the maintenance system instead of its own disk, does the action, disarms
itself and starts its own disk again.

  testbox setup               set this machine up as the storage server
  testbox server              be the storage server; server init sets it up
  testbox backup, restore ... ask a server to do it, and wait for it
  testbox jobs, boxes, log    say how a server's jobs and boxes are
  testbox schedule            what a server does again and again
  testbox doctor              find what is wrong, and say what to do
  testbox share init          set up a storage server of share mode
  testbox maintenance build   make the system that boxes boot for an action
  testbox pxe-conf            arm boxes, list armed ones, disarm them
  testbox image               back up disks into a store, restore, compare and look into them
  testbox store               make a store, look after it, copy it
  testbox disk map            show which bytes of a disk matter
  testbox lab                 try it all with virtual boxes`,
	)
	root.Version = version.String()
	root.SetHelpCommand(newHelpCmd())
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newActionCmds(w)...)
	root.AddCommand(
		newSetupCmd(w),
		newServerCmd(w),
		newJobsCmd(w),
		newCancelCmd(w),
		newReleaseCmd(w),
		newFinishCmd(w),
		newBoxesCmd(w),
		newBoxCmd(w),
		newBoxGroupCmd(w),
		newScheduleCmd(w),
		newLogCmd(w),
		newInfoCmd(w),
		newLoginCmd(w),
		newTokenCmd(w),
		newUserCmd(w),
		newAuditCmd(w),
		newDoctorCmd(w),
		newPxeConfCmd(w),
		newShareCmd(w),
		newMaintenanceCmd(),
		newImageCmd(w),
		newStoreCmd(w),
		newDiskCmd(),
		newLabCmd(),
	)
	return root
}

// run executes the command line and returns the exit code. Errors are printed
// to stderr.
func run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return execute(ctx, root)
}

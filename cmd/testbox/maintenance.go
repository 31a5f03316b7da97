package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/durable"
)

// newMaintenanceCmd makes the group of commands for maintenance systems.
func newMaintenanceCmd() *cobra.Command {
	return newGroupCmd("maintenance", "Build and list the systems that boxes boot for an action",
		`A maintenance system is a kernel and an initrd in the TFTP area's folder
`+bootcfg.MaintDir+`. Each build has a folder and a name of its own and is never changed, so
that a box that boots in this moment gets files that belong together.
`+"`testbox pxe-conf`"+` takes the newest of the form ram, for rescue the newest of the form
debian, unless the site file names one.`,
		newMaintenanceBuildCmd(), newMaintenanceListCmd())
}

// tftpArea is the path of the TFTP area below the folder of `testbox share
// init`.
func tftpArea(dir string) string { return filepath.Join(dir, bootcfg.TFTPArea) }

// bootOf is the folder of boot files in a TFTP area.
func bootOf(tftp string) *bootfiles.Folder {
	return bootfiles.New(durable.OS{}, filepath.Join(tftp, bootcfg.ConfigDir))
}

func atMostOneFolder(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return errors.New("give one folder at most, that with the areas")
	}
	return nil
}

func completeFolder(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// exportDir is the folder with the areas. It is the argument, or else the
// default.
func exportDir(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return bootcfg.Export
}

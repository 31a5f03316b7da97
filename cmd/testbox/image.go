package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newImageCmd(w world) *cobra.Command {
	cmd := newGroupCmd("image", "Back up disks into a store, restore, compare and look into them",
		`A store keeps backups of boxes: each has one or more disks, and shares with all others what
they have in common. BACKUP says which backup is meant:
  BOX                 the baseline of a box; the latest backup, if it has none
  BOX@latest          the latest backup that is not dated in the future; BOX@latest~1 the one before
  BOX@2026-11-27      the last of a day; a time or its beginning does too, in UTC
  BOX@20261127-081500 the one with this id
  BOX@baseline        the baseline
and with :DISK behind it, which of its disks. BOX means the same to all commands but three:
image delete and image date want to be told which backup, and for store copy it is all backups of the
box. Where it means a baseline that is not the latest backup, a line says so. Boxes are called by
their address, or by any name.`,
		newImageCreateCmd(w), newImageListCmd(), newImageShowCmd(), newImageVerifyCmd(), newImageRestoreCmd(),
		newImageDeleteCmd(w), newImagePinCmd(w), newImageDateCmd(w), newImageDiffCmd(), newImageExportCmd(),
		newImageImportCmd(w), newImageMountCmd(), newImageBootTestCmd(w))
	for _, sub := range cmd.Commands() {
		if strings.Contains(sub.Use, "BACKUP") && !strings.Contains(sub.Long, backupHelp) {
			sub.Long += "\n\n" + backupHelp + " explains BACKUP."
		}
	}
	return cmd
}

// backupHelp is the command that explains BACKUP. The help of every command that
// takes one names it.
const backupHelp = "`testbox image --help`"

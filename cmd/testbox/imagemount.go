package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/store"
)

func newImageMountCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "mount IMAGE FOLDER",
		Short: "Show the disks of a backup as files",
		Long: `Mounts a backup on an empty FOLDER: each disk is a file such as sda.raw there, read-only, which
losetup, QEMU and guestfish take for the disk. What no file system used reads as zeros. It goes on
until it is interrupted or FOLDER is unmounted, and packs are not removed from the store meanwhile.
Where something is damaged, reads fail, and it is said here.`,
		Example: `  testbox image mount 10.40.41.42@latest~1 /mnt &
  losetup --find --show --partscan --read-only /mnt/sda.raw`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give an image and an empty folder")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, true, func(s *store.Locked) error {
				return runImageMount(cmd, s, args[0], args[1])
			})
		},
	}
	o.add(cmd)
	return cmd
}

func runImageMount(cmd *cobra.Command, s *store.Locked, arg, dir string) error {
	r, sel, err := pick(cmd, s, arg, false)
	if err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return wrong("%s is no folder", dir)
	}
	// Whoever still uses a file when this is interrupted can go on.
	ctx := context.WithoutCancel(cmd.Context())
	var files []imagefs.File
	for _, d := range chosen(r, sel) {
		im, err := openImage(ctx, s, d)
		if err != nil {
			return err
		}
		view := im.ReaderAt(ctx, viewCache)
		defer view.Close()
		files = append(files, imagefs.File{Name: d.Name, Size: d.Disk.Size, ModTime: r.Time, ReaderAt: view})
	}
	m, err := imagefs.New(dir, files, func(format string, args ...any) {
		cmd.PrintErrf("testbox: "+format+"\n", args...)
	})
	if err != nil {
		return err
	}
	cmd.Printf("backup %s of %s is mounted on %s; interrupt ends it\n", r.ID, r.Box, dir)
	m.Wait(cmd.Context())
	return nil
}

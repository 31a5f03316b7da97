package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

func newImageVerifyCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "verify IMAGE [[NAME=]DISK...]",
		Short: "Read a backup whole, or compare disks with it",
		Long: `Without disks, reads and checks every object that the backup needs: after it, the backup can be
restored. With disks, compares them with the images, and says where they differ; bytes that no
file system used are not compared. Nothing is written. The exit code is 6 if they differ.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give an image, as BOX or BOX@WHEN")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, true, func(s *store.Locked) error {
				r, sel, err := pick(cmd, s, args[0], false)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					return verifyImages(cmd, s, r, chosen(r, sel))
				}
				return verifyDisks(cmd, s, r, sel, args[1:])
			})
		},
	}
	o.add(cmd)
	return cmd
}

// verifyImages reads all of the images.
func verifyImages(cmd *cobra.Command, s *store.Locked, r *image.Record, disks []*image.RecordedDisk) error {
	p := newProgress(cmd.ErrOrStderr())
	defer p.end()
	for _, d := range disks {
		im, err := openImage(cmd.Context(), s, d)
		if err != nil {
			return err
		}
		err = im.Check(cmd.Context(), cpu.Count(), func(done int64) { p.tell("check "+d.Name, done, d.Data) })
		if err != nil {
			return fmt.Errorf("backup %s of %s: %s: %w", r.ID, r.Box, d.Name, err)
		}
		p.end()
		cmd.Printf("%s: image %s is whole: %s of data\n", d.Name, d.Root, bytesText(d.Data))
	}
	cmd.Printf("backup %s of %s can be restored\n", r.ID, r.Box)
	return nil
}

// errDiffer is what a comparison ends with that found differences.
var errDiffer = &exitError{exitDiffer, errors.New("disk and image differ")}

func verifyDisks(cmd *cobra.Command, s *store.Locked, r *image.Record, sel store.Selector, args []string) error {
	disks, err := pairTargets(r, sel, args)
	if err != nil {
		return err
	}
	differ := false
	for i := range disks {
		d := &disks[i]
		same, err := verifyDisk(cmd, s, d)
		if err != nil {
			return err
		}
		differ = differ || !same
	}
	if differ {
		return errDiffer
	}
	cmd.Printf("the disks hold backup %s of %s\n", r.ID, r.Box)
	return nil
}

func verifyDisk(cmd *cobra.Command, s *store.Locked, d *restoring) (same bool, err error) {
	t, err := openLocal(d.path, sectorOf(d), false, true)
	if err != nil {
		return false, err
	}
	defer t.close()
	im, err := openImage(cmd.Context(), s, d.RecordedDisk)
	if err != nil {
		return false, err
	}
	j := copier.StoredJob(cmd.Context(), d.Name, im, t)
	p := newProgress(cmd.ErrOrStderr())
	j.Fit = fitting(d, func(format string, args ...any) { p.end(); cmd.PrintErrf(format+"\n", args...) })
	layout := copier.ParseLayout(im.Root.Layout)
	tally := layout.Tally()
	opt := t.options(p)
	opt.Differs = tally.Add
	receipt, err := copier.Verify(cmd.Context(), j, opt)
	p.end()
	if err != nil {
		return false, err
	}
	cmd.Printf("%s: %s: the same %s, of %s read\n", d.Name, d.path, bytesText(receipt.Verified), bytesText(receipt.Read))
	for _, line := range copier.DifferText(&receipt, tally) {
		cmd.Printf("%s: %s\n", d.Name, line)
	}
	printBad(cmd, d.Name, receipt.Bad)
	return len(receipt.Differ) == 0 && len(receipt.Bad) == 0, nil
}

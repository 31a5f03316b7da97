package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

func newImageVerifyCmd() *cobra.Command {
	var o storeFlag
	var raw, shrink bool
	cmd := &cobra.Command{
		Use:   "verify BACKUP [[NAME=]DISK...]",
		Short: "Read a backup whole, or compare disks with it",
		Long: `Without disks, reads and checks every object that the backup needs: after it, the backup can be
restored. If a disk's image is damaged, the others are still checked. With disks, compares them with
the images, says how much differs in which partitions, and where. All disks of the backup must be
given; BACKUP:DISK is one alone. Bytes that no file system used are not compared. Nothing is written.
What is found damaged stands in ` + "`testbox image list`" + ` from then on, until it is found whole. The exit
code is 6 if they differ, 4 if all is well but the image has zeros for unreadable sectors.`,
		Example: `  testbox image verify 10.40.41.42
  testbox image verify 10.40.41.42 sda=/dev/sda sdb=/dev/sdb
  testbox image verify web-1:sda disk.img`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give a backup, as BOX or BOX@WHEN")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wantDisks(args[1:], raw); err != nil {
				return err
			}
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				r, sel, err := pick(cmd.Context(), printerOf(cmd), s, args[0])
				if err != nil {
					return err
				}
				if len(args) == 1 {
					return verifyImages(cmd.Context(), printerOf(cmd), s, r, chosen(r, sel))
				}
				return verifyDisks(cmd.Context(), printerOf(cmd), s, r, sel, args[1:], shrink)
			})
		},
	}
	o.add(cmd)
	addRaw(cmd, &raw)
	cmd.Flags().BoolVar(&shrink, "shrink-table", false, shrinkHelp)
	return cmd
}

// verifyImages reads all of the images. It also continues after a damaged one.
func verifyImages(ctx context.Context, p printer, s verifier, r *image.Record, disks []*image.RecordedDisk) error {
	var errs []error
	var whole, not []string
	var good []object.Name // roots of undamaged images
	damaged := store.Damages{}
	var plan []progress.Work
	for _, d := range disks {
		plan = append(plan, progress.Work{Disk: d.Name, Pass: "check", Bytes: d.Data})
	}
	line := newProgress(p.err, plan...)
	for _, d := range disks {
		err := verifyImage(ctx, p, s, line, r, d, damaged)
		switch {
		case err == nil:
			whole, good = append(whole, d.Name+" is whole"), append(good, d.Root)
			continue
		case ctx.Err() != nil:
			return err
		case store.IsLost(err):
			not = append(not, d.Name+" is damaged")
		default:
			not = append(not, d.Name+" could not be checked")
		}
		p.printf("%s: image %s: %s\n", d.Name, d.Root, not[len(not)-1])
		errs = append(errs, fmt.Errorf("backup %s of %s: %s: %w", r.ID, r.Box, d.Name, err))
	}
	noteVerified(ctx, p, s, good, damaged)
	if len(not) > 0 {
		each := strings.Join(append(not, whole...), ", ")
		errs = append(errs, fmt.Errorf("%s is not proved to be restorable: %s%s", subject(r, disks), each, notDone(r, disks, "checked")))
		return errors.Join(errs...)
	}
	for _, d := range disks {
		printBad(p, d.Name, d.Bad)
	}
	if hasZeros(disks) {
		p.printf("%s can be restored, but for sectors that could not be read when it was made%s\n", subject(r, disks),
			notDone(r, disks, "checked"))
		return errBadSectors
	}
	p.printf("%s can be restored%s\n", subject(r, disks), notDone(r, disks, "checked"))
	return nil
}

func verifyImage(ctx context.Context, p printer, s verifier, line *progressLine, r *image.Record, d *image.RecordedDisk,
	damaged store.Damages) error {
	found, err := s.Verify(ctx, r, d.Name, cpu.Count(), func(done int64) { line.tell("check "+d.Name, done, d.Data) })
	line.end()
	switch {
	case err != nil:
		return err
	case found != nil:
		damaged[d.Root] = *found
		return fmt.Errorf("the image is %w: %v", object.ErrDamaged, found)
	}
	state := "whole"
	if len(d.Bad) > 0 {
		state = "as it was made, with zeros for unreadable sectors"
	}
	p.printf("%s: image %s is %s: %s of data\n", d.Name, d.Root, state, bytesText(d.Data))
	return nil
}

// errDiffer is the error of a comparison that found differences.
var errDiffer = &exitError{exitDiffer, errors.New("disk and image differ")}

func verifyDisks(ctx context.Context, p printer, s reader, r *image.Record, sel store.Selector, args []string, shrink bool) error {
	disks, err := pairTargets(r, sel, args)
	if err != nil {
		return err
	}
	for i := range disks {
		if err := disks[i].mustBeDisk(); err != nil {
			return err
		}
	}
	var differ []string
	var errs []error
	var plan []progress.Work
	for _, d := range disks {
		plan = append(plan, progress.Work{Disk: d.Name, Pass: "compare", Bytes: d.Data})
	}
	line := newProgress(p.err, plan...)
	for i := range disks {
		d := &disks[i]
		line.of(d.Name)
		same, err := verifyDisk(ctx, p, s, line, r, d, shrink)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		case !same:
			differ = append(differ, d.Name)
		}
	}
	did := recorded(disks)
	switch {
	case len(errs) > 0:
		return errors.Join(errs...)
	case len(differ) > 0:
		p.printf("%s backup %s of %s%s\n", differing(differ), r.ID, r.Box, notDone(r, did, "compared"))
		return errDiffer
	case len(did) < len(r.Disks):
		p.printf("the disk holds %s%s\n", subject(r, did), notDone(r, did, "compared"))
	default:
		p.printf("the disks hold %s\n", subject(r, did))
	}
	if hasZeros(did) {
		return errBadSectors
	}
	return nil
}

func differing(names []string) string {
	if len(names) == 1 {
		return names[0] + " differs from"
	}
	return strings.Join(names, ", ") + " differ from"
}

func verifyDisk(
	ctx context.Context, p printer, s reader, line *progressLine, r *image.Record, d *restoring, shrink bool,
) (same bool, err error) {
	t, err := openLocal(d.path, sectorOf(d), false, true)
	if err != nil {
		return false, err
	}
	defer t.close()
	if t.user != "" {
		p.warnf("%s is in use %s; it may change while it is compared", d.path, t.user)
	}
	im, err := openImage(ctx, s, r, d.RecordedDisk)
	if err != nil {
		return false, err
	}
	defer im.Close()
	j := copier.Job{
		Name: d.Name, Image: copier.StoredImage{Image: im}, Target: t, SectorSize: t.identity.SectorSize,
		Fit: fitting(d, func(format string, args ...any) { line.end(); p.tellf(format, args...) }),
	}
	if shrink {
		if j, err = shrinkJob(ctx, j, d.path); err != nil {
			return false, err
		}
	}
	layout := usedmap.ParseLayout(im.Root.Layout)
	tally := layout.Tally()
	receipt, err := copier.Verify(ctx, j, copier.Options{Progress: line.tell}, tally.Add)
	line.end()
	if err != nil {
		return false, err
	}
	printCompared(p, d, &receipt, tally)
	return receipt.Verified == receipt.Read && len(receipt.Differ) == 0 && len(receipt.Bad) == 0, nil
}

// printCompared prints how much of a disk differs from its image, and where.
func printCompared(p printer, d *restoring, r *image.Receipt, t *usedmap.Tally) {
	if len(r.Differ) == 0 {
		p.printf("%s: %s: nothing differs in %s\n", d.Name, d.path, bytesText(r.Read))
	}
	for i, line := range copier.DifferText(r, t) {
		if i == 0 {
			line = d.path + ": " + line
		}
		p.printf("%s: %s\n", d.Name, line)
	}
	sayBad(p, d.Name, r.Bad, d.path+" cannot be read there, so it does not hold the image")
}

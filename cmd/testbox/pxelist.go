package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootfiles"
)

func newPxeListCmd(w world, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list [-c DIR] [BOX...]",
		Short: "List armed boxes",
		Long: `Lists the boxes that are armed: what for, on which disks, since when and until when; with BOX
only these. A box that is listed as expired boots maintenance once, does nothing, disarms itself
and starts its own disk.

Named on stderr, with exit code 1, are files that should not be there or cannot be used: boot files
that are not ours, files that the loader takes before a box's boot file (named by a UUID or a
network card), files that it takes before the file default (the first digits of an address in
hexadecimal) and that are not local boot, what a TFTP server cannot give, such as the kernel of an
armed box, and a folder of boot files in which boxes could not disarm themselves.`,
		Example: `  testbox pxe-conf list
  testbox pxe-conf list box1 10.165.98.220
  testbox pxe-conf list -c /mnt/testbox-tftp/pxelinux.cfg`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return completeArmed(w, *dir)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPxeList(cmd.Context(), printerOf(cmd), w, *dir, args)
		},
	}
}

func runPxeList(ctx context.Context, p printer, w world, dir string, boxes []string) error {
	place, err := w.place(dir)
	if err != nil {
		return err
	}
	list, err := place.List(ctx, boxes)
	if err != nil {
		return err
	}
	errs := append([]error{printArmed(p, place.Boot, list.Files, w.now())}, list.Problems...)
	for _, t := range list.NotArmed {
		p.printf("%s: not armed\n", t)
	}
	if len(list.Files) == 0 && len(boxes) == 0 {
		p.printf("no box is armed\n")
	}
	if err := errors.Join(errs...); err != nil {
		return &exitError{exitFailed, err} // listing refuses nothing
	}
	return nil
}

// printArmed prints a line for each boot file of ours.
func printArmed(p printer, boot *bootfiles.Folder, files []*bootfiles.File, now time.Time) error {
	tab := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	var errs []error
	head := "BOX\tHOST\tACTION\tDISKS\tARMING\tARMED\tEXPIRES\n"
	for _, f := range files {
		c := f.Cmdline
		if c == nil {
			continue
		}
		armed, err := boot.Written(f.Addr)
		errs = append(errs, err)
		expires := "never"
		if !c.Expires.IsZero() {
			expires = c.Expires.Format(time.RFC3339)
		}
		if f.Expired(now) {
			expires = "expired " + expires
		}
		fmt.Fprintf(tab, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\n", head, f.Addr, cmp.Or(c.Host, "unknown"), c.What(),
			cmp.Or(strings.Join(c.Disks, ","), "all"), c.Arming, armed.UTC().Format(time.RFC3339), expires)
		head = ""
	}
	return errors.Join(append(errs, tab.Flush())...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

func newPxeListCmd(w world, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list [-c DIR]",
		Short: "List armed boxes",
		Long: `Lists the boxes that are armed: what for, on which disks, since when and until when. A box that
is listed as expired boots maintenance once, does nothing, disarms itself and starts its own disk.
Boot files that are not ours are named on stderr, with exit code 1.`,
		Example: `  testbox pxe-conf list
  testbox pxe-conf list -c /mnt/testbox-tftp/pxelinux.cfg`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := openFolder(w, *dir)
			if err != nil {
				return err
			}
			all, err := folder.armings()
			if err != nil {
				return err
			}
			return printArmings(cmd, folder, all, w.now())
		},
	}
}

// printArmings prints a line an armed box. Files that cannot be read as ours
// are one error at the end.
func printArmings(cmd *cobra.Command, f *pxeFolder, all []arming, now time.Time) error {
	tab := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	var errs []error
	head := "BOX\tHOST\tACTION\tDISKS\tARMING\tARMED\tEXPIRES\n"
	for _, a := range all {
		if a.cmd == nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.path(a.addr.Hex()), a.err))
			continue
		}
		expires := "never"
		if !a.cmd.Expires.IsZero() {
			expires = a.cmd.Expires.Format(time.RFC3339)
		}
		if a.expired(now) {
			expires = "expired " + expires
		}
		fmt.Fprintf(tab, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\n", head, a.addr, or(a.cmd.Host, "unknown"), a.cmd.Action, or(strings.Join(a.cmd.Disks, ","), "all"),
			a.cmd.Arming, a.armed.UTC().Format(time.RFC3339), expires)
		head = ""
	}
	if len(all) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "no box is armed")
	}
	return errors.Join(append(errs, tab.Flush())...)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func newPxeDisarmCmd(w world, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "disarm [-c DIR] BOX [BOX...]",
		Short: "Disarm boxes: they start their own disk again",
		Long: `Removes the boot files of boxes, so that they start their own disk. A box that is at its action
already is not stopped by it. A box that is not armed is left as it is. All boxes are checked before the first is disarmed.`,
		Example: `  testbox pxe-conf disarm 10.165.98.220
  testbox pxe-conf disarm box1 box2`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("give one box or more")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return completeArmed(w, *dir)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runDisarm(cmd, w, *dir, args) },
	}
}

func runDisarm(cmd *cobra.Command, w world, dir string, boxes []string) error {
	folder, err := openFolder(w, dir)
	if err != nil {
		return err
	}
	armings, targets, err := armedOf(cmd.Context(), w, folder, boxes)
	if err != nil {
		return err
	}
	for i, t := range targets {
		if armings[i] == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: was not armed\n", t)
			continue
		}
		if err := durable.Remove(folder.fsys, folder.path(t.addr.Hex())); err != nil {
			return fmt.Errorf("%s is not disarmed, nor are the boxes after it: %w", t, asRoot(err))
		}
		c := armings[i].cmd
		fmt.Fprintf(cmd.OutOrStdout(), "%s: disarmed; it was armed for %s (arming %s)\n", t, c.Action, c.Arming)
	}
	return nil
}

// armedOf reads the boot files of the boxes. One that is not ours is refused.
func armedOf(ctx context.Context, w world, f *pxeFolder, boxes []string) ([]*arming, []target, error) {
	targets, err := resolveAll(ctx, w, boxes)
	if err != nil {
		return nil, nil, err
	}
	armings, errs := make([]*arming, len(targets)), make([]error, len(targets))
	for i, t := range targets {
		a, err := f.arming(t.addr)
		if err == nil && a != nil && a.cmd == nil {
			err = refused("%s has a boot file that is not ours, %s (%w); remove it by hand if it has to go", t, f.path(t.addr.Hex()), a.err)
		}
		armings[i], errs[i] = a, err
	}
	return armings, targets, errors.Join(errs...)
}

// completePxe offers boxes and, after the first box, actions.
func completePxe(w world, dir string, args []string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if len(args) > 0 {
		for _, a := range box.Actions {
			words = append(words, string(a))
		}
	}
	if f, err := openFolder(w, dir); err == nil {
		folders, err := os.ReadDir(f.backupArea())
		for _, d := range folders {
			if _, bad := box.ParseAddr(d.Name()); err == nil && bad == nil {
				words = append(words, d.Name())
			}
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeArmed offers the boxes that are armed.
func completeArmed(w world, dir string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if f, err := openFolder(w, dir); err == nil {
		all, err := f.armings()
		for _, a := range all {
			if err == nil && a.cmd != nil {
				words = append(words, a.addr.String()+"\t"+string(a.cmd.Action))
			}
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

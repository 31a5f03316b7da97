package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
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
		RunE: func(cmd *cobra.Command, args []string) error { return runPxeList(cmd, w, *dir, args) },
	}
}

func runPxeList(cmd *cobra.Command, w world, dir string, boxes []string) error {
	folder, err := openFolder(w, dir)
	if err != nil {
		return err
	}
	targets, err := resolveAll(cmd.Context(), w, boxes)
	if err != nil {
		return err
	}
	all, err := folder.armings()
	if err != nil {
		return err
	}
	var addrs []box.Addr
	for _, t := range targets {
		addrs = append(addrs, t.addr)
	}
	if len(boxes) > 0 {
		all = slices.DeleteFunc(all, func(a arming) bool { return !slices.Contains(addrs, a.addr) })
	}
	errs := []error{printArmings(cmd, folder, all, w.now())}
	for _, t := range targets {
		if !slices.ContainsFunc(all, func(a arming) bool { return a.addr == t.addr }) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: not armed\n", t)
		}
	}
	var asked []string // of the TFTP server, by boxes that are armed
	for _, a := range all {
		if len(boxes) == 0 {
			addrs = append(addrs, a.addr)
		}
		asked = append(asked, filepath.Join(bootcfg.ConfigDir, a.addr.Hex()))
		if a.cmd != nil {
			asked = append(asked, a.kernel, a.initrd)
		}
		if a.cmd != nil && !a.cmd.Root.IsZero() {
			if err := folder.checkRoot(path.Base(a.cmd.Root.Path)); err != nil {
				errs = append(errs, fmt.Errorf("%s: armed for a maintenance system that the box would wait for without end: %w; disarm it",
					a.addr, err))
			}
		}
	}
	slices.Sort(asked)
	if len(all) == 0 && len(boxes) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "no box is armed")
	}
	errs = append(errs, folder.strays(w, addrs, len(boxes) == 0), folder.checkServed(slices.Compact(asked)...))
	if len(all) > 0 {
		errs = append(errs, folder.checkDisarm())
	}
	if err := errors.Join(errs...); err != nil {
		return &exitError{exitFailed, err} // nothing was refused here
	}
	return nil
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
already is not stopped by it. A box that is not armed is left as it is. All boxes are checked before
the first is disarmed. A warning names the files by which a box would start something else, and
says if a restore has not ended, without which the box's own disk may not start.`,
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
	var anew []error
	for i, t := range targets {
		if armings[i] == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: was not armed\n", t)
			folder.warnNotLocal(cmd, t)
			continue
		}
		_, err := folder.boot().Disarm(t.addr, armings[i].cmd.Arming)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(cmd.OutOrStdout(), "%s: somebody disarmed it in the same moment\n", t)
			folder.warnNotLocal(cmd, t)
			continue
		case errors.As(err, new(*bootfiles.ArmedAnewError)):
			anew = append(anew, fmt.Errorf("%s is not disarmed: %w; if it is to be disarmed too, run this again", t, err))
			continue
		case err != nil:
			return errors.Join(append(anew, fmt.Errorf("%s is not disarmed, nor are the boxes after it: %w", t, asRoot(err)))...)
		}
		c := armings[i].cmd
		fmt.Fprintf(cmd.OutOrStdout(), "%s: disarmed; it was armed for %s (arming %s)\n", t, c.Action, c.Arming)
		folder.warnHalfRestored(cmd, t, armings[i])
		folder.warnNotLocal(cmd, t)
	}
	return errors.Join(anew...)
}

// warnHalfRestored says of a box that was armed for restore that its disks may
// not be whole: until it has ended well, only the arming brings it back.
func (f *pxeFolder) warnHalfRestored(cmd *cobra.Command, t target, a *arming) {
	area, err := f.openBackup()
	if err != nil {
		return
	}
	st := boxStatus{folder: area.Look(t.addr)}
	st.read()
	if half := st.halfRestored(); half != "" && st.session.Arming == a.cmd.Arming {
		cmd.PrintErrf("testbox: WARNING: %s: %s; its disks may not boot until it is restored\n", t, half)
	}
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
	boxes, directive := completeBoxes(w, dir)
	return append(words, boxes...), directive
}

// completeBoxes offers the boxes that have a folder in the backup area.
func completeBoxes(w world, dir string) ([]string, cobra.ShellCompDirective) {
	var words []string
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

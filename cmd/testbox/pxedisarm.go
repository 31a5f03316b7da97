package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
)

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
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDisarm(cmd.Context(), printerOf(cmd), w, *dir, args)
		},
	}
}

func runDisarm(ctx context.Context, p printer, w world, dir string, boxes []string) error {
	place, err := w.place(dir)
	if err != nil {
		return err
	}
	targets, files, err := place.ReadArmed(ctx, boxes)
	if err != nil {
		return err
	}
	for i, t := range targets {
		if read := files[i]; read != nil && read.Cmdline != nil && read.Cmdline.Mode == bootcfg.ServerMode {
			if err := mayDisarmServed(ctx, p, w, t); err != nil {
				return err
			}
		}
	}
	var anew []error
	for i, t := range targets {
		what, err := "was not armed", error(nil)
		if read := files[i]; read != nil {
			what = fmt.Sprintf("disarmed; it was armed for %s (arming %s)", read.Cmdline.Action, read.Cmdline.Arming)
			err = place.Disarm(read)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			what = "somebody else disarmed it"
		case errors.As(err, new(*bootfiles.ArmedAnewError)):
			anew = append(anew, fmt.Errorf("%s is not disarmed: %w; if it is to go too, run this again", t, err))
			continue
		case err != nil:
			return errors.Join(append(anew, fmt.Errorf("%s is not disarmed, nor are the boxes after it: %w", t, asRoot(err)))...)
		}
		p.printf("%s: %s\n", t, what)
		if half := place.HalfRestored(files[i]); half != "" {
			p.warnf("%s: %s", t, half)
		}
		for _, err := range place.Boot.NotLocal(t.Addr) {
			p.warnf("%s may not start its own disk: %v", t, err)
		}
	}
	return errors.Join(anew...)
}

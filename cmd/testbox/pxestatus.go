package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/follow"
)

func newPxeStatusCmd(w world, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status [-c DIR] BOX [BOX...]",
		Short: "Say how boxes go on: armed, at work, or how their last action ended",
		Long: `Says of each box whether it is armed, what its log has of that arming, and the log's last line; of
a box that is not armed, how its last action ended. The exit code is 0 only if that action is done
and the box is not armed any more. Otherwise it is that of the action, of several boxes that of the worst:
  5  the arming expired before the box began
  7  the box is up for rescue
  8  the box is armed and has not ended yet, or nothing is known of it`,
		Example: `  testbox pxe-conf status 10.165.98.220
  testbox pxe-conf status box1 box2`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("give one box or more")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return completeBoxes(w, *dir)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPxeStatus(cmd.Context(), printerOf(cmd), w, *dir, args)
		},
	}
}

func runPxeStatus(ctx context.Context, p printer, w world, dir string, boxes []string) error {
	place, err := w.place(dir)
	if err != nil {
		return err
	}
	area, err := place.Backup()
	if err != nil {
		return err
	}
	targets, err := place.Names.Resolve(ctx, boxes)
	if err != nil {
		return err
	}
	var codes []int
	var lines []string
	for _, t := range targets {
		// The boot file is read before the log, so that what the box logged before it
		// was removed is seen.
		armed, err := place.Boot.Read(t.Addr)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		st := follow.Read(area.Look(t.Addr))
		st.Armed = armed
		text, outcome := st.Tell(w.now())
		p.printf("%s: %s\n", t, text)
		if st.Log.Last != "" {
			before := ""
			if st.Armed != nil && st.Armed.Cmdline != nil && st.Armed.Cmdline.Arming != st.Log.Arming {
				before = "before that: "
			}
			p.printf("  %s%s\n", before, st.Log.Last)
		}
		for _, problem := range st.Problems {
			p.notef("%s: %v", t, problem)
		}
		code := outcomeCode(outcome)
		if codes = append(codes, code); code != exitDone {
			ending := endings[code]
			if st.Armed == nil && st.Log.Arming == "" && code == exitPending {
				ending = follow.NothingKnown
			}
			lines = append(lines, fmt.Sprintf("%s: %s", t, ending))
		}
	}
	return worst(codes, lines)
}

// endings say in words what the exit codes of status mean.
var endings = map[int]string{
	exitFailed: "failed", exitRefused: "refused", exitBadSectors: "done with bad sectors", exitExpired: "expired, nothing was done",
	exitDiffer: "disk and image differ", exitRescue: "up for rescue", exitPending: "not ended, as far as is known",
}

// outcomeCode returns the exit code for a box's outcome.
func outcomeCode(o box.Outcome) int {
	if o == follow.Pending {
		return exitPending
	}
	return o.ExitCode()
}

// byWorst has the exit codes from worst to best. The worst one stands for
// several boxes.
var byWorst = []int{exitFailed, exitRefused, exitLost, exitCancelled, exitExpired, exitNotUp, exitPending, exitBadSectors, exitDiffer,
	exitRescue, exitDone}

// worst returns an error with the worst of the codes, or nil if all are
// exitDone.
func worst(codes []int, lines []string) error {
	for _, code := range byWorst {
		if slices.Contains(codes, code) && code != exitDone {
			return &exitError{code, errors.New(strings.Join(lines, "\n"))}
		}
	}
	return nil
}

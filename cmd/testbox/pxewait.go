package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

// openBackup opens the backup area beside the TFTP area, in which the boxes'
// logs are.
func (f *pxeFolder) openBackup() (*sharedir.Area, error) {
	area, err := sharedir.Open(f.fsys, f.backupArea())
	if err != nil {
		return nil, wrong("the boxes' logs are not at hand: %w; they are in the backup area, which has to be beside the TFTP area: mount it on %s", err, f.backupArea())
	}
	return area, nil
}

// watch is one box that is waited for.
type watch struct {
	plan    armPlan
	folder  *sharedir.Folder // of the box, in the backup area
	log     logReader
	session agent.Track // the last one of its log; of ours only Arming is the plan's
	began   bool
	gone    time.Time // when its boot file was first seen gone; zero: it is there
	heard   time.Time // when its log had a line last, or the wait began
	hushed  bool      // it was said that the log has no new line
	trouble string    // with its log, as it was said last

	ended bool
	code  int
	end   string
}

// quiet is how long a box that is not armed any more may say nothing while it is
// at work. The agent writes a line every half minute.
const quiet = 15 * time.Minute

// waiter follows the logs of boxes until each has said how its action ended.
type waiter struct {
	w       world
	folder  *pxeFolder
	out     io.Writer
	errs    io.Writer
	watches []*watch
}

// newWaiter is to be made before the boxes are armed: what is in their logs then
// is of earlier armings.
func newWaiter(cmd *cobra.Command, w world, f *pxeFolder, plan []armPlan) (*waiter, error) {
	area, err := f.openBackup()
	if err != nil {
		return nil, err
	}
	wt := &waiter{w: w, folder: f, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr()}
	for _, p := range plan {
		folder := area.Look(p.target.addr)
		one := &watch{plan: p, folder: folder, log: logReader{path: folder.Path(sharedir.LogName)}}
		if err := one.log.skip(0); err != nil {
			return nil, wrong("the log of %s cannot be followed: %w", p.target, err)
		}
		wt.watches = append(wt.watches, one)
	}
	return wt, nil
}

// wait follows the logs. The error has the code of the box whose end is worst.
func (wt *waiter) wait(ctx context.Context, limit time.Duration) error {
	why := "interrupted"
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errors.New("not ended within "+limit.String()))
		defer cancel()
	}
	for _, one := range wt.watches {
		defer one.log.close()
		one.heard = wt.w.now()
	}
	for {
		if wt.look() {
			return wt.result()
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				why = cause.Error()
			}
			for _, one := range wt.watches {
				if !one.ended {
					one.finish(exitPending, fmt.Sprintf("%s; nothing is changed by that: it stays armed, or goes on with what it does; `testbox pxe-conf status %s` says how it goes on", why, one.plan.target.addr))
				}
			}
			return wt.result()
		case <-time.After(wt.w.poll):
		}
	}
}

// look looks at every box once, and reports whether all have ended.
func (wt *waiter) look() bool {
	all := true
	for _, one := range wt.watches {
		if one.ended {
			continue
		}
		// The boot file first: what the box logged before it was removed is
		// seen then.
		armed, why := wt.stillArmed(one)
		wt.follow(one)
		if !one.ended {
			one.judge(wt.w.now(), armed, why)
		}
		if !one.ended && one.began && !one.hushed && wt.w.now().Sub(one.heard) > quiet {
			one.hushed = true
			fmt.Fprintf(wt.errs, "testbox: %s has said nothing for %s while it was at work; is it switched on? "+
				"It is waited for until its arming expires\n", one.plan.target, quiet)
		}
		if one.ended {
			fmt.Fprintf(wt.out, "%s: %s\n", one.plan.target, one.end)
		}
		all = all && one.ended
	}
	return all
}

// stillArmed reports whether the box has the boot file that it was given here,
// and if not, what became of it.
func (wt *waiter) stillArmed(one *watch) (bool, string) {
	a, err := wt.folder.arming(one.plan.target.addr)
	switch {
	case err != nil:
		return true, "" // not known; it is looked at again
	case a == nil:
		return false, "somebody disarmed it"
	case a.cmd == nil:
		return false, "somebody replaced its boot file by one that is not ours"
	case a.cmd.Arming != one.plan.file.Cmdline.Arming:
		return false, fmt.Sprintf("somebody armed it anew for %s", a.cmd.Action)
	}
	return true, ""
}

// follow prints what the box logged of this arming since the last look.
func (wt *waiter) follow(one *watch) {
	lines, err := one.log.lines()
	if err != nil && err.Error() != one.trouble {
		one.trouble = err.Error()
		fmt.Fprintf(wt.errs, "testbox: the log of %s cannot be read, and is tried again: %v\n", one.plan.target, err)
	}
	for _, line := range lines {
		one.heard, one.hushed = wt.w.now(), false
		one.session.Take(line)
		if one.session.Arming != one.plan.file.Cmdline.Arming {
			continue
		}
		one.began = true
		fmt.Fprintln(wt.out, one.session.Last)
		if !one.session.Ended {
			continue
		}
		one.finish(one.session.Outcome.ExitCode(), one.session.End)
		if one.session.Outcome.Class() != box.Again {
			return // a start that comes after this only finds that there is nothing to do
		}
	}
}

// judge ends the wait for a box whose log will not say how it ended.
func (one *watch) judge(now time.Time, armed bool, why string) {
	expires, silent := one.plan.file.Cmdline.Expires, now.Sub(one.heard)
	switch {
	case armed:
		one.gone = time.Time{}
		// The box counts by the storage server's clock.
		switch late := now.After(expires.Add(maxSkew)); {
		case late && !one.began:
			one.finish(exitExpired, fmt.Sprintf("it did not start, and the arming expired at %s", expires.Format(time.RFC3339)))
		case late && silent > quiet:
			one.finish(exitFailed, fmt.Sprintf("it was at work, has said nothing for %s, and the arming expired at %s",
				silent.Round(time.Minute), expires.Format(time.RFC3339)))
		}
	case one.began && one.gone.IsZero():
		one.gone = now // the agent disarms before it says how it ended
	case one.began && silent <= quiet:
	case one.recorded():
	case one.began:
		one.finish(exitFailed, fmt.Sprintf("%s while it was at work, and it has said nothing for %s", why, quiet))
	default:
		one.finish(exitFailed, why+" before it began; nothing was done")
	}
}

// recorded ends the wait as the record of the box's last action says, if that is
// of this arming: the box did its action, and could not write to its log.
func (one *watch) recorded() bool {
	last, err := one.folder.Last()
	if err != nil || last == nil || last.Arming != one.plan.file.Cmdline.Arming {
		return false
	}
	known := last.Outcome.Known()
	if known {
		one.finish(last.Outcome.ExitCode(), fmt.Sprintf("%s: %s, as is recorded; its log does not say so", last.Action, last.Outcome))
	}
	return known
}

func (one *watch) finish(code int, end string) { one.ended, one.code, one.end = true, code, end }

// byWorst is the exit codes in the order in which one stands for several boxes.
var byWorst = []int{exitFailed, exitRefused, exitExpired, exitPending, exitBadSectors, exitDiffer, exitRescue, exitDone}

// result makes the ends of all boxes one error; nil if all are done.
func (wt *waiter) result() error {
	var codes []int
	var lines []string
	for _, one := range wt.watches {
		if codes = append(codes, one.code); one.code != exitDone {
			lines = append(lines, fmt.Sprintf("%s: %s", one.plan.target, one.end))
		}
	}
	return worst(codes, lines)
}

// worst is an error with the code that is worst, nil if all are exitDone.
func worst(codes []int, lines []string) error {
	for _, code := range byWorst {
		if slices.Contains(codes, code) && code != exitDone {
			return &exitError{code, errors.New(strings.Join(lines, "\n"))}
		}
	}
	return nil
}

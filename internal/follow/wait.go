package follow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
)

// MaxSkew is how far the clocks of this machine and the storage server may
// differ before it matters. The box checks the expiry by the server's clock.
const MaxSkew = 5 * time.Minute

// quiet is how long a box at work may log nothing before there is a warning. The
// wait for it then ends too if the box is not armed any more, or if its arming
// expired. The agent writes a line every half minute.
const quiet = 15 * time.Minute

// Box is a box to wait for.
type Box struct {
	Name    string          // name in messages
	Cmdline bootcfg.Cmdline // what it is armed for
}

// End is how a box's action ended.
type End struct {
	Name    string
	Outcome box.Outcome
	Text    string // how it ended, in words
}

// watch is one box to wait for.
type watch struct {
	box     Box
	folder  *sharedir.Folder // of the box, in the backup area
	log     logReader
	session agent.Track // the last session of the log, which is this box's arming only if Arming says so
	began   bool
	gone    time.Time // when its boot file was first seen missing; zero while the file is there
	heard   time.Time // when its log last had a new line, or when the wait began
	hushed  bool      // the warning about a silent log was given
	trouble string    // last reported error of reading its log

	ended bool
	end   End
}

// Waiter follows the logs of boxes until each has said how its action ended.
type Waiter struct {
	Boot *bootfiles.Folder
	Now  func() time.Time
	Poll time.Duration // how long to wait between two looks at a box
	Say  func(line string)
	Warn func(line string)

	watches []*watch
}

// Add adds a box to wait for. Call it before the box is armed, since it skips
// what is in the log, which is of earlier armings.
func (w *Waiter) Add(b Box, area *sharedir.Area) error {
	folder := area.Look(b.Cmdline.Address)
	one := &watch{box: b, folder: folder, log: logReader{path: folder.Path(box.LogFile)}}
	if err := one.log.skip(0); err != nil {
		return problem.Wrongf("the log of %s cannot be followed: %w", b.Name, err)
	}
	w.watches = append(w.watches, one)
	return nil
}

// Wait follows the logs until all boxes have ended, ctx ends, or limit is over.
// A limit of 0 is none. Wait returns the ends in the order of Add.
func (w *Waiter) Wait(ctx context.Context, limit time.Duration) []End {
	why := "interrupted"
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errors.New("not ended within "+limit.String()))
		defer cancel()
	}
	for _, one := range w.watches {
		defer one.log.close()
		one.heard = w.Now()
	}
	for !w.look() {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				why = cause.Error()
			}
			for _, one := range w.watches {
				if !one.ended {
					one.finish(Pending, fmt.Sprintf("%s; nothing is changed by that: it stays armed, or goes on with what it does; "+
						"`testbox pxe-conf status %s` says how it goes on", why, one.box.Cmdline.Address))
				}
			}
			return w.ends()
		case <-time.After(w.Poll):
		}
	}
	return w.ends()
}

func (w *Waiter) ends() (ends []End) {
	for _, one := range w.watches {
		ends = append(ends, one.end)
	}
	return ends
}

// look checks every box once, and reports whether all have ended.
func (w *Waiter) look() bool {
	all := true
	for _, one := range w.watches {
		if one.ended {
			continue
		}
		// The boot file is read before the log. So what the box logged before its boot
		// file was removed is seen.
		armed, why := w.stillArmed(one)
		w.follow(one)
		if !one.ended {
			one.judge(w.Now(), armed, why)
		}
		if !one.ended && one.began && !one.hushed && w.Now().Sub(one.heard) > quiet {
			one.hushed = true
			w.Warn(fmt.Sprintf("%s has said nothing for %s while it was at work; is it switched on? "+
				"It is waited for until its arming expires", one.box.Name, quiet))
		}
		if one.ended {
			w.Say(fmt.Sprintf("%s: %s", one.box.Name, one.end.Text))
		}
		all = all && one.ended
	}
	return all
}

// stillArmed reports whether the box has the boot file that it was given here,
// and if not, what became of it.
func (w *Waiter) stillArmed(one *watch) (bool, string) {
	file, err := w.Boot.Read(one.box.Cmdline.Address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, "somebody disarmed it"
	case err != nil:
		return true, "" // not known; the next look reads it again
	case file.Cmdline == nil:
		return false, "somebody replaced its boot file by one that is not ours"
	case file.Cmdline.Arming != one.box.Cmdline.Arming:
		return false, fmt.Sprintf("somebody armed it anew for %s", file.Cmdline.Action)
	}
	return true, ""
}

// follow passes on the lines that the box logged of this arming since the last
// look.
func (w *Waiter) follow(one *watch) {
	lines, err := one.log.lines()
	if err != nil && err.Error() != one.trouble {
		one.trouble = err.Error()
		w.Warn(fmt.Sprintf("the log of %s cannot be read, and is tried again: %v", one.box.Name, err))
	}
	for _, line := range lines {
		one.heard, one.hushed = w.Now(), false
		one.session.Add(line)
		if one.session.Arming != one.box.Cmdline.Arming {
			continue
		}
		one.began = true
		w.Say(one.session.Last)
		if !one.session.Ended {
			continue
		}
		one.finish(one.session.Outcome, one.session.End)
		if one.session.Outcome.Class() != box.Again {
			return // a later start only finds that there is nothing to do
		}
	}
}

// judge ends the wait for a box if its log will not say how the action ended.
func (one *watch) judge(now time.Time, armed bool, why string) {
	expires, silent := one.box.Cmdline.Expires, now.Sub(one.heard)
	switch {
	case armed:
		one.gone = time.Time{}
		// The box checks the expiry by the storage server's clock.
		switch late := now.After(expires.Add(MaxSkew)); {
		case late && !one.began:
			one.finish(box.Expired, fmt.Sprintf("it did not start, and the arming expired at %s", expires.Format(time.RFC3339)))
		case late && silent > quiet:
			one.finish(box.Failed, fmt.Sprintf("it was at work, has said nothing for %s, and the arming expired at %s",
				silent.Round(time.Minute), expires.Format(time.RFC3339)))
		}
	case one.began && one.gone.IsZero():
		one.gone = now // the agent disarms before it logs how the action ended
	case one.began && silent <= quiet:
	case one.recorded():
	case one.began:
		one.finish(box.Failed, fmt.Sprintf("%s while it was at work, and it has said nothing for %s", why, quiet))
	default:
		one.finish(box.Failed, why+" before it began; nothing was done")
	}
}

// recorded ends the wait by the record of the box's last action, if that record
// is of this arming. In that case the box did its action but could not write to
// its log.
func (one *watch) recorded() bool {
	last, err := one.folder.Last()
	if err != nil || last == nil || last.Arming != one.box.Cmdline.Arming {
		return false
	}
	known := last.Outcome.Known()
	if known {
		one.finish(last.Outcome, fmt.Sprintf("%s: %s, as is recorded; its log does not say so", last.Action, last.Outcome))
	}
	return known
}

func (one *watch) finish(o box.Outcome, text string) {
	one.ended, one.end = true, End{one.box.Name, o, text}
}

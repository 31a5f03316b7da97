package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
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
		RunE: func(cmd *cobra.Command, args []string) error { return runPxeStatus(cmd, w, *dir, args) },
	}
}

func runPxeStatus(cmd *cobra.Command, w world, dir string, boxes []string) error {
	folder, err := openFolder(w, dir)
	if err != nil {
		return err
	}
	area, err := folder.openBackup()
	if err != nil {
		return err
	}
	targets, err := resolveAll(cmd.Context(), w, boxes)
	if err != nil {
		return err
	}
	var codes []int
	var lines []string
	for _, t := range targets {
		st := boxStatus{folder: area.Look(t.addr)}
		if st.armed, err = folder.arming(t.addr); err != nil {
			return err
		}
		st.read()
		text, code := st.tell(w.now())
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", t, text)
		if s := st.session; s.Last != "" {
			before := ""
			if st.armed != nil && st.armed.cmd != nil && st.armed.cmd.Arming != s.Arming {
				before = "before that: "
			}
			fmt.Fprintf(cmd.OutOrStdout(), "  %s%s\n", before, s.Last)
		}
		for _, p := range st.problems {
			cmd.PrintErrf("testbox: %s: %v\n", t, p)
		}
		if codes = append(codes, code); code != exitDone {
			ending := endings[code]
			if st.armed == nil && st.session.Arming == "" && code == exitPending {
				ending = nothingKnown
			}
			lines = append(lines, fmt.Sprintf("%s: %s", t, ending))
		}
	}
	return worst(codes, lines)
}

// endings say what an exit code of status means.
var endings = map[int]string{
	exitFailed: "failed", exitRefused: "refused", exitBadSectors: "done with bad sectors", exitExpired: "expired, nothing was done",
	exitDiffer: "disk and image differ", exitRescue: "up for rescue", exitPending: "not ended, as far as is known",
}

// nothingKnown is said of a box that is not armed and never was, as of a typo.
const nothingKnown = "nothing is known of an action"

// boxStatus is what is known of a box.
type boxStatus struct {
	armed    *arming
	folder   *sharedir.Folder
	session  agent.Track          // the last one in its log
	last     *sharedir.LastAction // nil: none is recorded
	problems []error
}

// maxStatusLog is how much of a log's end is read, in bytes.
const maxStatusLog = 16 << 20

func (st *boxStatus) read() {
	var err error
	if st.last, err = st.folder.Last(); err != nil {
		st.problems = append(st.problems, fmt.Errorf("the record of its last action cannot be read: %w", err))
	}
	log := logReader{path: st.folder.Path(sharedir.LogName)}
	defer log.close()
	err = log.skip(maxStatusLog)
	var lines []string
	if err == nil {
		lines, err = log.lines()
	}
	if err != nil {
		st.problems = append(st.problems, fmt.Errorf("its log cannot be read: %w", err))
	}
	for _, line := range lines {
		st.session.Take(line)
	}
}

// tell says how the box goes on, and the exit code for it.
func (st *boxStatus) tell(now time.Time) (string, int) {
	if st.armed == nil {
		text, code := st.tellLast()
		return "not armed; " + text, code
	}
	c := st.armed.cmd
	if c == nil {
		return fmt.Sprintf("it has a boot file that is not ours: %v", st.armed.err), exitFailed
	}
	text := fmt.Sprintf("armed for %s until %s (arming %s); ", c.Action, c.Expires.Format(time.RFC3339), c.Arming)
	switch s := st.session; {
	case s.Arming == c.Arming && s.Ended && s.Outcome.ExitCode() == exitDone:
		return text + s.End + ", but the boot file is there", exitPending
	case s.Arming == c.Arming && s.Ended:
		return text + s.End, s.Outcome.ExitCode()
	case s.Arming == c.Arming:
		return text + "at work since " + s.Since, exitPending
	case st.armed.expired(now):
		return text + "expired, and the box has not begun: it disarms itself when it starts", exitExpired
	}
	return text + "the box has not begun; restart it", exitPending
}

// tellLast says how the last action of a box ended that is not armed.
func (st *boxStatus) tellLast() (string, int) {
	s := st.session
	recorded := box.Outcome("")
	if st.last != nil {
		recorded = st.last.Outcome
	}
	known := recorded.Known()
	switch same := known && s.Arming == st.last.Arming; {
	case known && (s.Arming == "" || same && !(s.Ended && s.Outcome == recorded) || !same && st.lastIsNewer()):
		return fmt.Sprintf("%s: %s at %s (arming %s), as is recorded", st.last.Action, recorded, st.last.Time.UTC().Format(time.RFC3339), st.last.Arming), recorded.ExitCode()
	case s.Ended:
		return fmt.Sprintf("%s (arming %s, since %s)", s.End, s.Arming, s.Since), s.Outcome.ExitCode()
	case s.Arming != "":
		return fmt.Sprintf("%s (arming %s) was at work since %s, and its log does not say how it ended", s.Action, s.Arming, s.Since), exitPending
	}
	return nothingKnown, exitPending
}

// lastIsNewer reports whether the action that is recorded ended after the log's
// last session began: the box could not write to its log then.
func (st *boxStatus) lastIsNewer() bool {
	since, err := time.Parse(time.RFC3339, st.session.Since)
	return err == nil && st.last.Time.After(since)
}

// halfRestored says that the log's last session is a restore that has not ended
// well, as far as is known; "" is none such.
func (st *boxStatus) halfRestored() string {
	s := st.session
	switch {
	case s.Action != box.Restore || st.last != nil && st.last.Arming == s.Arming:
		return ""
	case !s.Ended:
		return fmt.Sprintf("its restore began %s, and its log does not say that it has ended", s.Since)
	case s.Outcome == box.Failed:
		return fmt.Sprintf("its restore of %s has not ended well (%s)", s.Since, s.End)
	}
	return ""
}

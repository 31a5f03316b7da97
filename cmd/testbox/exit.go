package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// The exit codes of every command.
const (
	exitDone       = box.ExitDone
	exitFailed     = box.ExitFailed
	exitWrong      = box.ExitWrong
	exitRefused    = box.ExitRefused
	exitBadSectors = box.ExitBadSectors
	exitExpired    = box.ExitExpired
	exitDiffer     = box.ExitDiffers
	exitRescue     = box.ExitRescuing
	// The others belong to no outcome of an agent.
	exitPending   = 8  // the box has not said yet how its action ended
	exitLost      = 9  // the server does not answer, so nobody knows
	exitNotUp     = 10 // the action is done, but the box's own system was not seen afterwards
	exitCancelled = 11 // an admin ended the job
	exitUnproven  = 12 // a boot test has neither passed nor failed
)

const exitHelp = `
Exit codes:
  0  done
  1  failed; what was done until then is said
  2  wrong use or wrong input; nothing was changed
  3  refused, because it could do harm; nothing was changed
  4  done, but the image has zeros for sectors that could not be read
  6  compared, and found different
and of commands that give a box's outcome ("pxe-conf status", and those with --wait):
  5  the arming was too old, and nothing was done
  7  the box is up for rescue
  8  not ended yet, when the time of the wait was over or it was interrupted
and of commands that ask a server:
  9  the server does not answer; what it does goes on
  10 done, but the box's own system was not seen afterwards (--wait=up)
  11 an admin cancelled the job
and of image boot-test:
  12 neither passed nor failed
`

// exitError gives an error an exit code other than exitFailed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// wrong makes an error of wrong use or wrong input, after which nothing was
// changed.
func wrong(format string, args ...any) error {
	return problem.Wrongf(format, args...)
}

// refused makes an error of something that was not done because it could do
// harm. Nothing was changed.
func refused(format string, args ...any) error {
	return problem.Refusef(format, args...)
}

// errSaid stands for an error that was printed already.
var errSaid = errors.New("said already")

// exitCode is the one place that turns errors into exit codes. An error before
// a command has begun is wrong use.
func exitCode(err error, begun bool) int {
	var e *exitError
	var p *problem.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return e.code
	case errors.As(err, &p) && p.Kind == problem.Refused:
		return exitRefused
	case p != nil:
		return exitWrong
	case !begun:
		return exitWrong
	}
	return exitFailed
}

// execute runs the command line and prints its error. A joined error has a line
// for each part.
func execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetHelpTemplate(root.HelpTemplate() + exitHelp)
	begun := false
	noteBegin(root, &begun)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSaid) {
		return exitCode(err, begun)
	}
	text := err.Error()
	if ctx.Err() != nil {
		text = strings.ReplaceAll(text, context.Canceled.Error(), "interrupted")
	}
	text += deadMount(err)
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			cmd.PrintErrf("testbox: %s\n", line)
		}
	}
	if !begun {
		cmd.PrintErrf("testbox: `%s --help` explains the command\n", cmd.CommandPath())
	}
	return exitCode(err, begun)
}

// deadMount returns a line of advice if an error comes from a mount whose
// program was killed, such as that of `testbox image mount`. For other errors
// it returns "".
func deadMount(err error) string {
	var at *fs.PathError
	if !errors.As(err, &at) || !errors.Is(at.Err, syscall.ENOTCONN) {
		return ""
	}
	folder := at.Path
	for {
		above := filepath.Dir(folder)
		if _, err := os.Stat(above); above == folder || !errors.Is(err, syscall.ENOTCONN) {
			break
		}
		folder = above
	}
	return fmt.Sprintf("\nthe program that served the mount on %s was killed; `umount %s`, or without root `fusermount3 -u %s`, takes "+
		"the mount away",
		folder, folder, folder)
}

// noteBegin makes every command set begun when its arguments were accepted.
func noteBegin(cmd *cobra.Command, begun *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*begun = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		noteBegin(sub, begun)
	}
}

// newGroupCmd makes a command that only has sub-commands. Without one it shows
// its help. An unknown sub-command is wrong use.
func newGroupCmd(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return noCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(subs...)
	return cmd
}

// noCommand is the error of an unknown sub-command.
func noCommand(cmd *cobra.Command, word string) error {
	msg := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), word)
	if like := cmd.SuggestionsFor(word); len(like) > 0 {
		msg += "; is " + strings.Join(like, " or ") + " meant?"
	}
	return errors.New(msg)
}

// newHelpCmd is cobra's help command with one difference. An unknown command is
// wrong use here too.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		Long:  "Explains a command, as --help behind it does.",
		Example: `  testbox help pxe-conf
  testbox help image restore`,
		Args: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = noCommand(about, rest[0])
			}
			return err
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if about, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, sub.Name()+"\t"+sub.Short)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// outliveReader is for commands that must complete even if nobody reads their
// output any more, as in "testbox image mount ... | head -1".
func outliveReader() { signal.Ignore(syscall.SIGPIPE) }

// asRoot adds advice to the error of a user who may not write to the folder of
// boot files.
func asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; the folder belongs to the user that root is squashed to: run this as root", err)
	}
	return err
}

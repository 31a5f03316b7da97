package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
)

func newLabResetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reset BOX",
		Short: "Press the reset button of a box of a running lab",
		Long: `Resets a virtual testbox of a lab that ` + "`testbox lab up`" + ` keeps running, as the reset button of a
real machine does: at once, whatever it is doing. Armed, it then boots into maintenance.`,
		Example: `  testbox lab reset 10.40.41.42`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("give the box's address, which `testbox lab up` says")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runLabReset(cmd.OutOrStdout(), args[0]) },
	}
}

func runLabReset(out io.Writer, name string) error {
	addr, err := box.ParseAddr(name)
	if err != nil {
		return wrong("%w", err)
	}
	err = lab.Reset("", addr)
	switch {
	case errors.Is(err, lab.ErrNoLab):
		return wrong("%w ($TMPDIR names that folder); `testbox lab up` starts one", err)
	case errors.Is(err, lab.ErrWhich):
		return wrong("%w", err)
	case err != nil:
		return err
	}
	fmt.Fprintf(out, "box %s is reset\n", addr)
	return nil
}

func newLabPowerCmd() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "power BOX on|off|cycle",
		Short: "Switch a box of a running lab",
		Long: `Switches a virtual testbox of a lab on, off, or off and on, as the power socket of a real machine does.
It is the power command of a lab's storage server.`,
		Example: `  testbox lab power 10.40.41.42 cycle --lab /tmp/testbox-lab-1234`,
		Args:    takesWords(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := box.ParseAddr(args[0])
			if err != nil {
				return wrong("%w", err)
			}
			if !slices.Contains([]string{"on", "off", "cycle"}, args[1]) {
				return wrong("%q is nothing that can be done to the power of a box; it is on, off or cycle", args[1])
			}
			if folder == "" {
				return wrong("say by --lab in which folder the lab is")
			}
			if err := lab.Switch(folder, addr, args[1]); errors.Is(err, lab.ErrWhich) {
				return wrong("%w", err)
			} else if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "box %s: %s is done\n", addr, args[1])
			return nil
		},
	}
	cmd.Flags().StringVar(&folder, "lab", "", "the `FOLDER` of the lab")
	mustComplete(cmd.MarkFlagDirname("lab"))
	return cmd
}

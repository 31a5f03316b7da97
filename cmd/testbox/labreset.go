package main

import (
	"errors"
	"fmt"
	"io"

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

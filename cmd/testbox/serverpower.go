package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/power"
)

func newBoxPowerCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var q api.SwitchBox
	var asJSON bool
	actions := []string{string(power.On), string(power.Off), string(power.Cycle)}
	cmd := &cobra.Command{
		Use: "power BOX on|off|cycle", Short: "Switch a box on, off, or off and on",
		Long: `Switches a box on, off, or off and on by its power command, and prints what that says. The command is
named by ` + "`testbox box set BOX --power NAME`" + `, by a group of the box, or in the server's configuration.
` + "`testbox box show BOX`" + ` says which one it is.

While the box is at work for a job or up for rescue it is refused, since a disk can be left half written.
--force does it all the same. What the command says is in the log of the box too.`,
		Example: "  testbox box power web-1 cycle\n  testbox box power web-1 off --why \"the rack is moved\"",
		Args:    takesWords(2, 2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return actions, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(actions, args[1]) {
				return wrong("%q is nothing that can be done to the power of a box; it is on, off or cycle", args[1])
			}
			q.Action = power.Action(args[1])
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var v api.Switched
				if err := c.Once(cmd.Context(), "POST", apiclient.Path("boxes", args[0], "power"), q, &v); err != nil {
					return err
				}
				if asJSON {
					if err := printJSON(p, v); err != nil {
						return err
					}
				} else {
					for line := range strings.Lines(v.Output) {
						p.printf("%s\n", printable(strings.TrimRight(line, "\n")))
					}
				}
				switch v.Outcome {
				case api.PowerDone:
					if !asJSON {
						p.printf("%s: %s: done by the power command %s\n", v.Box, v.Action, printable(v.Power))
					}
					return nil
				case api.PowerRunning:
					return &exitError{exitPending, errors.New(printable(v.Text) + "; `testbox log " + v.Box + "` shows that")}
				}
				return &exitError{exitFailed, errors.New(printable(v.Text))}
			})
		},
	}
	cmd.Flags().BoolVar(&q.Force, "force", false, "also while the box is at work, which can leave a disk half written")
	cmd.Flags().StringVar(&q.Why, "why", "", "the `REASON`, for the audit log")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON")
	f.add(cmd)
	return cmd
}

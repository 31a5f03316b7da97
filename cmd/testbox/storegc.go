package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/store"
)

func newStoreGCCmd(w world) *cobra.Command {
	o := throughFlags{server: serverFlag{world: w}}
	var yes bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Get back the space of deleted backups",
		Long: `Finds out what no backup needs any more, and prints what would be done about it; with --yes, does it.
It can be ended at any moment. It refuses while the record of a backup cannot be read: what that
one needs is not known. A plan that is made while a backup runs leaves out what that has written.
` + throughHelp,
		Example: `  testbox store gc
  testbox store gc --yes
  testbox store gc --yes --server https://server:8443`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			if err := o.check(cmd); err != nil {
				return err
			}
			work := api.PlanGC
			if yes {
				work = api.GC
			}
			return o.upkeep(cmd.Context(), p, work, func(s *store.Locked) error { return collect(cmd.Context(), p, s, yes) })
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only say it")
	return cmd
}

// gcNotDone is the last line of a plan that is only printed.
const gcNotDone = "nothing was done; --yes does it\n"

// collect prints what a collection would do, and with yes does it.
func collect(ctx context.Context, p printer, s *store.Locked, yes bool) error {
	plan, err := s.PlanGC(ctx)
	if err != nil {
		return err
	}
	p.printf("%s", plan)
	if !yes {
		p.printf(gcNotDone)
		return nil
	}
	res, err := s.GC(ctx, plan)
	if errors.Is(err, store.ErrLocked) {
		return refused("%w", err)
	}
	p.printf("%s", res)
	return err
}

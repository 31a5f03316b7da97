package main

import (
	"errors"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/store"
)

func newStoreGCCmd() *cobra.Command {
	var o storeFlag
	var yes bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Get back the space of deleted backups",
		Long: `Finds out what no backup needs any more, and prints what would be done about it; with --yes, does it.
It can be ended at any moment. It refuses while the record of a backup cannot be read: what that
one needs is not known. A plan that is made while a backup runs leaves out what that has written.`,
		Example: `  testbox store gc
  testbox store gc --yes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withFolder(cmd.Context(), printerOf(cmd), !yes, func(s *store.Locked) error {
				plan, err := s.PlanGC(cmd.Context())
				if err != nil {
					return err
				}
				cmd.Print(plan)
				if !yes {
					cmd.Println("nothing was done; --yes does it")
					return nil
				}
				res, err := s.GC(cmd.Context(), plan)
				if errors.Is(err, store.ErrLocked) {
					return refused("%w", err)
				}
				cmd.Print(res)
				return err
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only say it")
	return cmd
}

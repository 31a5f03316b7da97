package main

import (
	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/store"
)

func newStoreScrubCmd(w world) *cobra.Command {
	o := throughFlags{server: serverFlag{world: w}}
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read all of the store, and say what damage costs",
		Long: `Reads every byte of the store. Of each fault it says where it is, and which backups, disks and places
it costs. What is damaged counts as missing from then on: the next backup of a disk that still has
it heals it, and so does ` + "`testbox store copy`" + ` from a second copy of the store. A damaged record is
healed by such a copy alone. ` + "`testbox image list`" + ` flags the backups that lack something from then on,
until they are found whole. The exit code is 1 if something is damaged.
` + throughHelp,
		Example: `  testbox store scrub
  testbox store scrub --server https://server:8443`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			if err := o.check(cmd); err != nil {
				return err
			}
			return o.upkeep(cmd.Context(), p, api.Scrub, func(s *store.Locked) error {
				line := newProgress(p.err)
				report, err := s.Scrub(cmd.Context(), func(at store.ScrubProgress) { line.tellOther("read", at.Bytes, at.Total) })
				line.end()
				if err != nil {
					return report.Unended(err)
				}
				p.printf("%s", report)
				return report.Err()
			})
		},
	}
	o.add(cmd)
	return cmd
}

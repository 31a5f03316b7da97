package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

func newStoreScrubCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read all of the store, and say what damage costs",
		Long: `Reads every byte of the store. Of each fault it says where it is, and which backups, disks and places
it costs. What is damaged counts as missing from then on: the next backup of a disk that still has
it heals it, and so does ` + "`testbox store copy`" + ` from a second copy of the store. A damaged record is
healed by such a copy alone. ` + "`testbox image list`" + ` flags the backups that lack something from then on,
until they are found whole. The exit code is 1 if something is damaged.`,
		Example: `  testbox store scrub`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			return o.withFolder(cmd.Context(), p, false, func(s *store.Locked) error {
				line := newProgress(p.err)
				report, err := s.Scrub(cmd.Context(), func(at store.ScrubProgress) { line.tellOther("read", at.Bytes, at.Total) })
				line.end()
				if err != nil {
					return unscrubbed(report, err)
				}
				p.printf("%s", report)
				return report.Err()
			})
		},
	}
	o.add(cmd)
	return cmd
}

// unscrubbed is the error of a scrub that ended early. The consequences of its
// findings are not known.
func unscrubbed(r *store.ScrubReport, err error) error {
	if r == nil || len(r.Faults) == 0 {
		return err
	}
	errs := []error{err, fmt.Errorf("the scrub had found %s until then; what that costs is known at its end, so run it again",
		words.Count(len(r.Faults), "fault"))}
	for _, f := range r.Faults[:min(len(r.Faults), maxFaultsShown)] {
		errs = append(errs, errors.New(f.Where()))
	}
	return errors.Join(errs...)
}

// maxFaultsShown is how many faults of a scrub that ended early are printed.
const maxFaultsShown = 20

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
)

func newImagePinCmd(w world) *cobra.Command {
	var o storeFlag
	var off, baseline bool
	var note string
	cmd := &cobra.Command{
		Use:   "pin BACKUP",
		Short: "Keep a backup for good, or make it the baseline",
		Long: `A pinned backup is never deleted by retention. With --baseline, it becomes what BOX alone means, for a
restore and for all other commands, in the place of an earlier baseline; that is kept too. --off takes
back that it is pinned, --baseline --off that it is the baseline. --note gives the backup other words.`,
		Example: `  testbox image pin --note "as delivered" web-1@latest
  testbox image pin --baseline 10.40.41.42@2026-11-27
  testbox image pin --baseline --off 10.40.41.42`,
		Args: oneImage, ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(note) > image.MaxNote {
				return wrong("the note has %d bytes; at most %d are kept", len(note), image.MaxNote)
			}
			return o.withEditor(cmd.Context(), printerOf(cmd), w, func(s backups) error {
				r, sel, err := pick(cmd.Context(), printerOf(cmd), s, args[0])
				if err != nil {
					return err
				}
				if sel.When == "" && r.Baseline && !off {
					return wrong("%s has a baseline; say which backup is meant, as %s@latest or %s@baseline", r.Box, r.Box, r.Box)
				}
				if sel.Disk != "" {
					return wrong("a backup is kept with all its disks; leave :%s out", sel.Disk)
				}
				if cmd.Flags().Changed("note") {
					if err := s.SetNote(cmd.Context(), r.Box, r.ID, note); err != nil {
						return err
					}
				}
				if baseline {
					err = s.SetBaseline(cmd.Context(), r.Box, r.ID, !off)
				} else if off || !cmd.Flags().Changed("note") {
					err = s.SetPinned(cmd.Context(), r.Box, r.ID, !off)
				}
				if err != nil {
					return err
				}
				if r, err = s.Record(cmd.Context(), r.Box, r.ID); err != nil {
					return err
				}
				printRecord(cmd.Context(), printerOf(cmd), s, r)
				return nil
			})
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&off, "off", false, "take it back")
	f.BoolVar(&baseline, "baseline", false, "make it what BOX alone means, for a restore and all else")
	f.StringVar(&note, "note", "", "other `WORDS` for the backup")
	return cmd
}

func quoted(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf(" %q", note)
}

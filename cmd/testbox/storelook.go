package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

// openRemote opens the place of a store's blobs; what is on its way there lies
// in the folder dir.
func openRemote(ctx context.Context, text, dir string) (blob.Store, error) {
	cfg, err := s3.ParseURL(text)
	if err != nil {
		return nil, wrong("%w", err)
	}
	return s3.Open(ctx, cfg, dir)
}

func newStoreStatsCmd() *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show what is in the store, and what it takes",
		Long: `Shows how many backups there are, what their disks have and what the store takes for it. "dead" is
what no backup needs any more, about; "testbox store gc" gets it back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, true, func(s *store.Locked) error {
				st, err := s.Stats(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd, st)
				}
				printStats(cmd, st)
				return nil
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func printStats(cmd *cobra.Command, st *store.Stats) {
	cmd.Printf("%d backups of %d boxes: disks of %s, with %s of data\n", st.Backups, len(st.Boxes), bytesText(st.Disks), bytesText(st.Data))
	cmd.Printf("%s in %d packs with %d objects; a byte stored stands for %.1f of data\n", bytesText(st.Stored), st.Packs, st.Objects, st.Ratio())
	if st.Dead >= 0 {
		cmd.Printf("dead: about %s\n", bytesText(st.Dead))
	} else {
		cmd.Printf("dead: not known: %s\n", st.Unknown)
	}
	if st.Damaged > 0 || st.Bad > 0 {
		cmd.Printf("damaged: %d records, %d objects; `testbox store scrub` says what they cost\n", st.Damaged, st.Bad)
	}
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "\nBOX\tBACKUPS\tOLDEST\tNEWEST\tDATA\tADDED\n")
	for _, x := range st.Boxes {
		fmt.Fprintf(tab, "%s\t%d\t%s\t%s\t%s\t%s\n", x.Box, x.Backups, x.Oldest.ID, x.Newest.ID, bytesText(x.Data), bytesText(x.Added))
	}
	tab.Flush()
	if len(st.Boxes) > 0 {
		cmd.Print(b.String())
	}
}

func newStoreScrubCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read all of the store, and say what damage costs",
		Long: `Reads every byte of the store. Of each fault it says where it is, and which backups, disks and places
it costs. What is damaged counts as missing from then on: the next backup of a disk that still has
it heals it. The exit code is 1 if something is damaged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, false, func(s *store.Locked) error {
				p := newProgress(cmd.ErrOrStderr())
				report, err := s.Scrub(cmd.Context(), func(at store.ScrubProgress) { p.tell("read", at.Bytes, at.Total) })
				p.end()
				if err != nil {
					return err
				}
				cmd.Print(report)
				return report.Err()
			})
		},
	}
	o.add(cmd)
	return cmd
}

func newStoreCopyCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "copy FOLDER [IMAGE...]",
		Short: "Copy backups to another store",
		Long: `Copies all backups, or the IMAGEs named (a box alone is all of its backups), to the store in FOLDER,
under the ids that they have. It can be ended at any moment and begun again: what is there is not
sent twice. Each object is checked on its way.`,
		Example: `  testbox store init /mnt/second
  testbox store copy /mnt/second`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give the folder of the other store")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, true, func(s *store.Locked) error {
				dst, err := openStore(cmd, args[0], false)
				if err != nil {
					return err
				}
				defer closing(dst, &err)
				return runStoreCopy(cmd, s, dst, args[1:])
			})
		},
	}
	o.add(cmd)
	return cmd
}

func runStoreCopy(cmd *cobra.Command, s, dst *store.Locked, args []string) error {
	all, err := records(cmd, s)
	if err != nil {
		return err
	}
	wanted := all
	if len(args) > 0 {
		if wanted, err = copied(all, args); err != nil {
			return err
		}
	}
	p := newProgress(cmd.ErrOrStderr())
	var last store.CopyProgress
	err = s.Copy(cmd.Context(), dst.Store, wanted, func(at store.CopyProgress) {
		last = at
		p.tell(fmt.Sprintf("copy %d of %d backups", min(at.Done+1, at.Total), at.Total), at.Bytes, 0)
	})
	p.end()
	cmd.Printf("%d of %d backups are in the copy, %d of them were there; sent %d objects, %s\n", last.Done, len(wanted), last.Present, last.Objects, bytesText(last.Bytes))
	return err
}

// copied are the backups that arguments mean.
func copied(all []*image.Record, args []string) (out []*image.Record, err error) {
	seen := map[*image.Record]bool{}
	for _, a := range args {
		sel, err := store.ParseSelector(a)
		if err != nil {
			return nil, wrong("%w", err)
		}
		rs := ofBoxes(all, []string{sel.Box})
		if sel.When != "" || sel.Disk != "" || len(rs) == 0 {
			r, err := store.Select(all, sel)
			if err != nil {
				return nil, wrong("%w", err)
			}
			rs = []*image.Record{r}
		}
		for _, r := range rs {
			if !seen[r] {
				seen[r] = true
				out = append(out, r)
			}
		}
	}
	return out, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

func newStoreStatsCmd() *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show what is in the store, and what it takes",
		Long: `Shows how many backups there are, what their disks have, and what each part of the store takes; the
parts together are all of its files. What objects take in a pack is told about. "dead" is what no
backup needs any more; "testbox store gc" gets it back. Where a backup cannot be read, it is not
known what is dead. ALONE is what no other box needs: it comes back when all backups of the box are
deleted.`,
		Example: `  testbox store stats`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd.Context(), printerOf(cmd), true, func(s *store.Locked) error {
				st, err := s.Stats(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(printerOf(cmd), st)
				}
				printStats(printerOf(cmd), st)
				return nil
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func printStats(p printer, st *store.Stats) {
	p.printf("%s of %s: disks of %s, with %s of data\n", words.Count(st.Backups, "backup"), words.Count(len(st.Boxes), "box", "boxes"),
		bytesText(st.Disks), bytesText(st.Data))
	p.printf("%s in %s with %s; a byte stored stands for %.1f of data\n", bytesText(st.Stored), words.Count(st.Packs, "pack"),
		words.Count(st.Objects, "object"), st.Ratio())
	p.printf("\nall files: %s\n", bytesText(st.Files))
	for _, part := range statParts(st) {
		if part.bytes != 0 || part.always {
			p.printf("%12s  %s\n", bytesText(part.bytes), part.what)
		}
	}
	if st.Damaged > 0 || st.Bad > 0 {
		p.printf("damaged: %s, %s; `testbox store scrub` says what they cost\n", words.Count(st.Damaged, "record"), words.Count(st.Bad, "object"))
	}
	if st.Lacking > 0 {
		p.printf("%s damaged in the store; `testbox image list` shows which\n", words.Count(st.Lacking, "backup")+" "+words.Verb(st.Lacking, "is", "are"))
	}
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "\nBOX\tBACKUPS\tOLDEST\tNEWEST\tDATA\tADDED\tALONE\n")
	for _, x := range st.Boxes {
		fmt.Fprintf(tab, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", x.Box, x.Backups, x.Oldest.ID, x.Newest.ID, bytesText(x.Data), bytesText(x.Added), bytesText(x.Alone))
	}
	tab.Flush()
	if len(st.Boxes) > 0 {
		p.printf("%s", b.String())
	}
}

// statPart is a part of the files of a store.
type statPart struct {
	bytes  int64
	what   string
	always bool // told also if it is nothing
}

// statParts are the parts that together are all files of a store.
func statParts(st *store.Stats) []statPart {
	dead, known := "dead: no backup needs it; `testbox store gc` gets it back", ""
	if st.Dead < 0 {
		dead = "not known what for: a backup that cannot be read may need it, so `testbox store gc` gets none of it back: " + st.Unknown
		known = ", as far as can be read"
	}
	return []statPart{
		{st.Alone, "needed by one box alone" + known + ": see ALONE", true},
		{st.Shared, "shared by several boxes", true},
		{st.Unused, dead, true},
		{st.Writing, "being written by another process", false},
		{st.Records, "records of backups", true},
		{st.Index, "index, a cache", true},
		{st.Other, "other files", true},
	}
}

func newStoreScrubCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read all of the store, and say what damage costs",
		Long: `Reads every byte of the store. Of each fault it says where it is, and which backups, disks and places
it costs. What is damaged counts as missing from then on: the next backup of a disk that still has
it heals it, and so does "testbox store copy" from a second copy of the store. A damaged record is
healed by such a copy alone. "testbox image list" flags the backups that lack something from then on,
until they are found whole. The exit code is 1 if something is damaged.`,
		Example: `  testbox store scrub`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd.Context(), printerOf(cmd), false, func(s *store.Locked) error {
				line := newProgress(cmd.ErrOrStderr())
				report, err := s.Scrub(cmd.Context(), func(at store.ScrubProgress) { line.tellOther("read", at.Bytes, at.Total) })
				line.end()
				if err != nil {
					return unscrubbed(report, err)
				}
				cmd.Print(report)
				return report.Err()
			})
		},
	}
	o.add(cmd)
	return cmd
}

// unscrubbed is the error of a scrub that ended early. What its findings cost is
// not known.
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

// maxFaultsShown is how many faults are told of a scrub that ended early.
const maxFaultsShown = 20

func newStoreCopyCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "copy FOLDER [BACKUP...]",
		Short: "Copy backups to another store",
		Long: `Copies all backups, or the BACKUPs named (a box alone is all of its backups), to the store in FOLDER,
under the ids that they have. It can be ended at any moment and begun again: what is there is not
sent twice. Each object is checked on its way. A backup that cannot be read here is named and does
not hold up the others; the exit code is then 1.

A copy in the other direction repairs this store: damaged records, and all that a scrub has found
damaged, come back. What the other store has is not read again by this: "testbox store scrub" there
does that. A store cannot be copied onto itself.`,
		Example: `  testbox store init /mnt/second
  testbox store copy /mnt/second`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give the folder of the other store")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if sameRemote(o.dir, args[0]) { // of which only one folder could be written to
				return refused("%w", store.ErrSame)
			}
			return o.with(cmd.Context(), printerOf(cmd), true, func(s *store.Locked) (err error) {
				dst, err := openStore(cmd.Context(), printerOf(cmd), args[0], false)
				if err != nil {
					return err
				}
				defer closing(cmd.Context(), printerOf(cmd), dst, &err)
				return runStoreCopy(cmd.Context(), printerOf(cmd), s, dst, args[1:])
			})
		},
	}
	o.add(cmd)
	return cmd
}

func runStoreCopy(ctx context.Context, p printer, s, dst *store.Locked, args []string) error {
	wanted, damaged, err := s.Records(ctx)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		if wanted, damaged, err = copied(wanted, damaged, args); err != nil {
			return err
		}
	}
	line := newProgress(p.err)
	var last store.CopyProgress
	err = s.Copy(ctx, dst.Store, wanted, damaged, func(at store.CopyProgress) {
		last = at
		line.tellOther(fmt.Sprintf("copy %d of %s", min(at.Done+1, at.Total), words.Count(at.Total, "backup")), at.Bytes, 0)
	})
	line.end()
	if errors.Is(err, store.ErrSame) {
		return refused("%w", err)
	}
	p.printf("%d of %s %s in the copy, %d of them %s there; sent %s, %s\n", last.Done, words.Count(last.Total, "backup"), words.Verb(last.Done, "is", "are"),
		last.Present, words.Verb(last.Present, "was", "were"), words.Count(last.Objects, "object"), bytesText(last.Bytes))
	return err
}

// copied are the backups that arguments mean, and those with damaged records that
// they mean or may mean.
func copied(all []*image.Record, damaged []*store.RecordError, args []string) (out []*image.Record, bad []*store.RecordError, err error) {
	for _, a := range args {
		sel, err := store.ParseSelector(a)
		if err != nil {
			return nil, nil, wrong("%w", err)
		}
		rs, ds := ofBoxes(all, []string{sel.Box}), damagedOf(damaged, sel.Box)
		if sel.When != "" || sel.Disk != "" || len(rs)+len(ds) == 0 {
			rs, ds = nil, nil
			r, err := store.Select(all, damaged, sel, time.Now())
			var unreadable *store.UnreadableError
			if errors.As(err, &unreadable) {
				ds = unreadable.Records
				r, err = unreadable.Instead, nil
			}
			if err != nil {
				return nil, nil, wrong("%w", err)
			}
			if r != nil {
				rs = []*image.Record{r}
			}
		}
		for _, r := range rs {
			if !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
		for _, d := range ds {
			if !slices.Contains(bad, d) {
				bad = append(bad, d)
			}
		}
	}
	return out, bad, nil
}

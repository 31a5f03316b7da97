package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

func newStoreCopyCmd(w world) *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "copy FOLDER [BACKUP...]",
		Short: "Copy backups to another store",
		Long: `Copies all backups, or the BACKUPs named, to the store in FOLDER, under the ids that they have. BACKUP
is BOX@WHEN as ` + "`testbox image --help`" + ` explains it, without :DISK; a box alone is here all of its
backups, and not one. The copy can be ended at any moment and begun again: what is there is not
sent twice. Each object is checked on its way. A backup that cannot be read here is named and does
not hold up the others; the exit code is then 1.

A copy in the other direction repairs this store: damaged records, and all that a scrub has found
damaged, come back. What the other store has is not read again by this: ` + "`testbox store scrub`" + ` there
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
			if sameRemote(o.dir, args[0]) { // only one of the two folders could be written to
				return refused("%w", store.ErrSame)
			}
			return o.withFolder(cmd.Context(), printerOf(cmd), true, func(s *store.Locked) (err error) {
				dst, err := openStore(cmd.Context(), printerOf(cmd), args[0], false)
				if err != nil {
					to := storeFlag{args[0]}
					return to.wantsAlone(cmd.Context(), printerOf(cmd), w, err)
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
	p.printf("%d of %s %s in the copy, %d of them %s there; sent %s, %s\n", last.Done, words.Count(last.Total, "backup"),
		words.Verb(last.Done, "is", "are"),
		last.Present, words.Verb(last.Present, "was", "were"), words.Count(last.Objects, "object"), bytesText(last.Bytes))
	return err
}

// copied returns the backups that the arguments mean. bad are damaged records
// that they mean or may mean.
func copied(all []*image.Record, damaged []*store.RecordError, args []string) (out []*image.Record, bad []*store.RecordError, err error) {
	for _, a := range args {
		sel, err := store.ParseSelector(a)
		if err != nil {
			return nil, nil, wrong("%w", err)
		}
		if sel.Disk != "" {
			return nil, nil, wrong("%q: a backup is copied with all its disks; leave :%s out", a, sel.Disk)
		}
		rs, ds := ofBoxes(all, []string{sel.Box}), damagedOf(damaged, sel.Box)
		if sel.When != "" || len(rs)+len(ds) == 0 {
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

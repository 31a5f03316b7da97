package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

// deleteOptions are the flags of image delete.
type deleteOptions struct {
	storeFlag
	policy store.Policy
	whole  bool
	yes    bool
}

func newImageDeleteCmd(w world) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete BACKUP... | --keep-last N [--keep-daily N] [--keep-weekly N] [--keep-monthly N] [BOX...]",
		Short: "Delete backups, by name or by how many are kept",
		Long: `With BACKUPs, deletes these. With --keep flags, of each box (or of the BOXes named) keeps the last
backups, and the last one of each of so many days, weeks and months, and deletes the others; pinned
ones, baselines and the last backup of a box always stay. A backup whose record is damaged goes by
its id, BOX@ID, and no other word is taken that could mean it. BACKUP is explained by
` + "`testbox image --help`" + `; here it has an @WHEN and no :DISK, so that nothing goes that was not named.

Damaged backups count, but as long as only damaged images of a disk would be left, its last whole one
stays too, and --last-whole must be said to delete it by name. Backups with a time that cannot be
right stay, and count for nothing.

The plan is printed; it is done only with --yes. The space comes back with ` + "`testbox store gc`" + `.`,
		Example: `  testbox image delete 10.40.41.42@latest~3 --yes
  testbox image delete --keep-last 3 --keep-daily 7 --keep-weekly 4`,
		ValidArgsFunction: completeImages(&o.storeFlag),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Flags().Changed, args); err != nil {
				return err
			}
			return runImageDelete(cmd.Context(), printerOf(cmd), w, args, o)
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.IntVar(&o.policy.Last, "keep-last", 0, "keep the last `N` backups of each box")
	f.IntVar(&o.policy.Daily, "keep-daily", 0, "keep the last one of each of `N` days")
	f.IntVar(&o.policy.Weekly, "keep-weekly", 0, "keep the last one of each of `N` weeks")
	f.IntVar(&o.policy.Monthly, "keep-monthly", 0, "keep the last one of each of `N` months")
	f.BoolVar(&o.whole, "last-whole", false, "with BACKUPs, also the last whole backup of a disk that then has damaged ones only")
	f.BoolVarP(&o.yes, "yes", "y", false, "do it, not only say it")
	return cmd
}

// check refuses flags from which it is not clear what is to go. given reports
// whether a flag was given.
func (o *deleteOptions) check(given func(flag string) bool, args []string) error {
	if o.policy != (store.Policy{}) {
		return nil
	}
	for _, flag := range []string{"keep-last", "keep-daily", "keep-weekly", "keep-monthly"} {
		if given(flag) {
			return wrong("--%s=0 keeps nothing; give a number from 1, or name the backups that are to go", flag)
		}
	}
	if len(args) == 0 {
		return wrong("give the backups that are to go, as in web-1@latest~3, or say how many to keep, as in --keep-last=3")
	}
	return nil
}

func runImageDelete(ctx context.Context, p printer, w world, args []string, o deleteOptions) (err error) {
	var s backups
	if o.yes {
		s, err = o.openEditor(ctx, p, w)
	} else {
		s, err = o.open(ctx, p, true)
	}
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	rs, damaged, err := allRecords(ctx, p, s)
	if err != nil {
		return err
	}
	var gone []*image.Record
	var lost []*store.RecordError
	if o.policy == (store.Policy{}) {
		if gone, lost, err = named(rs, damaged, args); err == nil {
			err = guardWhole(ctx, p, s, rs, damaged, gone, o.whole)
		}
	} else {
		gone, err = planned(ctx, p, s, rs, damaged, args, o.policy)
	}
	if err != nil {
		return err
	}
	if len(gone)+len(lost) == 0 {
		p.printf("nothing is to be deleted\n")
		return nil
	}
	for _, r := range gone {
		p.printf("delete backup %s of %s (%s)%s\n", r.ID, r.Box, diskNames(r), quoted(r.Note))
	}
	for _, d := range lost {
		p.printf("delete backup %s of %s, whose record cannot be read: its disks, note and marks are not known\n", d.ID, d.Box)
	}
	back := comesBack(ctx, s, gone, lost)
	if !o.yes {
		p.printf("%s\n", back)
		p.printf("nothing was deleted; --yes does it\n")
		return nil
	}
	if err := errors.Join(s.Delete(ctx, gone...), s.DeleteDamaged(ctx, lost...)); err != nil {
		return err
	}
	n := len(gone) + len(lost)
	p.printf("%s %s deleted; %s\n", words.Count(n, "backup"), words.Verb(n, "is", "are"), back)
	return nil
}

// comesBack says how much space the deletion of backups frees.
func comesBack(ctx context.Context, s editor, gone []*image.Record, lost []*store.RecordError) string {
	if len(lost) > 0 {
		return "how much space a backup takes whose record cannot be read is not known: `testbox store gc` says it when the record is gone"
	}
	n, err := s.Freed(ctx, gone)
	if err != nil {
		return fmt.Sprintf("how much space that frees is not known: %v", err)
	}
	if n == 0 {
		return "that frees no space: other backups need all of it"
	}
	return fmt.Sprintf("no other backup needs about %s, which `testbox store gc` gets back", bytesText(n))
}

// named returns the backups that the arguments mean. A protected one is an
// error. A backup with a damaged record is meant only by its id.
func named(rs []*image.Record, damaged []*store.RecordError, args []string) (out []*image.Record, lost []*store.RecordError, err error) {
	for _, a := range args {
		sel, err := store.ParseSelector(a)
		if err != nil {
			return nil, nil, wrong("%w", err)
		}
		if sel.When == "" || sel.Disk != "" {
			return nil, nil, wrong("%q: say which backup, as in %s@latest; it goes with all its disks", a, sel.Box)
		}
		if i := slices.IndexFunc(damaged, func(d *store.RecordError) bool { return d.Box == sel.Box && d.ID == sel.When }); i >= 0 {
			if !slices.Contains(lost, damaged[i]) {
				lost = append(lost, damaged[i])
			}
			continue
		}
		r, err := choose(rs, damaged, sel, time.Now())
		if err != nil {
			return nil, nil, err
		}
		if r.Pinned || r.Baseline {
			return nil, nil, refused("%s", whyKept(r))
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, lost, nil
}

// whyKept says what protects a backup from deletion, and which command ends
// that.
func whyKept(r *image.Record) string {
	is, off := "pinned", fmt.Sprintf("`testbox image pin --off %s@%s`", r.Box, r.ID)
	if r.Baseline {
		baseline := fmt.Sprintf("`testbox image pin --baseline --off %s@%s`", r.Box, r.ID)
		if r.Pinned {
			is, off = "pinned and the baseline", off+" and "+baseline
		} else {
			is, off = "the baseline", baseline
		}
	}
	return fmt.Sprintf("backup %s of %s is %s; %s first", r.ID, r.Box, is, off)
}

// damagedOf returns a box's backups whose records cannot be read.
func damagedOf(damaged []*store.RecordError, box string) (out []*store.RecordError) {
	for _, d := range damaged {
		if d.Box == box {
			out = append(out, d)
		}
	}
	return out
}

// guardWhole refuses to delete the last undamaged backup of a disk if damaged
// ones remain. It also says which box has no backup left afterwards.
func guardWhole(ctx context.Context, p printer, s catalogue, rs []*image.Record, damaged []*store.RecordError,
	gone []*image.Record, allow bool) error {
	damages := damagesOf(ctx, p, s)
	isGone := func(r *image.Record) bool { return slices.Contains(gone, r) }
	for _, r := range gone {
		if disks := store.LastWhole(rs, isGone, damages, r.Box); len(disks) > 0 && !allow {
			return refused("of %s of %s only damaged images would be left, without backup %s; say --last-whole if that is meant",
				strings.Join(disks, ", "), r.Box, r.ID)
		}
	}
	var said []string
	for _, r := range gone {
		if !slices.ContainsFunc(rs, func(o *image.Record) bool { return o.Box == r.Box && !isGone(o) }) && !slices.Contains(said, r.Box) {
			said = append(said, r.Box)
			left := ""
			if len(damagedOf(damaged, r.Box)) > 0 {
				left = " whose record can be read"
			}
			p.warnf("after that, %s has no backup%s", r.Box, left)
		}
	}
	return nil
}

func planned(ctx context.Context, p printer, s catalogue, rs []*image.Record, damaged []*store.RecordError,
	boxes []string, keep store.Policy) (
	out []*image.Record, err error) {
	if keep.Last < 0 || keep.Daily < 0 || keep.Weekly < 0 || keep.Monthly < 0 {
		return nil, wrong("a number of backups to keep cannot be negative")
	}
	if err := haveBackups(rs, damaged, boxes); err != nil {
		return nil, err
	}
	for _, k := range store.PlanRetention(ofBoxes(rs, boxes), func(string) store.Policy { return keep }, damagesOf(ctx, p, s), time.Now()) {
		if len(k.Why) > 0 {
			p.printf("%s\n", k)
		} else {
			out = append(out, k.Record)
		}
	}
	return out, nil
}

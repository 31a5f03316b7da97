package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

func newImageDateCmd(w world) *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "date BACKUP TIME",
		Short: "Put right the time of a backup that was made by a wrong clock",
		Long: `Gives a backup another TIME, in UTC, and the id that goes with it; all else of it stays. Commands
that name it by the old id do not find it any more, and a copy of the store keeps it under the old
id until it is put right or deleted there too.

A backup that is dated in the future, or before there was this program, is passed over by
BOX@latest, is never deleted by retention, and takes no other's place there.`,
		Example: `  testbox image date web-1@20370101-000312 2026-11-27T10:04`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give the backup and its time (BACKUP TIME), such as web-1@20370101-000312 2026-11-27T10:04")
			}
			return nil
		},
		ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := parseTime(args[1])
			if err != nil {
				return err
			}
			return o.withEditor(cmd.Context(), printerOf(cmd), w,
				func(s backups) error { return setTime(cmd.Context(), printerOf(cmd), s, args[0], at) })
		},
	}
	o.add(cmd)
	return cmd
}

// timeForms are the forms in which a user can give a time.
var timeForms = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04",
	"20060102-150405", time.DateOnly}

func parseTime(text string) (time.Time, error) {
	for _, form := range timeForms {
		t, err := time.Parse(form, text)
		if err != nil {
			continue
		}
		if len(store.Misdated([]*image.Record{{Time: t}}, time.Now())) > 0 {
			return t, wrong("%s is in the future, or before there was this program; give the time at which the backup was made", text)
		}
		return t.UTC(), nil
	}
	return time.Time{}, wrong("%q is no time; give it in UTC, as 2026-11-27T10:04", text)
}

func setTime(ctx context.Context, p printer, s editor, arg string, at time.Time) error {
	r, sel, err := pick(ctx, p, s, arg)
	if err != nil {
		return err
	}
	if sel.When == "" || sel.Disk != "" {
		return wrong("%q: say which backup, as in %s@%s; it has one time for all disks", arg, r.Box, r.ID)
	}
	was := r.ID
	if r, err = s.SetTime(ctx, r.Box, r.ID, at); err != nil {
		return err
	}
	p.printf("backup %s of %s is %s now\n", was, r.Box, r.ID)
	printRecord(ctx, p, s, r)
	return nil
}

// whyMisdated says why a backup's time cannot be right. It returns "" if the
// time can be right, or if it is known after which other backup this one was
// made.
func whyMisdated(ctx context.Context, s boxCatalogue, r *image.Record) string {
	rs, _, err := s.RecordsOf(ctx, r.Box)
	if err != nil {
		return ""
	}
	for m, why := range store.Misdated(rs, time.Now()) {
		if m.ID == r.ID {
			return why
		}
	}
	return ""
}

// sayLater warns of backups of a box that have a date in the future. A clock is
// or was wrong then.
func sayLater(ctx context.Context, p printer, s boxCatalogue, box string) error {
	rs, _, err := s.RecordsOf(ctx, box)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, r := range rs {
		if r.Time.After(now) {
			p.warnf("backup %s of %s is dated later than the clock of this machine, which says %s: it is wrong, or that clock was",
				r.ID, box, now.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// sayDate warns if the date of a new backup shows that a clock was wrong.
func sayDate(ctx context.Context, p printer, s boxCatalogue, r *image.Record) {
	if why := whyMisdated(ctx, s, r); why != "" {
		p.warnf("backup %s is %s: it is not %s@latest; `testbox image date` puts its time right", r.ID, why, r.Box)
		return
	}
	if r.After != "" {
		p.warnf("backup %s was there already and is dated later; this one counts as made after it. `testbox image date` puts a time right",
			r.After)
	}
}

// sayPassedOver says which backups of a box a selector does not regard as the
// latest because of their dates.
func sayPassedOver(p printer, rs []*image.Record, picked *image.Record, now time.Time) {
	for _, r := range rs {
		if why := store.Misdated(ofBoxes(rs, []string{picked.Box}), now)[r]; why != "" && r != picked {
			p.warnf("backup %s of %s is %s, and is not taken for the latest; `testbox image date` puts its time right", r.ID, r.Box, why)
		}
	}
}

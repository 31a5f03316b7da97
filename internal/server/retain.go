package server

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

// policies are what is kept of each box that the server knows. The zero Policy keeps all.
type policies map[string]store.Policy

// of is what is kept of a box. Of one that the server does not know all is kept, since nobody
// can say any more what was set for it. It may have been forgotten, or the ledger may be new.
func (p policies) of(box string) store.Policy { return p[box] }

// all reports whether all backups are kept.
func (p policies) all() bool {
	for _, keep := range p {
		if keep != (store.Policy{}) {
			return false
		}
	}
	return true
}

// policies reads what is kept of each box. Settings that cannot be read keep all, and the log
// says so if say is true.
func (u *upkeep) policies(ctx context.Context, say bool) (policies, error) {
	all := policies{}
	warn := func(err error) {
		if say && err != nil {
			u.log.Warn("All backups of these boxes are kept.", "because", err)
		}
	}
	err := u.ledger.View(ctx, func(tx *ledger.Tx) error {
		groups, err := tx.Groups()
		if err != nil {
			return err
		}
		for _, g := range groups {
			_, err := setting.OfGroup(g)
			warn(err)
		}
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Boxes(ledger.BoxFilter{}, p)
			if err != nil {
				return err
			}
			for _, b := range some {
				_, err := setting.OfBox(b)
				warn(err)
				all[b.Address.String()] = policyOf(setting.For(b, groups, u.cfg.Site()).Keep)
			}
			if p.After = next; next == "" {
				return nil
			}
		}
	})
	return all, err
}

func policyOf(k setting.Keep) store.Policy {
	if k.All {
		return store.Policy{}
	}
	return store.Policy{Last: k.Last, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly}
}

// retain deletes the backups that neither the settings of a box and its groups nor the
// configuration keep.
func (u *upkeep) retain(ctx context.Context) (string, error) {
	const nothing = "nothing is deleted while it is not known what is to be kept: %w"
	keep, err := u.policies(ctx, true)
	if err != nil {
		return "", fmt.Errorf(nothing, err)
	}
	if keep.all() {
		return "All backups are kept.", nil
	}
	lacking, err := u.store.Lacking(ctx)
	if err != nil {
		return "", err
	}
	// Beside restores that took long. What is read from here on is read at once, so that
	// a backup that was pinned meanwhile is kept, and so is one whose box has new settings.
	ctx = store.WithPace(ctx, nil)
	records, damaged, err := u.store.Records(ctx)
	if err != nil {
		return "", err
	}
	if len(damaged) > 0 {
		// One of the backups that would go may be the last one of its disk that can be
		// read.
		return "", fmt.Errorf("nothing is deleted while the record of a backup cannot be read: %w", damaged[0])
	}
	needs, err := u.needs(ctx)
	if err != nil {
		return "", fmt.Errorf("nothing is deleted while it is not known which backups jobs need: %w", err)
	}
	if keep, err = u.policies(ctx, false); err != nil {
		return "", fmt.Errorf(nothing, err)
	}
	var gone []*image.Record
	unknown := 0
	for _, k := range store.PlanRetention(records, keep.of, lacking, u.now()) {
		if _, known := keep[k.Record.Box]; !known {
			unknown++
		}
		if len(k.Why) == 0 && dispatch.NeedOf(needs, k.Record.Box, k.Record.ID) == nil {
			gone = append(gone, k.Record)
		}
	}
	did := func(n int) string {
		text := fmt.Sprintf("%d of %d backups are deleted", n, len(records))
		if unknown > 0 {
			text += fmt.Sprintf("; %s of boxes that the server does not know stay", words.Count(unknown, "backup"))
		}
		return text
	}
	err = u.store.Delete(ctx, gone...)
	var held *store.HeldError
	if errors.As(err, &held) {
		return fmt.Sprintf("%s; %v", did(len(gone)-len(held.Records)), held), nil
	}
	return did(len(gone)) + ".", err
}

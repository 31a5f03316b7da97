package main

import (
	"context"
	"fmt"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

// damagesOf returns the damage that was found in the store. If the list cannot
// be read, it prints that and the command continues.
func damagesOf(ctx context.Context, p printer, s interface {
	Damages(context.Context) (store.Damages, error)
}) store.Damages {
	damages, err := s.Damages(ctx)
	if err != nil {
		p.warnf("the list of damaged images cannot be read: %v", err)
	}
	return damages
}

// badText says in one line where an image has zeros for unreadable bytes.
func badText(bad []image.Range) string {
	bytes := int64(0)
	for _, b := range bad {
		bytes += b.Len
	}
	s := fmt.Sprintf("%d bytes could not be read when it was backed up, and are zeros, at", bytes)
	for i, b := range bad {
		if i == 5 {
			return s + fmt.Sprintf(" and %s more", words.Count(len(bad)-i, "place"))
		}
		s += fmt.Sprintf(" %d+%d", b.Off, b.Len)
	}
	return s
}

// faultsOf says what is wrong with the disks of a backup, in a line for each
// fault.
func faultsOf(r *image.Record, damages store.Damages) (lines []string) {
	damaged := damages.Of(r)
	for i := range r.Disks {
		d := &r.Disks[i]
		if len(d.Bad) > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s", d.Name, badText(d.Bad)))
		}
		if what, is := damaged[d.Name]; is {
			lines = append(lines, fmt.Sprintf("%s: %s (as of %s; `testbox store scrub` looks again)", d.Name, what, what.Found.Format(time.RFC3339)))
		}
	}
	return lines
}

// hasZeros reports whether an image has zeros for sectors that could not be
// read.
func hasZeros(disks []*image.RecordedDisk) bool {
	for _, d := range disks {
		if len(d.Bad) > 0 {
			return true
		}
	}
	return false
}

// warnDamaged warns of damaged images before a backup is used.
func warnDamaged(ctx context.Context, p printer, s catalogue, r *image.Record, disks []*image.RecordedDisk) error {
	damages := damagesOf(ctx, p, s)
	for _, d := range disks {
		if damages.Whole(d) {
			continue
		}
		rs, _, err := s.Records(ctx)
		if err != nil {
			return err
		}
		p.warnf("%s of backup %s is damaged; %s", d.Name, r.ID, lastWhole(rs, r.Box, d.Name, damages))
	}
	return nil
}

func lastWhole(rs []*image.Record, box, name string, damages store.Damages) string {
	last := ""
	for _, r := range rs {
		for i := range r.Disks {
			if d := &r.Disks[i]; r.Box == box && d.Name == name && damages.Whole(d) {
				last = fmt.Sprintf("its last whole image is in %s@%s", r.Box, r.ID)
			}
		}
	}
	if last == "" {
		return "there is no whole image of it"
	}
	return last
}

// noteVerified records what a verify found, so that `image list` shows it. It
// also finds out which other backups the damage concerns.
func noteVerified(ctx context.Context, p printer, s verifier, whole []object.Name, damaged store.Damages) {
	err := error(nil)
	if len(damaged) > 0 {
		var all store.Damages
		if all, err = s.Lacking(ctx); err == nil {
			for root, d := range all {
				if _, known := damaged[root]; !known {
					damaged[root] = d
				}
			}
		}
	}
	if err == nil {
		err = s.NoteVerified(ctx, whole, damaged)
	}
	sayUnnoted(p, err)
}

func sayUnnoted(p printer, err error) {
	if err != nil {
		p.warnf("what was found is not noted in the store, so `testbox image list` does not show it: %v", err)
	}
}

package store

import (
	"context"
	"errors"
	"io/fs"
	"reflect"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/problem"
)

// CheckReaddress returns an error of package problem if the backups of the box from cannot
// be given to the box to. That has to have none, since nobody could tell those of two
// machines apart later.
func (c *Catalogue) CheckReaddress(ctx context.Context, from, to string) error {
	if !image.ValidBox(to) {
		return problem.Wrongf("%.80q cannot be the name of a box, which has %s", to, image.BoxRule)
	}
	_, damaged, err := c.RecordsOf(ctx, from)
	if err != nil {
		return err
	}
	if len(damaged) > 0 {
		return cannotMove(damaged[0])
	}
	there, err := c.recordNames(ctx, recordPrefix+to+"/")
	if err == nil && len(there) > 0 {
		err = problem.Refusef("there are backups of %s already, which are of another machine; delete them first", to)
	}
	return err
}

// Readdress gives the backups of the box from to the box to. Their ids stay. For a moment a
// backup has records of both. It can be repeated after an error or a power cut, and goes on
// where it was.
func (c *Catalogue) Readdress(ctx context.Context, from, to string) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.recordMu.Lock()
	defer c.recordMu.Unlock()
	records, damaged, err := c.RecordsOf(ctx, from)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range records {
		moved := *r
		moved.Box = to
		switch there, err := c.Record(ctx, to, r.ID); {
		case err == nil && reflect.DeepEqual(there, &moved): // from an earlier try
		case err == nil:
			return problem.Refusef("%s has another backup with the id %s", to, r.ID)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		default:
			if err := c.createRecord(ctx, &moved); err != nil {
				return err
			}
		}
		names = append(names, recordName(from, r.ID))
	}
	if err := c.remove(ctx, names); err != nil || len(damaged) == 0 {
		return err
	}
	return cannotMove(damaged[0])
}

func cannotMove(e *RecordError) error {
	return problem.Refusef("the backup %s of %s cannot be moved, because its record cannot be read; delete that backup first", e.ID, e.Box)
}

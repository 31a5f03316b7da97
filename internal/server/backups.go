package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
)

// backups finds backups in the store. It implements dispatch.Backups.
type backups struct {
	store *store.Locked
	now   func() time.Time
}

var _ dispatch.Backups = (*backups)(nil)

// Of implements dispatch.Backups. A backup whose record cannot be read is left out.
func (b *backups) Of(ctx context.Context, addr box.Addr) ([]*image.Record, error) {
	records, _, err := b.store.RecordsOf(ctx, addr.String())
	slices.Reverse(records)
	return records, err
}

// Find implements dispatch.Backups. A name is what the shell's commands take behind
// BOX@.
func (b *backups) Find(ctx context.Context, addr box.Addr, name string) (*image.Record, error) {
	arg := addr.String()
	if strings.Contains(name, "@") {
		arg = name
	} else if name != "" {
		arg += "@" + name
	}
	sel, err := store.ParseSelector(arg)
	if err != nil {
		return nil, problem.Wrongf("%w", err)
	}
	records, damaged, err := b.store.RecordsOf(ctx, sel.Box)
	if err != nil {
		return nil, err
	}
	r, err := store.Select(records, damaged, sel, b.now())
	switch {
	case errors.Is(err, store.ErrNoBackup), errors.Is(err, store.ErrNoImage):
		return nil, fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	case errors.As(err, new(*store.UnreadableError)):
		return nil, problem.Refusef("%w", err)
	}
	return r, err
}

// made returns the backup of a box that an arming has made, or nil.
func (b *backups) made(ctx context.Context, of string, arming box.Arming) (*image.Record, error) {
	records, _, err := b.store.RecordsOf(ctx, of)
	for _, r := range records {
		if r.Arming == arming {
			return r, nil
		}
	}
	return nil, err
}

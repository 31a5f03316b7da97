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
// BOX@. BOX@ alone is the backup of another box that a restore takes by itself.
func (b *backups) Find(ctx context.Context, addr box.Addr, name string) (*image.Record, error) {
	arg := addr.String()
	if _, err := box.ParseAddr(name); err == nil {
		return nil, problem.Wrongf("%s is a box, and not one of its backups: %s@latest is its latest one", name, name)
	}
	if strings.Contains(name, "@") {
		arg = strings.TrimSuffix(name, "@")
	} else if name != "" {
		arg += "@" + name
	}
	sel, err := store.ParseSelector(arg)
	if err != nil && !strings.Contains(name, "@") {
		return nil, problem.Wrongf("%.100q is no backup of %s: give latest, latest~1, baseline, an id, or a date or its beginning, such as "+
			"2026-11-27; BOX@latest is the latest one of another box", name, addr)
	}
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

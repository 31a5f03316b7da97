package main

import (
	"context"
	"errors"
	"os"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

// served is a store that a server on this machine has open. What is read comes from
// the store's folder, and what is noted or deleted is asked of the server.
type served struct {
	storeFolder
	server *apiclient.Client
}

// openEditor opens the store for a command that notes something of backups, or
// deletes them. It does so through the server of this machine, if that has the store.
func (o *storeFlag) openEditor(ctx context.Context, p printer, w world) (backups, error) {
	own, err := o.open(ctx, p, false)
	if !errors.Is(err, store.ErrLocked) {
		return own, err
	}
	socket := os.Getenv(serverEnv)
	if socket == "" {
		socket = w.socket
	}
	if len(socket) == 0 || socket[0] != '/' {
		return nil, err // another process has it, or a server on another machine
	}
	c, clientErr := apiclient.New(apiclient.Config{Server: socket, Away: w.away})
	if clientErr == nil {
		if clientErr = c.Do(ctx, "GET", apiclient.Path("me"), nil, new(api.Me)); clientErr != nil {
			c.Close()
		}
	}
	if clientErr != nil {
		return nil, err
	}
	s, readErr := openStore(ctx, p, o.dir, true)
	if readErr != nil {
		c.Close()
		return nil, readErr
	}
	return &served{storeFolder{s}, c}, nil
}

// withEditor opens the store by openEditor, calls do, and closes the store.
func (o *storeFlag) withEditor(ctx context.Context, p printer, w world, do func(backups) error) (err error) {
	s, err := o.openEditor(ctx, p, w)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	return do(s)
}

// same refuses if the server has another backup of this name, or none. It has
// another store then.
func (s *served) same(ctx context.Context, box, id string) error {
	r, err := s.Record(ctx, box, id)
	if err != nil {
		return err
	}
	var list api.BackupList
	if err := s.server.Do(ctx, "GET", apiclient.Path("backups", box), nil, &list); err != nil {
		return serverErr(err)
	}
	for _, b := range list.Backups {
		if b.ID == id && b.Time.Equal(r.Time) {
			return nil
		}
	}
	return refused("the server of this machine does not have backup %s of %s, so another process than the server uses this store", id, box)
}

func (s *served) set(ctx context.Context, box, id string, q api.SetBackup) error {
	if err := s.same(ctx, box, id); err != nil {
		return err
	}
	return serverErr(s.server.Do(ctx, "PATCH", apiclient.Path("backups", box, id), q, new(api.Backup)))
}

// SetPinned implements editor.
func (s *served) SetPinned(ctx context.Context, box, id string, pinned bool) error {
	return s.set(ctx, box, id, api.SetBackup{Pinned: &pinned})
}

// SetBaseline implements editor.
func (s *served) SetBaseline(ctx context.Context, box, id string, baseline bool) error {
	return s.set(ctx, box, id, api.SetBackup{Baseline: &baseline})
}

// SetNote implements editor.
func (s *served) SetNote(ctx context.Context, box, id, note string) error {
	return s.set(ctx, box, id, api.SetBackup{Note: &note})
}

// SetTime implements editor. A server does not do it.
func (s *served) SetTime(context.Context, string, string, time.Time) (*image.Record, error) {
	return nil, refused("the server has this store open; end it to correct the date of a backup")
}

// Delete implements editor. The caller has looked at what is the last whole backup
// of a disk.
func (s *served) Delete(ctx context.Context, records ...*image.Record) error {
	for _, r := range records {
		if err := s.same(ctx, r.Box, r.ID); err != nil {
			return err
		}
		if err := s.server.Do(ctx, "DELETE", apiclient.Path("backups", r.Box, r.ID)+"?last_whole=true", nil, nil); err != nil {
			return serverErr(err)
		}
	}
	return nil
}

// DeleteDamaged implements editor. A server does not do it.
func (s *served) DeleteDamaged(_ context.Context, damaged ...*store.RecordError) error {
	if len(damaged) == 0 {
		return nil
	}
	return refused("the server has this store open; end it to delete a backup whose record cannot be read")
}

// Close ends the use of the store and of the server.
func (s *served) Close() error {
	s.server.Close()
	return s.storeFolder.Close()
}

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/problem"
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
	if err == nil {
		return own, nil
	}
	c, err := o.serverOf(ctx, p, w, err)
	if err != nil {
		return nil, err
	}
	s, err := openStore(ctx, p, o.dir, true)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &served{storeFolder{s}, c}, nil
}

// serverOf finds the server of this machine if it has the store open. err is why the
// store could not be opened. It is returned if that has another cause.
func (o *storeFlag) serverOf(ctx context.Context, p printer, w world, err error) (*apiclient.Client, error) {
	if !errors.Is(err, store.ErrLocked) {
		return nil, err
	}
	socket := os.Getenv(serverEnv)
	if socket == "" {
		socket = w.socket
	}
	if len(socket) == 0 || socket[0] != '/' {
		return nil, err // another process has it, or a server on another machine
	}
	c, clientErr := apiclient.New(apiclient.Config{Server: socket, Away: w.away})
	if clientErr != nil {
		return nil, err
	}
	var has api.Store
	if c.Do(ctx, "GET", apiclient.Path("store"), nil, &has) != nil {
		c.Close()
		return nil, err
	}
	// A collection cannot remove packs while another process reads, so the store is
	// closed at once.
	own, ownErr := openStore(ctx, p, o.dir, true)
	if ownErr != nil {
		c.Close()
		return nil, ownErr
	}
	is := own.UUID()
	if ownErr = own.Close(); ownErr == nil && is != has.ID {
		ownErr = err // the server has another store
	}
	if ownErr != nil {
		c.Close()
		return nil, ownErr
	}
	return c, nil
}

// wantsAlone is the error of a command that works on a store which nothing else has
// open, and that no server does. err is why the store could not be opened.
func (o *storeFlag) wantsAlone(ctx context.Context, p printer, w world, err error) error {
	if !errors.Is(err, store.ErrLocked) {
		return err
	}
	c, other := o.serverOf(ctx, p, w, err)
	if other != nil {
		return err
	}
	c.Close()
	return refused("the server of this machine has the store in %s open, and this cannot go through it; "+
		"end the server, run this again, and start the server", o.dir)
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

func (s *served) set(ctx context.Context, box, id string, q api.SetBackup) error {
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

// SetTime implements editor.
func (s *served) SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error) {
	var b api.Backup
	if err := s.server.Do(ctx, "PUT", apiclient.Path("backups", box, id, "time"), api.SetTime{Time: at}, &b); err != nil {
		return nil, serverErr(err)
	}
	return s.Record(ctx, box, b.ID)
}

// SetBoot implements editor.
func (s *served) SetBoot(ctx context.Context, box, id string, r *image.BootTest) error {
	q := api.NewBootTest{Picture: r.Picture, BootTest: api.BootTest{Time: r.Time, Verdict: r.Verdict, Sign: r.Sign, Text: r.Text,
		Firmware: r.Firmware, Seconds: r.Seconds}}
	return serverErr(s.server.Do(ctx, "PUT", apiclient.Path("backups", box, id, "boot-test"), q, new(api.Backup)))
}

// Delete implements editor. The caller has looked at what is the last whole backup
// of a disk.
func (s *served) Delete(ctx context.Context, records ...*image.Record) error {
	var kept []error // a job needs them; the others go all the same
	for _, r := range records {
		err := s.server.Do(ctx, "DELETE", apiclient.Path("backups", r.Box, r.ID)+"?last_whole=true", nil, nil)
		switch {
		case errors.As(err, new(*problem.Error)):
			kept = append(kept, err)
		case err != nil:
			return serverErr(err)
		}
	}
	return errors.Join(kept...)
}

// DeleteDamaged implements editor.
func (s *served) DeleteDamaged(ctx context.Context, damaged ...*store.RecordError) error {
	for _, d := range damaged {
		if err := s.server.Do(ctx, "DELETE", apiclient.Path("backups", d.Box, d.ID)+"?unreadable=true", nil, nil); err != nil {
			return serverErr(err)
		}
	}
	return nil
}

// Close ends the use of the store and of the server.
func (s *served) Close() error {
	s.server.Close()
	return s.storeFolder.Close()
}

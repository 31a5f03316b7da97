package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/object"
	sending "testbox-imaging/internal/remote"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/wire"
)

// uploadHelp is what the help of a command that adds backups says of servers.
const uploadHelp = `
If the server of this machine has the store open, the backup is sent to it, as a box sends one: only
what the store does not have. --server sends it to a server on another machine.`

// upload adds backups to the store of a server. It implements saver.
type upload struct {
	p       printer
	server  *apiclient.Client
	damages store.Damages // of all records that were read
}

var _ closingSaver = (*upload)(nil)

// openSaver opens the store for a command that adds backups, or the way to the server
// that has it.
func (o *throughFlags) openSaver(ctx context.Context, p printer) (closingSaver, error) {
	c, err := o.far()
	if err != nil {
		return nil, err
	}
	if c == nil {
		own, err := o.openOwn(ctx, p, false)
		if err == nil {
			return storeFolder{own}, nil
		}
		if c, err = o.serverOf(ctx, p, o.server.world, err); err != nil {
			return nil, err
		}
	}
	return &upload{p: p, server: c, damages: store.Damages{}}, nil
}

// RecordsOf implements boxCatalogue.
func (u *upload) RecordsOf(ctx context.Context, box string) (records []*image.Record, damaged []*store.RecordError, err error) {
	var list api.BackupList
	if err := u.server.Do(ctx, "GET", apiclient.Path("backups", box), nil, &list); err != nil {
		return nil, nil, serverErr(err)
	}
	for _, b := range list.Backups {
		r := &image.Record{Format: image.RecordFormat, ID: b.ID, Box: b.Box, Host: b.Host, Arming: b.Arming, Time: b.Time, After: b.After,
			Note: b.Note, Pinned: b.Pinned, Baseline: b.Baseline}
		for _, d := range b.Disks {
			root, err := object.ParseName(d.Root)
			if err != nil {
				return nil, nil, fmt.Errorf("the server's answer cannot be understood; is it of another version? %w", err)
			}
			r.Disks = append(r.Disks, image.RecordedDisk{Name: d.Name, Kernel: d.Kernel, Disk: d.Disk, Root: root, Data: d.Data})
			if d.Lacks {
				u.damages[root] = store.Damage{Root: root}
			}
		}
		records = append(records, r)
	}
	for _, id := range list.Unreadable {
		damaged = append(damaged, &store.RecordError{Box: box, ID: id, Err: errors.New("the server cannot read it")})
	}
	return records, damaged, nil
}

// Damages implements saver.
func (u *upload) Damages(context.Context) (store.Damages, error) { return u.damages, nil }

// content implements saver.
func (u *upload) content(ctx context.Context, r *image.Record, d *image.RecordedDisk) (c match.Content) {
	if u.server.Do(ctx, "GET", apiclient.Path("backups", r.Box, r.ID, "disks", d.Name, "content"), nil, &c) != nil {
		return match.Content{}
	}
	return c
}

// begin implements saver.
func (u *upload) begin(ctx context.Context, r *image.Record) (chunk.Session, error) {
	var has api.Upload
	q := api.NewUpload{Note: r.Note, Pinned: r.Pinned, Time: r.Time, Arming: r.Arming}
	if err := u.server.Do(ctx, "POST", apiclient.Path("backups", r.Box, "uploads"), q, &has); err != nil {
		return nil, serverErr(err)
	}
	c, err := u.server.Sender(has.Token, func(format string, args ...any) {
		clearLine()
		u.p.tellf(format, args...)
	})
	if err != nil {
		return nil, err
	}
	return newUploadSession(c, uploadBeat), nil
}

// NoteFound implements closer. A server notes damage by itself.
func (u *upload) NoteFound(context.Context, bool) error { return nil }

// Close implements closer.
func (u *upload) Close() error {
	u.server.Close()
	return nil
}

// uploadSession is the session of a backup that is sent to a server. Its errors say
// whether there is a backup.
type uploadSession struct {
	*sending.Session
	done  chan struct{} // closed by Close
	once  sync.Once
	beats sync.WaitGroup
}

// uploadBeat is how often the server is asked for something, so that it keeps the
// session while a long range of zeros is read.
const uploadBeat = 5 * time.Minute

func newUploadSession(c *sending.Client, every time.Duration) *uploadSession {
	s := &uploadSession{Session: c.Begin(), done: make(chan struct{})}
	s.beats.Go(func() { s.beat(every) })
	return s
}

// beat asks until Close.
func (s *uploadSession) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
			s.Session.Missing(context.Background(), []object.Key{{Kind: object.Chunk}}) // Close ends it
		}
	}
}

// Missing implements chunk.Session.
func (s *uploadSession) Missing(ctx context.Context, keys []object.Key) ([]object.Key, error) {
	missing, err := s.Session.Missing(ctx, keys)
	return missing, notSent(err)
}

// Put implements chunk.Session.
func (s *uploadSession) Put(ctx context.Context, o object.Object) error {
	return notSent(s.Session.Put(ctx, o))
}

// notSent says of an error before the commit that there is no backup.
func notSent(err error) error {
	switch {
	case errors.Is(err, wire.ErrToken):
		return errors.New("no backup was made: the server was started anew meanwhile, or does not let you go on; run this again")
	case errors.As(err, new(*sending.AwayError)):
		return fmt.Errorf("no backup was made: %w; run this again when the server runs", err)
	}
	return err
}

// commitGrace is how long an interrupted command waits for a commit that the server
// works on. What it asks for is done or not done then, and the command knows it.
const commitGrace = 30 * time.Second

// Commit implements chunk.Session.
func (s *uploadSession) Commit(ctx context.Context, r *image.Record) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(commitGrace, cancel) })()
	// The server has the arming, and refuses a box that says one.
	arming := r.Arming
	r.Arming = ""
	err := s.Session.Commit(inner, r)
	r.Arming = arming
	if inner.Err() != nil || errors.Is(err, wire.ErrToken) || errors.As(err, new(*sending.AwayError)) {
		return &exitError{exitLost, fmt.Errorf("%w; it is not known whether the backup was made: `testbox image list %s` says it", err, r.Box)}
	}
	return err
}

// Close implements chunk.Session.
func (s *uploadSession) Close() error {
	s.once.Do(func() { close(s.done) })
	err := s.Session.Close() // ends a request of beat too
	s.beats.Wait()
	return err
}

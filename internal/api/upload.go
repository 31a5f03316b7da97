package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/wire"
)

// Sessions serves the requests by which a backup is sent, as those of package boxapi do
// that the agents of boxes make.
type Sessions interface {
	http.Handler
	// Forget ends what a token has open.
	Forget(token string)
}

// NewUpload asks for a session in which a backup is added.
type NewUpload struct {
	Note   string     `json:"note,omitempty" maxLength:"1000" doc:"words to find the backup again"`
	Pinned bool       `json:"pinned,omitempty" doc:"it is kept until somebody takes that back"`
	Time   time.Time  `json:"time,omitzero" doc:"when the backup was made; without it, when it is committed"`
	Arming box.Arming `json:"arming,omitempty" maxLength:"16" doc:"the arming of share mode that made it; that of a job of this server is refused"`
	Why    string     `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Upload is a session in which one backup of one box may be added.
type Upload struct {
	Token string `json:"token" doc:"for the requests in docs/protocol.md that begin with /agent/v1/sessions/, made here and not at the agents' address. It ends when its session is closed, or after 30 minutes without a request"`
}

const (
	maxUploads     = 64 // at once
	maxUploadsEach = 16 // at once, of one who asks
)

// uploads are the sessions of admins.
type uploads struct {
	mu sync.Mutex // guards the fields below
	by map[string]*upload
}

type upload struct {
	caller  *caller
	owner   string
	set     NewUpload
	used    time.Time // when the last request came
	checked time.Time // when the caller last could do this
}

// addUpload makes a session.
func (s *Server) addUpload(ctx context.Context, in *struct {
	OwnerPath
	Body NewUpload
}) (*body[Upload], error) {
	if _, err := s.backupsOf(ctx, in.Owner); err != nil {
		return nil, err
	}
	q := in.Body
	switch {
	case s.cfg.Sessions == nil:
		return nil, errNoStore
	case !image.ValidBox(in.Owner):
		return nil, problem.Wrongf("%.80q cannot be the name of a box: %s", in.Owner, image.BoxRule)
	case len(q.Note) > image.MaxNote:
		return nil, problem.Wrongf("the note has %d bytes; at most %d are kept", len(q.Note), image.MaxNote)
	}
	if err := s.noName(ctx, in.Owner); err != nil {
		return nil, err
	}
	if q.Arming != "" {
		if _, err := box.ParseArming(string(q.Arming)); err != nil {
			return nil, problem.Wrongf("%w", err)
		}
		if s.cfg.Jobs.ArmedBy(q.Arming) { // the backup would count as that of the job
			return nil, problem.Refusef("the arming %s is that of a job of this server, whose backup comes from its box alone; leave it out",
				q.Arming)
		}
	}
	now := time.Now() // a clock that nobody sets
	c := *callerOf(ctx)
	c.ctl = nil
	u := &upload{caller: &c, owner: in.Owner, set: q, used: now, checked: now}
	token, err := s.uploads.add(u, s.cfg.Sessions)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, "begin upload", func(_ *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = in.Owner, q.Why
		return nil
	})
	if err != nil {
		s.uploads.end(token, s.cfg.Sessions)
		return nil, err
	}
	return answer(Upload{token}, nil)
}

// noName refuses the name of a box as whose backup something is added. Backups belong to
// addresses, so nobody would find this one with the box.
func (s *Server) noName(ctx context.Context, owner string) error {
	return s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		found, _, err := tx.Boxes(ledger.BoxFilter{Name: owner}, ledger.Page{Limit: 1})
		if err == nil && len(found) > 0 && callerOf(ctx).sees(found[0]) {
			err = problem.Refusef("%s is the name of the box %s, and backups belong to an address; write %s in its place", owner, found[0].Address,
				found[0].Address)
		}
		return err
	})
}

// add makes a token for an upload. It takes away those that nobody has used for long.
func (us *uploads) add(u *upload, sessions Sessions) (token string, err error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for token, old := range us.by {
		if u.used.Sub(old.used) > wire.IdleWait {
			delete(us.by, token)
			sessions.Forget(token)
		}
	}
	each := 0
	for _, other := range us.by {
		if other.caller.name == u.caller.name {
			each++
		}
	}
	if len(us.by) >= maxUploads || each >= maxUploadsEach {
		return "", busy("there are %d uploads at once, %d of them yours; try again later", len(us.by), each)
	}
	token = "upload-" + strings.ToLower(rand.Text())
	us.by[token] = u
	return token, nil
}

// end ends an upload, if there is one with this token.
func (us *uploads) end(token string, sessions Sessions) {
	us.mu.Lock()
	_, is := us.by[token]
	delete(us.by, token)
	us.mu.Unlock()
	if is { // else it may be the token of a box
		sessions.Forget(token)
	}
}

// find returns an upload, and whether it must be asked anew if its caller still may
// do this, as it must after some time.
func (us *uploads) find(token string, after time.Duration) (u *upload, check bool) {
	us.mu.Lock()
	defer us.mu.Unlock()
	now := time.Now()
	if u = us.by[token]; u == nil {
		return nil, false
	}
	if u.used = now; now.Sub(u.checked) >= after {
		u.checked, check = now, true
	}
	return u, check
}

type uploadKey struct{}

// IsUpload reports whether a request came to the admin API. Only then does its token
// stand for an upload, and else for a box.
func IsUpload(ctx context.Context) bool { return ctx.Value(uploadKey{}) != nil }

// GrantUpload says what the token of an upload allows, as a boxapi.Authority.
func (s *Server) GrantUpload(ctx context.Context, token string, _ netip.Addr) (boxapi.Grant, error) {
	u, check := s.uploads.find(token, s.cfg.Heartbeat)
	if u != nil && check && !s.still(ctx, u.caller) {
		s.uploads.end(token, s.cfg.Sessions)
		u = nil
	}
	if u == nil {
		return boxapi.Grant{}, fmt.Errorf("there is no such upload: %w", fs.ErrNotExist)
	}
	return boxapi.Grant{Box: u.owner, Job: "an upload of " + u.caller.name, Backup: true,
		Add: func(ctx context.Context, r *image.Record, add func(context.Context) error) error {
			return s.addBackup(ctx, u, r, add)
		},
	}, nil
}

// addBackup commits the backup of an upload.
func (s *Server) addBackup(ctx context.Context, u *upload, r *image.Record, add func(context.Context) error) error {
	r.Note, r.Pinned, r.Time, r.Arming = u.set.Note, u.set.Pinned, u.set.Time, u.set.Arming
	if err := add(ctx); err != nil {
		return err
	}
	err := s.cfg.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		return tx.AddAudit(ledger.Entry{Time: s.cfg.Now(), Who: u.caller.name, From: u.caller.from, What: "add backup",
			On: r.Box + "@" + r.ID, Why: u.set.Why})
	})
	if err != nil { // the backup is there, and whoever began the upload is in the audit log
		s.cfg.Log.Error("the audit log does not tell of a backup", "backup", r.ID, "of", r.Box, "by", u.caller.name, "error", err)
	}
	return nil
}

// serveUpload serves a request of an upload. With the end of its session the upload
// ends.
func (s *Server) serveUpload(w http.ResponseWriter, r *http.Request) {
	sw := &statusWriter{ResponseWriter: w}
	s.cfg.Sessions.ServeHTTP(sw, r.WithContext(context.WithValue(r.Context(), uploadKey{}, true)))
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok && r.Method == http.MethodDelete && sw.status == http.StatusNoContent {
		s.uploads.end(token, s.cfg.Sessions)
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// maxLooks is how many images are looked at at once, for getContent.
const maxLooks = 2

// getContent looks at a disk of a backup.
func (s *Server) getContent(ctx context.Context, in *struct {
	BackupPath
	Disk string `path:"disk" maxLength:"64" doc:"name of a disk of the backup"`
}) (*body[match.Content], error) {
	backups, r, d, err := s.diskOf(ctx, in.BackupPath, in.Disk)
	if err != nil {
		return nil, err
	}
	select {
	case s.looks <- struct{}{}:
		defer func() { <-s.looks }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	im, err := backups.OpenImage(ctx, r, d.Name)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	view := im.ReaderAt(ctx, 0)
	defer view.Close()
	return answer(match.ContentOf(view, view.Size(), d.Disk.SectorSize, usedmap.ParseLayout(im.Root.Layout)), nil)
}

package api_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/wire"
)

// uploadRig is a server that takes uploads into a store with three backups.
type uploadRig struct {
	*rig
	store *store.Locked
	ids   []string
}

// testSessions are the sessions of a boxapi.Server that asks the API what tokens allow.
type testSessions struct {
	*http.ServeMux
	boxes *boxapi.Server
	api   *api.Server
}

func (s *testSessions) Forget(token string) { s.boxes.Forget(token) }

func (s *testSessions) Grant(ctx context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	if !api.IsUpload(ctx) {
		return boxapi.Grant{}, errors.New("the request did not come from the API")
	}
	return s.api.GrantUpload(ctx, token, from)
}

func newUploadRig(t *testing.T) *uploadRig {
	t.Helper()
	s, ids := newStore(t)
	at := &testSessions{ServeMux: http.NewServeMux()}
	at.boxes = boxapi.New(boxapi.Config{Grants: at, Begin: func() chunk.Session { return s.Begin() }, Images: s, Log: t.Logf})
	t.Cleanup(at.boxes.Close)
	at.boxes.Sessions(at.ServeMux)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Sessions = s, at })
	at.api = r.api
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	return &uploadRig{r, s, ids}
}

// TestUploadForAName: a backup of a box that is named would not be found with the box.
func TestUploadForAName(t *testing.T) {
	r := newUploadRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.3"), Name: "web-1"})
	c := r.root()
	for _, name := range []string{"web-1", "WEB-1"} {
		p := c.refused(api.CodeRefused, "POST", "/api/v1/backups/"+name+"/uploads", api.NewUpload{})
		if !strings.Contains(p.Detail, "the box 10.0.0.3") {
			t.Errorf("%s: %s", name, p.Detail)
		}
	}
	for _, name := range []string{"10.0.0.3", "web-2"} {
		c.want(201, "POST", "/api/v1/backups/"+name+"/uploads", api.NewUpload{}, &api.Upload{})
	}
}

// sender sends a backup with the token of an upload.
func (r *uploadRig) sender(token string) *remote.Client {
	r.t.Helper()
	c, err := remote.New(remote.Config{HTTP: r.unix(), Base: "http://socket", Token: token, Away: time.Second})
	must(r.t, err)
	return c
}

// send sends a disk and commits it as a backup of a box.
func send(t *testing.T, s chunk.Session, of string) (*image.Record, error) {
	t.Helper()
	r := &image.Record{Format: image.RecordFormat, Box: of, Disks: []image.RecordedDisk{{
		Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Data: 8192,
		Root: conform.SaveImage(t, s, bytes.Repeat([]byte("upload x"), 1024)),
	}}}
	return r, s.Commit(t.Context(), r)
}

// TestUpload adds a backup of a name that is no box.
func TestUpload(t *testing.T) {
	r := newUploadRig(t)
	c := r.root()
	var up api.Upload
	when := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	q := api.NewUpload{Note: "as delivered", Pinned: true, Time: when, Arming: "0123456789abcdef", Why: "it is moved here"}
	c.want(201, "POST", "/api/v1/backups/web-1/uploads", q, &up)
	session := r.sender(up.Token).Begin()
	if _, err := send(t, session, "10.0.0.1"); !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("a backup of another box: %v", err)
	}
	sent, err := send(t, session, "web-1")
	must(t, err)
	got, err := r.store.Record(t.Context(), "web-1", "20260506-070809")
	must(t, err)
	if sent.ID != got.ID || got.Note != q.Note || !got.Pinned || got.Arming != q.Arming || !got.Time.Equal(when) {
		t.Errorf("sent %+v, and the store has %+v", sent, got)
	}
	must(t, session.Close())
	if _, err := send1(t, r.sender(up.Token).Begin()); !errors.Is(err, wire.ErrToken) {
		t.Errorf("a second session with the token: %v", err)
	}
	for what, on := range map[string]string{"begin upload": "web-1", "add backup": "web-1@20260506-070809"} {
		if !audited(c, what, on) {
			t.Errorf("the audit log does not have %q of %s", what, on)
		}
	}
	var list api.BackupList
	c.want(200, "GET", "/api/v1/backups/web-1", nil, &list)
	if len(list.Backups) != 1 || list.Backups[0].Arming != q.Arming || list.Backups[0].Disks[0].Root != got.Disks[0].Root.String() {
		t.Errorf("the backups are %+v", list)
	}
	c.want(200, "GET", "/api/v1/backups/web-1/20260506-070809/disks/sda/content", nil, new(match.Content))
	c.refused(api.CodeNotFound, "GET", "/api/v1/backups/web-1/20260506-070809/disks/sdb/content", nil)
}

// send1 asks whether an object is there.
func send1(t *testing.T, s chunk.Session) (int, error) {
	t.Helper()
	missing, err := s.Missing(t.Context(), []object.Key{{Kind: object.Chunk}})
	return len(missing), err
}

// TestUploadRights has uploads that may not be.
func TestUploadRights(t *testing.T) {
	r := newUploadRig(t)
	const of = "/api/v1/backups/10.0.0.1/uploads"
	viewer := r.with(r.token(ledger.Token{Role: ledger.Viewer, Name: "v"}))
	viewer.refused(api.CodeForbidden, "POST", of, api.NewUpload{})
	viewer.refused(api.CodeForbidden, "GET", "/api/v1/backups/10.0.0.1/"+r.ids[0]+"/disks/sda/content", nil)
	some := r.with(r.token(ledger.Token{Role: ledger.Operator, Name: "some", Group: "rack"}))
	some.refused(api.CodeNotFound, "POST", "/api/v1/backups/10.0.0.2/uploads", api.NewUpload{})
	some.refused(api.CodeNotFound, "POST", "/api/v1/backups/web-1/uploads", api.NewUpload{})
	c := r.root()
	c.refused(api.CodeWrong, "POST", "/api/v1/backups/-x/uploads", api.NewUpload{})
	c.refused(api.CodeWrong, "POST", of, api.NewUpload{Arming: "zz"})
	r.runner.armed = "0123456789abcdef"
	c.refused(api.CodeRefused, "POST", of, api.NewUpload{Arming: r.runner.armed})
	if _, err := send1(t, r.sender("upload-aaaaaaaaaaaaaaaaaaaaaaaaaa").Begin()); !errors.Is(err, wire.ErrToken) {
		t.Errorf("a token that nobody was given: %v", err)
	}
	// An image cannot be read, and an agent's other requests are not there.
	var up api.Upload
	some.want(201, "POST", of, api.NewUpload{}, &up)
	sender := r.sender(up.Token)
	rec, err := r.store.Record(t.Context(), "10.0.0.1", r.ids[0])
	must(t, err)
	if _, err := sender.OpenImage(t.Context(), rec, "sda"); !errors.Is(err, wire.ErrRefused) {
		t.Errorf("an upload reads an image: %v", err)
	}
	if _, err := sender.Report(t.Context(), &wire.Report{Number: 1}); !errors.Is(err, wire.ErrRefused) {
		t.Errorf("an upload reports: %v", err)
	}
	session := sender.Begin()
	if n, err := send1(t, session); err != nil || n != 1 {
		t.Errorf("an upload of a box of the group: %d, %v", n, err)
	}
	// With the token of the operator, the upload ends.
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		all, err := tx.Tokens("")
		for _, tok := range all {
			if tok.Name == "some" {
				err = tx.DeleteToken(tok.Hash)
			}
		}
		return err
	}))
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, err = send1(t, session)
	}
	if !errors.Is(err, wire.ErrToken) {
		t.Errorf("after the end of the token: %v", err)
	}
}

// TestUploadsAtOnce bounds how many uploads there are, of one caller and of all.
func TestUploadsAtOnce(t *testing.T) {
	r := newUploadRig(t)
	const of = "/api/v1/backups/web-1/uploads"
	c := r.root()
	var first api.Upload
	c.want(201, "POST", of, api.NewUpload{}, &first)
	for range 15 {
		c.want(201, "POST", of, api.NewUpload{}, nil)
	}
	c.refused(api.CodeBusy, "POST", of, api.NewUpload{})
	for _, name := range []string{"a", "b", "c"} {
		other := r.with(r.token(ledger.Token{Role: ledger.Operator, Name: name}))
		for range 16 {
			other.want(201, "POST", of, api.NewUpload{}, nil)
		}
	}
	last := r.with(r.token(ledger.Token{Role: ledger.Operator, Name: "d"}))
	last.refused(api.CodeBusy, "POST", of, api.NewUpload{})
	session := r.sender(first.Token).Begin()
	_, err := send1(t, session)
	must(t, err)
	must(t, session.Close())
	last.want(201, "POST", of, api.NewUpload{}, nil)
}

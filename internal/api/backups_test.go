package api_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
)

// newStore is a store with two backups of a box and one of another.
func newStore(t *testing.T) (s *store.Locked, ids []string) {
	t.Helper()
	s, _, ids = newStoreIn(t)
	return s, ids
}

func newStoreIn(t *testing.T) (s *store.Locked, dir string, ids []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	must(t, store.InitDir(t.Context(), dir))
	s, err := store.OpenDir(t.Context(), dir, nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	for i, of := range []string{"10.0.0.1", "10.0.0.1", "10.0.0.2"} {
		b := s.Begin()
		r := &image.Record{Format: image.RecordFormat, Box: of, Host: "web\x1b[31m", Disks: []image.RecordedDisk{{
			Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Data: 8192,
			Root: conform.SaveImage(t, b, bytes.Repeat([]byte{byte(i), 'x'}, 4096)),
		}}}
		must(t, b.Commit(t.Context(), r))
		must(t, b.Close())
		ids = append(ids, r.ID)
	}
	return s, dir, ids
}

func TestBackups(t *testing.T) {
	s, ids := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	c := r.root()
	const of = "/api/v1/backups/10.0.0.1"
	yes, no, note := true, false, "as delivered"

	var list api.BackupList
	c.want(200, "GET", of, nil, &list)
	if len(list.Backups) != 2 || list.Backups[0].ID != ids[0] || len(list.Backups[0].Disks) != 1 || list.Backups[0].Disks[0].Lacks ||
		bytes.ContainsRune([]byte(list.Backups[0].Host), '\x1b') {
		t.Errorf("the backups are %+v", list)
	}
	var b api.Backup
	c.want(200, "PATCH", of+"/"+ids[0], api.SetBackup{Baseline: &yes, Pinned: &yes, Note: &note}, &b)
	if !b.Baseline || !b.Pinned || b.Note != note {
		t.Errorf("the backup is %+v", b)
	}
	c.want(400, "PATCH", of+"/"+ids[0], api.SetBackup{}, nil)
	c.want(404, "PATCH", of+"/20200101-000000", api.SetBackup{Pinned: &yes}, nil)
	c.want(400, "PATCH", "/api/v1/backups/..%2f10.0.0.1/"+ids[0], api.SetBackup{Pinned: &yes}, nil)

	c.want(409, "DELETE", of+"/"+ids[0], nil, nil)
	c.want(200, "PATCH", of+"/"+ids[0], api.SetBackup{Pinned: &no}, nil)
	c.want(409, "DELETE", of+"/"+ids[0], nil, nil) // it is the baseline
	c.want(204, "DELETE", of+"/"+ids[1], nil, nil)
	c.want(404, "DELETE", of+"/"+ids[1], nil, nil)
	c.want(200, "GET", of, nil, &list)
	if len(list.Backups) != 1 || list.Backups[0].ID != ids[0] {
		t.Errorf("after the deletion the backups are %+v", list)
	}
	var log api.Entries
	c.want(200, "GET", "/api/v1/audit", nil, &log)
	for _, want := range []api.Entry{{What: "set backup", On: "10.0.0.1@" + ids[0]}, {What: "delete backup", On: "10.0.0.1@" + ids[1]}} {
		if !slices.ContainsFunc(log.Entries, func(e api.Entry) bool { return e.What == want.What && e.On == want.On && e.Who == r.me }) {
			t.Errorf("the audit log has no entry %+v", want)
		}
	}

	// A token for a group sees the backups of its boxes alone.
	some := r.with(r.token(ledger.Token{Role: ledger.Admin, Group: "rack"}))
	some.want(200, "GET", of, nil, nil)
	some.want(404, "GET", "/api/v1/backups/10.0.0.2", nil, nil)
	some.want(404, "PATCH", "/api/v1/backups/10.0.0.2/"+ids[2], api.SetBackup{Pinned: &yes}, nil)
	some.want(404, "DELETE", "/api/v1/backups/10.0.0.2/"+ids[2], nil, nil)
	if rec, err := s.Record(t.Context(), "10.0.0.2", ids[2]); err != nil || rec.Pinned {
		t.Errorf("a token of another group changed %+v, %v", rec, err)
	}
}

// away is a store that cannot be read.
type away struct{ *store.Locked }

func (away) Latest(context.Context, []string) (map[string]store.Backup, error) {
	return nil, errors.New("the disk is gone")
}

// TestLastBackups lists boxes with their latest backups. When the store cannot be read,
// the boxes are listed all the same, and it is said what is not known.
func TestLastBackups(t *testing.T) {
	s, ids := newStore(t)
	for what, backups := range map[string]api.Backups{"there": s, "away": away{s}} {
		r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = backups })
		for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
			r.box(ledger.Box{Address: addr(t, a)})
		}
		var list api.BoxList
		r.root().want(200, "GET", "/api/v1/boxes", nil, &list)
		var one api.Box
		r.root().want(200, "GET", "/api/v1/boxes/10.0.0.1", nil, &one)
		if len(list.Boxes) != 3 || (what == "away") != (list.Unknown != "") {
			t.Errorf("%s: the list is %+v", what, list)
		}
		for i, want := range []string{ids[1], ids[2], ""} {
			if what == "away" {
				want = ""
			}
			got := ""
			if b := list.Boxes[i].LastBackup; b != nil {
				got = b.ID
			}
			if got != want || i == 0 && (one.LastBackup == nil) != (want == "") {
				t.Errorf("%s: the latest backup of %s is %q, want %q", what, list.Boxes[i].Address, got, want)
			}
		}
	}
}

// TestNeededBackup: what a job needs is not deleted, and does not get another id.
func TestNeededBackup(t *testing.T) {
	s, ids := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	c := r.root()
	path := "/api/v1/backups/10.0.0.1/" + ids[0]
	need := dispatch.Need{Box: "10.0.0.1", ID: ids[0], Job: "job-7", Why: "job job-7, a restore of 10.0.0.3, needs it and is held"}
	set := func(needs ...dispatch.Need) {
		r.runner.mu.Lock()
		defer r.runner.mu.Unlock()
		r.runner.needs = needs
	}
	set(need)
	at := api.SetTime{Time: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	for method, to := range map[string]string{"DELETE": path + "?last_whole=true", "PUT": path + "/time"} {
		var body any
		if method == "PUT" {
			body = at
		}
		if status, text := c.do(method, to, body); status != 409 || !strings.Contains(string(text), "job job-7, a restore") {
			t.Errorf("%s of a backup that a job needs: %d, %s", method, status, text)
		}
	}
	if _, err := s.Record(t.Context(), "10.0.0.1", ids[0]); err != nil {
		t.Error(err)
	}
	c.want(204, "DELETE", "/api/v1/backups/10.0.0.1/"+ids[1], nil, nil)
	set()
	c.want(204, "DELETE", path, nil, nil)
}

package api_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// fakeKeeper has one piece of work, which ends when the test says so.
type fakeKeeper struct {
	mu    sync.Mutex
	now   *api.Upkeep
	key   string
	ended chan struct{}

	nextDay, nextScrub time.Time
	boots              *api.BootTesting
}

func (k *fakeKeeper) Begin(q api.NewUpkeep, by string) (api.Upkeep, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.now != nil && k.key == q.Key:
		return *k.now, false, nil
	case k.now != nil && !k.now.Ended():
		return api.Upkeep{}, false, problem.Refusef("the store is being looked after")
	}
	k.now, k.key, k.ended = &api.Upkeep{ID: "w1", Work: q.Work, By: by, State: "working"}, q.Key, make(chan struct{})
	return *k.now, true, nil
}

func (k *fakeKeeper) Look(id string) (api.Upkeep, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == nil || k.now.ID != id {
		return api.Upkeep{}, nil, fmt.Errorf("no such work: %w", fs.ErrNotExist)
	}
	return *k.now, k.ended, nil
}

func (k *fakeKeeper) Cancel(string) error {
	k.end(api.UpkeepCancelled)
	return nil
}

func (k *fakeKeeper) end(outcome string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.now.Ended() {
		k.now.State, k.now.Outcome = "ended", outcome
		close(k.ended)
	}
}

func (k *fakeKeeper) Running() *api.Upkeep {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == nil || k.now.Ended() {
		return nil
	}
	u := *k.now
	return &u
}

func (k *fakeKeeper) Next() (day, scrub time.Time) { return k.nextDay, k.nextScrub }

func (k *fakeKeeper) BootTests() *api.BootTesting { return k.boots }

func audited(c *client, what, on string) bool {
	var log api.Entries
	c.want(200, "GET", "/api/v1/audit", nil, &log)
	return slices.ContainsFunc(log.Entries, func(e api.Entry) bool { return e.What == what && e.On == on })
}

// TestStoreUpkeep has an admin ask for work on the store, wait for it and cancel it.
func TestStoreUpkeep(t *testing.T) {
	s, _ := newStore(t)
	k := &fakeKeeper{}
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Keeper = s, k })
	r.group("rack")
	c := r.root()
	const at = "/api/v1/store/upkeep"
	var u api.Upkeep
	c.want(400, "POST", at, api.NewUpkeep{Work: "tidy"}, nil)
	c.want(404, "GET", at+"/w1", nil, nil)
	c.want(201, "POST", at, api.NewUpkeep{Work: api.GC, Key: "k", Why: "it is full"}, &u)
	if u.ID != "w1" || u.By != r.me || u.Ended() {
		t.Errorf("the work is %+v", u)
	}
	c.want(201, "POST", at, api.NewUpkeep{Work: api.GC, Key: "k"}, &u)
	c.refused(api.CodeRefused, "POST", at, api.NewUpkeep{Work: api.Scrub, Key: "other"})
	var st api.Store
	c.want(200, "GET", "/api/v1/store", nil, &st)
	if st.ID != s.UUID() || len(st.ID) != 32 || st.Upkeep == nil || st.Upkeep.ID != "w1" {
		t.Errorf("the store is %+v", st)
	}
	time.AfterFunc(50*time.Millisecond, func() { k.end(api.UpkeepDone) })
	start := time.Now()
	c.want(200, "GET", at+"/w1?wait=30", nil, &u)
	if u.Outcome != api.UpkeepDone || time.Since(start) > 20*time.Second {
		t.Errorf("after %v the work is %+v", time.Since(start), u)
	}
	c.want(201, "POST", at, api.NewUpkeep{Work: api.Scrub, Key: "next"}, &u)
	c.want(200, "POST", at+"/w1/cancel", api.Reason{}, &u)
	if u.Outcome != api.UpkeepCancelled {
		t.Errorf("the cancelled work is %+v", u)
	}
	for _, what := range []string{"begin gc", "begin scrub", "cancel scrub"} {
		if !audited(c, what, "w1") {
			t.Errorf("the audit log does not have %q", what)
		}
	}
	operator := r.with(r.token(ledger.Token{Role: ledger.Operator}))
	p := operator.refused(api.CodeForbidden, "POST", at, api.NewUpkeep{Work: api.GC})
	if !strings.Contains(p.Detail, "admin") {
		t.Errorf("an operator is told %q", p.Detail)
	}
	r.with(r.token(ledger.Token{Role: ledger.Admin, Group: "rack"})).refused(api.CodeForbidden, "POST", at, api.NewUpkeep{Work: api.GC})
}

// TestSetBackupTime puts the time of a backup right.
func TestSetBackupTime(t *testing.T) {
	s, ids := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	c := r.root()
	of := "/api/v1/backups/10.0.0.1/" + ids[0] + "/time"
	when := r.clock().Add(-24 * time.Hour)
	c.refused(api.CodeWrong, "PUT", of, api.SetTime{Time: r.clock().AddDate(1, 0, 0)})
	c.refused(api.CodeWrong, "PUT", of, api.SetTime{Time: time.Unix(0, 0)})
	c.refused(api.CodeWrong, "PUT", of, api.SetTime{})
	c.refused(api.CodeNotFound, "PUT", "/api/v1/backups/10.0.0.1/20200101-000000/time", api.SetTime{Time: when})
	r.with(r.token(ledger.Token{Role: ledger.Operator})).refused(api.CodeForbidden, "PUT", of, api.SetTime{Time: when})
	some := r.with(r.token(ledger.Token{Role: ledger.Admin, Group: "rack"}))
	some.refused(api.CodeNotFound, "PUT", "/api/v1/backups/10.0.0.2/"+ids[2]+"/time", api.SetTime{Time: when})
	var b api.Backup
	c.want(200, "PUT", of, api.SetTime{Time: when}, &b)
	if b.ID != "20261128-120000" || !b.Time.Equal(when) || !audited(c, "set time of backup", "10.0.0.1@"+ids[0]) {
		t.Errorf("the backup is %+v", b)
	}
	if _, err := s.Record(t.Context(), "10.0.0.1", ids[0]); err == nil {
		t.Error("the backup has its old id too")
	}
	if _, err := s.Record(t.Context(), "10.0.0.1", b.ID); err != nil {
		t.Error(err)
	}
}

// TestDeleteUnreadable gives up a backup whose record cannot be read. A backup whose
// record can be read does not go in this way.
func TestDeleteUnreadable(t *testing.T) {
	s, dir, ids := newStoreIn(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	c := r.root()
	const of = "/api/v1/backups/10.0.0.1/"
	must(t, os.WriteFile(filepath.Join(dir, "records", "10.0.0.1", ids[0]), []byte("spoilt"), 0o600))
	if status, _ := c.do(http.MethodDelete, of+ids[0], nil); status != 500 {
		t.Errorf("without a word for it: %d", status)
	}
	c.refused(api.CodeRefused, "DELETE", of+ids[1]+"?unreadable=true", nil)
	c.refused(api.CodeNotFound, "DELETE", of+"lock?unreadable=true", nil)
	c.want(204, "DELETE", of+ids[0]+"?unreadable=true", nil, nil)
	c.want(404, "DELETE", of+ids[0]+"?unreadable=true", nil, nil)
	if !audited(c, "delete backup", "10.0.0.1@"+ids[0]) {
		t.Error("the audit log does not tell")
	}
	if _, damaged, err := s.RecordsOf(t.Context(), "10.0.0.1"); err != nil || len(damaged) > 0 {
		t.Errorf("there are %v, %v", damaged, err)
	}
}

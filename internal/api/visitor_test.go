package api_test

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

// visitor is who has a token, as the page knows somebody.
func (r *rig) visitor(secret string) *api.Visitor {
	r.t.Helper()
	login, _, err := r.api.Login(r.t.Context(), secret, "192.0.2.7:40000")
	must(r.t, err)
	v, err := r.api.Visit(r.t.Context(), login, "192.0.2.7:40000")
	must(r.t, err)
	return v
}

// TestVisitorAsHTTP: what a visitor asks for has the same answer, or the same problem, as by HTTP.
func TestVisitorAsHTTP(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "db-1"})
	for _, token := range []ledger.Token{
		{Role: ledger.Viewer, Name: "v"}, {Role: ledger.Operator, Name: "o"}, {Role: ledger.Admin, Name: "a"},
		{Role: ledger.Viewer, Name: "vr", Group: "rack"}, {Role: ledger.Admin, Name: "ar", Group: "rack"},
	} {
		secret := r.token(token)
		v, c := r.visitor(secret), r.with(secret)
		if v.Role() != token.Role || v.Group() != token.Group || v.Name() != "token "+token.Name {
			t.Errorf("%+v became %s, %s, %s", token, v.Name(), v.Role(), v.Group())
		}
		same(t, v, c, "list-boxes", api.Params{"limit": "7"}, nil, "GET", "/api/v1/boxes?limit=7", api.BoxList{})
		same(t, v, c, "list-boxes", api.Params{"limit": "7000"}, nil, "GET", "/api/v1/boxes?limit=7000", api.BoxList{})
		same(t, v, c, "list-boxes", api.Params{"health": "ill"}, nil, "GET", "/api/v1/boxes?health=ill", api.BoxList{})
		same(t, v, c, "get-box", api.Params{"box": "db-1"}, nil, "GET", "/api/v1/boxes/db-1", api.Box{})
		same(t, v, c, "get-box", api.Params{"box": "a b/c"}, nil, "GET", "/api/v1/boxes/a%20b%2Fc", api.Box{})
		same(t, v, c, "list-audit", nil, nil, "GET", "/api/v1/audit", api.Entries{})
		same(t, v, c, "list-users", nil, nil, "GET", "/api/v1/users", []api.User{})
		same(t, v, c, "get-me", nil, nil, "GET", "/api/v1/me", api.Me{})
		long := api.NewJobs{Action: box.Backup, Targets: []string{"web-1"}, Why: strings.Repeat("w", 1001)}
		same(t, v, c, "add-jobs", nil, long, "POST", "/api/v1/jobs", api.JobList{})
		ill := api.NewJobs{Action: "destroy", Targets: []string{"web-1"}}
		same(t, v, c, "add-jobs", nil, ill, "POST", "/api/v1/jobs", api.JobList{})
		keyed := api.NewJobs{Action: box.Backup, Targets: []string{"web-1"}, Key: "k" + token.Name}
		same(t, v, c, "add-jobs", nil, keyed, "POST", "/api/v1/jobs", api.JobList{}) // the same key gives the same job
		same(t, v, c, "delete-user", api.Params{"user": "nobody"}, nil, "DELETE", "/api/v1/users/nobody", struct{}{})
		if got := v.May("add-jobs"); got != (token.Role != ledger.Viewer) {
			t.Errorf("%s may add jobs: %v", v.Name(), got)
		}
		if got := v.May("list-audit"); got != (token.Role == ledger.Admin && token.Group == "") {
			t.Errorf("%s may read the audit log: %v", v.Name(), got)
		}
	}
}

// same makes a request both ways.
func same[O any](t *testing.T, v *api.Visitor, c *client, id string, p api.Params, send any, method, path string, _ O) {
	t.Helper()
	var got O
	err := v.Ask(t.Context(), id, p, send, &got)
	status, text := c.do(method, path, send)
	if status == 204 {
		must(t, v.Ask(t.Context(), id, p, send, nil))
		return
	}
	if status >= 300 {
		var want, have *api.Problem
		must(t, json.Unmarshal(text, &want))
		if !errors.As(err, &have) || !reflect.DeepEqual(have, want) {
			t.Errorf("%s: %s: %v, by HTTP %v", v.Name(), id, err, want)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %s: %v, by HTTP %d", v.Name(), id, err, status)
		return
	}
	mine, err := json.Marshal(got)
	must(t, err)
	if string(mine) != strings.TrimSpace(string(text)) {
		t.Errorf("%s: %s: %s, by HTTP %s", v.Name(), id, mine, text)
	}
}

// TestLogin: who has no token comes not in. A login opens the page alone, until its end, until that of its token, or until
// somebody logs out.
func TestLogin(t *testing.T) {
	r := newRig(t)
	for _, secret := range []string{"", " ", "testbox-AAAAAAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("x", 8000), "x\ny"} {
		if login, _, err := r.api.Login(t.Context(), secret, "192.0.2.7:1"); login != "" || asProblem(err).Code != api.CodeUnauthorized {
			t.Errorf("%.40q: %v", secret, err)
		}
	}
	in := func(login string) bool {
		t.Helper()
		v, err := r.api.Visit(t.Context(), login, "192.0.2.7:1")
		if err != nil && asProblem(err).Code != api.CodeUnauthorized {
			t.Error(err)
		}
		return v != nil
	}
	begin := func(token ledger.Token) string {
		t.Helper()
		login, expires, err := r.api.Login(t.Context(), r.token(token), "192.0.2.7:1")
		must(t, err)
		want := r.clock().Add(api.LoginTime)
		if !token.Expires.IsZero() {
			want = token.Expires
		}
		if !expires.Equal(want) {
			t.Errorf("a login with a token until %v ends at %v", token.Expires, expires)
		}
		if !in(login) {
			t.Error("a new login is none")
		}
		return login
	}
	short := begin(ledger.Token{Role: ledger.Admin, Name: "short", Expires: r.clock().Add(time.Hour)})
	long, other := begin(ledger.Token{Role: ledger.Admin, Name: "long"}), begin(ledger.Token{Role: ledger.Admin, Name: "other"})
	if status, _ := r.with(long).do("GET", "/api/v1/me", nil); status != 401 {
		t.Errorf("the secret of a login is a token of the API: %d", status)
	}
	r.pass(time.Hour)
	if in(short) || !in(long) {
		t.Error("a login outlives its token, or ends with another one's")
	}
	must(t, r.api.Logout(t.Context(), other, "192.0.2.7:1"))
	must(t, r.api.Logout(t.Context(), other, "192.0.2.7:1"))
	if in(other) || !in(long) {
		t.Error("who has logged out is still in")
	}
	r.pass(api.LoginTime - time.Hour)
	if in(long) {
		t.Error("a login has no end")
	}
	var log api.Entries
	r.root().want(200, "GET", "/api/v1/audit", nil, &log)
	if len(log.Entries) != 4 || log.Entries[0].What != "log out of the page" || log.Entries[0].Who != "token other" ||
		log.Entries[3].What != "log in to the page" || log.Entries[3].From != "192.0.2.7" {
		t.Errorf("%+v", log.Entries)
	}
}

// TestVisitorAudit: the audit log has the address of the browser.
func TestVisitorAudit(t *testing.T) {
	r := newRig(t)
	v := r.visitor(r.token(ledger.Token{Role: ledger.Admin, Name: "a"}))
	must(t, v.Ask(t.Context(), "set-user", api.Params{"user": "eve"}, api.SetUser{Role: "viewer", Why: "new here"}, nil))
	var log api.Entries
	must(t, v.Ask(t.Context(), "list-audit", nil, nil, &log))
	if e := log.Entries[0]; e.From != "192.0.2.7" || e.Who != "token a" || e.On != "eve" || !strings.Contains(e.Why, "new here") {
		t.Errorf("%+v", e)
	}
}

// TestVisitorWrongUse: a request that there is not, and parts of a path that would lead elsewhere.
func TestVisitorWrongUse(t *testing.T) {
	r := newRig(t)
	v := r.visitor(r.token(ledger.Token{Role: ledger.Admin, Name: "a"}))
	if err := v.Ask(t.Context(), "get-nothing", nil, nil, nil); asProblem(err).Code != api.CodeFailed {
		t.Errorf("a request that there is not: %v", err)
	}
	for _, word := range []string{"", ".", "..", "../jobs", "\x00", "\xff"} {
		if err := v.Ask(t.Context(), "get-box", api.Params{"box": word}, nil, nil); asProblem(err).Code != api.CodeNotFound {
			t.Errorf("the box %q: %v", word, err)
		}
	}
	if err := v.Ask(t.Context(), "list-boxes", nil, nil, new(api.JobList)); asProblem(err).Code != api.CodeFailed {
		t.Errorf("an answer of another type: %v", err)
	}
}

// TestVisitorPass: a log goes to the browser as it is.
func TestVisitorPass(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	v := r.visitor(r.token(ledger.Token{Role: ledger.Viewer, Name: "v"}))
	folder, err := r.area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	must(t, os.WriteFile(folder.Path(box.LogFile), []byte("one\n<two>\n"), 0o644))
	w := httptest.NewRecorder()
	v.Pass(w, httptest.NewRequest("GET", "/boxes/10.0.0.1/log", nil), "get-log", api.Params{"box": "10.0.0.1", "offset": "4"})
	if got := w.Body.String(); got != "<two>\n" || w.Header().Get(api.LogOffset) != "4" ||
		!strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%q, %v", got, w.Header())
	}
	w = httptest.NewRecorder()
	v.Pass(w, httptest.NewRequest("GET", "/", nil), "get-log", api.Params{"box": "10.0.0.2"})
	if w.Code != 404 || w.Header().Get("Content-Type") != api.ProblemType {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func asProblem(err error) *api.Problem {
	var p *api.Problem
	if !errors.As(err, &p) {
		return &api.Problem{}
	}
	return p
}

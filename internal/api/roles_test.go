package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

// may is who may do what, written down a second time. A request that is not in it
// fails the test.
var may = map[string]string{
	"GET /api/v1/jobs":                                          "viewer",
	"POST /api/v1/jobs":                                         "operator",
	"POST /api/v1/jobs/check":                                   "operator",
	"GET /api/v1/jobs/{job}":                                    "viewer",
	"POST /api/v1/jobs/{job}/cancel":                            "operator",
	"GET /api/v1/boxes":                                         "viewer",
	"GET /api/v1/machines":                                      "viewer of all",
	"POST /api/v1/boxes":                                        "admin of all",
	"GET /api/v1/boxes/{box}":                                   "viewer",
	"PATCH /api/v1/boxes/{box}":                                 "operator",
	"DELETE /api/v1/boxes/{box}":                                "admin of all",
	"POST /api/v1/boxes/{box}/accept":                           "admin",
	"POST /api/v1/boxes/{box}/readdress":                        "admin of all",
	"PUT /api/v1/boxes/{box}/holder":                            "operator",
	"DELETE /api/v1/boxes/{box}/holder":                         "operator",
	"POST /api/v1/boxes/{box}/release":                          "operator",
	"POST /api/v1/boxes/{box}/finish":                           "operator",
	"POST /api/v1/boxes/{box}/power":                            "operator",
	"GET /api/v1/boxes/{box}/log":                               "viewer",
	"GET /api/v1/boxes/{box}/inventory/changes":                 "viewer",
	"GET /api/v1/boxes/{box}/firmware":                          "viewer",
	"GET /api/v1/boxes/{box}/rates":                             "viewer",
	"GET /api/v1/boxes/{box}/inventory":                         "viewer",
	"GET /api/v1/backups/{owner}":                               "viewer",
	"PATCH /api/v1/backups/{owner}/{backup}":                    "operator",
	"DELETE /api/v1/backups/{owner}/{backup}":                   "admin",
	"PUT /api/v1/backups/{owner}/{backup}/time":                 "admin",
	"PUT /api/v1/backups/{owner}/{backup}/boot-test":            "operator",
	"GET /api/v1/backups/{owner}/{backup}/boot-test/picture":    "viewer",
	"GET /api/v1/backups/{owner}/{backup}/firmware":             "viewer",
	"GET /api/v1/backups/{owner}/{backup}/disks/{disk}/content": "operator",
	"GET /api/v1/backups/{owner}/{backup}/disks/{disk}/map":     "viewer",
	"POST /api/v1/backups/{owner}/uploads":                      "operator",
	"GET /api/v1/store":                                         "viewer of all",
	"GET /api/v1/store/history":                                 "viewer of all",
	"POST /api/v1/store/upkeep":                                 "admin of all",
	"GET /api/v1/store/upkeep/{upkeep}":                         "admin of all",
	"POST /api/v1/store/upkeep/{upkeep}/cancel":                 "admin of all",
	"GET /api/v1/groups":                                        "viewer",
	"PUT /api/v1/groups/{group}":                                "admin of all",
	"DELETE /api/v1/groups/{group}":                             "admin of all",
	"GET /api/v1/schedules":                                     "viewer of all",
	"GET /api/v1/schedules/{schedule}":                          "viewer of all",
	"POST /api/v1/schedules/{schedule}/run":                     "operator of all",
	"POST /api/v1/schedules/{schedule}/pause":                   "operator of all",
	"POST /api/v1/schedules/{schedule}/resume":                  "operator of all",
	"GET /api/v1/users":                                         "admin of all",
	"PUT /api/v1/users/{user}":                                  "admin of all",
	"DELETE /api/v1/users/{user}":                               "admin of all",
	"GET /api/v1/tokens":                                        "admin of all",
	"POST /api/v1/tokens":                                       "admin of all",
	"DELETE /api/v1/tokens/{token}":                             "admin of all",
	"GET /api/v1/audit":                                         "admin of all",
	"GET /api/v1/me":                                            "viewer",
	"GET /api/v1/events":                                        "viewer",
	"GET /api/v1/status":                                        "viewer of all",
	"GET /api/v1/openapi.json":                                  "viewer",
	"GET /metrics":                                              "viewer of all",
	"GET /healthz":                                              "",
}

// TestRoles makes every request as everybody.
func TestRoles(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutUser(ledger.User{Name: "eve", Role: ledger.Viewer})
	}))
	type who struct {
		name   string
		c      *client
		role   int // index in ledger.Roles; -1 is nobody
		all    bool
		status int // of what is not allowed

		visitor *api.Visitor // nil if who it is cannot log in
	}
	past := r.clock().Add(-time.Second)
	whos := []who{
		{"nobody", r.with(""), -1, false, 401, nil},
		{"a guess", r.with("testbox-AAAAAAAAAAAAAAAAAAAAAAAAAA"), -1, false, 401, nil},
		{"one whose token has ended", r.with(r.token(ledger.Token{Role: ledger.Admin, Expires: past})), -1, false, 401, nil},
		{"the hash of a token", r.with(strings.Repeat("ab", 32)), -1, false, 401, nil},
		{"a very long token", r.with(strings.Repeat("x", 8000)), -1, false, 401, nil},
		{"root", r.root(), 2, true, 0, nil},
		{"a viewer with an admin's token", r.with(r.token(ledger.Token{Role: ledger.Admin, User: "eve"})), 0, true, 403, nil},
	}
	for i, role := range ledger.Roles {
		whos = append(whos,
			who{"a " + string(role), r.with(r.token(ledger.Token{Role: role, Name: string(role)})), i, true, 403, nil},
			who{"a " + string(role) + " of the group", r.with(r.token(ledger.Token{Role: role, Name: string(role) + " of rack", Group: "rack"})),
				i, false, 403, nil})
	}
	for i := range whos {
		if login, _, err := r.api.Login(t.Context(), whos[i].c.token, ""); err == nil {
			whos[i].visitor, err = r.api.Visit(t.Context(), login, "")
			must(t, err)
		}
	}
	seen := 0
	for _, path := range paths(t, r) {
		key := path.method + " " + path.path
		want, known := may[key]
		if !known {
			t.Errorf("the test does not know who may %s", key)
			continue
		}
		seen++
		role, all := strings.CutSuffix(want, " of all")
		need := -1
		for i, rl := range ledger.Roles {
			if string(rl) == role {
				need = i
			}
		}
		url := strings.NewReplacer("{box}", "10.0.0.1", "{job}", "j1", "{group}", "new", "{user}", "newuser", "{token}", "00000000",
			"{schedule}", "nightly").
			Replace(path.path)
		for _, w := range whos {
			if strings.Contains(key, "{box}") && path.method != "GET" { // somebody may have reserved it
				r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
			}
			status, code := w.c.try(path.method, url)
			allowed := w.role >= need && (w.all || !all)
			if v := w.visitor; v != nil && v.May(path.id) != allowed {
				t.Errorf("%s may %s on the page: %v", w.name, key, !allowed)
			}
			switch {
			case allowed && (status == 401 || code == api.CodeForbidden):
				t.Errorf("%s may not %s: %d", w.name, key, status)
			case !allowed && status != w.status:
				t.Errorf("%s may %s: %d", w.name, key, status)
			}
		}
	}
	if seen != len(may) {
		t.Errorf("the server has %d of %d requests", seen, len(may))
	}
}

type methodPath struct{ method, path string }

// operation is a request of the API, with its id in the table of routes.
type operation struct{ method, path, id string }

// paths are all requests of the API, as its description has them.
func paths(t *testing.T, r *rig) (all []operation) {
	t.Helper()
	b, err := r.api.OpenAPI()
	must(t, err)
	var doc struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	must(t, json.Unmarshal(b, &doc))
	for path, item := range doc.Paths {
		for method, op := range item {
			all = append(all, operation{strings.ToUpper(method), path, op.OperationID})
		}
	}
	return all
}

// try makes a request without a body worth its name, and reads only the beginning of
// the answer.
func (c *client) try(method, path string) (int, api.Code) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader("{}"))
	must(c.t, err)
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(q)
	must(c.t, err)
	defer resp.Body.Close()
	var p api.Problem
	if resp.StatusCode >= 400 {
		json.NewDecoder(resp.Body).Decode(&p)
	}
	return resp.StatusCode, p.Code
}

// TestLimitedToken: for a token that is for a group, boxes of other groups are not
// there.
func TestLimitedToken(t *testing.T) {
	r := newRig(t)
	r.group("a")
	r.group("b")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "in-a", Groups: []string{"a"}, MACs: []string{"52:54:00:00:00:01"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "in-b", Groups: []string{"b"}, MACs: []string{"52:54:00:00:00:02"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.3"), Name: "in-both", Groups: []string{"a", "b"}, Labels: []string{"x"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.4"), Name: "in-none", Labels: []string{"x"}})
	var jobs api.JobList
	r.root().want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup,
		Targets: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}}, &jobs)
	c := r.with(r.token(ledger.Token{Role: ledger.Admin, Group: "a"}))
	var list api.BoxList
	for query, want := range map[string]int{"": 2, "?group=a": 2, "?group=b": 1, "?label=x": 1, "?name=in-b": 0, "?name=in-a": 1} {
		c.want(200, "GET", "/api/v1/boxes"+query, nil, &list)
		if len(list.Boxes) != want {
			t.Errorf("boxes%s: %+v", query, list)
		}
	}
	for _, word := range []string{"10.0.0.2", "in-b", "52:54:00:00:00:02", "10.0.0.4", "10.0.0.5"} {
		for _, q := range []methodPath{{"GET", ""}, {"GET", "/log"}, {"GET", "/inventory"}, {"PATCH", ""}, {"POST", "/accept"},
			{"PUT", "/holder"}, {"DELETE", "/holder"}, {"POST", "/release"}, {"POST", "/finish"}} {
			var body any
			if q.method == "PATCH" {
				body = `{"health":"good"}`
			} else if q.method != "GET" && q.method != "DELETE" {
				body = "{}"
			}
			c.refused(api.CodeNotFound, q.method, "/api/v1/boxes/"+word+q.path, body)
		}
		c.refused(api.CodeNotFound, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{word}})
		c.refused(api.CodeNotFound, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"box:" + word}})
	}
	for _, o := range []api.Options{{From: "10.0.0.2"}, {From: "in-b"}, {From: "golden"}, {Image: "10.0.0.2@latest", AcceptMachine: true},
		{Image: "in-a@latest", AcceptMachine: true}, {From: "52:54:00:00:00:02"}} {
		q := api.NewJobs{Action: box.Restore, Targets: []string{"10.0.0.1"}, Options: o}
		c.refused(api.CodeNotFound, "POST", "/api/v1/jobs", q)
		c.refused(api.CodeNotFound, "POST", "/api/v1/jobs/check", q)
	}
	c.want(200, "POST", "/api/v1/jobs/check",
		api.NewJobs{Action: box.Restore, Targets: []string{"10.0.0.1"}, Options: api.Options{From: "in-both"}}, nil)
	c.want(200, "GET", "/api/v1/jobs", nil, &jobs)
	if len(jobs.Jobs) != 2 {
		t.Errorf("%+v", jobs)
	}
	c.refused(api.CodeNotFound, "GET", "/api/v1/jobs/j2", nil)
	c.refused(api.CodeNotFound, "POST", "/api/v1/jobs/j2/cancel", "{}")
	c.refused(api.CodeNotFound, "GET", "/api/v1/jobs/j5", nil)
	c.want(200, "GET", "/api/v1/jobs/j3", nil, nil)
	c.refused(api.CodeForbidden, "PATCH", "/api/v1/boxes/in-a", `{"groups":["b"]}`)
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"group:b"}}, &jobs)
	if len(jobs.Jobs) != 1 || jobs.Jobs[0].Name != "in-both" {
		t.Errorf("%+v", jobs)
	}
	r.root().want(200, "GET", "/api/v1/jobs?box=in-b", nil, &jobs)
	if len(jobs.Jobs) != 1 {
		t.Errorf("a box of another group got a job: %+v", jobs)
	}
	var groups []api.Group
	c.want(200, "GET", "/api/v1/groups", nil, &groups)
	if len(groups) != 1 || groups[0].Name != "a" || groups[0].Boxes != 2 {
		t.Errorf("%+v", groups)
	}
}

// TestTokens: a token's secret is said once, and is not in the ledger.
func TestTokens(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	c := r.root()
	var u api.User
	c.want(200, "PUT", "/api/v1/users/ann", api.SetUser{Role: "operator", Why: "new here"}, &u)
	for _, name := range []string{"token%20x", "uid%201", "Ann", "a%00b", "..%2f", "%3Cb%3E"} {
		status, _ := c.do("PUT", "/api/v1/users/"+name, api.SetUser{Role: "operator"})
		if status != 400 {
			t.Errorf("%s: %d", name, status)
		}
	}
	var tok api.Token
	until := r.clock().Add(24 * time.Hour)
	laptop := api.NewToken{Name: "laptop", User: "ann", Role: "admin", Group: "rack", Expires: until}
	if p := c.refused(api.CodeRefused, "POST", "/api/v1/tokens", laptop); !strings.Contains(p.Detail, "ann has the role operator") {
		t.Error(p.Detail)
	}
	c.want(200, "PUT", "/api/v1/users/ann", api.SetUser{Role: "admin"}, &u)
	c.want(201, "POST", "/api/v1/tokens", laptop, &tok)
	c.want(200, "PUT", "/api/v1/users/ann", api.SetUser{Role: "operator", Why: "not so much"}, &u)
	if !strings.HasPrefix(tok.Secret, "testbox-") || len(tok.Secret) < 30 || tok.ID == "" {
		t.Fatalf("%+v", tok)
	}
	var me api.Me
	ann := r.with(tok.Secret)
	ann.want(200, "GET", "/api/v1/me", nil, &me)
	if me.Name != "ann" || me.Role != ledger.Operator || me.Group != "rack" || !me.Expires.Equal(until) {
		t.Errorf("%+v", me)
	}
	var list []api.Token
	c.want(200, "GET", "/api/v1/tokens?user=ann", nil, &list)
	if len(list) != 1 || list[0].Secret != "" || list[0].ID != tok.ID || list[0].Name != "laptop" {
		t.Errorf("%+v", list)
	}
	_, audit := c.do("GET", "/api/v1/audit", nil)
	if strings.Contains(string(audit), tok.Secret) || !strings.Contains(string(audit), "laptop, as admin of ann for the group rack") {
		t.Errorf("%s", audit)
	}
	must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error { return nil }))
	for _, f := range []string{"ledger.db", "ledger.db-wal"} {
		b, err := os.ReadFile(r.dir + "/" + f)
		if err == nil && strings.Contains(string(b), tok.Secret) {
			t.Errorf("the secret is in %s", f)
		}
	}
	c.refused(api.CodeWrong, "POST", "/api/v1/tokens", api.NewToken{Name: "x", Role: "admin", Expires: r.clock()})
	c.refused(api.CodeNotFound, "POST", "/api/v1/tokens", api.NewToken{Name: "x", Role: "admin", User: "nobody"})
	c.refused(api.CodeWrong, "POST", "/api/v1/tokens", api.NewToken{Name: "x", Role: "root"})
	r.pass(25 * time.Hour)
	ann.refused(api.CodeUnauthorized, "GET", "/api/v1/me", nil)
	c.want(204, "DELETE", "/api/v1/tokens/"+tok.ID, nil, nil)
	c.refused(api.CodeNotFound, "DELETE", "/api/v1/tokens/"+tok.ID, nil)
	c.want(201, "POST", "/api/v1/tokens", api.NewToken{Name: "x", User: "ann", Role: "viewer"}, &tok)
	c.want(204, "DELETE", "/api/v1/users/ann", nil, nil)
	r.with(tok.Secret).refused(api.CodeUnauthorized, "GET", "/api/v1/me", nil)
	var users []api.User
	c.want(200, "GET", "/api/v1/users", nil, &users)
	if len(users) != 0 {
		t.Errorf("%+v", users)
	}
}

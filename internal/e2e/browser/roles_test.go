package browser

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/ledger"
)

// everything is all that the page offers, and the role that it is for.
var everything = map[string]ledger.Role{
	"/act/backup": ledger.Operator, "/act/restore": ledger.Operator, "/act/verify": ledger.Operator, "/act/refresh-info": ledger.Operator,
	"/act/rescue": ledger.Operator, "/act/cancel": ledger.Operator, "/act/hold": ledger.Operator, "/act/unhold": ledger.Operator,
	"/act/health": ledger.Operator, "/act/power": ledger.Operator, "/act/finish": ledger.Operator, "/act/release": ledger.Operator,
	"backup pin": ledger.Operator, "backup unpin": ledger.Operator, "backup baseline": ledger.Operator, "backup unbaseline": ledger.Operator,
	"backup note": ledger.Operator, "backup delete": ledger.Admin,
	"/do/pause": ledger.Operator, "/do/resume": ledger.Operator, "/do/run": ledger.Operator,
	"/do/scrub": ledger.Admin, "/do/gc": ledger.Admin, "/do/plan-gc": ledger.Admin, "/do/cancel-upkeep": ledger.Admin,
	"/do/add-box": ledger.Admin, "/do/readdress": ledger.Admin, "/do/accept": ledger.Admin,
	"/do/add-token": ledger.Admin, "/do/delete-token": ledger.Admin, "/do/set-user": ledger.Admin, "/do/delete-user": ledger.Admin,
	"/do/set-group": ledger.Admin, "/do/delete-group": ledger.Admin,
}

// rare are offered in states that the lab is not in.
var rare = []string{"/act/finish", "/act/release", "backup unpin", "backup unbaseline", "/do/resume", "/do/cancel-upkeep", "/do/readdress",
	"/do/accept"}

// failed is whether the page says that something was wrong.
const failed = "document.title.startsWith('This did not work')"

// offered finds all that the page offers to somebody, in whatever links lead to, and sees that all of it can be opened.
func offered(t *testing.T, b *chrome.Tab) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	crawl(t, b, []string{"/", "/boxes/" + addr(t, "ci-08"), "/boxes/" + addr(t, "ci-09")}, func(at string, _ *url.URL) {
		var list []string
		must(t, b.Eval(`[...document.querySelectorAll('main a[href^="/act/"], main a[href^="/do/"]')].map(e => e.getAttribute('href').split('?')[0])
			.concat([...document.querySelectorAll('main button[formaction]')].map(e => e.getAttribute('formaction')))
			.concat([...document.querySelectorAll('main form[method=post]')].map(e => e.getAttribute('action')).filter(a => !a.startsWith('/boxes/')))
			.concat([...document.querySelectorAll('main form[action*="/backups/"] button')].map(e => 'backup ' + e.value))`, &list))
		for _, what := range list {
			all[what] = true
		}
		var wrong bool
		must(t, b.Eval(failed, &wrong))
		if wrong {
			t.Errorf("%s is offered, and does not work", at)
		}
	})
	return all
}

// forge sends a form from the page that is open, which the page does not have.
func forge(t *testing.T, b *chrome.Tab, what, target string) (status int) {
	t.Helper()
	q := url.Values{"box": {target}, "on": {"ci"}, "key": {rand.Text()}, "name": {"by-hand"}, "address": {"10.88.1.77"}, "role": {"admin"},
		"for": {"4h"}, "health": {"bad"}, "why": {"by hand"}, "power": {"cycle"}, "note": {"by hand"}}
	to := what
	if do, is := strings.CutPrefix(what, "backup "); is {
		var list api.BackupList
		must(t, world(t).Admin.Do(context.Background(), http.MethodGet, apiclient.Path("backups", target), nil, &list))
		id := list.Backups[0].ID
		to = "/boxes/" + target + "/backups/" + id
		q.Set("do", do)
		q.Set("confirm", id)
	}
	must(t, b.Eval("fetch("+chrome.Quote(to)+`, {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: `+
		chrome.Quote(q.Encode())+"}).then(r => r.status)", &status))
	return status
}

// state is all that can be changed, as the API tells it.
func state(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, path := range []string{"audit", "tokens", "users", "groups", "schedules"} {
		var raw json.RawMessage
		must(t, world(t).Admin.Do(context.Background(), http.MethodGet, apiclient.Path(path), nil, &raw))
		text.Write(raw)
	}
	return text.String()
}

// TestRoles: the page offers what a role may, and what it may not cannot be done by a form that was made by hand.
func TestRoles(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	ranks := map[ledger.Role]int{ledger.Viewer: 0, ledger.Operator: 1, ledger.Admin: 2}
	for _, role := range ledger.Roles {
		t.Run(string(role), func(t *testing.T) {
			b := tab(t, chrome.Wide)
			b.Allow = func(text string) bool { return strings.Contains(text, "403") }
			login(t, b, role)
			got := offered(t, b)
			for what := range got {
				if need, known := everything[what]; !known || ranks[need] > ranks[role] {
					t.Errorf("%s is offered", what)
				}
			}
			before, added := state(t), counted(t, "ci-08")
			for _, what := range slices.Sorted(maps.Keys(everything)) {
				if ranks[everything[what]] <= ranks[role] {
					if !got[what] && !slices.Contains(rare, what) {
						t.Errorf("%s is not offered", what)
					}
					continue
				}
				if status := forge(t, b, what, addr(t, "ci-08")); status != http.StatusForbidden {
					t.Errorf("a form for %s is answered %d", what, status)
				}
			}
			if after := state(t); after != before || added()[0] != 0 {
				t.Errorf("forms that were refused have changed\n%s\nto\n%s", before, after)
			}
			for _, at := range []string{"/audit", "/access"} {
				var nav bool
				must(t, b.Go(lab.URL+at))
				must(t, b.Eval("!!document.querySelector("+chrome.Quote(`nav a[href="`+at+`"]`)+")", &nav))
				if nav != (role == ledger.Admin) {
					t.Errorf("%s is in the list of pages: %v", at, nav)
				}
				if role != ledger.Admin {
					must(t, b.Until(failed))
				}
			}
		})
	}
	t.Run("operator of a group", func(t *testing.T) {
		var made api.Token
		must(t, lab.Admin.Do(ctx, http.MethodPost, apiclient.Path("tokens"),
			api.NewToken{Name: "ci alone", Role: string(ledger.Operator), Group: "ci"}, &made))
		t.Cleanup(func() { must(t, lab.Admin.Do(ctx, http.MethodDelete, apiclient.Path("tokens", made.ID), nil, nil)) })
		b := tab(t, chrome.Wide)
		b.Allow = func(text string) bool { return strings.Contains(text, "Failed to load resource") }
		loginWith(t, b, made.Secret)
		for _, name := range shown(t, b) {
			if !strings.HasPrefix(name, "ci-") {
				t.Errorf("%s is listed", name)
			}
		}
		got := offered(t, b)
		for what := range got {
			if everything[what] != ledger.Operator || strings.HasPrefix(what, "/do/") {
				t.Errorf("%s is offered", what)
			}
		}
		before, added := state(t), counted(t, "gpu-01")
		for _, what := range slices.Sorted(maps.Keys(everything)) {
			if status := forge(t, b, what, addr(t, "gpu-01")); status < 400 {
				t.Errorf("a form for %s of another group's box is answered %d", what, status)
			}
		}
		if after := state(t); after != before || added()[0] != 0 {
			t.Errorf("forms that were refused have changed\n%s\nto\n%s", before, after)
		}
		must(t, b.Go(lab.URL+"/boxes/"+addr(t, "gpu-01")))
		must(t, b.Until(failed))
	})
}

package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/e2e/browser/demo"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

// login logs in as somebody who has the role.
func login(t *testing.T, b *chrome.Tab, role ledger.Role) {
	t.Helper()
	loginWith(t, b, demo.Tokens[role])
}

// loginWith logs in with a token.
func loginWith(t *testing.T, b *chrome.Tab, token string) {
	t.Helper()
	must(t, b.Go(world(t).URL+"/login"))
	must(t, b.Do(chrome.Type("#token", token), chrome.Click("button.main")))
	must(t, b.Until("location.pathname == '/' && document.readyState == 'complete'"))
}

func addr(t *testing.T, name string) string {
	t.Helper()
	return demo.Named(world(t).Boxes, name).Address.String()
}

// jobs are the ids of all jobs of a box.
func jobs(t *testing.T, name string) (ids []string) {
	t.Helper()
	var list struct{ Jobs []struct{ ID string } }
	must(t, world(t).Admin.Do(context.Background(), http.MethodGet, apiclient.Path("jobs")+"?limit=1000&box="+addr(t, name), nil, &list))
	for _, j := range list.Jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

func TestLogin(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Wide)
	b.Allow = func(text string) bool { return strings.Contains(text, "401") }
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "ci-04")))
	must(t, b.Until("location.pathname == '/login'"))
	must(t, b.Do(chrome.Type("#token", "none-of-them-9e8a7b6c5d4e3f2a1b"), chrome.Click("button.main")))
	must(t, b.Has("Nobody has this token"))
	must(t, b.Do(chrome.Type("#token", demo.Tokens[ledger.Viewer]), chrome.Click("button.main")))
	must(t, b.Until("location.pathname.startsWith('/boxes/') && document.body.innerText.includes('ci-04')"))
}

// row is the selector of a box in the list.
func row(t *testing.T, name string) string {
	return "#box-" + strings.ReplaceAll(addr(t, name), ".", "-")
}

// TestLiveBackup watches a backup from its beginning to its end, on one page.
func TestLiveBackup(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Operator)
	loads := b.Loads()
	text := "document.querySelector('" + row(t, "ci-04") + "').innerText"
	must(t, b.Until("document.querySelector('"+row(t, "ci-04")+"')"))
	a, err := lab.Begin(ctx, "ci-04", box.Backup)
	must(t, err)
	for _, percent := range []int{23, 71} { // a share is rounded down
		_, err := a.Works(ctx, wire.StepRead, float64(percent)/100+0.005)
		must(t, err)
		must(t, b.Until(fmt.Sprintf("%s.includes('running') && %s.includes('%d %%')", text, text, percent)))
	}
	must(t, a.Done(ctx))
	must(t, b.Until(text+".includes('done') && !"+text+".includes('71 %')"))
	if n := b.Loads() - loads; n != 0 {
		t.Errorf("the page was loaded %d times while the backup ran", n)
	}
}

// TestRestore asks for a restore as people do, reads what is overwritten, and cancels it.
func TestRestore(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Operator)
	before := jobs(t, "nas-03")
	must(t, b.Do(chrome.Click(row(t, "nas-03")+" th a")))
	must(t, b.Until("location.pathname == '/boxes/"+addr(t, "nas-03")+"' && document.readyState == 'complete'"))
	var image string
	must(t, b.Eval("document.querySelector('.bx-history tbody code').innerText", &image))
	must(t, b.Do(chrome.Click(`.bx-history a[href*="/act/restore"]`)))
	for _, text := range []string{"nas-03", addr(t, "nas-03"), "These disks are overwritten", image, "Nothing has been done yet"} {
		must(t, b.Has(text))
	}
	for _, d := range demo.Named(lab.Boxes, "nas-03").Disks {
		must(t, b.Has(d.Model))
		must(t, b.Has(d.Serial))
	}
	if n := len(jobs(t, "nas-03")) - len(before); n != 0 {
		t.Fatalf("looking at what a restore would do has made %d jobs", n)
	}
	// What is chosen only now is shown first, also by the button that would do it.
	must(t, b.Do(chrome.Click(".choices summary"), chrome.Type("#c-map", "sda=sdb, sdb=sda"), chrome.Click("main form button.danger")))
	must(t, b.Until("location.search.includes('map=') && document.readyState == 'complete'"))
	must(t, b.Has("goes onto sdb"))
	must(t, b.Has("Nothing has been done yet"))
	if n := len(jobs(t, "nas-03")) - len(before); n != 0 {
		t.Fatalf("choices that were not shown before have made %d jobs", n)
	}
	must(t, b.Do(chrome.Click("main form button.danger")))
	must(t, b.Until("location.pathname.startsWith('/jobs/') && document.readyState == 'complete'"))
	must(t, b.Has(image))
	must(t, b.Has("sdb=sda"))
	after := jobs(t, "nas-03")
	if len(after) != len(before)+1 {
		t.Fatalf("%d jobs were made", len(after)-len(before))
	}
	must(t, b.Go(lab.URL+"/act/cancel?job="+after[0]))
	must(t, b.Do(chrome.Click("main form button.danger")))
	must(t, b.Until("location.pathname.startsWith('/boxes/') && document.readyState == 'complete'"))
	must(t, b.Has("cancelled"))
}

// check says what is wrong with the page that is shown, by all rules of axe-core or by some.
func check(t *testing.T, b *chrome.Tab, at string) {
	t.Helper()
	found, err := b.Axe()
	must(t, err)
	for _, f := range chrome.Serious(found) {
		t.Errorf("%s: %s", at, f)
	}
	fits(t, b, at)
}

// fits says whether the page is wider than the window, and what was noted since it was opened.
func fits(t *testing.T, b *chrome.Tab, at string) {
	t.Helper()
	var over int
	must(t, b.Eval("document.documentElement.scrollWidth - innerWidth", &over))
	if over > 1 {
		t.Errorf("%s is %d pixels wider than the window", at, over)
	}
	for _, text := range b.Wrong() {
		t.Errorf("%s: %s", at, text)
	}
}

// seeds are pages that no link leads to, or not in each of their states.
func seeds(t *testing.T) []string {
	t.Helper()
	return []string{"/", "/boxes/" + addr(t, "gpu-02"), "/boxes/" + addr(t, "ci-09"), "/boxes/" + addr(t, "ci-10"), "/boxes/10.88.1.250",
		"/jobs/" + jobs(t, "gpu-02")[0], "/jobs/" + jobs(t, "nas-02")[0], "/?q=nothing+has+this",
		"/act/restore?box=" + addr(t, "ci-05"), "/act/restore?box=" + addr(t, "ci-05") + "&from=ci-04&hook=ssh-keys&map=sdx%3Dsda",
		"/act/restore?box=" + addr(t, "ci-05") + "&map=nonsense", "/act/power?box=" + addr(t, "gpu-01") + "&box=" + addr(t, "old-04"),
		"/act/hold?box=" + addr(t, "gpu-01"), "/act/health?box=" + addr(t, "gpu-01"), "/act/release?box=" + addr(t, "ci-09")}
}

// missing are errors of the seed that is not there.
func missing(text string) bool { return strings.Contains(text, "404") }

// crawl goes to the first pages, and to one page of each kind that links lead to. see looks at it.
func crawl(t *testing.T, b *chrome.Tab, first []string, see func(at string, u *url.URL)) (kinds map[string]bool) {
	t.Helper()
	todo, kinds := slices.Clone(first), map[string]bool{}
	for i := 0; i < len(todo); i++ {
		u, err := url.Parse(todo[i])
		must(t, err)
		kind := kindOf(u)
		if i >= len(first) && kinds[kind] || strings.HasPrefix(u.Path, "/api/") || strings.HasSuffix(u.Path, "/log") ||
			strings.HasSuffix(u.Path, ".png") {
			continue // the log and the picture of a boot test are no pages
		}
		kinds[kind] = true
		must(t, b.Go(world(t).URL+todo[i]))
		must(t, b.Until("!document.querySelector('[aria-busy=true]')"))
		see(todo[i], u)
		var links []string
		must(t, b.Eval(`[...document.querySelectorAll('a[href^="/"]:not([download])')].map(a => a.getAttribute('href'))`, &links))
		todo = append(todo, links...)
	}
	return kinds
}

// TestEveryPage looks at every page, wide and on a phone, in the light and in the dark. One that shows the same as
// another one in another state, or other entries, is looked at less.
func TestEveryPage(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Wide)
	b.Allow = missing
	must(t, b.Go(lab.URL+"/login"))
	dark := func(v chrome.View) chrome.View { v.Dark = true; return v }
	views := []chrome.View{chrome.Phone, dark(chrome.Phone), dark(chrome.Wide), chrome.Wide}
	look := func(at string) {
		t.Helper()
		for _, v := range views {
			must(t, b.Look(v))
			if v == chrome.Wide || v == dark(chrome.Phone) { // which are both widths, and the colours of both
				check(t, b, v.Name()+" "+at)
			} else {
				fits(t, b, v.Name()+" "+at)
			}
		}
	}
	look("/login")
	login(t, b, ledger.Admin)
	first, paths := seeds(t), map[string]bool{}
	kinds := crawl(t, b, first, func(at string, u *url.URL) {
		switch path := strings.Split(kindOf(u), "?")[0]; {
		case !paths[path]:
			paths[path] = true
			look(at)
		case slices.Contains(first, at):
			check(t, b, at)
		default:
			fits(t, b, at)
		}
	})
	for _, path := range []string{"/", "/jobs", "/machines", "/store", "/calendar", "/audit", "/access", "/status",
		"/boxes/*", "/boxes/*/disks", "/jobs/*", "/act/backup", "/act/cancel", "/do/add-token", "/do/gc", "/do/run"} {
		if !paths[path] {
			t.Errorf("no link leads to %s", path)
		}
	}
	t.Log(len(kinds), "kinds of pages with", len(paths), "paths")
}

// kindOf is the same for pages of the same kind: only the first of many boxes is visited.
func kindOf(u *url.URL) string {
	parts := strings.Split(u.Path, "/")
	for i := 2; i < len(parts) && parts[1] != "act" && parts[1] != "do"; i += 2 {
		parts[i] = "*"
	}
	var keys []string
	for k := range u.Query() {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return strings.Join(parts, "/") + "?" + strings.Join(keys, "&")
}

// TestReloadedForm sends a form, and sends it again by loading its answer again. One job is made.
func TestReloadedForm(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Operator)
	before := len(jobs(t, "gpu-01"))
	must(t, b.Go(lab.URL+"/act/backup?box="+addr(t, "gpu-01")))
	must(t, b.Has("gpu-01"))
	// Both clicks come before the answer.
	must(t, b.Eval("(() => { const f = document.querySelector('main form[method=post] button'); f.click(); f.click() })()", nil))
	must(t, b.Until("location.pathname.startsWith('/jobs/') && document.readyState == 'complete'"))
	must(t, b.Do(chrome.Reload()))
	all := jobs(t, "gpu-01")
	if n := len(all) - before; n != 1 {
		t.Fatalf("%d jobs were made by one form that was sent again", n)
	}
	must(t, lab.Cancel(context.Background(), all[0]))
}

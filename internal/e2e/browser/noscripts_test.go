package browser

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

// silent is a tab whose pages have no scripts.
func silent(t *testing.T, role ledger.Role) *chrome.Tab {
	v := chrome.Wide
	v.NoScripts = true
	b := tab(t, v)
	login(t, b, role)
	return b
}

// TestNoScripts does what people do in a browser that runs no scripts.
func TestNoScripts(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	b := silent(t, ledger.Operator)
	const main = "document.querySelector('main').innerText"
	at := func(path string) {
		t.Helper()
		must(t, b.Until("location.pathname.startsWith("+chrome.Quote(path)+") && document.readyState == 'complete'"))
	}
	press := func(path, selector string) {
		t.Helper()
		must(t, b.Do(chrome.Click(selector)))
		at(path)
	}
	t.Cleanup(func() { clearJobs(t, "old-01", "gpu-05") })

	// Find a box.
	must(t, b.Do(chrome.Type(".filters input[name=q]", "old-01"), chrome.Click(".filters button")))
	must(t, b.Until("location.search.includes('q=old-01') && document.querySelectorAll('[data-rows] tbody tr').length == 1"))
	must(t, b.Go(lab.URL+"/"))
	must(t, b.Do(chrome.Type("#q", "old-01\r")))
	at("/boxes/" + addr(t, "old-01"))

	// Back it up, and see how far that is.
	added := counted(t, "old-01", "gpu-05")
	press("/act/backup", `main .buttons a[href^="/act/backup"]`)
	must(t, b.Has("Nothing has been done yet"))
	press("/jobs/", "main form button.main")
	a, err := lab.Boot(ctx, "old-01")
	must(t, err)
	_, err = a.Works(ctx, wire.StepRead, 0.405, "a line of the log")
	must(t, err)
	must(t, b.Do(chrome.Reload()))
	must(t, b.Has("40 %"))
	press("/boxes/", `main a[href*="/log"]`)
	must(t, b.Has("a line of the log"))
	must(t, a.Done(ctx))
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "old-01")))
	must(t, b.Until("document.querySelector('[data-live]').innerText.includes('done')"))

	// See what its disks hold.
	press("/boxes/"+addr(t, "old-01")+"/disks", "[data-fragment] a")
	must(t, b.Until("document.querySelector('.bx-disk svg')"))

	// Restore it.
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "old-01")))
	press("/act/restore", `.bx-history tbody tr:nth-child(2) a[href*="/act/restore"]`)
	must(t, b.Has("These disks are overwritten"))
	must(t, b.Do(chrome.Click(".choices summary"), chrome.Type("#c-map", "sda"), chrome.Click("button[name=show]")))
	must(t, b.Has("is not of the form IMAGE=DISK"))
	must(t, b.Eval("document.querySelector('#c-map').value = ''", nil)) // what was typed before
	must(t, b.Do(chrome.Type("#c-map", "sda=nvme7n1\r")))
	must(t, b.Has("goes onto nvme7n1"))
	must(t, b.Do(chrome.Click("main input[name=hook][value=machine-id]"), chrome.Click("button[name=show]")))
	must(t, b.Has("Then the restored system is changed: machine-id"))
	press("/jobs/", "main form button.danger")
	must(t, b.Has("sda=nvme7n1"))
	must(t, b.Until(main+".includes('restore')"))
	press("/act/cancel", `main a[href^="/act/cancel"]`)
	must(t, b.Do(chrome.Click("main form button.danger")))
	must(t, b.Until("!location.pathname.startsWith('/act/') || document.body.innerText.includes('What became of it')"))
	if got := added(); !slices.Equal(got, []int{2, 0}) {
		t.Errorf("jobs were made: %d", got)
	}

	// Reserve two boxes, and give them back.
	choose(t, b, "hold", "old-01", "gpu-05")
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("What became of it"))
	must(t, b.Go(lab.URL+"/"))
	for _, name := range []string{"old-01", "gpu-05"} {
		must(t, b.Until("document.querySelector("+chrome.Quote(row(t, name))+").innerText.includes('maria')"))
	}
	choose(t, b, "unhold", "old-01", "gpu-05")
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("What became of it"))

	// Pin a backup.
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "old-01")))
	for _, do := range []string{"pin", "unpin"} {
		must(t, b.Do(chrome.Click(".bx-history tbody tr summary"), chrome.Click(`.bx-history tbody tr button[value="`+do+`"]`)))
		must(t, b.Until(`document.querySelector('.bx-history tbody tr .tag') ? "`+do+`" == "pin" : "`+do+`" == "unpin"`))
	}

	// Pause a schedule.
	for _, do := range []string{"pause", "resume"} {
		must(t, b.Go(lab.URL+"/calendar"))
		press("/do/"+do, `main a[href="/do/`+do+`?on=weekly-edge"]`)
		press("/calendar", "main form button.main")
	}

	press("/login", "form.who button")
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "old-01")))
	at("/login")
}

// TestNoScriptsActions sends the form of each action without scripts. Its answer says what became of it.
func TestNoScriptsActions(t *testing.T) {
	lab := world(t)
	b := silent(t, ledger.Operator)
	b.Allow = func(text string) bool { return strings.Contains(text, "409") }
	t.Cleanup(func() {
		clearJobs(t, "ci-06")
		setHealth(t, "ci-06", ledger.Good, "")
	})
	for _, one := range []struct{ action, says string }{
		{string(box.Verify), "verify"}, {"cancel", ""}, {string(box.RefreshInfo), "refresh-info"}, {"cancel", ""}, {string(box.Rescue), "rescue"},
		{"finish", "not"}, {"cancel", ""}, {"release", "not"}, {"power", "power"}, {"health", "good"},
	} {
		must(t, b.Go(lab.URL+"/act/"+one.action+"?box="+addr(t, "ci-06")))
		must(t, b.Has("ci-06"))
		var able bool
		must(t, b.Eval("!!document.querySelector('main form button')", &able))
		if able { // else the preview has said why it cannot be done
			must(t, b.Do(chrome.Click("main form button")))
			must(t, b.Until("document.readyState == 'complete' && (!location.pathname.startsWith('/act/') || "+
				"/What became of it/.test(document.body.innerText) || "+failed+")"))
		}
		must(t, b.Has(one.says))
	}
}

// TestNoScriptsPages goes to every page without scripts. What a script would bring or do has a link or a form.
func TestNoScriptsPages(t *testing.T) {
	b := silent(t, ledger.Admin)
	b.Allow = missing
	crawl(t, b, seeds(t), func(at string, _ *url.URL) {
		var wrong []string
		must(t, b.Eval(`[...document.querySelectorAll('main button')].filter(e => !e.form || e.type != 'submit').map(e => e.outerHTML)
			.concat([...document.querySelectorAll('[data-fragment], [data-log]')].filter(e => !e.closest('section').querySelector('a'))
			.map(e => e.outerHTML.slice(0, 200)))`, &wrong))
		for _, text := range wrong {
			t.Errorf("%s needs scripts for %s", at, text)
		}
		var heads int
		must(t, b.Eval("document.querySelectorAll('main h1').length", &heads))
		if heads != 1 {
			t.Errorf("%s has %d titles", at, heads)
		}
	})
}

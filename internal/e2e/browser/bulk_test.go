package browser

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/ledger"
)

// choose ticks boxes in the list, and presses the button of an action.
func choose(t *testing.T, b *chrome.Tab, action string, names ...string) {
	t.Helper()
	must(t, b.Go(world(t).URL+"/"))
	for _, name := range names {
		must(t, b.Do(chrome.Click(row(t, name)+" input[type=checkbox]")))
	}
	must(t, b.Do(chrome.Click(`.bulk button[formaction="/act/`+action+`"]`)))
	must(t, b.Until("location.pathname == '/act/"+action+"' && document.readyState == 'complete'"))
}

// named are the boxes in the table of a preview or of a result, and what is said of each.
func named(t *testing.T, b *chrome.Tab) map[string]string {
	t.Helper()
	var rows [][2]string
	const read = "[...document.querySelectorAll('table.preview tbody tr')]" +
		".map(r => [r.querySelector('th a').getAttribute('href').slice('/boxes/'.length), r.innerText])"
	must(t, b.Eval(read, &rows))
	all := map[string]string{}
	for _, r := range rows {
		all[r[0]] = r[1]
	}
	return all
}

// counted says how many jobs each box has got since it was called.
func counted(t *testing.T, names ...string) func() []int {
	before := make([]int, len(names))
	for i, name := range names {
		before[i] = len(jobs(t, name))
	}
	return func() (added []int) {
		t.Helper()
		for i, name := range names {
			added = append(added, len(jobs(t, name))-before[i])
		}
		return added
	}
}

// clearJobs cancels what boxes have been asked for.
func clearJobs(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		var list api.JobList
		must(t, world(t).Admin.Do(context.Background(), http.MethodGet, apiclient.Path("jobs")+"?open=true&box="+addr(t, name), nil, &list))
		for _, j := range list.Jobs {
			must(t, world(t).Cancel(context.Background(), j.ID))
		}
	}
}

// setHealth says how a box is.
func setHealth(t *testing.T, name string, h ledger.Health, reason string) {
	t.Helper()
	text := string(h)
	must(t, world(t).Admin.Do(context.Background(), http.MethodPatch, apiclient.Path("boxes", addr(t, name)),
		api.SetBox{Health: &text, HealthReason: &reason}, nil))
}

// TestBulk asks several boxes for a backup at once.
func TestBulk(t *testing.T) {
	b := tab(t, chrome.Wide)
	b.Allow = func(text string) bool { return strings.Contains(text, "409") }
	login(t, b, ledger.Operator)
	names := []string{"gpu-05", "ci-06", "old-01", "edge-03"}
	t.Cleanup(func() { clearJobs(t, names...) })
	added := counted(t, names...)
	choose(t, b, "backup", append(names, "old-04")...) // which is retired
	check(t, b, "the preview of several boxes")
	all := named(t, b)
	for _, name := range names {
		if text := all[addr(t, name)]; !strings.Contains(text, name) || strings.Contains(text, "Left out") {
			t.Errorf("%s: %q", name, text)
		}
	}
	if text := all[addr(t, "old-04")]; len(all) != 5 || !strings.Contains(text, "Left out") || !strings.Contains(text, "retired") {
		t.Errorf("%q", all)
	}
	must(t, b.Has("Nothing has been done yet"))
	must(t, b.Has("1 of 5 boxes would be refused"))
	if got := added(); !slices.Equal(got, []int{0, 0, 0, 0}) {
		t.Fatalf("the preview has made jobs: %d", got)
	}
	must(t, b.Do(chrome.Type("main input[name=why]", "before the upgrade"), chrome.Click("main form button.main")))
	must(t, b.Until("location.pathname == '/jobs' && document.readyState == 'complete'"))
	var shown []string
	must(t, b.Eval("[...document.querySelectorAll('#queue th[scope=row] a')].map(a => a.innerText).sort()", &shown))
	if want := slices.Sorted(slices.Values(names)); !slices.Equal(shown, want) {
		t.Errorf("the jobs of the request are shown for %v", shown)
	}
	// The form again, by the button for going back.
	must(t, b.Eval("history.back()", nil))
	must(t, b.Until("location.pathname == '/act/backup' && document.readyState == 'complete'"))
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Until("location.pathname == '/jobs' && document.readyState == 'complete'"))
	if got := added(); !slices.Equal(got, []int{1, 1, 1, 1}) {
		t.Errorf("jobs were made: %d", got)
	}
	choose(t, b, "cancel", names...)
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("What became of it"))
	check(t, b, "the result of several boxes")
	if all := named(t, b); len(all) != 4 {
		t.Errorf("%q", all)
	} else {
		for name, text := range all {
			if strings.Contains(text, "Not done") {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
	choose(t, b, "cancel", "gpu-05", "ci-06")
	must(t, b.Has("2 of 2 boxes would be refused"))
	var buttons int
	must(t, b.Eval("document.querySelectorAll('main form button').length", &buttons))
	if buttons != 0 {
		t.Error("an action is offered that no box can do")
	}
}

// TestBulkImpossible has an action become impossible for one box after it was previewed.
func TestBulkImpossible(t *testing.T) {
	b := tab(t, chrome.Wide)
	b.Allow = func(text string) bool { return strings.Contains(text, "409") }
	login(t, b, ledger.Operator)
	names := []string{"gpu-05", "ci-06", "old-01"}
	t.Cleanup(func() { clearJobs(t, names...) })
	retire := func() {
		t.Helper()
		setHealth(t, "ci-06", ledger.Retired, "It was sold a moment ago.")
	}
	t.Cleanup(func() { setHealth(t, "ci-06", ledger.Good, "") })

	// Backups are made of all boxes or of none.
	added := counted(t, names...)
	choose(t, b, "backup", names...)
	retire()
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("It was sold a moment ago"))
	must(t, b.Has("No job was made"))
	check(t, b, "the answer of a refused request")
	if got := added(); !slices.Equal(got, []int{0, 0, 0}) {
		t.Errorf("jobs were made: %d", got)
	}

	// Each box is restored for itself, since each has its own backup.
	setHealth(t, "ci-06", ledger.Good, "")
	choose(t, b, "restore", names...)
	retire()
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("It was not done to 1 of 3 boxes"))
	check(t, b, "the answer of a request that was refused in part")
	for _, name := range names {
		text := named(t, b)[addr(t, name)]
		if name == "ci-06" {
			if !strings.Contains(text, "Not done") || !strings.Contains(text, "It was sold a moment ago") || strings.Contains(text, "has the job") {
				t.Errorf("%s: %q", name, text)
			}
		} else if id := jobs(t, name)[0]; !strings.Contains(text, "It has the job "+id) {
			t.Errorf("%s: %q", name, text)
		}
	}
	if got := added(); !slices.Equal(got, []int{1, 0, 1}) {
		t.Errorf("jobs were made: %d", got)
	}
	// Loading the answer again sends the form again. It makes no second job.
	must(t, b.Do(chrome.Reload()))
	must(t, b.Has("It was not done to 1 of 3 boxes"))
	if got := added(); !slices.Equal(got, []int{1, 0, 1}) {
		t.Errorf("jobs were made by the form that was sent again: %d", got)
	}
}

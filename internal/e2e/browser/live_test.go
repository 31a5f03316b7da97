package browser

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/e2e/browser/demo"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

// begin has a box begin an action.
func begin(t *testing.T, name string, action box.Action) *demo.Agent {
	t.Helper()
	a, err := world(t).Begin(context.Background(), name, action)
	must(t, err)
	t.Cleanup(a.Close)
	return a
}

// refuses ends the action of a box as refused, for a reason that is not the box's fault.
func refuses(t *testing.T, a *demo.Agent, text string) {
	t.Helper()
	_, err := a.Client().Result(context.Background(), &wire.Result{Outcome: box.Refused, Class: job.ClassImage, Text: text})
	must(t, err)
}

// unloaded fails the test if the page was loaded again since it was called.
func unloaded(t *testing.T, b *chrome.Tab) func() {
	before := b.Loads()
	return func() {
		t.Helper()
		if n := b.Loads() - before; n != 0 {
			t.Errorf("the page was loaded %d times, and should have followed by itself", n)
		}
	}
}

// TestLiveLog follows the log on the page of a box. While somebody reads further up, it stays where it is.
func TestLiveLog(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Viewer)
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "edge-02")))
	const log = "document.querySelector('[data-log]')"
	must(t, b.Until(log+".innerText.includes('is committed')"))
	stayed := unloaded(t, b)
	a := begin(t, "edge-02", box.Backup)
	for i := range 3 {
		line := fmt.Sprintf("line %d of what happens", i)
		_, err := a.Works(ctx, wire.StepRead, float64(i)/10, line)
		must(t, err)
		must(t, b.Until(log+".innerText.includes("+chrome.Quote(line)+")"))
	}
	must(t, b.Eval(log+".scrollTop = 0", nil))
	must(t, b.Has("The log waits while you read"))
	var before, after string
	must(t, b.Eval(log+".innerText", &before))
	_, err := a.Works(ctx, wire.StepRead, 0.5, "a line that waits")
	must(t, err)
	must(t, b.Until("document.querySelector('[data-live]').innerText.includes('50 %')")) // the line was there before that
	must(t, b.Eval(log+".innerText", &after))
	if before != after {
		t.Errorf("the log went on under the eyes of a reader: %s", strings.TrimPrefix(after, before))
	}
	must(t, b.Eval(log+".scrollTop = "+log+".scrollHeight", nil))
	must(t, b.Until(log+".innerText.includes('a line that waits')"))
	must(t, a.Done(ctx))
	must(t, b.Until("document.querySelector('[data-live]').innerText.includes('done')"))
	stayed()
}

// TestLiveJob watches the page of a job until its end.
func TestLiveJob(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	a := begin(t, "edge-03", box.Backup)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Operator)
	must(t, b.Go(lab.URL+"/jobs/"+a.Job.ID))
	must(t, b.Until("document.querySelector('main .s-running')"))
	stayed := unloaded(t, b)
	_, err := a.Works(ctx, wire.StepRead, 0.405)
	must(t, err)
	must(t, b.Has("40 %"))
	must(t, a.Done(ctx))
	must(t, b.Until("document.querySelector('main .s-done') && document.querySelector('main').innerText.includes('done')"))
	must(t, b.Until(`document.querySelector('.bx-receipt') && !document.querySelector('main a[href*="/act/cancel"]')`))
	stayed()
}

// shown are the names of the boxes in the list, in its order.
func shown(t *testing.T, b *chrome.Tab) (names []string) {
	t.Helper()
	must(t, b.Eval("[...document.querySelectorAll('[data-rows] tbody tr')].map(r => r.querySelector('th a').innerText)", &names))
	return names
}

// TestLiveOrder has a box need somebody, and then not any more. It goes to the top of the list and back to its
// place, keeps its mark and the keyboard, and comes into the list of those that need somebody.
func TestLiveOrder(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	all, needing := tab(t, chrome.Wide), tab(t, chrome.Wide)
	login(t, all, ledger.Operator)
	login(t, needing, ledger.Operator)
	must(t, needing.Go(lab.URL+"/?needs=1"))
	before, few := shown(t, all), shown(t, needing)
	if slices.Contains(few, "gpu-05") {
		t.Fatalf("gpu-05 needs somebody: %v", few)
	}
	stayed, stayedToo := unloaded(t, all), unloaded(t, needing)
	a := begin(t, "gpu-05", box.Backup)
	box5 := chrome.Quote(row(t, "gpu-05"))
	must(t, all.Until("document.querySelector("+box5+").innerText.includes('running')"))
	must(t, all.Do(chrome.Click(row(t, "gpu-05")+" input")))
	must(t, all.Eval("document.querySelector("+box5+" + ' th a').focus()", nil))
	refuses(t, a, "The disk makes a noise.")
	must(t, all.Until("document.querySelector("+box5+").innerText.includes('The disk makes a noise')"))
	must(t, needing.Until("document.querySelector("+box5+")?.innerText.includes('The disk makes a noise')"))
	chosen := func(text string) {
		t.Helper()
		must(t, needing.Until("document.querySelector('[data-chosen]').textContent == "+chrome.Quote(text)))
	}
	must(t, needing.Do(chrome.Click(row(t, "gpu-05")+" input")))
	chosen("With the box that is chosen:")
	want := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return s == "gpu-05" })
	want = slices.Insert(want, 0, "gpu-05") // it has the lowest address of those that need somebody
	if got := shown(t, all); !slices.Equal(got, want) {
		t.Errorf("the list is %v\nand should be %v", got, want)
	}
	if got := shown(t, needing); !slices.Equal(got, append([]string{"gpu-05"}, few...)) {
		t.Errorf("those that need somebody are %v", got)
	}
	var kept bool
	must(t, all.Eval("(() => { const r = document.querySelector("+box5+
		"); return r.querySelector('input').checked && r.querySelector('th a') === document.activeElement })()", &kept))
	if !kept {
		t.Error("the box has lost its mark, or the keyboard its place")
	}

	a = begin(t, "gpu-05", box.Backup)
	must(t, a.Done(ctx))
	must(t, all.Until("document.querySelector("+box5+").innerText.includes('done')"))
	must(t, needing.Until("!document.querySelector("+box5+")"))
	chosen("With the chosen boxes:")
	if got := shown(t, all); !slices.Equal(got, before) {
		t.Errorf("the list is %v\nand should be %v", got, before)
	}
	holder := apiclient.Path("boxes", addr(t, "gpu-05"), "holder")
	must(t, lab.Admin.Do(ctx, http.MethodPut, holder, api.Holder{Reason: "a noise is hunted"}, nil))
	must(t, all.Until("document.querySelector("+box5+").innerText.includes('a noise is hunted')"))
	must(t, lab.Admin.Do(ctx, http.MethodDelete, holder, nil, nil))
	must(t, all.Until("!document.querySelector("+box5+").innerText.includes('a noise is hunted')"))
	stayed()
	stayedToo()
}

// TestLiveHostile has a box say texts that would be scripts if they were not escaped, while pages follow it.
func TestLiveHostile(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	evil := func(where string) string {
		return where + ` </pre></td></table><img src=x onerror=alert(1)><script>alert(2)</script><base href=//evil.example>"'{{.}}`
	}
	a := begin(t, "old-02", box.Backup)
	tabs := map[string]*chrome.Tab{"/": nil, "/boxes/" + addr(t, "old-02"): nil, "/jobs/" + a.Job.ID: nil, "/jobs": nil}
	for at := range tabs {
		b := tab(t, chrome.Wide)
		login(t, b, ledger.Viewer)
		must(t, b.Go(lab.URL+at))
		must(t, b.Until("!document.querySelector('[aria-busy=true]')"))
		tabs[at] = b
	}
	shows := func(at, text string) {
		t.Helper()
		must(t, tabs[at].Has(text))
		var found int
		must(t, tabs[at].Eval("document.querySelectorAll('img, base, body script, [onerror]').length", &found))
		if found != 0 {
			t.Errorf("%s has %d elements out of a text of a box", at, found)
		}
	}
	_, err := a.Say(ctx, wire.Report{Step: wire.StepRead, Total: 100, Done: 37, Text: evil("progress"),
		Lines: []wire.Line{{Text: evil("line")}}})
	must(t, err)
	shows("/", "37 %")
	shows("/jobs", evil("progress"))
	shows("/jobs/"+a.Job.ID, evil("progress"))
	shows("/boxes/"+addr(t, "old-02"), evil("progress"))
	shows("/jobs/"+a.Job.ID, evil("line"))
	shows("/boxes/"+addr(t, "old-02"), evil("line"))
	refuses(t, a, evil("end"))
	for at := range tabs {
		shows(at, evil("end"))
	}
	a = begin(t, "old-02", box.Backup) // so that it does not need somebody in other tests
	must(t, a.Done(ctx))
}
